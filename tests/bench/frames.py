"""Signed events for the measurements: frames of a usual size, by a few customers."""

from __future__ import annotations

import random

from pylon.nostr.event import Event
from pylon.nostr.keys import Keys

FRAME_CHARS = 624           # of an ordinary job as relays deliver it
CUSTOMERS = 20
CREATED_AT = 1_760_000_000


def secrets() -> list[bytes]:
    """The customers' keys: the same in every run."""
    return [random.Random(n).randbytes(32) for n in range(1, CUSTOMERS + 1)]


def make_events(count: int, kind: int = 5050, created_at: int = CREATED_AT) -> list[Event]:
    """Different events, the same in every run but for their signatures' randomness."""
    authors = [Keys(secret) for secret in secrets()]
    filler = "x" * 180
    return [authors[n % len(authors)].sign(
        kind, "", [["i", f"What is {n} times two? {filler}", "text"], ["output", "text/plain"]],
        created_at + n % 60) for n in range(count)]


def frame(event: Event) -> str:
    """The event as a relay sends it."""
    return f'["EVENT","jobs",{event.to_json()}]'


def records(events: list[Event]) -> bytes:
    """What the C loop takes."""
    return b"".join(bytes.fromhex(e.pubkey + e.id + e.sig) for e in events)
