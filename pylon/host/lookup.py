"""Looking up what relays know of a person: asked once, answered within seconds, remembered.

Runs in the caller's thread, which waits; nothing that comes is believed beyond its signature.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence

from pylon.errors import InvalidMessage
from pylon.nostr import nip65
from pylon.nostr.event import Event
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription

LOOK_SECS = 4.0
MAX_DM_RELAYS = 3
MAX_EVENTS = 50


def newest(pool: Pool, kind: int, author: str, relays: Sequence[str] = (),
           timeout_secs: float = LOOK_SECS) -> Event | None:
    """The newest replaceable event of this kind and author that our relays have."""
    found: list[Event] = []
    done = threading.Event()
    asked = set(pool.connected())
    ended: set[str] = set()

    def on_events(relay: str, events: list[Event]) -> None:
        found.extend(events[:MAX_EVENTS])

    def on_eose(relay: str) -> None:
        ended.add(relay)
        if asked <= ended:
            done.set()
    name = f"look-{secrets.token_hex(6)}"
    pool.subscribe(Subscription(name, [{"kinds": [kind], "authors": [author], "limit": 1}],
                                on_events, on_eose=on_eose))
    try:
        done.wait(timeout_secs)
    finally:
        pool.unsubscribe(name)
    fresh = [event for event in found if event.created_at < time.time() + 900]
    return max(fresh, key=lambda event: (event.created_at, event.id), default=None)


def dm_relays(pool: Pool, pubkey: str, relays: Sequence[str] = ()) -> list[str]:
    """Where a person wants direct messages left (kind 10050); empty: nowhere."""
    event = newest(pool, nip65.DM_RELAYS, pubkey, relays)
    if event is None:
        return []
    try:
        return pool.usable(nip65.parse_dm_relays(event))[:MAX_DM_RELAYS]
    except InvalidMessage:
        return []
