"""The publisher: brings the stored outbox to the relays, and their answers back into the store.

Runs in the thread publisher. Waits for a ring (something was stored, a relay connected or has
answered) or for the next retry. The store is the truth: memory holds ids and timers only, and is
built anew from the unsettled rows at every start, so a resend is the same bytes. An event is
settled when every relay that it is meant for has taken it or refused it for good, or it expired.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pylon.errors import RelayError
from pylon.failpoints import hit
from pylon.log import Repeated, short
from pylon.nostr import messages
from pylon.relays.address import normalise
from pylon.relays.pool import Pool
from pylon.role import Role
from pylon.store import outbox
from pylon.store.database import Database

log = logging.getLogger(__name__)

RETRY_SECS = (2.0, 10.0, 60.0, 300.0, 1800.0)   # after a refusal that may pass, or silence
FINAL = frozenset({"invalid", "blocked", "pow", "mute"})    # a relay that says so means it
GUEST_SECS = 120.0          # how long a relay that the customer named may take to be reached
LONG_SECS = 3600.0
ONLY_THERE = frozenset({"order", "order-cancel"})   # the relays they name are the owner's choice


@dataclass(slots=True)
class Item:
    """One unsettled event. Only the publisher's thread touches it."""

    event_id: str
    purpose: str
    guests: list[str]                   # relays that the other side, or the owner, named
    only_there: bool                    # it goes to its guests and not to the node's own relays
    expires_at: int                     # wall clock
    accepted: bool                      # by any relay
    taken_at: float                     # monotonic
    done: set[str] = field(default_factory=set)             # accepted, or refused for good
    under_way: set[str] = field(default_factory=set)
    tries: dict[str, int] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)    # monotonic


class Publisher(Role):
    """Sends what the outbox holds. `on_first` gets the ids that a relay has taken for the first
    time; it runs on this thread."""

    max_step_secs = 60.0

    def __init__(self, db: Database, pool: Pool, on_first: Callable[[set[str]], None]) -> None:
        super().__init__("publisher")
        self._db, self._pool, self._on_first = db, pool, on_first
        self._items: dict[str, Item] = {}
        self._last_row = 0
        self._retry_at = 0.0                    # monotonic; the earliest timer of all items
        self._look_at_all = threading.Event()   # a relay came: everything may be sendable
        self._answers: deque[tuple[str, str, bool, str]] = deque()      # filled by relay threads
        self._refusals = Repeated(log, logging.INFO)

    # -- any thread --

    def ring(self) -> None:
        """Something was put into the outbox."""
        self.wake()

    def relay_connected(self) -> None:
        """A relay is there (again): offer it what it has not taken."""
        self._look_at_all.set()
        self.wake()

    def flush(self, timeout_secs: float) -> None:
        """Give the relays a last chance to answer, before they are disconnected."""
        self.wake()
        self._pool.flush(timeout_secs)

    def _on_ok(self, relay: str, event_id: str, accepted: bool, message: str) -> None:
        self._answers.append((event_id, relay, accepted, message))
        self.wake()

    # -- the role --

    def step(self, now: int) -> None:
        self._record_answers(now)
        fresh = self._load()
        mono = time.monotonic()
        if self._look_at_all.is_set() or mono >= self._retry_at:
            self._look_at_all.clear()
            self._retry_at = mono + LONG_SECS
            self._offer(list(self._items.values()), now, mono)
        else:
            self._offer(fresh, now, mono)
        if not self._answers:
            self.wait(max(0.0, self._retry_at - time.monotonic()))

    def leave(self) -> None:
        self._record_answers(int(time.time()))

    def _load(self) -> list[Item]:
        """Rows that came since the last look."""
        rows = outbox.unsettled(self._db, self._last_row)
        fresh = []
        for row in rows:
            self._last_row = max(self._last_row, row["row"])
            item = self._items[row["event_id"]] = _item(row)
            for url in item.guests:
                self._pool.add_relay(url)
            fresh.append(item)
        return fresh

    def _offer(self, items: list[Item], now: int, mono: float) -> None:
        """Send each item to the relays that are connected, have not answered, and are due."""
        own, settled = self._pool.own_urls(), []
        for item in items:
            if self._is_settled(item, own, now, mono):
                settled.append(item.event_id)
                del self._items[item.event_id]
                continue
            homes = () if item.only_there else own
            targets = [url for url in (*homes, *item.guests)
                       if url not in item.done and url not in item.under_way
                       and item.retry_at.get(url, 0.0) <= mono]
            if targets:
                self._send(item, targets)
            self._plan(item)
        if settled:
            outbox.settle(self._db, settled)

    def _is_settled(self, item: Item, own: list[str], now: int, mono: float) -> bool:
        if now >= item.expires_at:
            return True
        if item.only_there:
            return all(url in item.done for url in item.guests)
        if not own or not all(url in item.done for url in own):
            return False
        return mono - item.taken_at > GUEST_SECS or all(url in item.done for url in item.guests)

    def _send(self, item: Item, targets: list[str]) -> None:
        text = outbox.text(self._db, item.event_id)
        if text is None:                        # withdrawn meanwhile
            item.expires_at = 0
            return
        took = self._pool.publish(item.event_id, text, targets, self._on_ok)
        item.under_way.update(took)
        if took and item.purpose == "quote":
            hit("K7")

    def _plan(self, item: Item) -> None:
        """Keep the earliest moment at which something must be looked at again."""
        if item.expires_at == 0:
            self._retry_at = 0.0
        elif item.retry_at:
            self._retry_at = min(self._retry_at, *item.retry_at.values())
        elif item.guests:
            self._retry_at = min(self._retry_at, item.taken_at + GUEST_SECS + 1)

    def _record_answers(self, now: int) -> None:
        """All answers that have come in, in one transaction."""
        answers = []
        while self._answers:
            answers.append(self._answers.popleft())
        if not answers:
            return
        first = outbox.ack_many(self._db, answers, now)
        touched = [item for item in map(self._note, answers) if item is not None]
        own = self._pool.own_urls()
        settled = {item.event_id for item in touched
                   if self._is_settled(item, own, now, time.monotonic())}
        for event_id in settled:
            del self._items[event_id]
        if settled:
            outbox.settle(self._db, list(settled))
        if first:
            self._on_first(first)

    def _note(self, answer: tuple[str, str, bool, str]) -> Item | None:
        event_id, relay, accepted, message = answer
        item = self._items.get(event_id)
        if item is None:
            return None
        item.under_way.discard(relay)
        item.accepted |= accepted
        if accepted or messages.prefix(message) in FINAL:
            item.done.add(relay)
            item.retry_at.pop(relay, None)
        else:
            number = item.tries[relay] = item.tries.get(relay, 0) + 1
            pause = RETRY_SECS[min(number, len(RETRY_SECS)) - 1]
            item.retry_at[relay] = time.monotonic() + pause
            self._retry_at = min(self._retry_at, item.retry_at[relay])
        if not accepted:
            self._refusals.failed("relay %s: did not take %s %s: %s", relay, item.purpose,
                                  short(event_id), message)
        return item


def _item(row: sqlite3.Row) -> Item:
    guests = _normal(outbox.relays_of(row))
    return Item(row["event_id"], row["purpose"], guests,
                bool(guests) and row["purpose"] in ONLY_THERE, row["expires_at"],
                row["accepted_at"] is not None, time.monotonic(),
                set(outbox.acked_by(row)))


def _normal(urls: list[str]) -> list[str]:
    found = []
    for url in urls:
        try:
            found.append(normalise(url))
        except RelayError:
            continue
    return found
