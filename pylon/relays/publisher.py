"""The publisher: brings the stored outbox to the relays, and their answers back into the store.

Runs in the thread publisher. Waits for a ring (something was stored, a relay came or has answered)
or for the next timer. The store is the truth: a row stays unsettled there until every relay that
it is meant for has taken it, or it expires, and a relay that comes (back) is offered what it has
not taken: the same bytes. Memory holds numbers and timers, so a relay that is down for a week
costs nothing here.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pylon.errors import RelayError
from pylon.failpoints import hit
from pylon.log import Repeated, short
from pylon.nostr import messages
from pylon.relays.address import normalise
from pylon.relays.feed import FINAL, Feed
from pylon.relays.pool import Pool
from pylon.role import Role
from pylon.store import outbox
from pylon.store.database import Database

log = logging.getLogger(__name__)

PAGE_ROWS = 200
REMEMBERED = 4096                   # events whose open targets are known without asking the store
GUEST_PAUSES_SECS = (60.0, 300.0, 900.0, 3600.0, 3600.0, 3600.0)    # then the relay is given up
MAX_GUESTS = 200                    # relays named by others that are waited for
EXPIRY_SECS = 3600.0                # between two looks for what has expired
# Only the recipient's own relays may see these; everything else goes to the node's relays, too.
NAMED_RELAYS_ONLY = frozenset({"direct-message"})


@dataclass(slots=True)
class Guest:
    """A relay that the other side named and that is not connected."""

    call_at: float                  # monotonic
    tries: int = 0


class Publisher(Role):
    """Sends what the outbox holds. `on_first` gets the ids that a relay has taken for the first
    time; it runs on this thread."""

    max_step_secs = 60.0

    def __init__(self, db: Database, pool: Pool, on_first: Callable[[set[str]], None]) -> None:
        super().__init__("publisher")
        self._db, self._pool, self._on_first = db, pool, on_first
        self._answers: deque[tuple[str, str, bool, str]] = deque()      # filled by relay threads
        self._calm = threading.Condition()      # guards the two tickets of flush()
        self._asked = 0
        self._answered = 0
        # From here on, the publisher's thread only.
        self._feeds: dict[str, Feed] = {}               # connected relays
        self._guests: dict[str, Guest] = {}
        self._targets: dict[str, set[str]] = {}         # event id -> relays that must still take it
        self._last_row: int | None = None               # None: this boot has not looked yet
        self._expire_at = 0.0                           # monotonic
        self._refusals = Repeated(log, logging.INFO)
        pool.listen(lambda relay, connected: self.wake())

    # -- any thread --------------------------------------------------------------------------------

    def ring(self) -> None:
        """Something was put into the outbox."""
        self.wake()

    def flush(self, timeout_secs: float) -> bool:
        """Wait until the connected relays have answered for all that is stored now, before they
        are disconnected. False at the timeout."""
        with self._calm:
            self._asked += 1
            ticket = self._asked
        self.wake()
        with self._calm:
            return self._calm.wait_for(lambda: self._answered >= ticket, timeout_secs)

    def _on_ok(self, relay: str, event_id: str, accepted: bool, message: str) -> None:
        self._answers.append((event_id, relay, accepted, message))
        self.wake()

    # -- the role ----------------------------------------------------------------------------------

    def step(self, now: int) -> None:
        mono, asked = time.monotonic(), self._asked
        self._record_answers(now, mono)
        self._look_at_relays(now, mono)
        self._offer_new(now, mono)
        for feed in self._feeds.values():
            feed.wake_pauses(mono)
            self._catch_up(feed, now, mono)
        self._call_guests(mono)
        self._expire(now, mono)
        self._tell_calm(asked, mono)
        if not self._answers:
            self.wait(max(0.0, self._due_at(mono) - time.monotonic()))

    def leave(self) -> None:
        self._record_answers(int(time.time()), time.monotonic())

    def _due_at(self, mono: float) -> float:
        times = [feed.due_at(mono) for feed in self._feeds.values()]
        times += [guest.call_at for guest in self._guests.values()]
        return min([self._expire_at, *(due for due in times if due is not None)])

    def _tell_calm(self, asked: int, mono: float) -> None:
        if asked == self._answered or self._answers:
            return
        if not any(feed.busy and feed.hold_until <= mono for feed in self._feeds.values()):
            with self._calm:
                self._answered = asked
                self._calm.notify_all()

    # -- relays ------------------------------------------------------------------------------------

    def _look_at_relays(self, now: int, mono: float) -> None:
        """Which relays are there, and which have gone."""
        connected = set(self._pool.connected())
        for relay in self._feeds.keys() - connected:
            feed = self._feeds.pop(relay)
            if feed.busy or feed.pauses:
                self._want_guest(relay, mono)
        for relay in connected - self._feeds.keys():
            self._feeds[relay] = Feed(relay, behind=0)
        if self._last_row is None:
            self._last_row = outbox.last_row(self._db)
            self._find_guests(now, mono)

    def _find_guests(self, now: int, mono: float) -> None:
        """At the start: relays that the rows of earlier boots name."""
        row = 0
        while rows := outbox.naming_relays(self._db, row, now, PAGE_ROWS):
            row = rows[-1]["row"]
            for one in rows:
                for url in _named(one):
                    self._want_guest(url, mono)

    def _want_guest(self, url: str, mono: float) -> None:
        if url not in self._guests and url not in self._feeds and len(self._guests) < MAX_GUESTS \
                and url not in self._pool.own_urls():
            self._guests[url] = Guest(mono)

    def _call_guests(self, mono: float) -> None:
        """Have the named relays connected; when one comes, its feed does the rest."""
        for url, guest in list(self._guests.items()):
            if url in self._feeds or guest.tries >= len(GUEST_PAUSES_SECS):
                del self._guests[url]
            elif guest.call_at <= mono:
                self._pool.add_relay(url)
                guest.call_at = mono + GUEST_PAUSES_SECS[guest.tries]
                guest.tries += 1

    # -- offering ----------------------------------------------------------------------------------

    def _offer_new(self, now: int, mono: float) -> None:
        """Rows that came since the last look."""
        assert self._last_row is not None
        own = self._pool.own_urls()
        while rows := outbox.newer(self._db, self._last_row, now, PAGE_ROWS):
            for row in rows:
                self._last_row = row["row"]
                targets = _targets(row, own)
                self._remember(row["event_id"], targets)
                self._offer(row, row["event_json"], targets, mono)
                for url in targets:
                    if url not in self._feeds:
                        self._want_guest(url, mono)

    def _offer(self, row: sqlite3.Row, text: str, targets: list[str], mono: float) -> None:
        ready = []
        for feed in (self._feeds[url] for url in targets if url in self._feeds):
            if feed.behind is None and feed.hold_until <= mono:
                ready.append(feed.relay)
            else:
                feed.must_go_back_to(row["row"])
        took = self._pool.publish(row["event_id"], text, ready, self._on_ok) if ready else []
        for url in ready:
            if url in took:
                self._feeds[url].offered(row["event_id"], row["row"])
            else:
                self._feeds[url].must_go_back_to(row["row"])
        if took and row["purpose"] == "quote":
            hit("K7")

    def _catch_up(self, feed: Feed, now: int, mono: float) -> None:
        """One pass through what this relay has not taken, as far as its queue goes."""
        own = self._pool.own_urls()
        while feed.behind is not None and feed.hold_until <= mono:
            rows = outbox.unsettled(self._db, feed.relay, feed.behind, now, PAGE_ROWS)
            for row in rows:
                if not self._offer_again(feed, row, own, mono):
                    return
                feed.behind = row["row"]
            if len(rows) < PAGE_ROWS:
                feed.behind = None

    def _offer_again(self, feed: Feed, row: sqlite3.Row, own: list[str], mono: float) -> bool:
        """False when the relay's queue is full."""
        event_id = row["event_id"]
        refused = messages.prefix(row["refusal"] or "") in FINAL and row["accepted_at"] is not None
        if row["taken"] or refused or not feed.may_have(event_id, mono) \
                or feed.relay not in _targets(row, own):
            return True
        text = outbox.text(self._db, event_id)
        if text is None:                        # withdrawn meanwhile
            return True
        if not self._pool.publish(event_id, text, [feed.relay], self._on_ok):
            return False
        feed.offered(event_id, row["row"])
        return True

    # -- answers -----------------------------------------------------------------------------------

    def _record_answers(self, now: int, mono: float) -> None:
        """All answers that have come in, in one transaction."""
        answers = list(self._answers)           # taken away only once they are stored
        if not answers:
            return
        first = outbox.ack_many(self._db, answers, now, self._settled_by(answers))
        for event_id, relay, accepted, message in answers:
            self._answers.popleft()
            feed = self._feeds.get(relay)
            if feed is not None:
                feed.answered(event_id, accepted, message, mono)
            if not accepted:
                self._refusals.failed("relay %s: did not take event %s: %s", relay,
                                      short(event_id), message)
        if first:
            self._on_first(first)

    def _settled_by(self, answers: list[tuple[str, str, bool, str]]) -> list[str]:
        """Events that need nothing more once these answers are stored."""
        settled = []
        for event_id, relay, accepted, _ in answers:
            if event_id not in self._targets:   # of an earlier boot, or long ago
                self._remember(event_id, self._targets_left(event_id))
            left = self._targets[event_id]
            if accepted:
                left.discard(relay)
                if not left:
                    settled.append(event_id)
                    del self._targets[event_id]
        return settled

    def _targets_left(self, event_id: str) -> list[str]:
        row = outbox.find(self._db, event_id)
        if row is None:
            return []
        taken = outbox.taken_by(self._db, event_id)
        return [url for url in _targets(row, self._pool.own_urls()) if url not in taken]

    def _remember(self, event_id: str, targets: list[str]) -> None:
        self._targets[event_id] = set(targets)
        if len(self._targets) > REMEMBERED:
            del self._targets[next(iter(self._targets))]

    def _expire(self, now: int, mono: float) -> None:
        if mono >= self._expire_at:
            self._expire_at = mono + EXPIRY_SECS
            outbox.settle_expired(self._db, now)


def _targets(row: sqlite3.Row, own: list[str]) -> list[str]:
    """The relays that an event is meant for; one spelling each."""
    named = _named(row)
    if named and row["purpose"] in NAMED_RELAYS_ONLY:
        return named
    return list(dict.fromkeys([*own, *named]))


def _named(row: sqlite3.Row) -> list[str]:
    found = []
    for url in outbox.relays_of(row):
        try:
            found.append(normalise(url))
        except RelayError:
            continue                            # was checked when it was stored
    return found
