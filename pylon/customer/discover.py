"""Who is out there: announcements (NIP-89), heartbeats, and what we know of each provider.

`Directory.look` asks the relays and waits, in the thread of whoever wants to know; nothing is
subscribed to in between. Announcements are claims; the scores come from our own history.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pylon.customer import score
from pylon.customer.choose import trusted
from pylon.customer.draft import Draft
from pylon.customer.score import Score
from pylon.errors import InvalidMessage
from pylon.nostr import nip89
from pylon.nostr.event import Event
from pylon.nostr.nip89 import Announcement
from pylon.relays.subscription import Subscription
from pylon.store import providers
from pylon.store.database import Database
from pylon.store.providers import History

FRESH_SECS = 900                    # a heartbeat this old, and the provider counts as gone
AHEAD_SECS = 300                    # how far ahead another's clock may be
LOOK_SECS = 3.0                     # longest wait for the relays
LOOK_AGAIN_SECS = 60                # what was found stays good for so long
MAX_FOUND = 1000                    # announcements, and heartbeats, that are kept
MAX_TARGETS = 5


class Pool(Protocol):
    """What is needed of `relays.pool.Pool`."""

    def subscribe(self, sub: Subscription) -> None: ...
    def unsubscribe(self, name: str) -> None: ...
    def connected(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """One provider: what it claims, whether it lives, and what we have seen of it."""

    pubkey: str
    history: History
    score: Score
    alive: bool
    heartbeat_at: int | None = None
    announcement: Announcement | None = None

    def price_msats(self, model: str | None = None) -> int | None:
        """The least that it says it takes."""
        if self.announcement is None:
            return None
        return self.announcement.prices_msats.get(model or "", self.announcement.price_msats)


@dataclass(eq=False, slots=True)
class _Look:
    """One round of asking."""

    name: str
    waiting: set[str]
    done: threading.Event = field(default_factory=threading.Event)

    def eose(self, relay: str) -> None:
        self.waiting.discard(relay)
        if not self.waiting:
            self.done.set()


class Directory:
    """Any thread may call; `look` and what calls it may take `LOOK_SECS`."""

    def __init__(self, db: Database, pool: Pool, network: str,
                 wall: Callable[[], float] = time.time,
                 steady: Callable[[], float] = time.monotonic) -> None:
        self._db, self._pool, self._network = db, pool, network
        self._wall, self._steady = wall, steady
        self._lock = threading.Lock()               # guards all below
        self._announced: dict[tuple[str, str], Announcement] = {}   # by pubkey and d
        self._beats: dict[str, int] = {}            # pubkey -> the newest heartbeat
        self._looked: dict[int, float] = {}         # kind -> steady time
        self._rounds = 0

    # -- asking the relays --

    def look(self, kinds: Iterable[int], timeout_secs: float = LOOK_SECS) -> None:
        """Ask all connected relays who serves these kinds, and wait for their answers."""
        now = self._steady()
        with self._lock:
            due = [kind for kind in kinds if self._looked.get(kind, -1e9) + LOOK_AGAIN_SECS < now]
            self._rounds += 1
            name = f"providers-{self._rounds}"
        relays = set(self._pool.connected())
        if not due or not relays:
            return
        one = _Look(name, relays)
        self._pool.subscribe(Subscription(
            name=name, on_events=self._on_events, on_eose=one.eose,
            on_closed=lambda relay, message: one.eose(relay),
            filters=[{"kinds": [nip89.KIND], "#k": [str(kind) for kind in due], "limit": 300},
                     {"kinds": [nip89.HEARTBEAT], "since": int(self._wall()) - FRESH_SECS,
                      "limit": 500}]))
        try:
            one.done.wait(timeout_secs)
        finally:
            self._pool.unsubscribe(name)
        with self._lock:
            self._looked.update(dict.fromkeys(due, now))

    def _on_events(self, relay: str, events: list[Event]) -> None:
        now = int(self._wall())
        with self._lock:
            for event in events:
                if event.created_at <= now + AHEAD_SECS and (event.expiration() or now) >= now:
                    self._keep(event)

    def _keep(self, event: Event) -> None:
        if event.kind == nip89.HEARTBEAT:
            if event.pubkey in self._beats or len(self._beats) < MAX_FOUND:
                self._beats[event.pubkey] = max(self._beats.get(event.pubkey, 0),
                                                event.created_at)
            return
        try:
            said = nip89.parse(event)
        except InvalidMessage:
            return                      # somebody else's trash; there is nothing to say about it
        known = self._announced.get((said.pubkey, said.d))
        if known is None and len(self._announced) >= MAX_FOUND:
            return
        if known is None or known.created_at < said.created_at:
            self._announced[said.pubkey, said.d] = said

    # -- what is known --

    def found(self, kind: int | None = None, everybody: bool = False) -> list[Found]:
        """Providers of a kind, best first: those that live and are on our network, unless
        `everybody` is wanted (then also whom we only know from our own history)."""
        now = int(self._wall())
        with self._lock:
            said = self._of_kind(kind)
            beats = dict(self._beats)
        histories = providers.histories(self._db, None if everybody else said)
        pubkeys = {*said, *(histories if everybody else ())}
        result = []
        for pubkey in pubkeys:
            alive = now - FRESH_SECS <= beats.get(pubkey, 0) <= now + AHEAD_SECS
            history = histories.get(pubkey) or History(pubkey)
            one = Found(pubkey, history, score.score(history, alive), alive, beats.get(pubkey),
                        said.get(pubkey))
            if everybody or (alive and self._on_our_network(one.announcement)):
                result.append(one)
        result.sort(key=lambda one: (-one.score.points, one.pubkey))
        return result

    def _of_kind(self, kind: int | None) -> dict[str, Announcement]:
        """The newest announcement of each provider; under the lock."""
        newest: dict[str, Announcement] = {}
        for said in sorted(self._announced.values(), key=lambda one: one.created_at):
            if kind is None or kind in said.kinds:
                newest[said.pubkey] = said
        return newest

    def _on_our_network(self, said: Announcement | None) -> bool:
        return said is None or said.network in ("", self._network)

    def targets(self, wish: Draft) -> list[str]:
        """Whom to ask, one after the other, where an order cannot go to everybody: they take
        encrypted jobs, have the model, and are within the price; best score first."""
        self.look([wish.kind])
        return [one.pubkey for one in self.found(wish.kind) if self._suits(one, wish)
                ][:MAX_TARGETS]

    def _suits(self, one: Found, wish: Draft) -> bool:
        said = one.announcement
        if said is None or one.score.avoided or (wish.encrypt and not said.encryption):
            return False
        if wish.model and said.models and wish.model not in said.models:
            return False
        price = one.price_msats(wish.model)
        limit = 0 if wish.policy == "free" else wish.max_msats or wish.bid_msats
        if price is not None and limit is not None and price > limit:
            return False
        return wish.policy != "trusted" or trusted(one.history)
