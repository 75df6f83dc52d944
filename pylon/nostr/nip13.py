"""NIP-13: proof of work, as leading zero bits of the event's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from pylon.nostr.event import Event, event_id
from pylon.units import parse_count

MAX_BITS = 256
_LOOK_AROUND = 1024         # tries between two looks at `give_up`


def difficulty(id_: str) -> int:
    """Leading zero bits of an id (hex)."""
    return MAX_BITS - int(id_, 16).bit_length()


def committed(event: Event) -> int:
    """The bits that an event aimed at and reached; 0 without a target, so that luck with a small
    one does not count as work."""
    for tag in event.tags:
        if tag[0] == "nonce" and len(tag) > 2:
            try:
                target = parse_count(tag[2])
            except ValueError:
                return 0
            return target if difficulty(event.id) >= target else 0
    return 0


def mine(pubkey: str, created_at: int, kind: int, tags: Sequence[Sequence[str]], content: str,
         bits: int, give_up: Callable[[], bool] = lambda: False) -> list[list[str]] | None:
    """The tags with a nonce under which the event has `bits` of work; None once `give_up()`.

    Each bit doubles the time; 16 take a tenth of a second on a PC. Sign with the same fields.
    """
    own = [list(tag) for tag in tags if tag[0] != "nonce"]
    before, after = _around_nonce(pubkey, created_at, kind, own, content, bits)
    hashed, limit = hashlib.sha256(before), 1 << MAX_BITS - bits
    nonce = 0
    while nonce % _LOOK_AROUND or not give_up():
        digest = hashed.copy()
        digest.update(b"%d%s" % (nonce, after))
        if int.from_bytes(digest.digest(), "big") < limit:
            return [*own, ["nonce", str(nonce), str(bits)]]
        nonce += 1
    return None


def _around_nonce(pubkey: str, created_at: int, kind: int, tags: list[list[str]], content: str,
                  bits: int) -> tuple[bytes, bytes]:
    """The canonical form, cut where the nonce belongs."""
    event_id(pubkey, created_at, kind, tags, content)       # raises for what has no id
    last = json.dumps(["nonce", "", str(bits)], separators=(",", ":"))
    whole = json.dumps([0, pubkey, created_at, kind, tags, content], ensure_ascii=False,
                       separators=(",", ":"))
    inside = json.dumps(tags, ensure_ascii=False, separators=(",", ":"))[:-1]
    end = len(json.dumps([0, pubkey, created_at, kind], separators=(",", ":"))[:-1]) + 1
    head = whole[:end] + inside + ("," if tags else "") + last[:len('["nonce","')]
    tail = last[len('["nonce","'):] + whole[end + len(inside):]
    return head.encode(), tail.encode()
