"""Bech32 (BIP-173), without its limit of 90 characters, as Nostr and Lightning use it."""

from __future__ import annotations

from collections.abc import Iterable

from pylon.errors import InvalidMessage

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUE_OF = {char: value for value, char in enumerate(_CHARSET)}
_GENERATORS = (0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3)
_CHECKSUM_WORDS = 6


def encode(prefix: str, data: bytes) -> str:
    """`data` under `prefix`, with its checksum."""
    return encode_words(prefix, to_words(data))


def decode(text: str, max_chars: int = 5000) -> tuple[str, bytes]:
    """(prefix, data) of a bech32 text. Raises InvalidMessage."""
    prefix, words = decode_words(text, max_chars)
    return prefix, to_bytes(words)


def encode_words(prefix: str, words: list[int]) -> str:
    """As `encode`, of groups of five bits."""
    check = _polymod([*_expand(prefix), *words, *[0] * _CHECKSUM_WORDS]) ^ 1
    checksum = [check >> 5 * (5 - i) & 31 for i in range(_CHECKSUM_WORDS)]
    return prefix + "1" + "".join(_CHARSET[word] for word in words + checksum)


def decode_words(text: str, max_chars: int) -> tuple[str, list[int]]:
    """As `decode`, in groups of five bits. Raises InvalidMessage."""
    if len(text) > max_chars:
        raise InvalidMessage("bech32: too long")
    if text.lower() != text and text.upper() != text:
        raise InvalidMessage("bech32: mixed case")
    prefix, separator, rest = text.lower().rpartition("1")
    if not separator or not prefix or len(rest) < _CHECKSUM_WORDS:
        raise InvalidMessage("bech32: no prefix or no checksum")
    if not all(33 <= ord(char) <= 126 for char in prefix):
        raise InvalidMessage("bech32: a character that cannot be")
    try:
        words = [_VALUE_OF[char] for char in rest]
    except KeyError:
        raise InvalidMessage("bech32: a character that cannot be") from None
    if _polymod([*_expand(prefix), *words]) != 1:
        raise InvalidMessage("bech32: the checksum is wrong; look for a typing mistake")
    return prefix, words[:-_CHECKSUM_WORDS]


def to_words(data: bytes) -> list[int]:
    """Groups of five bits, the last one filled with zeros."""
    count = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << count * 5 - len(data) * 8
    return [number >> 5 * (count - 1 - i) & 31 for i in range(count)]


def to_bytes(words: list[int]) -> bytes:
    """The bytes in groups of five bits. Raises InvalidMessage where the filling is not zeros."""
    number = 0
    for word in words:
        number = number << 5 | word
    spare = len(words) * 5 % 8
    if spare > 4 or number & (1 << spare) - 1:
        raise InvalidMessage("bech32: the filling bits are wrong")
    return (number >> spare).to_bytes(len(words) * 5 // 8, "big")


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(words: Iterable[int]) -> int:
    checksum = 1
    for word in words:
        top = checksum >> 25
        checksum = (checksum & 0x1ffffff) << 5 ^ word
        for i, generator in enumerate(_GENERATORS):
            if top >> i & 1:
                checksum ^= generator
    return checksum
