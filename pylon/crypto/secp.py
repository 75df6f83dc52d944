"""secp256k1 on raw bytes, by the best back end that this machine has; chosen at the first call.

libsecp256k1 where the system has it, else `ecdsa` with OpenSSL. Sizes are checked here once, so
that neither back end ever sees a short buffer. A secret that is not a scalar of the group raises
IdentityError; bytes of a peer that are no point raise InvalidMessage; a bad signature is False.
"""

from __future__ import annotations

import os
import threading

from pylon.crypto.libsecp import Libsecp, open_library
from pylon.crypto.pure import Pure
from pylon.errors import IdentityError, InvalidMessage

_chosen: Libsecp | Pure | None = None
_choosing = threading.Lock()


def backend() -> Libsecp | Pure:
    """The back end of this process."""
    global _chosen
    if _chosen is None:
        with _choosing:
            if _chosen is None:
                library = open_library()
                _chosen = Libsecp(library) if library else Pure()
    return _chosen


def backend_name() -> str:
    """'libsecp256k1', or 'ecdsa' (slow; Debian's package libsecp256k1-1 mends that)."""
    return backend().name


def pubkey(secret32: bytes) -> bytes:
    """The x-only public key, 32 bytes."""
    return pubkey_compressed(secret32)[1:]


def pubkey_compressed(secret32: bytes) -> bytes:
    """The public key, 33 bytes."""
    _check_secret(secret32)
    try:
        return backend().pubkey_compressed(secret32)
    except ValueError:
        raise _bad_secret() from None


def sign_schnorr(secret32: bytes, msg32: bytes, aux32: bytes | None = None) -> bytes:
    """A BIP-340 signature; fresh randomness goes in unless `aux32` is given."""
    _check_secret(secret32)
    aux = os.urandom(32) if aux32 is None else aux32
    if len(msg32) != 32 or len(aux) != 32:
        raise ValueError("a message and its randomness have 32 bytes")
    try:
        return backend().sign_schnorr(secret32, msg32, aux)
    except ValueError:
        raise _bad_secret() from None


def verify_schnorr(pub32: bytes, msg32: bytes, sig64: bytes) -> bool:
    """Whether a BIP-340 signature holds; False for keys that are no points, too."""
    if len(pub32) != 32 or len(msg32) != 32 or len(sig64) != 64:
        return False
    return (_chosen or backend()).verify_schnorr(pub32, msg32, sig64)


def ecdh_x(secret32: bytes, pub32: bytes) -> bytes:
    """The x coordinate of secret*pub, not hashed (NIP-04, NIP-44). Raises InvalidMessage."""
    _check_secret(secret32)
    if len(pub32) != 32:
        raise InvalidMessage("a public key has 32 bytes")
    try:
        return backend().ecdh_x(secret32, pub32)
    except InvalidMessage:
        raise
    except ValueError:
        raise _bad_secret() from None


def sign_recoverable(secret32: bytes, msg32: bytes) -> tuple[bytes, int]:
    """A low-s ECDSA signature and its recovery id (BOLT 11)."""
    _check_secret(secret32)
    if len(msg32) != 32:
        raise ValueError("a message has 32 bytes")
    try:
        return backend().sign_recoverable(secret32, msg32)
    except ValueError:
        raise _bad_secret() from None


def recover(msg32: bytes, sig64: bytes, recid: int) -> bytes:
    """The compressed key that made an ECDSA signature (high s is taken). Raises InvalidMessage."""
    if len(msg32) != 32 or len(sig64) != 64 or recid not in (0, 1, 2, 3):
        raise InvalidMessage("not a recoverable signature")
    return backend().recover(msg32, sig64, recid)


def verify_ecdsa(pub33: bytes, msg32: bytes, sig64: bytes) -> bool:
    """Whether a low-s ECDSA signature holds; a high s is refused."""
    if len(pub33) != 33 or len(msg32) != 32 or len(sig64) != 64:
        return False
    return backend().verify_ecdsa(pub33, msg32, sig64)


def _check_secret(secret32: bytes) -> None:
    if not isinstance(secret32, bytes) or len(secret32) != 32:
        raise _bad_secret()


def _bad_secret() -> IdentityError:
    return IdentityError("this is not a secret key of secp256k1")
