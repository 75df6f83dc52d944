"""Orders: what is asked of the market, from the signed event to the stored result.

`Orders` (thread: orders) is driven by what relays bring, by what the payer says, and by deadlines;
it waits on its doorbell and is started and stopped by the daemon. Every event becomes a row, then
`choose.decide` says from the rows alone what is next: so SIGKILL at any instant costs nothing but
time, and `resume` goes on where the rows stand. An order is stored before it is sent and
subscribed to before it is published. It is paid through the payer under its own id as the action
key: never twice, and never a second invoice unless the first has failed for certain.

Kill points: B1 signed, not stored; B2 stored, not sent; B3 and B4 a quote read, and stored
(`notebook`); B5 quote accepted (A1 to A6 inside the payer); B6 the payer has answered, the order
does not know; B7 paid; B8 and B9 a result read, and stored (`notebook`); B10 completed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pylon.customer import choose, draft, replies
from pylon.customer.buyer import Buyer, Errand, Terms
from pylon.customer.choose import Next, Step, View
from pylon.customer.draft import Draft
from pylon.customer.live import Listener, Live
from pylon.customer.notebook import Notebook
from pylon.errors import PylonError, Refused, StoreFull
from pylon.failpoints import hit
from pylon.log import short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.relays.subscription import Subscription
from pylon.role import Role
from pylon.states import OPEN_ORDERS, OrderState, PaymentState
from pylon.store import journal, orders, payments, providers
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
MAX_STEPS = 100                     # of one order in a row; more is a bug, not a life
LATE_SECS = 86400                   # a result that was paid for is listened for so long
DELETION = 5
# Refusals that speak against this one invoice; all others are about our own money.
INVOICE_FAULTS = ("invoice-taken", "invoice-expired", "bad-invoice", "own-invoice", "wrong-hash")


class Pool(Protocol):
    """What is needed of `relays.pool.Pool`."""

    def subscribe(self, sub: Subscription) -> None: ...
    def unsubscribe(self, name: str) -> None: ...
    def usable(self, urls: Sequence[str]) -> list[str]: ...
    def own_urls(self) -> list[str]: ...


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
        self._notebook = Notebook(db, payer.network, own_pubkey)
        self._wall, self._steady = wall, steady
        self._turn = threading.RLock()              # one order at a time; guards all below
        self._live: dict[str, Live] = {}
        self._by_event: dict[str, str] = {}         # our event ids -> order ids
        self._inbox: deque[tuple[Event | str, int]] = deque()   # events and ids of orders to
        #                                             look at, and how often it was tried already
        self._dropped = 0
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
                live = self._reopen(order)
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
            if len(self._live) >= MAX_OPEN:
                raise Refused("too-many-orders", f"{MAX_OPEN} orders are under way already")
            order, event = self._sign(wish, keys, account, scope, targets)
            hit("B1")
            live = self._open(order, keys, {event.id: order.target})
            if listener is not None:
                live.listeners.append(listener)
            try:
                orders.submit(self._db, order, event, order.created_at)
            except PylonError:
                self._close(live)
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
            order = self._known(order_id)
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
            order = self._known(order_id)
            if order.state in (S.ACCEPTED, S.PAID):
                raise Refused("being-paid", "a payment for it is under way; it goes on")
            if order.state not in OPEN_ORDERS:
                raise Refused("not-open", f"the order is {order.state} already")
            now = int(self._wall())
            orders.cancel(self._db, order, self._deletion(order, now), now)
            live = self._live.get(order_id)
            if live is not None:
                live.tell("cancelled")
                self._close(live)
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
            order = self._known(order_id)
            live = self._live.get(order_id)
            if live is None and fetch_secs > 0 and order.state in (S.FAILED, S.EXPIRED):
                live = self._reopen(order)
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
            live = self._live.get(order_id)
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
        return self._known(order_id)

    def _known(self, order_id: str) -> OrderRow:
        order = orders.get(self._db, order_id)
        if order is None:
            raise Refused("unknown-order", f"there is no order {order_id[:16]}")
        return order

    # ---- what wakes an order --------------------------------------------------------------------

    def published(self, event_ids: Iterable[str]) -> None:
        """Relays have accepted these events; some may be ours. Any thread."""
        for event_id in event_ids:
            order_id = self._by_event.get(event_id)
            if order_id is not None:
                self._look(order_id)

    def payment_decided(self, action_key: str) -> None:
        """The payer or its reconciler knows how a payment ended. Any thread."""
        self._look(action_key)

    def _look(self, order_id: str) -> None:
        self._inbox.append((order_id, 0))
        self.wake()

    def _wanted(self, event: Event) -> bool:
        """Cheap, unverified: does it name one of our events?"""
        return replies.order_event(event, self._by_event) is not None

    def _on_events(self, relay: str, events: list[Event]) -> None:
        """On a relay's thread."""
        if len(self._inbox) + len(events) > MAX_INBOX:
            self._dropped += len(events)
            log.warning("orders: %d answers dropped, too many at once", self._dropped)
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
                    self._advance(item)
                else:
                    self._hear(item, again=tries > 0)
        except Exception as err:
            if isinstance(err, StoreFull) or tries < MAX_TRIES:
                self._inbox.appendleft((item, tries + 1))
            raise

    def _queue_due(self) -> None:
        """Orders whose time has come are looked at; those that were only listened to, closed."""
        now = self._steady()
        with self._turn:
            for live in [one for one in self._live.values()
                         if one.due_at is not None and one.due_at <= now]:
                live.due_at = None
                if live.ends_at is not None and live.ends_at <= now:
                    live.tell("ended")
                    self._close(live)
                else:
                    self._inbox.append((live.order_id, 0))

    def _pause_secs(self) -> float | None:
        """Until the next order is due; None without any."""
        with self._turn:
            due = [one.due_at for one in self._live.values() if one.due_at is not None]
        return max(0.0, min(due) - self._steady()) if due else None

    def _hear(self, event: Event, again: bool) -> None:
        """A message of a provider: written down, and acted upon."""
        order_id = self._by_event.get(replies.order_event(event, self._by_event) or "")
        live = self._live.get(order_id or "")
        if live is None or not live.may_speak(event.pubkey, event.kind != replies.FEEDBACK):
            return
        if self._notebook.take(live, self._known(live.order_id), event, self._now(live)) or again:
            self._advance(live.order_id)

    # ---- what is done about it ------------------------------------------------------------------

    def _advance(self, order_id: str) -> None:
        """Take every step that the rows allow."""
        live = self._live.get(order_id)
        if live is not None and live.paying:
            return                      # its buyer will report, and then it is looked at again
        for _ in range(MAX_STEPS):
            view = self._view(order_id, live)
            if view is None:
                return
            step = choose.decide(view)
            if live is not None:
                live.due_at = None if step.until is None else \
                    self._steady() + max(0, step.until - view.now)
            if not self._take(view, step, live):
                return
        raise AssertionError(f"order {order_id} does not come to rest")

    def _view(self, order_id: str, live: Live | None) -> View | None:
        order = orders.get(self._db, order_id)
        if order is None:
            return None                 # a payment of something else than an order
        now = self._now(live) if live is not None else int(self._wall())
        dealings = providers.of_order(self._db, order_id)
        payment = payments.by_action(self._db, order_id) if order.tries else None
        chosen = next((d for d in dealings if d.provider == order.provider), None)
        if payment is not None and (chosen is None
                                    or payment.payment_hash != chosen.payment_hash):
            payment = None              # an earlier try, which failed for certain
        if (live is not None and live.retry and payment is not None
                and payment.state == PaymentState.FAILED):
            payment = None              # a crash came between the intent and the wallet's word
        histories = providers.histories(self._db, {d.provider for d in dealings}) \
            if order.state == S.SENT else {}
        reached = order.state != S.NEW or orders.reached_a_relay(self._db, order_id)
        return View(order, dealings, payment.state if payment else None, reached, now, histories)

    def _now(self, live: Live) -> int:
        return int(live.clock + self._steady())

    def _take(self, view: View, step: Step, live: Live | None) -> bool:
        """Do one step; False when there is nothing more to do now."""
        order, dealing, now = view.order, step.dealing, view.now
        if step.what == Next.WAIT:
            if live is not None and live.ends_at is not None:
                live.due_at = live.ends_at
            elif live is not None and order.state not in OPEN_ORDERS:
                self._tell_end(order, live)     # a failure had interrupted it
            return False
        if step.what == Next.ASK_OWNER:
            return self._ask_owner(dealing, live)
        if step.what == Next.SENT:
            with self._db.transaction(durable=False) as tx:
                orders.advance(tx, order.id, S.SENT, now)
                journal.add(tx, "OrderSent", order.id, {}, now)
            self._say(live, "sent")
            return True
        if step.what == Next.ASK_NEXT:
            return self._ask_next(order, live, now)
        if step.what == Next.PAY:
            return self._pay(order, dealing, live)
        assert dealing is not None or step.what in (Next.FAIL, Next.EXPIRE)
        if step.what == Next.STRIKE and dealing is not None:
            with self._db.transaction(durable=False) as tx:
                providers.strike(tx, order.id, dealing.provider, step.code, step.reason, now)
            self._say(live, "refused", provider=dealing.provider, code=step.code,
                      reason=step.reason)
        elif step.what == Next.ACCEPT and dealing is not None:
            orders.accept(self._db, order, dealing, step.reason, now)
            hit("B5")
            self._say(live, "accepted", provider=dealing.provider,
                      amount_msats=dealing.amount_msats, why=step.reason)
        elif step.what == Next.FALL_BACK:
            orders.fall_back(self._db, order, step.code, step.reason, now)
            self._say(live, "payment-failed", provider=order.provider, reason=step.reason)
        elif step.what == Next.PAID:
            return self._paid(order, live, now)
        elif step.what == Next.DELIVER and dealing is not None:
            return self._deliver(order, dealing, live, now)
        else:
            return self._end(order, step, live, now)
        return True

    def _say(self, live: Live | None, event: str, **facts: Any) -> None:
        if live is not None:
            live.tell(event, **facts)

    def _ask_owner(self, dealing: Dealing | None, live: Live | None) -> bool:
        if live is not None and dealing is not None and not live.asked_owner:
            live.asked_owner = True
            live.tell("payment-required", provider=dealing.provider,
                      amount_msats=dealing.amount_msats, bolt11=dealing.bolt11,
                      expires_at=dealing.expires_at)
        return False

    def _ask_next(self, order: OrderRow, live: Live | None, now: int) -> bool:
        """The same order for the next provider, under an event of its own."""
        if live is None or live.keys is None:
            return self._end(order, Step(Next.FAIL, code="no-keys", reason="the keys that signed "
                                         "it are not there"), live, now)
        _, event = draft.with_event(order, live.keys, order.targets[0], now)
        live.asked[event.id] = order.targets[0]
        self._by_event[event.id] = order.id
        self._subscribe(order, live)
        orders.ask_next(self._db, order, event, now)
        self._ring()
        live.tell("asked-next", provider=order.targets[0])
        return True

    def _pay(self, order: OrderRow, dealing: Dealing | None, live: Live | None) -> bool:
        """Hand the order to a buyer; nothing else happens to it until he reports."""
        if live is None or dealing is None:
            raise AssertionError(f"order {order.id} is accepted, and nobody holds it")
        live.paying, live.retry = True, False
        live.tell("paying", provider=dealing.provider, amount_msats=dealing.amount_msats)

        def done(refusal: Refused | None, finished: bool) -> None:
            try:
                with self._turn:
                    live.paying, live.retry = False, not finished
                    if refusal is not None:
                        self._not_paid(order.id, live, refusal)
            finally:
                self._look(order.id)
        self._errands.append(Errand(order, dealing, self._terms_for(order), done))
        for buyer in self._buyers:
            buyer.wake()
        return False

    def _not_paid(self, order_id: str, live: Live, refusal: Refused) -> None:
        """Refused before anything was reserved: another provider may do where the invoice was
        at fault; where it is about our own money, none would."""
        order = self._known(order_id)
        if order.state != S.ACCEPTED:
            return
        now = self._now(live)
        if refusal.code in INVOICE_FAULTS:
            orders.fall_back(self._db, order, refusal.code, str(refusal), now)
            live.tell("payment-failed", provider=order.provider, reason=str(refusal))
        else:
            self._end(order, Step(Next.FAIL, code=refusal.code, reason=str(refusal)), live, now)

    def _paid(self, order: OrderRow, live: Live | None, now: int) -> bool:
        row = payments.by_action(self._db, order.id)
        if row is None or row.state != PaymentState.SUCCEEDED:
            raise AssertionError(f"order {order.id} is called paid, and its payment is not")
        orders.paid(self._db, order, row.amount_msats, row.fee_msats or 0, now)
        hit("B7")
        self._say(live, "paid", provider=order.provider, amount_msats=row.amount_msats,
                  fee_msats=row.fee_msats)
        return True

    def _deliver(self, order: OrderRow, dealing: Dealing, live: Live | None, now: int) -> bool:
        orders.complete(self._db, order, dealing, now)
        hit("B10")
        log.info("order %s: completed by %s, %d characters", short(order.id),
                 short(dealing.provider), len(dealing.result or ""))
        if live is not None:
            self._tell_end(self._known(order.id), live)
        return order.state == S.ACCEPTED        # its payment may have been decided meanwhile

    def _end(self, order: OrderRow, step: Step, live: Live | None, now: int) -> bool:
        state = S.EXPIRED if step.what == Next.EXPIRE else S.FAILED
        orders.end(self._db, order, state, step.code, step.reason, now)
        level = logging.WARNING if order.state == S.PAID else logging.INFO
        log.log(level, "order %s: %s: %s (%s)", short(order.id), state, step.reason, step.code)
        if live is not None:
            self._tell_end(self._known(order.id), live, order.state == S.PAID)
        return False

    def _tell_end(self, order: OrderRow, live: Live, owes_us: bool = False) -> None:
        """Everybody who waits hears how it ended; a result that was paid for may still come."""
        if order.state == S.COMPLETED:
            live.tell("completed", provider=order.provider, result=order.result)
        else:
            live.tell(order.state.value, code=order.code, reason=order.error_message)
        if owes_us:
            live.ends_at = live.due_at = self._steady() + LATE_SECS
        else:
            self._close(live)

    # ---- listening ------------------------------------------------------------------------------

    def _reopen(self, order: OrderRow) -> Live:
        """Listen (again) for an order that is stored."""
        live = self._live.get(order.id)
        if live is not None:
            return live
        return self._open(order, self._keys_for(order), orders.asked(self._db, order.id))

    def _open(self, order: OrderRow, keys: Keys | None, asked: dict[str, str | None]) -> Live:
        live = Live(order.id, keys, asked, max(self._wall(), order.updated_at) - self._steady())
        self._live[order.id] = live
        for event_id in asked:
            self._by_event[event_id] = order.id
        self._subscribe(order, live)
        return live

    def _subscribe(self, order: OrderRow, live: Live) -> None:
        """By our events' ids alone: some providers name no `p`, some have clocks that are slow."""
        self._pool.subscribe(Subscription(
            name=f"order-{order.id[:16]}",
            filters=[{"kinds": [replies.FEEDBACK, order.kind + 1000], "#e": list(live.asked)}],
            on_events=self._on_events, wanted=self._wanted, relays=order.relays or None))

    def _close(self, live: Live) -> None:
        self._live.pop(live.order_id, None)
        for event_id in live.asked:
            self._by_event.pop(event_id, None)
        self._pool.unsubscribe(f"order-{live.order_id[:16]}")

    def states(self) -> dict[str, int]:
        """For `status`: how many orders are under way."""
        return {"open": sum(1 for one in list(self._live.values()) if one.ends_at is None),
                "listening": len(self._live), "dropped": self._dropped}
