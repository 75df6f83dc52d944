"""What every wallet must do, whatever is behind it."""

import hashlib
import os
import threading

import pytest

from pylon.errors import WalletError, WalletMismatch
from pylon.units import MAX_MSATS
from pylon.wallets import bolt11

AMOUNT, FEE_CAP = 21_000, 10_000
KEY = b"k" * 32


def invoice_of(rig, name="", expiry_secs=600, amount=AMOUNT):
    return rig.payee.make_invoice(amount, "a job", expiry_secs, name)


def other_invoice(rig, **changes):
    """An invoice that none of the wallets made."""
    fields = {"network": rig.network, "amount_msats": AMOUNT, "payment_hash": os.urandom(32).hex(),
              "description": "x", "secret32": KEY, "payment_secret": os.urandom(32).hex(),
              "created_at": 1_900_000_000, "expiry_secs": 600, **changes}
    return bolt11.encode(**fields)


def test_it_says_what_it_is(rig):
    for wallet in (rig.payee, rig.payer):
        info = wallet.info()
        assert info["wallet"] == wallet.name and info["network"] == wallet.network == rig.network
        assert wallet.fee_cap in ("enforced", "advisory") and wallet.missing_final_secs >= 0


def test_an_invoice_is_what_was_asked_for(rig):
    made = invoice_of(rig)
    read = bolt11.decode(made.bolt11)
    assert (read.network, read.amount_msats) == (rig.network, AMOUNT)
    assert (read.payment_hash, read.expires_at) == (made.payment_hash, made.expires_at)
    assert abs(read.expires_at - read.created_at - 600) <= 60
    assert made.amount_msats == AMOUNT


def test_no_two_invoices_have_one_hash(rig):
    assert invoice_of(rig).payment_hash != invoice_of(rig).payment_hash


@pytest.mark.parametrize("amount", [0, -1000, MAX_MSATS + 1000])
def test_an_invoice_of_no_amount_is_not_made(rig, amount):
    with pytest.raises(WalletError):
        invoice_of(rig, amount=amount)


def test_parts_of_a_satoshi_are_refused_where_they_cannot_be(rig):
    if rig.payee.whole_sats:
        with pytest.raises(WalletError):
            invoice_of(rig, amount=1001)
    else:
        assert bolt11.decode(invoice_of(rig, amount=1001).bolt11).amount_msats == 1001


def test_d55_an_invoice_is_found_again_by_its_name(rig):
    if not rig.payee.names_invoices:
        assert rig.payee.find_invoice("job-1") is None
        return
    made = invoice_of(rig, "job-1")
    invoice_of(rig, "job-2")
    found = rig.payee.find_invoice("job-1")
    assert (found.bolt11, found.payment_hash) == (made.bolt11, made.payment_hash)
    assert found.amount_msats == AMOUNT and found.expires_at == made.expires_at
    assert rig.payee.find_invoice("job-3") is None and rig.payee.find_invoice("") is None


def test_paying_moves_the_money_and_proves_it(rig):
    made = invoice_of(rig)
    before = rig.payee.balance(), rig.payer.balance()
    assert rig.payee.lookup(made.payment_hash).state == "open"
    outcome = rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
    assert outcome.state == "paid", outcome
    assert hashlib.sha256(bytes.fromhex(outcome.preimage)).hexdigest() == made.payment_hash
    assert 0 <= outcome.fee_msats <= FEE_CAP
    receipt = rig.payee.lookup(made.payment_hash)
    assert (receipt.state, receipt.received_msats) == ("paid", AMOUNT)
    assert receipt.settled_at is not None and receipt.fee_msats == 0
    assert rig.payee.balance() == before[0] + AMOUNT
    spent = before[1] - rig.payer.balance()
    assert AMOUNT <= spent <= AMOUNT + outcome.fee_msats + 999      # some round to satoshis
    assert rig.payer.lookup_payment(made.payment_hash) == outcome


def test_paying_again_pays_nothing_and_tells_how_it_ended(rig):
    made = invoice_of(rig)
    first = rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
    balance = rig.payer.balance()
    for _ in range(3):
        again = rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
        assert (again.state, again.preimage) == ("paid", first.preimage)
    assert rig.payer.balance() == balance


def test_e73_one_invoice_in_five_threads_is_paid_once(rig):
    made = invoice_of(rig)
    balance, outcomes = rig.payer.balance(), []

    def pay():
        try:
            outcomes.append(rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP).state)
        except WalletError:
            outcomes.append("unknown")
    threads = [threading.Thread(target=pay) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rig.payer.lookup_payment(made.payment_hash).state == "paid"
    assert "failed" not in outcomes
    assert balance - rig.payer.balance() <= AMOUNT + FEE_CAP


def test_what_nobody_knows_is_missing(rig):
    nobody = os.urandom(32).hex()
    assert rig.payee.lookup(nobody).state == "missing"
    assert rig.payer.lookup_payment(nobody).state == "missing"


def test_a_payment_is_no_receipt_and_a_receipt_no_payment(rig):
    made = invoice_of(rig)
    rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
    assert rig.payer.lookup(made.payment_hash).state == "missing"
    try:
        assert rig.payee.lookup_payment(made.payment_hash).state == "missing"
    except WalletMismatch:
        assert rig.payee.name == "nwc"      # some wallets call every payment incoming


@pytest.mark.parametrize("changes", [
    {"network": "other"}, {"amount_msats": None}, {"amount_msats": AMOUNT + 1000},
    {"amount_msats": 1}, {"amount_msats": MAX_MSATS}])
def test_e66_what_was_not_agreed_is_not_paid(rig, changes):
    if changes.get("network"):
        changes = {"network": "signet"}
    before = rig.payer.balance()
    assert rig.payer.pay(other_invoice(rig, **changes), AMOUNT, FEE_CAP).state == "failed"
    assert rig.payer.balance() == before


@pytest.mark.parametrize("text", ["", "lnbc", "lightning:lnbc1", "\n", "lnbcrt1" + "q" * 200])
def test_e66_what_is_no_invoice_is_not_paid(rig, text):
    assert rig.payer.pay(text, AMOUNT, FEE_CAP).state == "failed"


def test_a_payment_that_cannot_work_costs_nothing(rig):
    before = rig.payer.balance()
    nobody = other_invoice(rig)
    assert rig.payer.pay(nobody, AMOUNT, FEE_CAP).state == "failed"
    too_much = invoice_of(rig, amount=before + 1_000_000 - before % 1000)
    outcome = rig.payer.pay(too_much.bolt11, too_much.amount_msats, before)
    assert outcome.state == "failed" and outcome.reason
    assert rig.payer.balance() == before
    assert rig.payee.lookup(too_much.payment_hash).state == "open"
    for payment_hash in (bolt11.decode(nobody).payment_hash, too_much.payment_hash):
        assert rig.payer.lookup_payment(payment_hash).state in ("missing", "failed")


def test_d49_an_expired_invoice_is_not_paid_or_the_payer_s_record_says_so(rig):
    """Paying late happens: LNbits' FakeWallet pays expired invoices of its own server."""
    made = invoice_of(rig, expiry_secs=2)
    rig.pass_time(3)
    assert rig.payee.lookup(made.payment_hash).state == "expired"
    outcome = rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
    recorded = rig.payer.lookup_payment(made.payment_hash).state
    assert (outcome.state, recorded) in (("failed", "missing"), ("failed", "failed"),
                                         ("unknown", "missing"), ("paid", "paid"))


def test_history_has_both_sides_of_a_payment(rig):
    paid, unpaid = invoice_of(rig), invoice_of(rig)
    outcome = rig.payer.pay(paid.bolt11, AMOUNT, FEE_CAP)
    ours = {m.payment_hash: m for m in rig.payer.history()}[paid.payment_hash]
    theirs = {m.payment_hash: m for m in rig.payee.history()}[paid.payment_hash]
    assert (ours.incoming, ours.amount_msats, ours.state) == (False, AMOUNT, "paid")
    assert (theirs.incoming, theirs.amount_msats, theirs.state) == (True, AMOUNT, "paid")
    assert ours.fee_msats == outcome.fee_msats and theirs.fee_msats == 0
    assert theirs.description == "a job" and ours.at > 0
    for wallet in (rig.payer, rig.payee):
        assert unpaid.payment_hash not in {m.payment_hash for m in wallet.history()}
    assert rig.payee.history(theirs.at + 1) == []
    assert len(rig.payee.history(0, 1)) == 1


def test_d54_a_payment_below_fifty_newer_ones_is_found(rig):
    first = invoice_of(rig, amount=1000)
    rig.payer.pay(first.bolt11, 1000, FEE_CAP)
    hashes = []
    for _ in range(51 if rig.payee.name == "ledger" else 21):
        made = invoice_of(rig, amount=1000)
        assert rig.payer.pay(made.bolt11, 1000, FEE_CAP).state == "paid"
        hashes.append(made.payment_hash)
    assert rig.payee.lookup(first.payment_hash).state == "paid"
    assert {first.payment_hash, *hashes} <= {m.payment_hash for m in rig.payee.history()}
    assert {first.payment_hash, *hashes} <= {m.payment_hash for m in rig.payer.history()}


def test_the_payee_is_told_at_once(rig, wait_for):
    heard = []
    rig.payee.watch(heard.append)
    if not rig.payee.pushes:
        return
    if rig.payee.name != "ledger":
        wait_for(lambda: heard)         # connected
    made = invoice_of(rig)
    rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP)
    wait_for(lambda: made.payment_hash in heard)


def test_held_money_is_taken_or_sent_back(rig):
    preimages = [os.urandom(32) for _ in range(2)]
    hashes = [hashlib.sha256(preimage).hexdigest() for preimage in preimages]
    if not rig.payee.can_hold:
        with pytest.raises(WalletError):
            rig.payee.make_invoice(AMOUNT, "x", 600, "", hashes[0])
        with pytest.raises(WalletError):
            rig.payee.settle(preimages[0].hex())
        with pytest.raises(WalletError):
            rig.payee.cancel(hashes[0])
        return
    before = rig.payee.balance(), rig.payer.balance()
    for payment_hash in hashes:
        made = rig.payee.make_invoice(AMOUNT, "x", 600, "", payment_hash)
        assert made.payment_hash == payment_hash
        assert rig.payer.pay(made.bolt11, AMOUNT, FEE_CAP).state == "unknown"
        receipt = rig.payee.lookup(payment_hash)
        assert (receipt.state, receipt.received_msats) == ("held", AMOUNT)
    rig.payee.settle(preimages[0].hex())
    rig.payee.cancel(hashes[1])
    assert [rig.payee.lookup(h).state for h in hashes] == ["paid", "cancelled"]
    assert [rig.payer.lookup_payment(h).state for h in hashes] == ["paid", "failed"]
    assert rig.payer.lookup_payment(hashes[0]).preimage == preimages[0].hex()
    assert rig.payee.balance() == before[0] + AMOUNT
    assert rig.payer.balance() <= before[1] - AMOUNT


def test_closing_twice_is_no_error(rig):
    rig.payee.watch(lambda changed: None)
    for wallet in (rig.payee, rig.payer):
        wallet.close()
        wallet.close()
