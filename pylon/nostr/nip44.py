"""NIP-44 version 2: ChaCha20 and HMAC-SHA256 under a key that two parties share.

Plaintexts of 1 to 65,535 bytes, both ways: the later form for longer ones is not understood by
older peers. Every failure of `decrypt` is the same InvalidMessage. Verify the outer event first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from pylon.crypto import ciphers
from pylon.errors import InvalidMessage

MIN_PLAIN_BYTES, MAX_PLAIN_BYTES = 1, 65_535
MIN_PAYLOAD_CHARS, MAX_PAYLOAD_CHARS = 132, 87_472
_VERSION = 2
_MAC_BYTES, _NONCE_BYTES = 32, 32


def conversation_key(shared_x: bytes) -> bytes:
    """HKDF-extract of the unhashed ECDH x coordinate."""
    return hmac.digest(b"nip44-v2", shared_x, "sha256")


def encrypt(key: bytes, text: str, nonce: bytes | None = None) -> str:
    """Raises InvalidMessage for a text that is empty, too long or not Unicode. Give a nonce only
    to reproduce a known payload."""
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        raise InvalidMessage("the text has a lone surrogate") from None
    if not MIN_PLAIN_BYTES <= len(plain) <= MAX_PLAIN_BYTES:
        raise InvalidMessage("NIP-44 carries 1 to 65,535 bytes")
    nonce = os.urandom(_NONCE_BYTES) if nonce is None else nonce
    cipher_key, cipher_nonce, mac_key = message_keys(key, nonce)
    padded = (len(plain).to_bytes(2, "big") + plain
              + bytes(padded_bytes(len(plain)) - len(plain)))
    encrypted = ciphers.chacha20(cipher_key, cipher_nonce, padded)
    mac = hmac.digest(mac_key, nonce + encrypted, "sha256")
    return base64.b64encode(bytes([_VERSION]) + nonce + encrypted + mac).decode()


def decrypt(key: bytes, payload: str) -> str:
    """Raises InvalidMessage, always in the same words."""
    try:
        return _decrypt(key, payload)
    except ValueError:
        raise InvalidMessage("cannot decrypt (NIP-44)") from None


def _decrypt(key: bytes, payload: str) -> str:
    if not MIN_PAYLOAD_CHARS <= len(payload) <= MAX_PAYLOAD_CHARS:
        raise ValueError("length")
    data = ciphers.unbase64(payload)
    if len(data) < 99 or data[0] != _VERSION:       # 1 + 32 + 34 + 32
        raise ValueError("version or length")
    nonce, encrypted, mac = (data[1:33], data[33:-_MAC_BYTES], data[-_MAC_BYTES:])
    cipher_key, cipher_nonce, mac_key = message_keys(key, nonce)
    if not hmac.compare_digest(hmac.digest(mac_key, nonce + encrypted, "sha256"), mac):
        raise ValueError("mac")
    padded = ciphers.chacha20(cipher_key, cipher_nonce, encrypted)
    size = int.from_bytes(padded[:2], "big")
    plain = padded[2:2 + size]
    if size < MIN_PLAIN_BYTES or len(plain) != size or len(padded) != 2 + padded_bytes(size):
        raise ValueError("padding")
    return plain.decode()


def message_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """HKDF-expand to 76 bytes: ChaCha20 key and nonce, HMAC key."""
    block, stream = b"", b""
    for count in (1, 2, 3):
        block = hmac.digest(key, block + nonce + bytes([count]), hashlib.sha256)
        stream += block
    return stream[:32], stream[32:44], stream[44:76]


def padded_bytes(size: int) -> int:
    """How long a plaintext of that size is padded."""
    if size <= 32:
        return 32
    power = 1 << (size - 1).bit_length()
    chunk = 32 if power <= 256 else power // 8
    return chunk * ((size - 1) // chunk + 1)
