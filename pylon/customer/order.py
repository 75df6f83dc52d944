"""Orders: what is asked of the market, from the signed event to the stored result.

`Orders` (thread: orders) is driven by what relays bring, by what the payer says, and by deadlines;
it waits on its doorbell and is started and stopped by the daemon. Every event becomes a row, then
`choose.decide` says from the rows alone what is next: so SIGKILL at any instant costs nothing but
time, and `resume` goes on where the rows stand. An order is stored before it is sent and
subscribed to before it is published. It is paid through the payer under its own id as the action
key: never twice, and never a second invoice unless the first has failed for certain. The steps
themselves are the `clerk`'s.

Kill points: B1 signed, not stored; B2 stored, not sent; B3 and B4 a quote read, and stored
(`notebook`); B5 quote accepted (A1 to A6 inside the payer); B6 the payer has answered, the order
does not know; B7 paid; B8 and B9 a result read, and stored (`notebook`); B10 completed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pylon.customer import draft
from pylon.customer.buyer import Buyer, Errand, Terms
from pylon.customer.clerk import LATE_SECS, Clerk, Pool
from pylon.customer.draft import Draft
from pylon.customer.live import Listener, Live
from pylon.customer.notebook import Notebook
from pylon.errors import PylonError, Refused, StoreFull
from pylon.failpoints import hit
from pylon.log import Repeated, short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.role import Role
from pylon.states import OPEN_ORDERS, OrderState
from pylon.store import journal, orders
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing
from pylon.wallets.payer import Payer

log = logging.getLogger(__name__)

S = OrderState
BUYERS = 2
MAX_OPEN = 200                      # orders under way at once
MAX_INBOX = 2000                    # events that wait; more are dropped, relays still have them
MAX_TRIES = 5                       # of an event that cannot be dealt with
DELETION = 5


class Orders(Role):
    """Every order of this node: a person's, an agent's, the HTTP endpoint's.

    `keys_for(order)` finds the keys that signed an order, after a restart; `terms_for(order)` says
    what its account may spend; `find_targets(draft)` names providers to ask one after the other
    where an order cannot go to everybody. `ring` rings the publisher.
    """

    def __init__(self, db: Database, pool: Pool, payer: Payer, *,
                 ring: Callable[[], None],
                 keys_for: Callable[[OrderRow], Keys | None],
                 terms_for: Callable[[OrderRow], Terms],
                 find_targets: Callable[[Draft], list[str]],
                 own_pubkey: str | None = None,
                 wall: Callable[[], float] = time.time,
                 steady: Callable[[], float] = time.monotonic) -> None:
        super().__init__("orders")
        self._db, self._pool, self._payer = db, pool, payer
        self._ring, self._keys_for, self._terms_for = ring, keys_for, terms_for
        self._find_targets = find_targets
        self._wall, self._steady = wall, steady
        self._turn = threading.RLock()              # one order at a time; guards the clerk
        self._clerk = Clerk(db, pool, Notebook(db, payer.network, own_pubkey), pay=self._pay,
                            on_events=self._on_events, ring=ring, wall=wall, steady=steady)
        self._inbox: deque[tuple[Event | str, int]] = deque()   # events and ids of orders to
        #                                             look at, and how often it was tried already
        self._dropped = 0                           # written by relay threads
        self._flood = Repeated(log, logging.WARNING)
        self._errands: deque[Errand] = deque()
        self._buyers = [Buyer(f"buyer-{n}", self._errands, payer) for n in range(1, BUYERS + 1)]

    # ---- for the owner of this role -------------------------------------------------------------

    def start(self) -> None:
        super().start()
        for buyer in self._buyers:
            buyer.start()

    def stop(self) -> None:
        super().stop()
        for buyer in self._buyers:
            buyer.stop()

    def join(self, timeout_secs: float | None = None) -> bool:
        return all([super().join(timeout_secs), *(b.join(timeout_secs) for b in self._buyers)])

    @property
    def roles(self) -> list[Role]:
        return [self, *self._buyers]

    def resume(self) -> int:
        """After a start: every open order goes on, and paid ones that nobody delivered are
        listened for. Returns how many. Before `start`, and after the payer's own recovery."""
        now = int(self._wall())
        found = orders.open_orders(self._db)
        late = orders.undelivered(self._db, now - LATE_SECS)
        with self._turn:
            for order in [*found, *late]:
                live = self._clerk.reopen(order, self._keys_for(order))
                live.retry = order.state == S.ACCEPTED
                if order not in found:
                    live.ends_at = self._steady() + LATE_SECS
            for order in [*found, *late, *orders.unnoted(self._db)]:
                self._inbox.append((order.id, 0))
        self.wake()
        return len(found)

    # ---- for customers --------------------------------------------------------------------------

    def submit(self, wish: Draft, keys: Keys, account: str, scope: str | None = None,
               listener: Listener | None = None) -> str:
        """Store, sign and send an order; its id. Raises Refused, UsageError, StoreFull.

        `account` pays, `scope` is the tick it belongs to. May take seconds where an encrypted
        order must find its provider first.
        """
        draft.check(wish)
        if wish.relays:
            wish = replace(wish, relays=self._pool.usable(wish.relays))
            if not wish.relays:
                raise Refused("no-relay", "none of these relays may be used; for a private "
                                          "address set [relay] allow_private = true")
        targets = [wish.provider] if wish.provider else self._targets(wish)
        with self._turn:
            if len(self._clerk.live) >= MAX_OPEN:
                raise Refused("too-many-orders", f"{MAX_OPEN} orders are under way already")
            order, event = self._sign(wish, keys, account, scope, targets)
            hit("B1")
            live = self._clerk.open(order, keys, {event.id: order.target})
            if listener is not None:
                live.listeners.append(listener)
            try:
                orders.submit(self._db, order, event, order.created_at)
            except PylonError:
                self._clerk.close(live)
                raise
        try:
            hit("B2")
        finally:                        # it is stored, so it is sent
            self._ring()
            self._look(order.id)
        log.info("order %s: kind %d, %s, at most %d msats", short(order.id), order.kind,
                 order.policy, order.max_msats)
        return order.id

    def _targets(self, wish: Draft) -> list[str]:
        if not wish.encrypt:
            return []
        found = self._find_targets(wish)
        if not found:
            raise Refused("no-provider", "no provider is known that takes encrypted jobs of this "
                                         "kind; name one with --provider")
        return found

    def _sign(self, wish: Draft, keys: Keys, account: str, scope: str | None,
              targets: list[str]) -> tuple[OrderRow, Event]:
        """The same words twice in one second would be the same event: then a second earlier."""
        now = int(self._wall())
        listen_on = wish.relays or self._pool.own_urls()[:3]
        while True:
            order, event = draft.to_order(wish, keys, account, scope, targets, listen_on, now)
            if orders.get(self._db, order.id) is None:
                return order, event
            now -= 1

    def authorise(self, order_id: str, max_msats: int) -> None:
        """The owner allows an order to pay up to `max_msats`. Raises Refused."""
        with self._turn:
            order = self._clerk.known(order_id)
            if order.state not in (S.NEW, S.SENT):
                raise Refused("not-open", f"the order is {order.state}")
            now = int(self._wall())
            with self._db.transaction(durable=True) as tx:
                orders.update(tx, order_id, now, max_msats=max_msats,
                              deadline_at=max(order.deadline_at, now + order.timeout_secs))
                journal.add(tx, "OrderAuthorised", order_id, {"max_msats": max_msats}, now)
            self._look(order_id)

    def cancel(self, order_id: str) -> None:
        """Take an order back. Raises Refused once money is promised for it."""
        with self._turn:
            order = self._clerk.known(order_id)
            if order.state in (S.ACCEPTED, S.PAID):
                raise Refused("being-paid", "a payment for it is under way; it goes on")
            if order.state not in OPEN_ORDERS:
                raise Refused("not-open", f"the order is {order.state} already")
            now = int(self._wall())
            orders.cancel(self._db, order, self._deletion(order, now), now)
            live = self._clerk.live.get(order_id)
            if live is not None:
                live.tell("cancelled")
                self._clerk.close(live)
        self._ring()

    def _deletion(self, order: OrderRow, now: int) -> Event | None:
        keys = self._keys_for(order)
        if keys is None:
            return None
        tags = [["e", event_id] for event_id in orders.asked(self._db, order.id)]
        return keys.sign(DELETION, "", [*tags, ["k", str(order.kind)]], now)

    def follow(self, order_id: str, listener: Listener, fetch_secs: float = 0) -> OrderRow:
        """Hear of everything that happens to an order from now on; its row as it stands.

        With `fetch_secs` the relays are asked for so long whether they have the result of an
        order that ended without one. Raises Refused.
        """
        with self._turn:
            order = self._clerk.known(order_id)
            live = self._clerk.live.get(order_id)
            if live is None and fetch_secs > 0 and order.state in (S.FAILED, S.EXPIRED):
                live = self._clerk.reopen(order, self._keys_for(order))
                live.ends_at = live.due_at = self._steady() + fetch_secs
                self.wake()
            if live is not None:
                live.listeners.append(listener)
                if live.text:
                    listener({"event": "partial", "id": order_id, "provider": live.speaker,
                              "text": live.text})
                if live.asked_owner:            # say again what nobody may have heard
                    live.asked_owner = False
                    self._look(order_id)
            return order

    def unfollow(self, order_id: str, listener: Listener) -> None:
        with self._turn:
            live = self._clerk.live.get(order_id)
            if live is not None and listener in live.listeners:
                live.listeners.remove(listener)

    def outcome(self, order_id: str, timeout_secs: float) -> OrderRow:
        """Wait until the order has ended, at most so long; its row then. For a caller with a
        thread of its own."""
        ended = threading.Event()

        def listener(update: dict[str, Any]) -> None:
            if update["event"] in ("completed", "failed", "expired", "cancelled"):
                ended.set()
        order = self.follow(order_id, listener)
        if order.state in OPEN_ORDERS:
            ended.wait(timeout_secs)
        self.unfollow(order_id, listener)
        return self._clerk.known(order_id)

    # ---- what wakes an order --------------------------------------------------------------------

    def published(self, event_ids: Iterable[str]) -> None:
        """Relays have accepted these events; some may be ours. Any thread."""
        for event_id in event_ids:
            order_id = self._clerk.by_event.get(event_id)
            if order_id is not None:
                self._look(order_id)

    def payment_decided(self, action_key: str) -> None:
        """The payer or its reconciler knows how a payment ended. Any thread."""
        self._look(action_key)

    def _look(self, order_id: str) -> None:
        self._inbox.append((order_id, 0))
        self.wake()

    def _on_events(self, relay: str, events: list[Event]) -> None:
        """On a relay's thread."""
        events = [event for event in events if self._clerk.admits(event)]
        if len(self._inbox) + len(events) > MAX_INBOX:
            self._dropped += len(events)
            self._flood.failed("orders: %d answers dropped, too many at once", self._dropped)
            return
        self._inbox.extend((event, 0) for event in events)
        self.wake()

    def step(self, now: int) -> None:
        self._queue_due()
        while self._inbox and not self.stopping:
            self._work_on(*self._inbox.popleft())
        self.wait(0 if self._inbox else self._pause_secs())

    def _work_on(self, item: Event | str, tries: int) -> None:
        """One event, or one order to look at. What a failure interrupted is done again."""
        try:
            with self._turn:
                if isinstance(item, str):
                    self._clerk.advance(item)
                else:
                    self._clerk.hear(item, again=tries > 0)
        except Exception as err:
            if isinstance(err, StoreFull) or tries < MAX_TRIES:
                self._inbox.appendleft((item, tries + 1))
            raise

    def _queue_due(self) -> None:
        """Orders whose time has come are looked at; those that were only listened to, closed."""
        now = self._steady()
        with self._turn:
            for live in [one for one in self._clerk.live.values()
                         if one.due_at is not None and one.due_at <= now]:
                live.due_at = None
                if live.ends_at is not None and live.ends_at <= now:
                    live.tell("ended")
                    self._clerk.close(live)
                else:
                    self._inbox.append((live.order_id, 0))

    def _pause_secs(self) -> float | None:
        """Until the next order is due; None without any."""
        with self._turn:
            due = [one.due_at for one in self._clerk.live.values() if one.due_at is not None]
        return max(0.0, min(due) - self._steady()) if due else None

    def _pay(self, order: OrderRow, dealing: Dealing, live: Live) -> None:
        """Hand an accepted order to a buyer."""
        def done(refusal: Refused | None, finished: bool) -> None:
            try:
                with self._turn:
                    self._clerk.paid_or_not(live, refusal, finished)
            finally:
                self._look(order.id)
        self._errands.append(Errand(order, dealing, self._terms_for(order), done))
        for buyer in self._buyers:
            buyer.wake()

    def states(self) -> dict[str, int]:
        """For `status`: how many orders are under way."""
        return {"open": sum(1 for one in list(self._clerk.live.values()) if one.ends_at is None),
                "listening": len(self._clerk.live), "dropped": self._dropped}
