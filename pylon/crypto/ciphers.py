"""AES-CBC, ChaCha20, a box under a passphrase, strict base64. The ciphers are OpenSSL's.

`cryptography` (10 ms, 7 MB) is imported at the first use: a node that serves plain jobs, and has
libsecp256k1, never loads it. Errors of decryption are ValueError: the caller knows whose bytes
they were.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from typing import Any

from pylon.errors import IdentityError

# A sealed box: magic, log2(N), r, p, salt, nonce, then ChaCha20-Poly1305 over the plaintext with
# everything before it authenticated. 2**15 with r=8 takes 32 MB and a tenth of a second: a Pi can.
_MAGIC = b"PYLONBOX1"
_HEADER = struct.Struct(">9sBBB16s12s")
_LOG_N, _R, _P = 15, 8, 1
_MAX_LOG_N, _MAX_R, _MAX_P = 18, 16, 4          # a planted file must not eat the memory
SCRYPT_MAX_BYTES = 2**31 - 1


def chacha20(key: bytes, nonce12: bytes, data: bytes) -> bytes:
    """ChaCha20 (RFC 8439) from block 0; encrypts and decrypts."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms  # late: only if used
    cipher: Any = Cipher(algorithms.ChaCha20(key, bytes(4) + nonce12), None)
    return cipher.encryptor().update(data)


def aes_cbc_encrypt(key: bytes, iv16: bytes, plain: bytes) -> bytes:
    """AES-CBC with PKCS#7 padding."""
    fill = 16 - len(plain) % 16
    encryptor = _aes_cbc(key, iv16).encryptor()
    return encryptor.update(plain + bytes([fill]) * fill) + encryptor.finalize()


def aes_cbc_decrypt(key: bytes, iv16: bytes, data: bytes) -> bytes:
    """The plaintext without its padding. Raises ValueError."""
    if not data or len(data) % 16 or len(iv16) != 16:
        raise ValueError("not whole blocks")
    decryptor = _aes_cbc(key, iv16).decryptor()
    padded: bytes = decryptor.update(data) + decryptor.finalize()
    fill = padded[-1]
    if not 1 <= fill <= 16 or padded[-fill:] != bytes([fill]) * fill:
        raise ValueError("padding")
    return padded[:-fill]


def unbase64(text: str) -> bytes:
    """The bytes of a base64 text in its one canonical form. Raises ValueError.

    b64decode is lax even when it validates: too much padding and stray last bits pass.
    """
    data = base64.b64decode(text, validate=True)        # binascii.Error is a ValueError
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def seal(passphrase: bytes, plaintext: bytes) -> bytes:
    """`plaintext` under a passphrase (scrypt, ChaCha20-Poly1305), with all that opening needs."""
    salt, nonce = os.urandom(16), os.urandom(12)
    header = _HEADER.pack(_MAGIC, _LOG_N, _R, _P, salt, nonce)
    return header + _aead(_stretch(passphrase, salt, _LOG_N, _R, _P)).encrypt(nonce, plaintext,
                                                                              header)


def unseal(passphrase: bytes, box: bytes) -> bytes:
    """What `seal` took. Raises IdentityError: wrong passphrase, or a damaged box."""
    from cryptography.exceptions import InvalidTag  # late: only if used
    if not is_sealed(box) or len(box) < _HEADER.size:
        raise IdentityError("this is not encrypted by pylon, or it is damaged")
    _, log_n, r, p, salt, nonce = _HEADER.unpack_from(box)
    if not (1 <= log_n <= _MAX_LOG_N and 1 <= r <= _MAX_R and 1 <= p <= _MAX_P):
        raise IdentityError("the encrypted data is damaged")
    try:
        aead = _aead(_stretch(passphrase, salt, log_n, r, p))
        plain: bytes = aead.decrypt(nonce, box[_HEADER.size:], box[:_HEADER.size])
    except InvalidTag:
        raise IdentityError("wrong passphrase, or the encrypted data is damaged") from None
    except ValueError:
        raise IdentityError("the encrypted data is damaged") from None
    return plain


def is_sealed(data: bytes) -> bool:
    """Whether these bytes begin as a box of `seal` does."""
    return data.startswith(_MAGIC)


def _stretch(passphrase: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, n=1 << log_n, r=r, p=p, dklen=32,
                          maxmem=SCRYPT_MAX_BYTES)


def _aes_cbc(key: bytes, iv: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # late: if used
    return Cipher(algorithms.AES(key), modes.CBC(iv))


def _aead(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # late: only if used
    return ChaCha20Poly1305(key)
