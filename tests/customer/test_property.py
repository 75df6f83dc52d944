"""Whatever providers, wallet, time and crashes do: an order pays at most once, within its limit,
and ends. And `decide`, given any rows, never asks for a payment that must not be made."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pylon.customer import choose
from pylon.customer.choose import Next, View
from pylon.customer.draft import POLICIES
from pylon.errors import Refused, WalletUnreachable
from pylon.home import Home
from pylon.states import OPEN_ORDERS, ORDER_EDGES, OrderState, PaymentState
from pylon.store import books
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing, History
from pylon.wallets import bolt11
from tests.customer.conftest import Market

POINTS = [f"B{n}" for n in range(2, 11)] + [f"A{n}" for n in range(1, 7)]
DEALERS = 3

dealer = st.integers(0, DEALERS - 1)
moves = st.one_of(
    st.tuples(st.just("quote"), dealer, st.sampled_from([500, 1000, 2000, 5000, 50_000]),
              st.sampled_from(["", "", "", "tag", "mainnet", "short", "same", "held"])),
    st.tuples(st.just("offer"), dealer), st.tuples(st.just("partial"), dealer),
    st.tuples(st.just("error"), dealer), st.tuples(st.just("result"), dealer),
    st.tuples(st.just("empty"), dealer), st.tuples(st.just("priced result"), dealer),
    st.tuples(st.just("wait"), st.sampled_from([1, 6, 40, 130])),
    st.tuples(st.just("wallet"), st.sampled_from(["well", "silent", "lost", "broken"])),
    st.tuples(st.just("crash")), st.tuples(st.just("reconcile")),
    st.tuples(st.just("strike"), st.sampled_from(POINTS), st.integers(1, 2)),
    st.tuples(st.just("allow"), st.sampled_from([1000, 4000])), st.tuples(st.just("cancel")))


class Story:
    """One order, and everything that happens to it."""

    def __init__(self, place: Path, wish: dict) -> None:
        home = Home(place / "pylon")
        home.create()
        self.market = Market(home, place)
        self.dealers = [self.market.dealer() for _ in range(DEALERS)]
        self.well = {name: getattr(self.market.wallet, name) for name in ("pay", "lookup_payment")}
        self.point: tuple[str, int] | None = None
        self.order = self.market.submit(**wish)
        self.allowed = self.market.order(self.order).limit_msats
        self.reused = self.dealers[0].invoice(1000)

    def play(self, move: tuple) -> None:
        act = getattr(self, "_" + move[0].replace(" ", "_"))
        if self.point is None or move[0] == "strike":
            act(*move[1:])
        else:
            point, nth = self.point
            self.point = None
            self.market.survive(lambda: act(*move[1:]), point, nth)

    def _quote(self, who: int, msats: int, lie: str) -> None:
        one, options = self.dealers[who], {}
        if lie == "tag":
            options["tag"] = msats // 2
        elif lie == "mainnet":
            options["bolt11"] = bolt11.encode(
                "mainnet", msats, "22" * 32, "x", b"\x01" * 32, "11" * 32,
                self.market.clock.now())
        elif lie == "short":
            options["bolt11"] = one.invoice(msats, secs=20)
        elif lie == "same":
            msats, options["bolt11"] = 1000, self.reused
        elif lie == "held":
            options["bolt11"] = one.invoice(msats, f"{len(self.market.stored):064x}")
        one.quote(self.order, msats, **options)

    def _offer(self, who: int) -> None:
        self.dealers[who].feedback(self.order, "processing")

    def _partial(self, who: int) -> None:
        self.dealers[who].feedback(self.order, "partial", content="so far")

    def _error(self, who: int) -> None:
        self.dealers[who].feedback(self.order, "error", "broken")

    def _result(self, who: int) -> None:
        self.dealers[who].result(self.order, f"by {who}")

    def _empty(self, who: int) -> None:
        self.dealers[who].result(self.order, " ")

    def _priced_result(self, who: int) -> None:
        one = self.dealers[who]
        one.result(self.order, f"by {who}, for money", 2000, one.invoice(2000))

    def _wait(self, secs: int) -> None:
        self.market.wait(secs)

    def _wallet(self, mood: str) -> None:
        def silent(*args):
            raise WalletUnreachable("no answer")

        def lost(*args):
            self.well["pay"](*args)
            raise WalletUnreachable("no answer")
        wallet = self.market.wallet
        wallet.pay = {"well": self.well["pay"], "lost": lost}.get(mood, silent)
        wallet.lookup_payment = self.well["lookup_payment"] if mood != "broken" else silent

    def _crash(self) -> None:
        self.market.crash()

    def _reconcile(self) -> None:
        self.market.reconcile()

    def _strike(self, point: str, nth: int) -> None:
        self.point = (point, nth)

    def _allow(self, msats: int) -> None:
        order = self.market.order(self.order)
        try:
            self.market.orders.authorise(self.order, msats)
        except Refused:
            return
        bid = order.bid_msats
        self.allowed = max(self.allowed, msats if bid is None else min(bid, msats))
        self.market.settle()

    def _cancel(self) -> None:
        try:
            self.market.orders.cancel(self.order)
        except Refused:
            return

    # -- what must hold --

    def check(self) -> None:
        market = self.market
        sent = [m for m in market.wallet.history() if not m.incoming and m.payment_hash]
        assert len(sent) <= 1, "paid twice"
        assert sum(m.amount_msats for m in sent) <= self.allowed, "paid too much"
        order = market.order(self.order)
        if order.state == OrderState.CANCELLED:
            assert not sent
        if sent and order.state in (OrderState.PAID, OrderState.COMPLETED):
            quotes = [d.payment_hash for d in (market.dealing(self.order, one)
                                               for one in self.dealers) if d]
            assert sent[0].payment_hash in quotes
        if order.state == OrderState.COMPLETED:
            assert order.result and order.result.startswith("by ")
        assert sum(books.balances(market.db).values()) == 0

    def end(self) -> None:
        """Everything heals: then the order ends and nothing stays reserved."""
        market = self.market
        if self.point:
            self.point = None
            market.crash()
        self._wallet("well")
        for _ in range(3):
            market.clock.secs += 700
            market.reconcile()
            market.wait(130)
        assert market.order(self.order).state not in OPEN_ORDERS
        assert books.balance(market.db, "reserved") == 0
        booked = -books.balance(market.db, "owner") if market.payment(self.order) else 0
        assert market.wallet.balance() == 1_000_000 - market.spent()
        assert booked <= self.allowed
        self.check()


wishes = st.fixed_dictionaries({
    "max_msats": st.sampled_from([0, 1500, 4000]), "policy": st.sampled_from(POLICIES),
    "first": st.booleans()}, optional={"bid_msats": st.sampled_from([1000, 3000])})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(wish=wishes, story=st.lists(moves, max_size=14))
def test_any_story_pays_at_most_once_and_ends(wish, story):
    place = Path(tempfile.mkdtemp(prefix="py", dir="/tmp"))
    told = Story(place, wish)
    try:
        for move in story:
            told.play(move)
            told.check()
        told.end()
    finally:
        told.market.close()
        shutil.rmtree(place, ignore_errors=True)


# ---- decide, on any rows ------------------------------------------------------------------------

maybe_time = st.one_of(st.none(), st.integers(0, 400))
dealings = st.builds(
    Dealing, order_id=st.just("o"), provider=st.sampled_from("abcd"), source=st.just("relay"),
    asked_at=st.integers(0, 300), last_at=st.integers(0, 300), offered_at=maybe_time,
    quoted_at=maybe_time, quote_event_id=st.sampled_from([None, "q", "r"]),
    amount_msats=st.sampled_from([None, 0, 1000, 9000]),
    bolt11=st.sampled_from([None, "lnbcrt1"]), payment_hash=st.sampled_from([None, "h"]),
    expires_at=maybe_time, paid_at=maybe_time, paid_msats=st.none(), delivered_at=maybe_time,
    result=st.sampled_from([None, "x"]), result_event_id=st.sampled_from([None, "r"]),
    ended_at=maybe_time, code=st.sampled_from([None, "provider-error", "silent", "amount-too-large",
                                               "not-delivered"]), reason=st.none())
order_rows = st.builds(
    OrderRow, id=st.just("o"), kind=st.just(5050), pubkey=st.just("me"), account=st.just("owner"),
    state=st.sampled_from(OrderState), prompt=st.just("p"), model=st.none(),
    details=st.just({}), encryption=st.just(""), target=st.sampled_from([None, "a"]),
    targets=st.sampled_from([[], ["b"]]), relays=st.just([]), policy=st.sampled_from(POLICIES),
    bid_msats=st.sampled_from([None, 0, 5000]), max_msats=st.sampled_from([0, 2000, 20_000]),
    first=st.booleans(), quote_secs=st.just(5), timeout_secs=st.just(120),
    quote_until=st.just(5), deadline_at=st.integers(5, 300),
    provider=st.sampled_from([None, "a", "b"]), tries=st.integers(0, 2), result=st.none(),
    result_event_id=st.none(), code=st.none(), error_message=st.none(), created_at=st.just(0),
    updated_at=st.just(0), ended_at=maybe_time)
views = st.builds(
    View, order=order_rows, dealings=st.lists(dealings, max_size=4, unique_by=lambda d: d.provider),
    payment=st.one_of(st.none(), st.sampled_from(PaymentState)), reached=st.booleans(),
    now=st.integers(0, 400),
    histories=st.dictionaries(st.sampled_from("abcd"), st.builds(
        History, pubkey=st.just("a"), delivered=st.integers(0, 30), failed=st.integers(0, 3),
        undelivered=st.integers(0, 2), mean_secs=st.one_of(st.none(), st.floats(0, 100))),
        max_size=4))

LEADS_TO = {Next.SENT: OrderState.SENT, Next.ACCEPT: OrderState.ACCEPTED,
            Next.FALL_BACK: OrderState.SENT, Next.DELIVER: OrderState.COMPLETED,
            Next.FAIL: OrderState.FAILED, Next.EXPIRE: OrderState.EXPIRED}


@settings(max_examples=1000, deadline=None)
@given(view=views)
def test_decide_keeps_every_rule_on_any_rows(view):
    order = view.order
    if order.state in (OrderState.ACCEPTED, OrderState.PAID) and view.chosen is None:
        return                          # the store has no such rows
    step = choose.decide(view)
    if step.what == Next.PAY:
        assert order.state == OrderState.ACCEPTED and view.payment is None
        assert step.dealing is view.chosen and step.dealing.code is None
        assert step.dealing.expires_at > view.now < order.deadline_at
    if step.what == Next.ACCEPT:
        one = step.dealing
        assert order.state == OrderState.SENT and one.code is None and one.priced
        assert 0 < one.amount_msats <= order.limit_msats and one.expires_at > view.now
        assert order.policy != "free" and view.now < order.deadline_at
    if step.what == Next.DELIVER:
        assert step.dealing.result is not None
    if step.what in LEADS_TO:
        assert LEADS_TO[step.what] in ORDER_EDGES[order.state]
    if step.what == Next.WAIT and step.until is not None:
        assert step.until > view.now
    if view.payment in (PaymentState.RESERVED, PaymentState.SENT, PaymentState.UNKNOWN) \
            and order.state == OrderState.ACCEPTED:
        assert step.what in (Next.WAIT, Next.DELIVER)
