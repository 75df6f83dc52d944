"""Paying: what is refused before any call, and what each kind of answer means."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from pylon import failpoints
from pylon.errors import Refused, StoreFull, WalletUnreachable
from pylon.states import PaymentState
from pylon.store import books, invoices, journal, payments, spending
from pylon.store.invoices import InvoiceRow
from pylon.store.spending import Cap, Limits
from pylon.units import MAX_MSATS
from pylon.wallets import payer as paying
from pylon.wallets.payer import REFUSALS, Payer, fee_cap
from tests.fakes.scripted_wallet import (PAYEE_NODE, MANNERS, foreign_invoice, hash_of,
                                         preimage_of)
from tests.wallets.paying import NOW

P = PaymentState


def refused(call, code):
    """It is refused with a documented code."""
    with pytest.raises(Refused) as raised:
        call()
    assert raised.value.code == code
    assert code in REFUSALS


def test_a_payment_is_booked_and_its_result_told(purse):
    purse.wallet.fee_msats = 120
    result = purse.pay(1)
    assert (result.state, result.paid, result.fee_msats) == (P.SUCCEEDED, True, 120)
    assert result.preimage == preimage_of(1)
    assert purse.balance() == 1_000_000 - 10_120
    assert [line["type"] for line in journal.story(purse.db, hash_of(1))] == [
        "PaymentReserved", "PaymentSent", "PaymentSucceeded"]
    purse.whole()


def test_the_intent_stands_as_sent_before_the_wallet_is_called(purse):
    states = []
    purse.wallet.prepares = True
    pay = purse.wallet.pay

    def looking(*args):
        row = purse.row()
        states.append((row.state, row.prepared, args[3]))
        return pay(*args)
    purse.wallet.pay = looking
    purse.pay(1)
    request = f"request for {hash_of(1)}"
    assert states == [(P.SENT, request, request)]


def test_what_the_wallet_says_failed_gives_the_money_back(purse):
    purse.wallet.manner = "fails"
    result = purse.pay(1)
    assert (result.state, result.reason) == (P.FAILED, "no route")
    assert purse.balance() == 1_000_000
    purse.whole()


@pytest.mark.parametrize("manner", [m for m in MANNERS if m not in ("pays", "fails")])
def test_e62_any_unclear_answer_is_unknown_and_keeps_its_reservation(purse, manner):
    purse.wallet.manner = manner
    result = purse.pay(1)
    assert result.state == P.UNKNOWN and result.pending
    assert purse.balance() == 980_000
    assert purse.balance(books.RESERVED) == 20_000
    purse.whole()


@pytest.mark.parametrize("manner", MANNERS)
def test_e62_asking_again_never_pays_again(purse, manner):
    purse.wallet.manner = manner
    first = purse.pay(1)
    purse.wallet.manner = "pays"
    if first.state == P.FAILED:
        return
    for _ in range(3):
        assert purse.pay(1).payment_hash == first.payment_hash
        refused(lambda: purse.pay(1, action_key="another"), "invoice-taken")
        refused(lambda: purse.pay(2, action_key="action-1"), "action-taken")
    assert purse.wallet.calls("pay") == 1
    purse.whole()


def test_the_same_action_is_answered_from_the_store_also_after_expiry(purse):
    proposal = purse.proposal(1)
    assert purse.payer.pay(proposal).paid
    purse.clock.pass_by(100_000)
    assert purse.payer.pay(proposal).paid
    assert purse.wallet.calls("pay") == 1


def test_a_wallet_that_cannot_prepare_was_not_called(purse):
    purse.wallet.answers = False
    result = purse.pay(1)
    assert result.state == P.FAILED and "not sent" in result.reason
    assert purse.wallet.calls("pay") == 0
    purse.whole()


# ---- what is refused ----------------------------------------------------------------------------

def test_without_a_wallet_nothing_is_paid(purse):
    payer = Payer(purse.db, lambda: None, "regtest", purse.clock)
    refused(lambda: payer.pay(purse.proposal(1)), "no-wallet")


def hostile_invoices():
    """A table of mutations: what it is, the invoice, and the code that refuses it."""
    good = foreign_invoice(1, 10_000, at=NOW)
    yield "no-text", "", "bad-invoice"
    yield "not-bech32", "pay me", "bad-invoice"
    yield "half", good[:100], "bad-invoice"
    yield "two", good + good, "bad-invoice"
    yield "mixed-case", good[:50].upper() + good[50:], "bad-invoice"
    yield "huge", "lnbcrt" + "q" * 100_000, "bad-invoice"
    yield "unicode", good.replace("q", "ԛ", 1), "bad-invoice"
    yield "nul", good + "\0", "bad-invoice"
    for place in range(6, len(good), len(good) // 20):
        other = "p" if good[place] != "p" else "q"
        yield f"char-{place}", good[:place] + other + good[place + 1:], "bad-invoice"
    for network in ("mainnet", "testnet", "signet"):
        yield network, foreign_invoice(1, 10_000, network, at=NOW), "wrong-network"
    yield "no-amount", foreign_invoice(1, None, at=NOW), "no-amount"
    for amount in (1, 500, 999):
        yield f"amount-{amount}", foreign_invoice(1, amount, at=NOW), "amount-too-small"
    for amount in (10_001, 2**40, MAX_MSATS):
        yield f"amount-{amount}", foreign_invoice(1, amount, at=NOW), "amount-too-large"
    for name, at, expiry in (("long ago", NOW - 10_000, 3600), ("just now", NOW - 3600, 3600),
                             ("on its way", NOW - 3590, 3600), ("at once", NOW, 1),
                             ("before Bitcoin", 1, 3600)):
        yield name, foreign_invoice(1, 10_000, at=at, expiry_secs=expiry), "invoice-expired"


@pytest.mark.parametrize("invoice, code", [pytest.param(text, code, id=name)
                                           for name, text, code in hostile_invoices()])
def test_e66_a_hostile_invoice_is_refused_before_the_wallet_is_asked(purse, invoice, code):
    refused(lambda: purse.pay(1, bolt11=invoice, max_msats=10_000), code)
    assert purse.wallet.log == []
    assert purse.row() is None and purse.balance() == 1_000_000


def test_p6_there_are_at_least_forty_hostile_invoices():
    assert len(list(hostile_invoices())) >= 40


def test_e66_every_bitcoin_there_is_is_more_than_the_account_has(purse):
    refused(lambda: purse.pay(1, amount_msats=MAX_MSATS), "no-funds")


@pytest.mark.parametrize("field, value, code", [
    ("expected_msats", 9_999, "wrong-amount"), ("expected_msats", 10_001, "wrong-amount"),
    ("expected_hash", "ab" * 32, "wrong-hash"), ("expected_payee", "02" + "ab" * 32, "wrong-payee"),
    ("expected_description_hash", "ab" * 32, "wrong-description"),
    ("max_msats", 9_999, "amount-too-large"), ("max_msats", 0, "amount-too-large")])
def test_e67_e70_what_was_agreed_must_stand_in_the_invoice(purse, field, value, code):
    refused(lambda: purse.pay(1, **{field: value}), code)
    assert purse.wallet.log == []


def test_e67_an_invoice_that_is_as_agreed_is_paid(purse):
    described = foreign_invoice(1, 10_000, at=NOW, description=None, description_hash="cd" * 32)
    result = purse.pay(1, bolt11=described, expected_msats=10_000, expected_hash=hash_of(1),
                       expected_payee=PAYEE_NODE, expected_description_hash="cd" * 32,
                       max_msats=10_000)
    assert result.paid


def test_p23_a_wallet_of_another_network_pays_nothing(purse):
    purse.wallet.network = "mainnet"
    refused(lambda: purse.pay(1), "wrong-network")
    assert purse.wallet.log == []


def test_an_invoice_of_our_own_is_refused(purse):
    invoices.add(purse.db, InvoiceRow("own", None, "x", hash_of(1), 10_000, "pending", False,
                                      books.OWNER, NOW, NOW + 600, None), "scripted", NOW)
    refused(lambda: purse.pay(1), "own-invoice")


def test_a_full_disk_pays_nothing(purse):
    payer = Payer(purse.db, lambda: purse.wallet, "regtest", purse.clock, min_free_bytes=1 << 60)
    refused(lambda: payer.pay(purse.proposal(1)), "disk-low")
    assert purse.wallet.log == []


def test_limits_hold_with_the_fee_cap(purse):
    refused(lambda: purse.pay(1, limits=Limits(action_msats=19_999)), "over-action-limit")
    day = Limits(caps=(Cap("over-day-limit", 20_000),))
    assert purse.pay(1, limits=day).paid
    refused(lambda: purse.pay(2, limits=day), "over-day-limit")
    assert purse.wallet.calls("pay") == 1


def test_nothing_is_paid_while_spending_is_stopped(purse):
    with purse.db.transaction(durable=True) as tx:
        spending.freeze(tx, spending.UNDERFUNDED, NOW)
    refused(lambda: purse.pay(1), "spending-frozen")
    assert purse.wallet.log == []


@pytest.mark.parametrize("amount, cap", [(1_000, 10_000), (1_000_000, 10_000),
                                         (5_000_000, 50_000), (123_456_789, 1_234_567)])
def test_e69_the_usual_fee_cap_is_one_percent_or_ten_sats(amount, cap):
    assert fee_cap(amount) == cap


def test_e69_a_fee_cap_that_is_given_replaces_the_usual_one(purse):
    given = []
    pay = purse.wallet.pay
    purse.wallet.pay = lambda *args: given.append(args[2]) or pay(*args)
    purse.pay(1, max_fee_msats=7)
    purse.pay(2)
    assert given == [7, 10_000]


def test_e69_a_fee_above_the_cap_is_the_owners_and_alarmed(purse):
    purse.fund(books.OWNER, 100_000)
    purse.wallet.fee_msats = 30_000
    assert purse.pay(1).paid
    assert purse.balance() == 980_000
    assert purse.balance(books.OWNER) == 80_000
    assert [line["type"] for line in journal.story(purse.db, hash_of(1))][-1] == "Alarm"
    purse.whole()


def test_the_owner_spends_what_he_put_into_the_wallet(purse):
    """The books learn of money that came from outside when the owner wants to spend it."""
    assert purse.balance(books.OWNER) == 0
    assert purse.pay(1, account=books.OWNER).paid
    assert purse.balance(books.OWNER) == purse.wallet.funds_msats - 1_000_000
    purse.whole()


def test_an_agent_does_not_spend_what_is_the_owners(purse):
    refused(lambda: purse.pay(1, amount_msats=995_000), "no-funds")


# ---- many at once -------------------------------------------------------------------------------

@pytest.mark.parametrize("manner", ["pays", "pays_and_times_out", "holds"])
def test_e73_fifty_parallel_proposals_of_one_invoice_pay_it_once(purse, manner):
    purse.wallet.manner = manner
    text = foreign_invoice(1, 10_000, at=NOW)
    found = at_once(50, lambda n: purse.payer.pay(
        purse.proposal(1, action_key=f"proposal-{n}", bolt11=text)))
    assert sum(not isinstance(result, Refused) for result in found) == 1
    assert {result.code for result in found if isinstance(result, Refused)} == {"invoice-taken"}
    assert purse.wallet.calls("pay") == 1
    purse.whole()


def test_e73_fifty_parallel_calls_of_one_action_pay_once_and_all_learn_it(purse):
    proposal = purse.proposal(1)
    found = at_once(50, lambda n: purse.payer.pay(proposal))
    assert {result.payment_hash for result in found} == {hash_of(1)}
    assert purse.wallet.calls("pay") == 1
    purse.whole()


def test_e73_fifty_parallel_payments_keep_within_the_limit(purse):
    limits = Limits(caps=(Cap("over-day-limit", 100_000),))
    found = at_once(50, lambda n: purse.pay(n, limits=limits, max_fee_msats=0))
    assert sum(not isinstance(result, Refused) for result in found) == 10
    assert sum(purse.wallet.paid().values()) == 10
    purse.whole()


def at_once(count, act):
    found, barrier = [], threading.Barrier(count)

    def run(number):
        barrier.wait()
        try:
            found.append(act(number))
        except Refused as err:
            found.append(err)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    return found


# ---- a store that fails -------------------------------------------------------------------------

def test_h99_a_disk_that_fails_before_the_call_pays_nothing(purse, monkeypatch):
    monkeypatch.setattr(payments, "mark_sent", raising(StoreFull("full")))
    with pytest.raises(StoreFull):
        purse.pay(1)
    assert purse.wallet.log == []
    assert purse.row().state == P.FAILED
    purse.whole()


def test_h99_a_disk_that_stays_full_leaves_it_to_the_reconciler(purse, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(payments, "mark_sent", raising(StoreFull("full")))
        full.setattr(payments, "fail", raising(StoreFull("full")))
        with pytest.raises(StoreFull):
            purse.pay(1)
    assert purse.row().state == P.RESERVED
    purse.reconcile()
    assert purse.row().state == P.FAILED
    purse.whole()


def test_h99_a_disk_that_fails_after_the_call_leaves_it_to_the_reconciler(purse, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(payments, "succeed", raising(StoreFull("full")))
        with pytest.raises(StoreFull):
            purse.pay(1)
    assert purse.row().state == P.SENT
    purse.reconcile()
    assert purse.row().state == P.SUCCEEDED
    purse.whole()


def raising(error):
    def fail(*args, **kwargs):
        raise error
    return fail


# ---- the words ----------------------------------------------------------------------------------

def test_every_code_has_one_sentence():
    for code, sentence in REFUSALS.items():
        assert code == code.lower() and " " not in code
        assert sentence.endswith(".") and len(sentence) < 120


def test_every_code_in_the_sources_is_documented():
    sources = [Path(paying.__file__), Path(payments.__file__), Path(spending.__file__),
               Path(paying.__file__).with_name("wallet.py"),
               Path(payments.__file__).with_name("owed.py")]
    used = {code for path in sources
            for code in re.findall(r'Refused\(\s*"([a-z-]+)"', path.read_text())}
    assert used and used <= set(REFUSALS)


def test_the_failpoints_are_where_the_matrix_wants_them(purse, monkeypatch):
    hits = []
    monkeypatch.setattr(paying, "hit", hits.append)
    purse.pay(1)
    assert hits == ["A1", "A2", "A3", "A4", "A5", "A6"]
    assert failpoints.ACTIONS == ("kill", "raise", "enospc", "eio")


def test_an_unreachable_wallet_for_the_owners_balance_is_no_crash(purse):
    purse.wallet.balance = raising(WalletUnreachable("down"))
    refused(lambda: purse.pay(1, account=books.OWNER), "no-funds")
