"""NIP-19: npub, nsec, note, nprofile, nevent, naddr. Bech32 at the edge, hex inside.

Unknown TLV types are skipped, as the NIP wants. `decode` raises InvalidMessage; the functions
for what people type raise UsageError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pylon.errors import InvalidMessage, UsageError
from pylon.nostr import bech32
from pylon.nostr.event import is_hex

_SPECIAL, _RELAY, _AUTHOR, _KIND = 0, 1, 2, 3
_BARE = ("npub", "nsec", "note")
_TLV = ("nprofile", "nevent", "naddr")


@dataclass(frozen=True, slots=True)
class Pointer:
    """What an nprofile, nevent or naddr points at: a pubkey, an event id, or the `d` tag."""

    value: str
    relays: tuple[str, ...] = ()
    author: str | None = None
    kind: int | None = None


def encode_npub(pubkey: str) -> str:
    return bech32.encode("npub", bytes.fromhex(pubkey))


def encode_nsec(secret: bytes) -> str:
    return bech32.encode("nsec", secret)


def encode_note(event_id: str) -> str:
    return bech32.encode("note", bytes.fromhex(event_id))


def encode_nprofile(pubkey: str, relays: Sequence[str] = ()) -> str:
    return bech32.encode("nprofile", _items(bytes.fromhex(pubkey), relays))


def encode_nevent(event_id: str, relays: Sequence[str] = (), author: str | None = None,
                  kind: int | None = None) -> str:
    return bech32.encode("nevent", _items(bytes.fromhex(event_id), relays, author, kind))


def encode_naddr(identifier: str, author: str, kind: int, relays: Sequence[str] = ()) -> str:
    return bech32.encode("naddr", _items(identifier.encode(), relays, author, kind))


def decode(text: str) -> tuple[str, str | bytes | Pointer]:
    """(type, value) of any of the six, with or without `nostr:` before it: hex for npub and note,
    bytes for nsec, a Pointer for the others. Raises InvalidMessage."""
    prefix, data = bech32.decode(text.strip().removeprefix("nostr:"))
    if prefix in _BARE:
        if len(data) != 32:
            raise InvalidMessage(f"{prefix}: 32 bytes are wanted")
        return prefix, data if prefix == "nsec" else data.hex()
    if prefix in _TLV:
        return prefix, _decode_tlv(prefix, data)
    raise InvalidMessage(f"bech32: {prefix[:20]!r} is nothing of Nostr's")


def decode_pubkey(text: str) -> str:
    """The public key (hex) that a person wrote as npub, nprofile or hex. Raises UsageError."""
    return _decode_typed(text, ("npub", "nprofile"), "a public key: npub1… or 64 hex digits")


def decode_event_id(text: str) -> str:
    """The event id (hex) that a person wrote as note, nevent or hex. Raises UsageError."""
    return _decode_typed(text, ("note", "nevent"), "an event id: note1… or 64 hex digits")


def decode_nsec(text: str) -> bytes:
    """The secret key in an nsec. Raises InvalidMessage, never with the text in it."""
    type_, value = decode(text)
    if not isinstance(value, bytes):
        raise InvalidMessage(f"this is {type_}, not nsec")
    return value


def _decode_typed(text: str, types: tuple[str, ...], wanted: str) -> str:
    text = text.strip()
    if is_hex(text.lower()):
        return text.lower()
    try:
        type_, value = decode(text)
    except InvalidMessage as err:
        # Not the text itself: people paste an nsec where an npub belongs.
        raise UsageError(f"this is not {wanted} ({err})") from None
    if type_ not in types or isinstance(value, bytes):
        raise UsageError(f"this is {type_}, not {wanted}")
    return value.value if isinstance(value, Pointer) else value


def _items(special: bytes, relays: Sequence[str], author: str | None = None,
           kind: int | None = None) -> bytes:
    items = [(_SPECIAL, special)] + [(_RELAY, relay.encode("ascii")) for relay in relays]
    if author is not None:
        items.append((_AUTHOR, bytes.fromhex(author)))
    if kind is not None:
        items.append((_KIND, struct.pack(">I", kind)))
    return b"".join(bytes([type_, len(value)]) + value for type_, value in items)


def _decode_tlv(prefix: str, data: bytes) -> Pointer:
    values: dict[int, list[bytes]] = {}
    while data:
        if len(data) < 2 or len(data) < 2 + data[1]:
            raise InvalidMessage(f"{prefix}: cut off")
        values.setdefault(data[0], []).append(data[2:2 + data[1]])
        data = data[2 + data[1]:]
    special, author, kind = (values.get(t, [None])[0] for t in (_SPECIAL, _AUTHOR, _KIND))
    if (special is None or (prefix != "naddr" and len(special) != 32)
            or (author is not None and len(author) != 32)
            or (kind is not None and len(kind) != 4)
            or (prefix == "naddr" and (author is None or kind is None))):
        raise InvalidMessage(f"{prefix}: a part is missing or has a wrong length")
    try:
        value = special.decode() if prefix == "naddr" else special.hex()
        relays = tuple(relay.decode("ascii") for relay in values.get(_RELAY, []))
    except UnicodeDecodeError:
        raise InvalidMessage(f"{prefix}: not text where text belongs") from None
    return Pointer(value, relays, author.hex() if author else None,
                   struct.unpack(">I", kind)[0] if kind else None)
