"""A real daemon, a real relay, and a provider that lies: nothing is paid that should not be.

Each test is one line of RELIABILITY's catalogue or one sin of a provider. The node, its relay and
its ledger are shared; every test has a provider of its own and asks no other.
"""

from __future__ import annotations

import json

import pytest

from tests.customer.real import CONFIG, running
from tests.fakes.dishonest_provider import DishonestProvider
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def relay():
    with LocalRelay() as relay:
        yield relay


@pytest.fixture(scope="module")
def node(relay):
    with running(relay.url) as node:
        yield node


@pytest.fixture
def provider(node, relay, request):
    made = []

    def make(*sins, **options):
        name = f"p{request.node.name[-40:]}{len(made)}"
        made.append(DishonestProvider(relay.url, node.openagents, name, sins=sins, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


# What only shows when the time is over: all at once, each with a provider of its own.
PATIENT = ("foreign_author", "wrong_request", "somebody_elses_quote", "garbage", "empty_result",
           "other_orders_result", "to_somebody_else", "foreign_result", "unsigned_result",
           "lies_about_payment")


@pytest.fixture(scope="module")
def patient(node, relay):
    """sin -> (its provider, the order that was placed with it)"""
    liars = {sin: DishonestProvider(relay.url, node.openagents, f"patient-{sin}", sins=(sin,),
                                    only_by_name=True) for sin in PATIENT}
    placed = {sin: (liar, node.buy(provider=liar.npub, timeout_secs=4))
              for sin, liar in liars.items()}
    yield placed
    for liar in liars.values():
        liar.close()


def refused(order, provider):
    """The code with which a provider of an order was struck out."""
    return next((one["code"] for one in order["providers"] if one["provider"] == provider.npub),
                None)


def test_an_honest_provider_is_paid_and_delivers(node, provider):
    honest = provider()
    before = node.balance()
    order = node.end_of(node.buy(provider=honest.npub, timeout_secs=10))
    assert (order["state"], order["result"]) == ("completed", "Paris")
    assert node.balance() == before - 2000
    assert len(honest.did("paid")) == 1


def test_a_free_provider(node, provider):
    order = node.end_of(node.buy(provider=provider(price_msats=0).npub, timeout_secs=10))
    assert (order["state"], order["payment"]) == ("completed", None)


def test_escrow_holds_until_it_is_delivered(node, provider):
    holder = provider(hold=True)
    order = node.end_of(node.buy(provider=holder.npub, timeout_secs=10))
    assert order["state"] == "completed"
    wait_for(lambda: node.order(order["id"])["payment"]["state"] == "succeeded", 15)


def test_an_encrypted_order_finds_its_provider_by_itself(node, provider):
    seller = provider()
    seller.announce()
    order = node.end_of(node.buy(encrypt=True, timeout_secs=10))
    assert (order["state"], order["provider"]) == ("completed", seller.npub)


@pytest.mark.parametrize("sin, code", [
    ("quotes_huge", "amount-too-large"), ("wrong_amount_in_tag", "wrong-amount"),
    ("one_sat_less_in_invoice", "wrong-amount"), ("wrong_network", "wrong-network"),
    ("expired_invoice", "invoice-expired"), ("no_amount", "no-amount"),
    ("no_invoice", "no-invoice"), ("bad_invoice", "bad-invoice")])
def test_a_quote_that_is_not_as_it_must_be_is_never_paid(node, provider, sin, code):
    liar = provider(sin)
    order = node.end_of(node.buy(provider=liar.npub))
    assert (order["state"], order["code"], order["payment"]) == ("failed", code, None)
    assert refused(order, liar) == code


@pytest.mark.parametrize("sin", ["foreign_author", "wrong_request", "somebody_elses_quote"])
def test_e70_a_quote_of_another_author_or_for_another_order_is_ignored(node, patient, sin):
    liar, order_id = patient[sin]
    order = node.end_of(order_id, 30)
    assert liar.did("quoted")
    assert (order["state"], order["code"], order["payment"]) == ("expired", "no-answer", None)


def test_e70_a_quote_above_the_bid_is_not_paid(node, provider):
    liar = provider(price_msats=3000)
    order = node.end_of(node.buy(provider=liar.npub, bid_msats=2000))
    assert (order["code"], order["payment"]) == ("amount-too-large", None)


def test_a_second_quote_changes_nothing(node, provider):
    twice = provider("quotes_twice")
    order = node.end_of(node.buy(provider=twice.npub, timeout_secs=10))
    assert order["state"] == "completed"
    assert (node.paid(order["id"]), len(twice.did("quoted"))) == (2000, 2)
    assert len(twice.did("paid")) == 1


def test_e71_taking_the_money_and_delivering_nothing(node, provider):
    """Recorded, shown, avoided; and no second payment for the same order."""
    thief, honest = provider("never"), provider(price_msats=5000)
    order = node.end_of(node.buy(provider=thief.npub), 30)
    assert (order["state"], order["code"]) == ("expired", "not-delivered")
    assert node.paid(order["id"]) == 2000
    shown = json.loads(node.run("providers", "--all", "--json").stdout)["providers"]
    facts = next(one for one in shown if one["npub"] == thief.npub)
    assert facts["avoided"] and facts["history"]["lost_msats"] == 2000
    assert "kept 2 sats" in node.run("providers", "--all").stdout
    again = node.end_of(node.buy(first=False, timeout_secs=10))
    assert (again["state"], again["provider"]) == ("completed", honest.npub)
    assert len(thief.did("quoted")) == 2 and len(thief.did("paid")) == 1


@pytest.mark.parametrize("sin, code", [
    ("garbage", "unreadable"), ("empty_result", "empty-result"),
    ("other_orders_result", None), ("to_somebody_else", None), ("foreign_result", None),
    ("unsigned_result", None)])
def test_a_result_that_is_none_is_not_taken(node, patient, sin, code):
    liar, order_id = patient[sin]
    order = node.end_of(order_id, 30)
    assert (order["state"], order["code"]) == ("expired", "not-delivered")
    assert order["result"] is None and node.paid(order["id"]) == 2000
    assert refused(order, liar) in (code, "not-delivered")


def test_a_free_result_that_is_none_costs_nothing(node, provider):
    order = node.end_of(node.buy(provider=provider("empty_result", price_msats=0).npub))
    assert (order["state"], order["code"]) == ("failed", "empty-result")


def test_an_answer_in_clear_to_an_encrypted_order_is_refused(node, provider):
    liar = provider("not_encrypted", price_msats=0)
    order = node.end_of(node.buy(provider=liar.npub, encrypt=True))
    assert (order["state"], order["code"]) == ("failed", "not-encrypted")


def test_an_error_after_the_payment_is_a_debt(node, provider):
    liar = provider("error_after_payment")
    order = node.end_of(node.buy(provider=liar.npub))
    assert (order["state"], order["code"]) == ("failed", "not-delivered")
    assert "it broke" in order["error"]


def test_a_claim_of_success_is_no_result(node, patient):
    order = node.end_of(patient["lies_about_payment"][1], 30)
    assert (order["state"], order["result"]) == ("expired", None)


def test_a_result_after_the_time_is_still_taken_and_nothing_is_paid_again(node, provider):
    late = provider("after_timeout", late_secs=7.0)
    order_id = node.buy(provider=late.npub)
    assert node.end_of(order_id)["state"] == "expired"
    wait_for(lambda: node.order(order_id)["state"] == "completed", 20)
    assert node.paid(order_id) == 2000
    assert node.run("job", "result", order_id[:16]).stdout == "Paris\n"


def test_two_results_of_one_provider_are_one(node, provider):
    order = node.end_of(node.buy(provider=provider("twice").npub, timeout_secs=10))
    assert order["result"] == "Paris"


def test_the_cheapest_of_three_and_the_others_get_nothing(node, provider):
    sellers = [provider(price_msats=msats) for msats in (5000, 3000, 4000)]
    order = node.end_of(node.buy(first=False, policy="cheap", timeout_secs=10))
    assert order["provider"] == sellers[1].npub
    assert [len(one.did("paid")) for one in sellers] == [0, 1, 0]


def test_a_relay_that_drops_the_result(relay, node, provider):
    """Through the other relay it comes all the same; through none it is not paid twice."""
    with LocalRelay(reject={6050: "blocked: no results here"}) as dropping:
        node.configure(CONFIG.format(relay=relay.url).replace(
            "relays = [", f'relays = ["{dropping.url}", '))
        node.run("reload")
        try:
            seller = provider()
            order = node.end_of(node.buy(provider=seller.npub, timeout_secs=10))
            assert order["state"] == "completed"
            deaf = DishonestProvider(dropping.url, node.openagents, "deaf")
            try:
                order = node.end_of(node.buy(provider=deaf.npub), 30)
            finally:
                deaf.close()
            assert (order["state"], order["code"]) == ("expired", "not-delivered")
            assert node.paid(order["id"]) == 2000 and len(deaf.did("paid")) == 1
        finally:
            node.configure(CONFIG.format(relay=relay.url))
            node.run("reload")


def test_the_books_agree_with_the_wallet_after_all_this(node):
    audit = node.run("wallet", "audit", check=False)
    assert audit.returncode == 0, audit.stdout
