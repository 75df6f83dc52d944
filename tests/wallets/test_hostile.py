"""Wallets behind HTTP whose server fails, lies, floods or stalls."""

import itertools
import json
import resource
import threading
import time
from contextlib import closing

import pytest

from pylon.errors import WalletDenied, WalletError, WalletMismatch, WalletUnreachable
from pylon.units import MAX_MSATS
from pylon.wallets import http, lnbits, phoenixd
from tests.fakes import lnbits as fake_lnbits
from tests.fakes import phoenixd as fake_phoenixd
from tests.fakes.hostile_wallet import HostileWallet

AMOUNT, FEE_CAP = 21_000, 10_000
SLOW_SECS = 0.3                     # the deadline of a call, in these tests
PAY_PATH = {"lnbits": "/api/v1/payments", "phoenixd": "/payinvoice"}
MAKE_PATH = {"lnbits": "/api/v1/payments", "phoenixd": "/createinvoice"}
UNREACHABLE = ("fails_500", "hangs", "hangs_up", "trickles_headers", "trickles_body",
               "answers_html", "answers_truncated", "answers_nothing", "floods_body",
               "floods_headers", "redirects", "nests", "not_utf8", "is_a_list", "is_a_text")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http, "CALL_SECS", SLOW_SECS)
    monkeypatch.setattr(lnbits, "PAY_SECS", SLOW_SECS)
    monkeypatch.setattr(phoenixd, "PAY_SECS", SLOW_SECS)


@pytest.fixture(params=["lnbits", "phoenixd"])
def victim(request, ledgers):
    """(the wallet, the hostile server before it, the honest stand-in, another's ledger)."""
    mine, other = ledgers("a"), ledgers("b")
    mine.fund(10_000_000)
    with closing((fake_lnbits.Lnbits if request.param == "lnbits" else
                  fake_phoenixd.Phoenixd)(mine)) as server, \
            closing(HostileWallet(server.url)) as hostile:
        if request.param == "lnbits":
            wallet = lnbits.Lnbits(hostile.url, fake_lnbits.ADMIN_KEY, "regtest")
        else:
            wallet = phoenixd.Phoenixd(hostile.url, "regtest", fake_phoenixd.FULL)
        with closing(wallet):
            yield wallet, hostile, server, other


def calls(wallet):
    payment_hash = "ab" * 32
    return (wallet.balance, wallet.history, lambda: wallet.lookup(payment_hash),
            lambda: wallet.lookup_payment(payment_hash), wallet.info,
            lambda: wallet.find_invoice("name"),
            lambda: wallet.make_invoice(AMOUNT, "x", 600, "name"))


@pytest.mark.parametrize("sin", UNREACHABLE)
def test_d58_rubbish_is_unreachable_within_the_deadline_and_the_cap(victim, sin):
    wallet, hostile, _, _ = victim
    hostile.sin = sin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in calls(wallet)[::3]:
        started = time.monotonic()
        with pytest.raises(WalletUnreachable):
            call()
        assert time.monotonic() - started < SLOW_SECS + 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024
    assert "elsewhere" not in "".join(hostile.calls)        # no redirect was followed


@pytest.mark.parametrize("sin", ["denies_401", "denies_403"])
def test_d57_denied_is_said_as_such(victim, sin):
    wallet, hostile, _, _ = victim
    hostile.sin = sin
    for call in calls(wallet):
        with pytest.raises(WalletDenied, match="credentials"):
            call()
    assert len(hostile.calls) == len(calls(wallet))         # and nothing was tried again


@pytest.mark.parametrize("sin", [*UNREACHABLE, "denies_401", "denies_403"])
def test_e62_a_payment_whose_call_broke_is_never_called_failed(victim, sin):
    wallet, hostile, _, other = victim
    hostile.sin, hostile.only, hostile.times = sin, PAY_PATH[wallet.name], None
    made = other.make_invoice(AMOUNT, "x", 600, "")
    before = wallet_money(victim)
    try:
        assert wallet.pay(made.bolt11, AMOUNT, FEE_CAP).state == "unknown"
    except WalletError:
        pass                        # which means unknown as well
    assert wallet_money(victim) == before
    hostile.sin = ""
    assert wallet.lookup_payment(made.payment_hash).state == "missing"


def wallet_money(victim):
    return victim[2].ledger.balance()


@pytest.mark.parametrize("sin", ["fails_500_after", "hangs_after", "hangs_up_after"])
def test_e62_a_payment_that_was_made_although_the_answer_broke(victim, sin):
    wallet, hostile, server, other = victim
    made = other.make_invoice(AMOUNT, "x", 600, "")
    before = server.ledger.balance()
    hostile.sin, hostile.only = sin, PAY_PATH[wallet.name]
    if wallet.name == "lnbits":     # its other calls have the same path: spoil the one POST
        hostile.times = None
        hostile.only = "/api/v1/payments"
        pay_only_posts(hostile)
    try:
        outcome = wallet.pay(made.bolt11, AMOUNT, FEE_CAP)
        assert outcome.state in ("paid", "unknown")
    except WalletUnreachable:
        pass
    hostile.sin = ""
    outcome = wallet.lookup_payment(made.payment_hash)
    assert outcome.state == "paid" and outcome.preimage == made.preimage
    assert wallet.pay(made.bolt11, AMOUNT, FEE_CAP).state == "paid"
    assert before - server.ledger.balance() == AMOUNT + outcome.fee_msats


def pay_only_posts(hostile):
    usual = hostile._sin_for
    hostile._sin_for = lambda path: usual(path) if hostile.calls[-1].startswith("POST") else ""


@pytest.mark.parametrize("sin", ["fails_500_after", "hangs_after", "hangs_up_after"])
def test_d55_an_invoice_that_was_made_although_the_answer_broke_is_adopted(victim, sin):
    wallet, hostile, server, _ = victim
    hostile.sin, hostile.only = sin, MAKE_PATH[wallet.name]
    pay_only_posts(hostile)
    with pytest.raises(WalletUnreachable):
        wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    hostile.sin = ""
    found = wallet.find_invoice("job-1")
    assert found is not None and server.ledger.lookup(found.payment_hash).state == "open"


def spoiled(**changes):
    """Change fields wherever they stand in an answer."""
    def spoil(value):
        if isinstance(value, list):
            return [spoil(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: changes[key] if key in changes else spoil(item)
                for key, item in value.items()}
    return spoil


BAD_AMOUNTS = [-1, 1.5, 21.0, "21", None, True, [], {}, MAX_MSATS + 1, 10**40]


@pytest.mark.parametrize("bad", BAD_AMOUNTS)
def test_d58_amounts_that_are_none(victim, bad):
    wallet, hostile, _, other = victim
    made = wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    assert other.fund(10**6) is None
    other.pay(made.bolt11, AMOUNT, 0)
    hostile.sin = "spoils"
    hostile.spoil = spoiled(balance=bad, balanceSat=bad, amount=bad, receivedSat=bad,
                            amountSat=bad, fees=bad, fee=bad)
    for call in (wallet.balance, lambda: wallet.lookup(made.payment_hash),
                 lambda: wallet.history(), lambda: wallet.make_invoice(AMOUNT, "x", 600, "2")):
        if wallet.name == "lnbits" and call is not wallet.balance and bad == -1:
            continue                # a negative amount is LNbits' way of saying "outgoing"
        try:
            call()
        except (WalletMismatch, WalletUnreachable):
            continue
        # LNbits' answer to making an invoice counts by its invoice, not by its numbers.
        assert wallet.name == "lnbits"


def test_d51_a_receipt_tells_what_arrived_and_not_what_was_asked(victim):
    wallet, hostile, _, other = victim
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    other.fund(10**6)
    other.pay(made.bolt11, AMOUNT, 0)
    for sats in (20, 22):
        hostile.sin, hostile.spoil = "spoils", spoiled(amount=sats * 1000, receivedSat=sats)
        assert wallet.lookup(made.payment_hash).received_msats == sats * 1000


@pytest.mark.parametrize("change", ["amount", "network", "hash", "expired-checksum", "text"])
def test_d56_an_invoice_that_was_not_asked_for(victim, ledgers, change):
    wallet, hostile, server, other = victim
    wrong = other.make_invoice(22_000, "x", 600, "")
    texts = {"amount": wrong.bolt11, "hash": other.make_invoice(AMOUNT, "x", 600, "").bolt11,
             "network": "lnbc" + wrong.bolt11[6:], "expired-checksum": wrong.bolt11[:-1] + "q",
             "text": 21}
    hostile.sin = "spoils"
    hostile.spoil = spoiled(serialized=texts[change], bolt11=texts[change], invoice=texts[change],
                            amountSat=21)
    with pytest.raises(WalletMismatch):
        wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    with pytest.raises(WalletMismatch):
        wallet.find_invoice("job-1")


def test_d56_an_invoice_of_another_network_is_refused(victim):
    wallet, hostile, server, other = victim
    wallet.network = "mainnet"
    with pytest.raises(WalletMismatch, match="regtest"):
        wallet.make_invoice(AMOUNT, "x", 600, "")


def test_a_preimage_that_is_wrong_proves_no_payment(victim):
    wallet, hostile, _, other = victim
    made = other.make_invoice(AMOUNT, "x", 600, "")
    hostile.sin, hostile.spoil = "spoils", spoiled(preimage="ab" * 32)
    with pytest.raises(WalletMismatch):
        wallet.pay(made.bolt11, AMOUNT, FEE_CAP)
    hostile.sin = ""
    assert wallet.lookup_payment(made.payment_hash).state == "paid"


def test_money_that_came_is_money_also_without_a_preimage(victim):
    wallet, hostile, _, other = victim
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    other.fund(10**6)
    other.pay(made.bolt11, AMOUNT, 0)
    for preimage in ("ab" * 32, None, 7, ""):
        hostile.sin, hostile.spoil = "spoils", spoiled(preimage=preimage)
        receipt = wallet.lookup(made.payment_hash)
        assert (receipt.state, receipt.preimage) == ("paid", None)


def test_d53_a_record_of_another_payment_is_no_answer(victim):
    wallet, hostile, _, other = victim
    other.fund(10**6)
    one, two = (wallet.make_invoice(AMOUNT, "x", 600, "") for _ in range(2))
    other.pay(one.bolt11, AMOUNT, 0)
    upstream = hostile._forward
    hostile._forward = lambda method, path, *rest: upstream(
        method, path.replace(two.payment_hash, one.payment_hash), *rest)
    try:
        assert wallet.lookup(two.payment_hash).state != "paid"
    except WalletMismatch:
        pass


@pytest.mark.parametrize("status", ["weird", None, 7, ["success"]])
def test_an_unknown_state_of_lnbits_is_not_paid(victim, status):
    wallet, hostile, _, other = victim
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    hostile.sin, hostile.spoil = "spoils", spoiled(status=status, isPaid=status)
    try:
        assert wallet.lookup(made.payment_hash).state == "open"
    except WalletMismatch:
        pass


def test_d52_paid_then_500_then_unpaid_is_told_as_it_comes(victim):
    wallet, hostile, _, other = victim
    other.fund(10**6)
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    other.pay(made.bolt11, AMOUNT, 0)
    assert wallet.lookup(made.payment_hash).state == "paid"
    hostile.sin = "fails_500"
    with pytest.raises(WalletUnreachable):
        wallet.lookup(made.payment_hash)
    hostile.sin, hostile.spoil = "spoils", spoiled(status="pending", isPaid=False)
    assert wallet.lookup(made.payment_hash).state == "open"


def test_nothing_listens(victim):
    wallet, hostile, _, _ = victim
    hostile.close()
    with pytest.raises(WalletUnreachable, match="refused"):
        wallet.balance()


def test_no_secret_in_errors_reprs_or_pickles(victim):
    wallet, hostile, _, _ = victim
    secrets = (fake_lnbits.ADMIN_KEY, fake_phoenixd.FULL, fake_phoenixd.LIMITED)
    said = [repr(wallet), repr(vars(wallet))]
    said.append(json.dumps(wallet.info()))
    for sin, call in itertools.product((*UNREACHABLE[:4], "denies_401"), calls(wallet)[:2]):
        hostile.sin = sin
        with pytest.raises(WalletError) as caught:
            call()
        said.append(repr(caught.value) + repr(caught.value.__cause__))
    assert not [text for text in said for secret in secrets if secret in text]


def test_many_calls_at_once_do_not_wait_for_each_other(victim):
    wallet, hostile, _, _ = victim
    hostile.sin, hostile.only = "hangs", "ab" * 32
    hung = threading.Thread(target=lambda: pytest.raises(WalletUnreachable, wallet.lookup,
                                                         "ab" * 32))
    hung.start()
    started = time.monotonic()
    wallet.balance()
    assert time.monotonic() - started < SLOW_SECS / 2
    hung.join()
