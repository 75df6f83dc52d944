"""NIP-59 gift wraps: who writes to whom about what, hidden from relays and onlookers.

An unsigned rumor is sealed by its author (kind 13) and the seal is wrapped under a key that is
used once (kind 1059). Wrap and seal carry false dates up to two days back, so look for wraps of
the last two days and more, and know a rumor by its own id.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pylon.errors import InvalidMessage
from pylon.nostr import event as events
from pylon.nostr import keys as key_pairs
from pylon.nostr import strictjson
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys

SEAL, WRAP, EPHEMERAL_WRAP = 13, 1059, 21059
BACKDATED_SECS = 2 * 86400


@dataclass(frozen=True, slots=True)
class Rumor:
    """An event that nobody signed: only the seal around it says who wrote it."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: list[list[str]]
    content: str

    def to_json(self) -> str:
        return json.dumps({"id": self.id, "pubkey": self.pubkey, "created_at": self.created_at,
                           "kind": self.kind, "tags": self.tags, "content": self.content},
                          ensure_ascii=False, separators=(",", ":"))


def rumor(pubkey: str, kind: int, content: str, tags: Sequence[Sequence[str]],
          created_at: int) -> Rumor:
    """Raises InvalidMessage for what cannot be an event."""
    own = [list(tag) for tag in tags]
    events.check_unsigned(created_at, kind, own, content)
    return Rumor(events.event_id(pubkey, created_at, kind, own, content), pubkey, created_at,
                 kind, own, content)


def wrap(keys: Keys, recipient: str, inner: Rumor, now: int) -> Event:
    """The wrap for one recipient. Raises InvalidMessage when it would be too large."""
    if inner.pubkey != keys.pubkey:
        raise InvalidMessage("a rumor is sealed by its own author")
    seal = keys.sign(SEAL, keys.nip44_encrypt(recipient, inner.to_json()), [], _backdated(now))
    once = key_pairs.generate()
    return once.sign(WRAP, once.nip44_encrypt(recipient, seal.to_json()), [["p", recipient]],
                     _backdated(now))


def unwrap(keys: Keys, event: Event) -> Rumor:
    """What is inside a wrap to us (verified before). Raises InvalidMessage.

    The seal's signature is checked here, and that the rumor names the same author: otherwise
    anybody could put words into anybody's mouth.
    """
    if event.kind not in (WRAP, EPHEMERAL_WRAP):
        raise InvalidMessage("not a gift wrap")
    seal = events.parse(strictjson.load(keys.nip44_decrypt(event.pubkey, event.content)))
    if seal.kind != SEAL or seal.tags:
        raise InvalidMessage("there is no seal in the wrap")
    events.verify(seal)
    inner = _parse_rumor(strictjson.load(keys.nip44_decrypt(seal.pubkey, seal.content)))
    if inner.pubkey != seal.pubkey:
        raise InvalidMessage("the rumor is not by the one who sealed it")
    return inner


def _parse_rumor(value: object) -> Rumor:
    if type(value) is not dict:
        raise InvalidMessage("a rumor is an object")
    pubkey, created_at, kind, tags, content = (
        value.get(name) for name in ("pubkey", "created_at", "kind", "tags", "content"))
    if not isinstance(pubkey, str) or not events.is_hex(pubkey):
        raise InvalidMessage("the rumor has no author")
    events.check_unsigned(created_at, kind, tags, content)
    id_ = events.event_id(pubkey, created_at, kind, tags, content)    # type: ignore[arg-type]
    if value.get("id", id_) != id_:
        raise InvalidMessage("the rumor's id is not its hash")
    return Rumor(id_, pubkey, created_at, kind, tags, content)        # type: ignore[arg-type]


def _backdated(now: int) -> int:
    return now - secrets.randbelow(BACKDATED_SECS)
