"""pylon owed: shown, paid back, waived."""

from __future__ import annotations

import json

import pytest

from pylon.store import invoices, owed
from pylon.store.database import Database
from pylon.wallets.ledger import Ledger
from tests.store.conftest import CUSTOMER, NOW, Filler


@pytest.fixture
def node(node):
    node.config.write_text("relays = []\nbackend_preference = []\n")
    return node


@pytest.fixture
def customer(openagents):
    ledger = Ledger(openagents / "ledger.db", b"\x76" * 32, openagents / "customer.sock")
    yield ledger
    ledger.close()


@pytest.fixture
def debt(node, pylon, customer):
    """A customer's 21 sats came too late for the job; the node's ledger has them."""
    assert pylon("wallet", "fund")[0] == 0
    db = Database(node.database)
    invoice = Filler(db).quoted(1)
    invoices.expire(db, invoice, NOW + 700)
    invoices.settle(db, invoice, 21_000, False, NOW + 5000)
    row = owed.list_all(db)[0]
    db.close()
    return row


def test_nothing_is_owed_at_first(pylon, node):
    assert pylon("owed")[:2] == (0, "nothing is owed\n")
    assert json.loads(pylon("owed", "--json")[1]) == {"owed": []}


def test_what_is_owed_is_shown_with_its_reason(pylon, debt):
    status, out, _ = pylon("owed")
    assert status == 0
    for shown in (debt.id, "21 sats", "paid-late", "open", "npub1"):
        assert shown in out
    row = json.loads(pylon("owed", "--json")[1])["owed"][0]
    assert (row["id"], row["amount_msats"], row["customer_pubkey"], row["reason"]) == (
        debt.id, 21_000, CUSTOMER, "paid-late")


def test_it_is_paid_back_with_the_customers_invoice(pylon, debt, customer):
    text = customer.make_invoice(21_000, "give it back", 3600, "").bolt11
    status, out, err = pylon("owed", "settle", debt.id[:5], "--pay", text)
    assert status == 0 and "paid back" in out, err
    assert customer.balance() == 21_000
    assert pylon("owed")[1] == "nothing is owed\n"
    assert json.loads(pylon("owed", "--all", "--json")[1])["owed"][0]["state"] == "refunded"
    status, _, err = pylon("owed", "settle", debt.id, "--pay", text)
    assert status == 1 and "refunded already" in err
    assert customer.balance() == 21_000


@pytest.mark.parametrize("amount", [1_000, 20_000, 22_000, 2_000_000])
def test_an_invoice_of_another_amount_is_refused(pylon, debt, customer, amount):
    text = customer.make_invoice(amount, "more", 3600, "").bolt11
    status, _, err = pylon("owed", "settle", debt.id, "--pay", text)
    assert status == 1 and "21 sats are owed" in err
    assert customer.balance() == 0


def test_a_refund_that_fails_leaves_it_owed(pylon, debt, customer):
    invoice = customer.make_invoice(21_000, "cancelled", 3600, "")
    customer.cancel(invoice.payment_hash)
    status, out, err = pylon("owed", "settle", debt.id, "--pay", invoice.bolt11)
    assert status == 1 and "failed" in err
    assert debt.id in pylon("owed")[1]
    again = customer.make_invoice(21_000, "good", 3600, "")
    assert pylon("owed", "settle", debt.id, "--pay", again.bolt11)[0] == 0


def test_it_is_kept_by_agreement(pylon, debt):
    status, out, _ = pylon("owed", "settle", debt.id, "--waive", "--json")
    assert status == 0 and json.loads(out)["state"] == "waived"
    assert pylon("owed")[1] == "nothing is owed\n"
    assert "21 sats" in pylon("earnings")[1]


@pytest.mark.parametrize("words", [("settle",), ("settle", "x"), ("settle", "x", "--pay"),
                                   ("settle", "x", "--waive", "--pay", "lnbc1")])
def test_senseless_words_are_refused(pylon, node, words):
    with pytest.raises(SystemExit) as raised:
        pylon("owed", *words)
    assert raised.value.code == 2


def test_an_unknown_id_is_named(pylon, debt):
    status, _, err = pylon("owed", "settle", "ffff", "--waive")
    assert status == 1 and "'ffff'" in err
