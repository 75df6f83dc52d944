"""SIGKILL of the buyer between any two steps: never pays twice, never loses what it paid for.

Here the kill is an exception that nobody catches, and the start anew a store opened anew: all
memory is gone. `matrix`-marked tests do the same to the real daemon with the real signal.
"""

from __future__ import annotations

import pytest

from pylon.control import client
from pylon.errors import NotRunning, PylonError
from pylon.store import books, orders
from tests.customer.real import CONFIG, Buyer
from tests.fakes.dishonest_provider import DishonestProvider
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

BUYER_POINTS = [f"B{n}" for n in range(1, 11)]
PAYER_POINTS = [f"A{n}" for n in range(1, 7)]


def play(market, dealer, point, nth=1):
    """One paid order with the kill somewhere in it; the ids of what was stored."""
    met = market.survive(lambda: market.submit(max_msats=9000, first=True, sent=False), point, nth)
    for order in orders.latest(market.db, 5):
        market.accept(order.id)
        market.settle()
        met |= market.survive(lambda: dealer.quote(order.id, 2000), point, nth)
        market.clock.secs += 3
        market.reconcile()
        met |= market.survive(lambda: dealer.result(order.id, "Paris"), point, nth)
        market.settle()
    return met


@pytest.mark.parametrize("point", BUYER_POINTS + PAYER_POINTS)
def test_killed_at(market, dealer, point):
    assert play(market, dealer, point), f"{point} was never met"
    if point == "B1":                   # nothing was stored, nothing was sent
        assert not orders.latest(market.db, 5) and market.spent() == 0
        return
    market.clock.secs += 3
    market.reconcile()
    [order] = orders.latest(market.db, 5)
    assert (order.state, order.result) == ("completed", "Paris")
    assert market.spent() == 2000
    assert len(market.paid_invoices()) == 1
    assert market.dealing(order.id, dealer).paid_msats == 2000
    assert books.balance(market.db, "reserved") == 0
    assert sum(books.balances(market.db).values()) == 0


@pytest.mark.parametrize("point", ["A2", "A3", "A4", "A5", "B5", "B6"])
def test_killed_while_paying_with_another_provider_at_hand(market, point):
    """Fate must not make the order fall over to the second provider while the first is paid."""
    one, two = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000)
    one.quote(order, 1000)
    two.quote(order, 2000)
    assert market.survive(lambda: market.wait(6), point)
    market.clock.secs += 3
    market.reconcile()
    assert market.order(order).provider == one.pubkey
    assert (market.order(order).state, market.spent()) == ("paid", 1000)


def test_killed_again_and_again(market, dealer):
    """The same order meets every point in turn, on one life's way."""
    market.survive(lambda: market.submit(max_msats=9000, first=True, sent=False), "B2")
    [order] = orders.latest(market.db, 1)
    for point in ("B3", "B4", "B5", "A2", "A3", "A4", "A5", "A6", "B6", "B7"):
        market.survive(lambda: dealer.quote(order.id, 2000, dealer_invoice(dealer)), point)
        market.clock.secs += 3
        market.reconcile()
    for point in ("B8", "B9", "B10"):
        market.survive(lambda: dealer.result(order.id, "Paris"), point)
    market.settle()
    assert (market.order(order.id).state, market.spent()) == ("completed", 2000)


def dealer_invoice(dealer, kept={}):
    return kept.setdefault(dealer.pubkey, dealer.invoice(2000))


# ---- the real signal ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def relay():
    with LocalRelay() as relay:
        yield relay


@pytest.mark.matrix
@pytest.mark.parametrize("point", BUYER_POINTS + PAYER_POINTS)
@pytest.mark.parametrize("action", ["kill", "raise", "enospc", "eio"])
def test_the_real_daemon(openagents, relay, point, action):
    node = Buyer(openagents, CONFIG.format(relay=relay.url)).init()
    node.start()
    client.call(node.home, "WalletFund", {"amount_msats": 1_000_000}, 15)
    node.stop()
    provider = DishonestProvider(relay.url, openagents)
    try:
        node.start(PYLON_FAILPOINT=f"{point}:{action}")
        try:
            node.buy(provider=provider.npub, timeout_secs=60)
        except (PylonError, NotRunning):
            pass                        # it fell while it was being asked: the store knows
        if action == "kill":
            node.ended()
            node.daemon = None
            node.start()
        found = client.call(node.home, "JobList", {"limit": 5})["orders"]
        assert len(found) == (point != "B1")
        for one in found:
            wait_for(lambda: node.order(one["id"])["ended_at"], 60, "the order's end")
            done = node.order(one["id"])
            assert (done["state"], done["result"]) == ("completed", "Paris"), done
        assert len(provider.did("paid")) == len(found)
        wait_for(lambda: node.run("wallet", "audit", check=False).returncode == 0, 30)
        assert node.balance() == 1_000_000 - 2000 * len(found)
        assert node.stop() == 0
    finally:
        node.stop()
        provider.close()
