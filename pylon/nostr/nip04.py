"""NIP-04: AES-256-CBC without a MAC. Read it for those who still write it; prefer NIP-44.

Every failure is the same InvalidMessage, so that no answer of ours tells a forger how far he got.
"""

from __future__ import annotations

import base64
import os

from pylon.crypto import ciphers
from pylon.errors import InvalidMessage

MAX_PAYLOAD_CHARS = 131_072


def encrypt(shared_x: bytes, text: str) -> str:
    """Raises InvalidMessage for text that is not Unicode."""
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        raise InvalidMessage("the text has a lone surrogate") from None
    iv = os.urandom(16)
    encrypted = ciphers.aes_cbc_encrypt(shared_x, iv, plain)
    return f"{base64.b64encode(encrypted).decode()}?iv={base64.b64encode(iv).decode()}"


def decrypt(shared_x: bytes, payload: str) -> str:
    """Raises InvalidMessage, always in the same words."""
    try:
        if len(payload) > MAX_PAYLOAD_CHARS:
            raise ValueError("too long")
        body, mark, iv = payload.partition("?iv=")
        if not mark or "?" in iv:
            raise ValueError("not one iv")
        plain = ciphers.aes_cbc_decrypt(shared_x, ciphers.unbase64(iv),
                                        ciphers.unbase64(body))
        return plain.decode()
    except ValueError:                  # UnicodeDecodeError is one
        raise InvalidMessage("cannot decrypt (NIP-04)") from None
