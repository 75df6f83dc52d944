"""What is to be done next about an order: one pure function over all that is stored about it.

`decide` is asked again after every event, at every `until`, and after a restart; it looks only at
rows, so that SIGKILL at any instant changes nothing about its answer. Money moves by one answer
only, PAY, and only in ACCEPTED, where the store holds which single quote was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pylon.customer import score
from pylon.states import OPEN_ORDERS, OrderState, PaymentState
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing, History
from pylon.units import format_sats

S, P = OrderState, PaymentState

PAY_MARGIN_SECS = 20                # an invoice that ends sooner is not paid any more
OFFER_PATIENCE_SECS = 30            # silence after which a free provider is not waited for
LATE_IS_FINE = (None, "silent", "not-delivered")    # a struck provider that may still deliver


class Next(Enum):
    """What to do; see `Step`."""

    WAIT = "wait"                   # for an event, or until `until`
    SENT = "sent"                   # a relay has it
    STRIKE = "strike"               # the provider is out, with code and reason
    ASK_NEXT = "ask-next"           # send it to the next of `targets`
    ASK_OWNER = "ask-owner"         # a price stands, and nobody allowed to pay it; then wait
    ACCEPT = "accept"               # choose this quote; it will be paid
    PAY = "pay"                     # the payment itself (again after a restart: same action key)
    FALL_BACK = "fall-back"         # the payment failed for certain
    PAID = "paid"                   # the wallet says so
    DELIVER = "deliver"             # this provider's result is the order's
    FAIL = "fail"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Step:
    what: Next
    dealing: Dealing | None = None
    code: str = ""
    reason: str = ""
    until: int | None = None        # None: only an event helps


@dataclass(frozen=True, slots=True)
class View:
    """All that is known about one order. `payment`: the newest intent under its action key."""

    order: OrderRow
    dealings: list[Dealing]
    payment: PaymentState | None
    reached: bool                   # some relay has accepted one of its events
    now: int
    histories: dict[str, History] = field(default_factory=dict)

    def history(self, dealing: Dealing) -> History:
        return self.histories.get(dealing.provider) or History(dealing.provider)

    @property
    def chosen(self) -> Dealing | None:
        return next((d for d in self.dealings if d.provider == self.order.provider), None)


def decide(view: View) -> Step:
    """The next step; WAIT when there is none."""
    state = view.order.state
    if state == S.NEW:
        return _unsent(view)
    if state == S.SENT:
        return _choosing(view)
    if state == S.ACCEPTED:
        return _paying(view)
    if state == S.PAID:
        return _waiting_for_what_was_paid(view)
    if state in (S.FAILED, S.EXPIRED):
        return _late(view)
    if state == S.COMPLETED and view.payment == P.SUCCEEDED and view.chosen is not None \
            and view.chosen.paid_at is None:
        return Step(Next.PAID, view.chosen)     # held money that was taken after the delivery
    return Step(Next.WAIT)


def _unsent(view: View) -> Step:
    if view.reached or any(d.last_at > d.asked_at or d.offered_at or d.quoted_at or d.delivered_at
                           for d in view.dealings):
        return Step(Next.SENT)
    if view.now >= view.order.deadline_at:
        return Step(Next.FAIL, code="no-relay", reason="no relay accepted the order in time")
    return Step(Next.WAIT, until=view.order.deadline_at)


# ---- before money -------------------------------------------------------------------------------

def _choosing(view: View) -> Step:
    order, now = view.order, view.now
    for dealing in view.dealings:
        if (dealing.code is None and dealing.priced and not in_hand(dealing)
                and _ends(dealing) <= now):
            return Step(Next.STRIKE, dealing, "invoice-expired", "its invoice has expired")
    if now >= order.deadline_at:
        return _too_late(view)
    if not order.target and not order.first and now < order.quote_until:
        return Step(Next.WAIT, until=min(order.quote_until, order.deadline_at))
    best = rank(view)
    if best:
        dealing, why = best[0]
        if in_hand(dealing):
            return Step(Next.DELIVER, dealing, reason=why)
        if dealing.priced:
            return Step(Next.ACCEPT, dealing, reason=why)
        return Step(Next.WAIT, dealing, reason=why, until=min(_patience(dealing), _ends_of(view)))
    return _nobody(view)


def in_hand(dealing: Dealing) -> bool:
    """A result that nobody is to be paid for any more: free, or sent by a provider that had
    asked for money before and now has what it wanted (paid by hand, or generous). A price that
    came with the result itself is still to be paid."""
    return dealing.result is not None and (not dealing.priced or dealing.paid_at is not None
                                           or dealing.quote_event_id != dealing.result_event_id)


def rank(view: View) -> list[tuple[Dealing, str]]:
    """Who may serve the order without asking its owner, best first, each with the reason."""
    order = view.order
    fit = [d for d in view.dealings if _fits(view, d)]
    if order.first:
        fit.sort(key=lambda d: d.delivered_at or d.quoted_at or d.offered_at or d.asked_at)
        return [(d, "the first that was good") for d in fit]
    keys = {
        "free": lambda d: (not in_hand(d), -score.reliability(view.history(d))),
        "cheap": lambda d: (d.amount_msats or 0, not in_hand(d),
                            -score.reliability(view.history(d))),
        "fast": lambda d: (not in_hand(d), score.expected_secs(view.history(d)),
                           d.amount_msats or 0),
        "trusted": lambda d: (not in_hand(d), -score.reliability(view.history(d)),
                              d.amount_msats or 0),
    }
    fit.sort(key=keys[order.policy])
    return [(d, _why(view, d, len(fit))) for d in fit]


def _fits(view: View, dealing: Dealing) -> bool:
    order, history = view.order, view.history(dealing)
    targeted = order.target == dealing.provider
    if in_hand(dealing):
        if dealing.code not in LATE_IS_FINE:
            return False
    elif dealing.code is not None:
        return False
    elif dealing.priced:
        if order.policy == "free" or not 0 < (dealing.amount_msats or 0) <= order.limit_msats:
            return False
        if score.avoided(history) and not targeted:
            return False
    elif dealing.offered_at is None or _patience(dealing) <= view.now:
        return False
    return targeted or order.policy != "trusted" or trusted(history)


def trusted(history: History) -> bool:
    """It has delivered to us before, and does not stand in our debt."""
    return history.delivered > 0 and not score.avoided(history)


def _why(view: View, dealing: Dealing, others: int) -> str:
    if view.order.target == dealing.provider:
        return "the provider that was asked"
    price = format_sats(dealing.amount_msats or 0) if dealing.priced else "free"
    history = view.history(dealing)
    return (f"{view.order.policy}: best of {others}; {price}, "
            f"reliability {score.reliability(history):.2f}, "
            f"expected in {score.expected_secs(history):.0f} s")


def _patience(dealing: Dealing) -> int:
    return dealing.last_at + OFFER_PATIENCE_SECS


def _ends(dealing: Dealing) -> int:
    """When the quote can't be paid any more."""
    return (dealing.expires_at or 0) - PAY_MARGIN_SECS


def _ends_of(view: View) -> int:
    """The nearest moment at which something about the candidates changes by itself."""
    standing = [d for d in view.dealings if d.code is None]
    moments = [_ends(d) if d.priced else _patience(d) for d in standing]
    return min([view.order.deadline_at, *(at for at in moments if at > view.now)])


def _nobody(view: View) -> Step:
    """Nobody fits now: ask the next target, ask the owner, give up early, or wait."""
    order = view.order
    asked = next((d for d in view.dealings if d.provider == order.target), None)
    if asked is not None and order.target is not None:
        silent_at = asked.asked_at + order.quote_secs
        spoke = bool(asked.offered_at or asked.quoted_at or asked.result)
        if asked.code is not None:
            return Step(Next.ASK_NEXT) if order.targets else \
                Step(Next.FAIL, code=asked.code, reason=asked.reason or asked.code)
        if order.targets and not _waits_for_owner(view):
            if view.now >= (_patience(asked) if spoke else silent_at):
                return Step(Next.STRIKE, asked, "silent", "it did not answer in time")
            return Step(Next.WAIT, until=min(_patience(asked) if spoke else silent_at,
                                             _ends_of(view)))
    if _waits_for_owner(view):
        return Step(Next.ASK_OWNER, _waits_for_owner(view), until=_ends_of(view))
    return Step(Next.WAIT, until=_ends_of(view))


def _waits_for_owner(view: View) -> Dealing | None:
    """The cheapest standing quote, where the owner has allowed no payment."""
    if view.order.max_msats or view.order.policy == "free":
        return None
    standing = [d for d in view.dealings if d.code is None and d.priced]
    return min(standing, key=lambda d: d.amount_msats or 0, default=None)


def _too_late(view: View) -> Step:
    if _waits_for_owner(view):
        return Step(Next.EXPIRE, code="not-authorised",
                    reason="nobody allowed the payment that was asked for")
    struck = {d.code: d.reason or "" for d in view.dealings if d.code}
    for code in ("payment-failed", "amount-too-large"):
        if code in struck:
            return Step(Next.EXPIRE, code=code, reason=struck[code])
    if any(d.offered_at or d.quoted_at for d in view.dealings):
        return Step(Next.EXPIRE, code="no-result", reason="no result came in time")
    for code, reason in struck.items():
        return Step(Next.EXPIRE, code=code, reason=reason)
    return Step(Next.EXPIRE, code="no-answer", reason="no provider answered in time")


# ---- with money ---------------------------------------------------------------------------------

def _paying(view: View) -> Step:
    """ACCEPTED: only the payment's own record moves it; the deadline does not."""
    chosen, payment = view.chosen, view.payment
    if chosen is None:
        raise AssertionError(f"order {view.order.id} is accepted, and nobody was chosen")
    if payment is None:
        if chosen.code is not None:
            return Step(Next.FALL_BACK, chosen, chosen.code, chosen.reason or "")
        if view.now >= _ends(chosen):
            return Step(Next.FALL_BACK, chosen, "invoice-expired", "its invoice has expired")
        if view.now >= view.order.deadline_at:
            return Step(Next.FALL_BACK, chosen, "timeout", "the order's time was over")
        return Step(Next.PAY, chosen)
    if payment == P.FAILED:
        return Step(Next.FALL_BACK, chosen, "payment-failed", "the payment failed")
    if payment == P.SUCCEEDED:
        return Step(Next.PAID, chosen)
    if chosen.result is not None:                   # held money: the result came first
        return Step(Next.DELIVER, chosen)
    return Step(Next.WAIT)


def _waiting_for_what_was_paid(view: View) -> Step:
    order, chosen = view.order, view.chosen
    if chosen is None:
        raise AssertionError(f"order {order.id} is paid, and nobody was chosen")
    if chosen.result is not None:
        return Step(Next.DELIVER, chosen)
    if chosen.code == "provider-error":
        return Step(Next.FAIL, chosen, "not-delivered",
                    f"it was paid, and the provider says: {chosen.reason}")
    ends = max(order.deadline_at, (chosen.paid_at or view.now) + order.timeout_secs)
    if view.now >= ends:
        return Step(Next.EXPIRE, chosen, "not-delivered", "it was paid, and no result came")
    return Step(Next.WAIT, until=ends)


def _late(view: View) -> Step:
    """A result after the end counts when it comes from somebody we had dealt with before it.
    Nothing is paid any more."""
    for dealing in view.dealings:
        if (dealing.result is not None and dealing.code in (*LATE_IS_FINE, "provider-error")
                and dealing.asked_at <= (view.order.ended_at or 0)
                and in_hand(dealing)):
            return Step(Next.DELIVER, dealing)
    return Step(Next.WAIT)


def is_open(order: OrderRow) -> bool:
    return order.state in OPEN_ORDERS
