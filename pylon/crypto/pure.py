"""The back end for machines without libsecp256k1: `ecdsa` on public data, OpenSSL on secrets.

`ecdsa` is not constant time (CVE-2024-23342), so every multiplication of a point by a secret goes
through cryptography's OpenSSL; what is left in Python for a secret is one addition modulo n.
No curve arithmetic of our own. Verification is some 40 times slower than with the library.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from pylon.errors import InvalidMessage

P = 2**256 - 2**32 - 977                        # the field
N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141     # the group
CACHED_KEYS = 4096


class Pure:
    """The back end on two Python packages, which are loaded when the first one is made."""

    name = "ecdsa"

    def __init__(self) -> None:
        import ecdsa  # late: only where libsecp256k1 is missing
        from cryptography.exceptions import InvalidSignature  # late: 10 ms and 7 MB
        from cryptography.hazmat.primitives import hashes, serialization  # late: as above
        from cryptography.hazmat.primitives.asymmetric import ec, utils  # late: as above
        self._ec, self._utils, self._serialization = ec, utils, serialization
        self._InvalidSignature = InvalidSignature
        self._prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
        self._openssl_curve = ec.SECP256K1()
        self._curve: Any = ecdsa.SECP256k1.curve
        self._generator: Any = ecdsa.SECP256k1.generator
        self._infinity: Any = ecdsa.ellipticcurve.INFINITY
        self._point_of: Any = ecdsa.ellipticcurve.PointJacobi.from_bytes
        self._malformed: Any = ecdsa.errors.MalformedPointError
        self._xonly = lru_cache(CACHED_KEYS)(self._parse_xonly)

    def pubkey_compressed(self, secret: bytes) -> bytes:
        return self._times_generator(int.from_bytes(secret, "big"))

    def sign_schnorr(self, secret: bytes, msg: bytes, aux: bytes) -> bytes:
        """BIP-340, default signing."""
        d = int.from_bytes(secret, "big")
        pub = self._times_generator(d)
        if pub[0] == 3:
            d = N - d
        masked = (d ^ int.from_bytes(_tagged("aux", aux), "big")).to_bytes(32, "big")
        k = int.from_bytes(_tagged("nonce", masked + pub[1:] + msg), "big") % N
        nonce_point = self._times_generator(k)
        if nonce_point[0] == 3:
            k = N - k
        e = int.from_bytes(_tagged("challenge", nonce_point[1:] + pub[1:] + msg), "big") % N
        return nonce_point[1:] + ((k + e * d) % N).to_bytes(32, "big")

    def verify_schnorr(self, pub: bytes, msg: bytes, sig: bytes) -> bool:
        """BIP-340: R = s*G - e*P must have even y and x = r."""
        key = self._xonly(pub)
        r, s = int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big")
        if key is None or r >= P or s >= N:
            return False
        e = int.from_bytes(_tagged("challenge", sig[:32] + pub + msg), "big") % N
        point = self._generator.mul_add(s, key, N - e)
        if point == self._infinity:
            return False
        point = point.to_affine()
        return point.y() % 2 == 0 and point.x() == r

    def ecdh_x(self, secret: bytes, pub: bytes) -> bytes:
        try:
            peer = self._ec.EllipticCurvePublicKey.from_encoded_point(self._openssl_curve,
                                                                      b"\x02" + pub)
        except ValueError as err:
            raise InvalidMessage("the public key is not on the curve") from err
        return self._private(int.from_bytes(secret, "big")).exchange(self._ec.ECDH(), peer)

    def sign_recoverable(self, secret: bytes, msg: bytes) -> tuple[bytes, int]:
        private = self._private(int.from_bytes(secret, "big"))
        r, s = self._utils.decode_dss_signature(private.sign(msg, self._prehashed))
        sig = r.to_bytes(32, "big") + min(s, N - s).to_bytes(32, "big")
        pub = self._compressed(private)
        for recid in range(4):
            try:
                if self.recover(msg, sig, recid) == pub:
                    return sig, recid
            except InvalidMessage:
                continue
        raise ValueError("signing failed")

    def recover(self, msg: bytes, sig: bytes, recid: int) -> bytes:
        """SEC 1, 4.1.6: Q = (s*R - e*G) / r."""
        r, s = int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big")
        x = r + N if recid & 2 else r
        if not 0 < r < N or not 0 < s < N or x >= P:
            raise InvalidMessage("no key can have made this signature")
        point = self._parse_point(bytes([2 + (recid & 1)]) + x.to_bytes(32, "big"))
        if point is None:
            raise InvalidMessage("no key can have made this signature")
        e, inverse = int.from_bytes(msg, "big"), pow(r, -1, N)
        key = point.mul_add(s * inverse % N, self._generator, -e * inverse % N)
        if key == self._infinity:
            raise InvalidMessage("no key can have made this signature")
        encoded: bytes = key.to_affine().to_bytes("compressed")
        return encoded

    def verify_ecdsa(self, pub: bytes, msg: bytes, sig: bytes) -> bool:
        r, s = int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big")
        if s > N // 2:                          # as the library has it: no second form
            return False
        try:
            key = self._ec.EllipticCurvePublicKey.from_encoded_point(self._openssl_curve, pub)
            key.verify(self._utils.encode_dss_signature(r, s), msg, self._prehashed)
        except (ValueError, self._InvalidSignature):
            return False
        return True

    def _private(self, scalar: int) -> Any:
        if not 0 < scalar < N:
            raise ValueError("not a secret key")
        return self._ec.derive_private_key(scalar, self._openssl_curve)

    def _times_generator(self, scalar: int) -> bytes:
        return self._compressed(self._private(scalar))

    def _compressed(self, private: Any) -> bytes:
        encoded: bytes = private.public_key().public_bytes(
            self._serialization.Encoding.X962,
            self._serialization.PublicFormat.CompressedPoint)
        return encoded

    def _parse_xonly(self, pub: bytes) -> Any:
        return self._parse_point(b"\x02" + pub)

    def _parse_point(self, encoded: bytes) -> Any:
        try:
            return self._point_of(self._curve, encoded, valid_encodings=("compressed",),
                                  order=N)
        except self._malformed:
            return None


def _tagged(tag: str, data: bytes) -> bytes:
    prefix = hashlib.sha256(b"BIP0340/" + tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()
