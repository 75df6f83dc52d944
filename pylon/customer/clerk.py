"""The clerk: hears what providers say of an order, and does what `choose` says is next.

No thread of its own: everything here runs in the turn of `Orders`, one order at a time. Each step
is one transaction and then a word to whoever listens; `SIGKILL` between any two is met again by
`choose`, from the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pylon.customer import choose, draft, replies
from pylon.customer.choose import Next, Step, View
from pylon.customer.live import Live
from pylon.customer.notebook import Notebook
from pylon.errors import Refused
from pylon.failpoints import hit
from pylon.log import short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.relays.subscription import Subscription
from pylon.states import OPEN_ORDERS, OrderState, PaymentState
from pylon.store import journal, orders, payments, providers
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing

log = logging.getLogger(__name__)

S = OrderState
MAX_STEPS = 100                     # of one order in a row; more is a bug, not a life
LATE_SECS = 86400                   # a result that was paid for is listened for so long
# Refusals that speak against this one invoice; all others are about our own money.
INVOICE_FAULTS = ("invoice-taken", "invoice-expired", "bad-invoice", "own-invoice", "wrong-hash")


class Pool(Protocol):
    """What is needed of `relays.pool.Pool`."""

    def subscribe(self, sub: Subscription) -> None: ...
    def unsubscribe(self, name: str) -> None: ...
    def usable(self, urls: Sequence[str]) -> list[str]: ...
    def own_urls(self) -> list[str]: ...


class Clerk:
    """Orders under way: `live` by order id, `by_event` from our events' ids to it.

    `pay(order, dealing, live)` hands an accepted order to a buyer; `on_events` is where relays
    bring what they hear; `ring` rings the publisher.
    """

    def __init__(self, db: Database, pool: Pool, notebook: Notebook, *,
                 pay: Callable[[OrderRow, Dealing, Live], None],
                 on_events: Callable[[str, list[Event]], None], ring: Callable[[], None],
                 wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._db, self._pool, self._notebook = db, pool, notebook
        self._hand_over, self._on_events, self._ring = pay, on_events, ring
        self._wall, self._steady = wall, steady
        self.live: dict[str, Live] = {}
        self.by_event: dict[str, str] = {}

    def known(self, order_id: str) -> OrderRow:
        """An order's row. Raises Refused."""
        order = orders.get(self._db, order_id)
        if order is None:
            raise Refused("unknown-order", f"there is no order {order_id[:16]}")
        return order

    # ---- what providers say ---------------------------------------------------------------------

    def wanted(self, event: Event) -> bool:
        """Cheap, unverified: does it name one of our events?"""
        return replies.order_event(event, self.by_event) is not None

    def admits(self, event: Event) -> bool:
        """Whether a verified event is worth a place in the inbox; on a relay's thread."""
        live = self._concerned(event)
        return live is not None and live.may_speak(event.pubkey, event.kind != replies.FEEDBACK)

    def _concerned(self, event: Event) -> Live | None:
        order_id = self.by_event.get(replies.order_event(event, self.by_event) or "")
        return self.live.get(order_id or "")

    def hear(self, event: Event, again: bool) -> None:
        """A message of a provider: written down, and acted upon."""
        live = self._concerned(event)
        if live is None:
            return
        if self._notebook.take(live, self.known(live.order_id), event, self._now(live)) or again:
            self.advance(live.order_id)

    # ---- what is done about it ------------------------------------------------------------------

    def advance(self, order_id: str) -> None:
        """Take every step that the rows allow."""
        live = self.live.get(order_id)
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
        self.by_event[event.id] = order.id
        self._subscribe(order, live)
        orders.ask_next(self._db, order, event, now)
        self._ring()
        live.tell("asked-next", provider=order.targets[0])
        return True

    def _pay(self, order: OrderRow, dealing: Dealing | None, live: Live | None) -> bool:
        """Hand the order to a buyer; nothing else happens to it until he reports."""
        if live is None or dealing is None:
            raise AssertionError(f"order {order.id} is accepted, and nobody holds it")
        self._hand_over(order, dealing, live)
        live.paying, live.retry = True, False
        live.tell("paying", provider=dealing.provider, amount_msats=dealing.amount_msats)
        return False

    def paid_or_not(self, live: Live, refusal: Refused | None, finished: bool) -> None:
        """The buyer's report; how the payment stands is in the store."""
        live.paying, live.retry = False, not finished
        if refusal is not None:
            self._not_paid(live.order_id, live, refusal)

    def _not_paid(self, order_id: str, live: Live, refusal: Refused) -> None:
        """Refused before anything was reserved: another provider may do where the invoice was
        at fault; where it is about our own money, none would."""
        order = self.known(order_id)
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
            self._tell_end(self.known(order.id), live)
        return order.state == S.ACCEPTED        # its payment may have been decided meanwhile

    def _end(self, order: OrderRow, step: Step, live: Live | None, now: int) -> bool:
        state = S.EXPIRED if step.what == Next.EXPIRE else S.FAILED
        orders.end(self._db, order, state, step.code, step.reason, now)
        level = logging.WARNING if order.state == S.PAID else logging.INFO
        log.log(level, "order %s: %s: %s (%s)", short(order.id), state, step.reason, step.code)
        if live is not None:
            self._tell_end(self.known(order.id), live, order.state == S.PAID)
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
            self.close(live)

    # ---- listening ------------------------------------------------------------------------------

    def reopen(self, order: OrderRow, keys: Keys | None) -> Live:
        """Listen (again) for an order that is stored."""
        live = self.live.get(order.id)
        if live is not None:
            return live
        return self.open(order, keys, orders.asked(self._db, order.id))

    def open(self, order: OrderRow, keys: Keys | None, asked: dict[str, str | None]) -> Live:
        live = Live(order.id, keys, asked, max(self._wall(), order.updated_at) - self._steady(),
                    orders.served_by(self._db))
        self.live[order.id] = live
        for event_id in asked:
            self.by_event[event_id] = order.id
        self._subscribe(order, live)
        return live

    def _subscribe(self, order: OrderRow, live: Live) -> None:
        """By our events' ids alone: some providers name no `p`, some have clocks that are slow."""
        self._pool.subscribe(Subscription(
            name=f"order-{order.id[:16]}",
            filters=[{"kinds": [replies.FEEDBACK, order.kind + 1000], "#e": list(live.asked)}],
            on_events=self._on_events, wanted=self.wanted, relays=order.relays or None))

    def close(self, live: Live) -> None:
        self.live.pop(live.order_id, None)
        for event_id in live.asked:
            self.by_event.pop(event_id, None)
        self._pool.unsubscribe(f"order-{live.order_id[:16]}")
