"""BOLT 11 invoices: read and written, pure.

Strict where money hangs on it: checksum, signature, exactly one payment hash and payment secret,
a description or its hash but not both, whole millisatoshi, UTF-8, known even feature bits with
the features they need. Field types that we do not know are skipped, as the BOLT wants.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pylon.crypto import secp
from pylon.errors import InvalidMessage
from pylon.nostr import bech32
from pylon.units import MAX_MSATS

T = TypeVar("T")

MAX_CHARS = 7089                    # what a QR code holds; real invoices have 200 to 1500
DEFAULT_EXPIRY_SECS = 3600
DEFAULT_MIN_FINAL_CLTV = 18
FEATURES = 0x4100                   # bits 8 and 14: variable onion, payment secret, compulsory
MAX_DESCRIPTION_BYTES = 639         # 1023 five-bit words

PREFIXES = {"lnbc": "mainnet", "lntb": "testnet", "lntbs": "signet", "lnbcrt": "regtest"}
_PREFIX_OF = {network: prefix for prefix, network in PREFIXES.items()}

# The field types, each at the place of its five bits.
_TYPES = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_HRP = re.compile(r"(lnbcrt|lntbs|lnbc|lntb)(?:([1-9][0-9]{0,19})([munp])?)?\Z", re.ASCII)
_PMSATS = {"": 10**14, "m": 10**11, "u": 10**8, "n": 10**5, "p": 10**2}    # thousandths of a msat

_SIGNATURE_WORDS, _TIME_WORDS = 104, 7
_HOP_BYTES = 51
_FALLBACK_BYTES = {0: (20, 32), 1: (32,), 17: (20,), 18: (20,)}
# Bits that an invoice may make compulsory: variable onion 8, payment secret 14, basic MPP 16,
# route blinding 24, payment metadata 48, trampoline 56 (and its experimental 148).
_KNOWN_EVEN = frozenset((8, 14, 16, 24, 48, 56, 148))
_NEEDS = {14: 8, 16: 14}            # BOLT 9: a feature and the one it stands on


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a private route."""

    pubkey: str
    short_channel_id: int
    fee_base_msats: int
    fee_ppm: int
    cltv_delta: int


@dataclass(frozen=True, slots=True)
class Bolt11:
    """A decoded invoice; `features` is the bit vector as one number, `payee` a compressed key."""

    network: str
    amount_msats: int | None
    payment_hash: str
    description: str | None
    description_hash: str | None
    payee: str
    created_at: int
    expires_at: int
    min_final_cltv: int
    features: int
    payment_secret: str
    metadata: str | None = None
    routes: tuple[tuple[Hop, ...], ...] = ()


@dataclass(slots=True)
class _Fields:
    """The tagged fields while they are being collected."""

    payment_hash: bytes | None = None
    payment_secret: bytes | None = None
    description: str | None = None
    description_hash: bytes | None = None
    metadata: bytes | None = None
    payee: bytes | None = None
    expiry_secs: int = DEFAULT_EXPIRY_SECS
    min_final_cltv: int = DEFAULT_MIN_FINAL_CLTV
    features: int = 0
    routes: list[tuple[Hop, ...]] = field(default_factory=list)


def decode(text: str) -> Bolt11:
    """Parse and verify an invoice. Raises InvalidMessage."""
    if not isinstance(text, str):
        raise InvalidMessage("not an invoice")
    hrp, words = bech32.decode_words(text, MAX_CHARS)
    match = _HRP.match(hrp)
    if match is None:
        raise InvalidMessage(f"no invoice of a network we know: {hrp[:12]!r}")
    if len(words) < _TIME_WORDS + _SIGNATURE_WORDS:
        raise InvalidMessage("invoice too short")
    signed, signature = words[:-_SIGNATURE_WORDS], bech32.to_bytes(words[-_SIGNATURE_WORDS:])
    fields = _read_fields(signed[_TIME_WORDS:])
    _require(fields)
    created_at = _number(signed[:_TIME_WORDS])
    assert fields.payment_hash is not None and fields.payment_secret is not None
    return Bolt11(
        network=PREFIXES[match[1]], amount_msats=_amount_msats(match[2], match[3] or ""),
        payment_hash=fields.payment_hash.hex(), description=fields.description,
        description_hash=fields.description_hash.hex() if fields.description_hash else None,
        payee=_payee(hrp, signed, signature, fields.payee).hex(),
        created_at=created_at, expires_at=created_at + fields.expiry_secs,
        min_final_cltv=fields.min_final_cltv, features=fields.features,
        payment_secret=fields.payment_secret.hex(),
        metadata=None if fields.metadata is None else fields.metadata.hex(),
        routes=tuple(fields.routes))


def encode(network: str, amount_msats: int | None, payment_hash: str, description: str | None,
           secret32: bytes, payment_secret: str, created_at: int,
           expiry_secs: int = DEFAULT_EXPIRY_SECS,
           min_final_cltv: int = DEFAULT_MIN_FINAL_CLTV, *, description_hash: str | None = None,
           features: int = FEATURES, metadata: str | None = None,
           routes: Iterable[Iterable[Hop]] = ()) -> str:
    """An invoice signed with `secret32`. Raises InvalidMessage for what BOLT 11 cannot say."""
    if (description is None) == (description_hash is None):
        raise InvalidMessage("an invoice has a description or its hash")
    words = _words_of(created_at, _TIME_WORDS)
    words += _field("p", bech32.to_words(_bytes32(payment_hash)))
    words += _field("s", bech32.to_words(_bytes32(payment_secret)))
    if description is not None:
        words += _field("d", bech32.to_words(description.encode()))
    if description_hash is not None:
        words += _field("h", bech32.to_words(_bytes32(description_hash)))
    if metadata is not None:
        words += _field("m", bech32.to_words(bytes.fromhex(metadata)))
    words += _field("x", _words_of(expiry_secs))
    words += _field("c", _words_of(min_final_cltv))
    if features:
        words += _field("9", _words_of(features))
    for hops in routes:
        words += _field("r", bech32.to_words(b"".join(_hop_bytes(hop) for hop in hops)))
    hrp = _hrp(network, amount_msats)
    signature, recovery = secp.sign_recoverable(secret32, _digest(hrp, words))
    return bech32.encode_words(hrp, words + bech32.to_words(signature + bytes([recovery])))


# ---- amounts ------------------------------------------------------------------------------------

def _amount_msats(number: str | None, multiplier: str) -> int | None:
    if number is None:
        return None
    msats, rest = divmod(int(number) * _PMSATS[multiplier], 1000)
    if rest:
        raise InvalidMessage("invoice amount with parts of a millisatoshi")
    if msats > MAX_MSATS:
        raise InvalidMessage("invoice amount above every bitcoin there is")
    return msats


def _hrp(network: str, amount_msats: int | None) -> str:
    prefix = _PREFIX_OF.get(network)
    if prefix is None:
        raise InvalidMessage(f"no such network: {network!r}")
    if amount_msats is None:
        return prefix
    if not 0 < amount_msats <= MAX_MSATS:
        raise InvalidMessage(f"{amount_msats} msats is no amount for an invoice")
    for multiplier, size in _PMSATS.items():            # largest unit first: the shortest text
        number, rest = divmod(amount_msats * 1000, size)
        if not rest:
            return f"{prefix}{number}{multiplier}"
    raise InvalidMessage("unreachable: every msat is ten pico-bitcoin")


# ---- tagged fields ------------------------------------------------------------------------------

def _read_fields(words: list[int]) -> _Fields:
    fields, start = _Fields(), 0
    while start < len(words):
        head, start = words[start:start + 3], start + 3
        if len(head) < 3:
            raise InvalidMessage("invoice field cut short")
        size = head[1] * 32 + head[2]
        data, start = words[start:start + size], start + size
        if len(data) < size:
            raise InvalidMessage("invoice field cut short")
        _read_field(fields, _TYPES[head[0]], data)
    return fields


def _read_field(fields: _Fields, kind: str, data: list[int]) -> None:
    if kind == "p" and len(data) == 52:
        fields.payment_hash = _once(fields.payment_hash, bech32.to_bytes(data), kind)
    elif kind == "s" and len(data) == 52:
        fields.payment_secret = _once(fields.payment_secret, bech32.to_bytes(data), kind)
    elif kind == "h" and len(data) == 52:
        fields.description_hash = _once(fields.description_hash, bech32.to_bytes(data), kind)
    elif kind == "n" and len(data) == 53:
        fields.payee = _once(fields.payee, bech32.to_bytes(data), kind)
    elif kind == "d":
        fields.description = _once(fields.description, _text(data), kind)
    elif kind == "m":
        fields.metadata = _once(fields.metadata, bech32.to_bytes(data), kind)
    elif kind == "x":
        fields.expiry_secs = _number(data, bits=35)
    elif kind == "c":
        fields.min_final_cltv = _number(data, bits=35)
    elif kind == "9":
        fields.features = _number(data)
    elif kind == "r":
        fields.routes.append(tuple(_hops(bech32.to_bytes(data))))
    elif kind == "f":
        _check_fallback(data)


def _once(before: T | None, now: T, kind: str) -> T:
    if before is not None:
        raise InvalidMessage(f"invoice with two {kind!r} fields")
    return now


def _require(fields: _Fields) -> None:
    if fields.payment_hash is None:
        raise InvalidMessage("invoice without a payment hash")
    if fields.payment_secret is None:
        raise InvalidMessage("invoice without a payment secret")
    if (fields.description is None) == (fields.description_hash is None):
        raise InvalidMessage("invoice without one description or its hash")
    bits = [bit for bit in range(fields.features.bit_length()) if fields.features >> bit & 1]
    unknown = [bit for bit in bits if not bit % 2 and bit not in _KNOWN_EVEN]
    if unknown:
        raise InvalidMessage(f"invoice needs feature {unknown[0]}, which we do not know")
    for bit, needed in _NEEDS.items():
        if {bit, bit + 1}.intersection(bits) and not {needed, needed + 1}.intersection(bits):
            raise InvalidMessage(f"invoice has feature {bit} without feature {needed}")


def _text(data: list[int]) -> str:
    try:
        return bech32.to_bytes(data).decode()
    except UnicodeDecodeError as err:
        raise InvalidMessage("invoice description is not UTF-8") from err


def _hops(data: bytes) -> Iterator[Hop]:
    if len(data) % _HOP_BYTES:
        raise InvalidMessage("invoice route of a wrong length")
    for start in range(0, len(data), _HOP_BYTES):
        hop = data[start:start + _HOP_BYTES]
        yield Hop(hop[:33].hex(), *(int.from_bytes(hop[a:b], "big")
                                    for a, b in ((33, 41), (41, 45), (45, 49), (49, 51))))


def _hop_bytes(hop: Hop) -> bytes:
    try:
        return (bytes.fromhex(hop.pubkey) + hop.short_channel_id.to_bytes(8, "big")
                + hop.fee_base_msats.to_bytes(4, "big") + hop.fee_ppm.to_bytes(4, "big")
                + hop.cltv_delta.to_bytes(2, "big"))
    except (OverflowError, ValueError) as err:
        raise InvalidMessage(f"no route for an invoice: {err}") from err


def _check_fallback(data: list[int]) -> None:
    sizes = _FALLBACK_BYTES.get(data[0]) if data else ()
    if sizes is not None and (len(data) - 1) * 5 // 8 not in sizes:
        raise InvalidMessage("invoice with a malformed fallback address")


# ---- signature ----------------------------------------------------------------------------------

def _payee(hrp: str, signed: list[int], signature: bytes, named: bytes | None) -> bytes:
    """The key that signed, compressed."""
    digest, sig64, recovery = _digest(hrp, signed), signature[:64], signature[64]
    if recovery > 3:
        raise InvalidMessage("invoice signature malformed")
    if named is None:
        return secp.recover(digest, sig64, recovery)
    if not secp.verify_ecdsa(named, digest, sig64):
        raise InvalidMessage("invoice signature wrong")
    return named


def _digest(hrp: str, words: list[int]) -> bytes:
    padded = words + [0] * (-len(words) % 8)        # to a byte boundary, with zero bits
    bits = len(words) * 5
    return hashlib.sha256(hrp.encode() + bech32.to_bytes(padded)[:-(-bits // 8)]).digest()


# ---- five-bit words -----------------------------------------------------------------------------

def _number(words: list[int], bits: int | None = None) -> int:
    number = 0
    for word in words:
        number = number << 5 | word
    if bits is not None and number.bit_length() > bits:
        raise InvalidMessage("invoice number too large")
    return number


def _words_of(number: int, size: int | None = None) -> list[int]:
    """`number` in `size` words, or in as few as it takes."""
    least = -(-number.bit_length() // 5)
    if number < 0 or (size is not None and least > size):
        raise InvalidMessage(f"{number} does not fit an invoice")
    return [number >> 5 * place & 31 for place in reversed(range(least if size is None else size))]


def _field(kind: str, words: list[int]) -> list[int]:
    if len(words) > 1023:
        raise InvalidMessage(f"too long for the {kind!r} field of an invoice")
    return [_TYPES.index(kind), len(words) >> 5, len(words) & 31, *words]


def _bytes32(value: str) -> bytes:
    try:
        data = bytes.fromhex(value)
    except ValueError as err:
        raise InvalidMessage("not hex") from err
    if len(data) != 32:
        raise InvalidMessage("not 32 bytes")
    return data
