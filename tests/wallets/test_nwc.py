"""Nostr Wallet Connect over a real relay: what is negotiated, what is refused, what is resent."""

import threading
import time
from contextlib import ExitStack, closing

import pytest

from pylon.errors import (ConfigError, WalletDenied, WalletError, WalletMismatch,
                          WalletUnreachable)
from pylon.nostr import keys, nip47
from pylon.units import MAX_MSATS
from pylon.wallets import nwc, nwc_line
from pylon.wallets.nwc import Nwc
from tests.fakes.nwc_service import METHODS, NwcService, make_pool
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for
from tests.wallets.conftest import connect

AMOUNT, FEE_CAP = 21_000, 10_000
SLOW_SECS = 0.5


@pytest.fixture
def service(ledgers, relay):
    """`service(**options)`: a wallet with money, and a connection to it."""
    with ExitStack() as stack:
        def start(name="a", relays=(), **options):
            ledger = ledgers(name)
            ledger.fund(10_000_000)
            made = stack.enter_context(closing(NwcService(
                ledger, list(relays) or [relay.url], **options)))
            return stack.enter_context(closing(connect(made))), made
        yield start


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(nwc_line, "CALL_SECS", SLOW_SECS)
    monkeypatch.setattr(nwc, "PAY_SECS", SLOW_SECS)


def invoice_of(ledgers, name="b", amount=AMOUNT):
    return ledgers(name).make_invoice(amount, "x", 600, "")


# ---- what is negotiated -------------------------------------------------------------------------

@pytest.mark.parametrize("offered,spoken", [(("nip44_v2", "nip04"), "nip44"),
                                            (("nip44_v2",), "nip44"), (("nip04",), "nip04")])
def test_the_best_encryption_that_the_wallet_has_is_spoken(service, ledgers, offered, spoken):
    wallet, made = service(encryptions=offered)
    heard = []
    wallet.watch(heard.append)
    invoice = invoice_of(ledgers)
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP).preimage == invoice.preimage
    assert made.encryption_seen == wallet.info()["encryption"] == spoken
    ours = wallet.make_invoice(AMOUNT, "x", 600, "")
    other = ledgers("c")
    other.fund(AMOUNT)
    other.pay(ours.bolt11, AMOUNT, 0)
    wait_for(lambda: ours.payment_hash in heard)


def test_a_wallet_without_an_info_event_is_unreachable(ledgers, relay, impatient):
    with closing(NwcService(ledgers("a"), [relay.url], publishes_info=False)) as made, \
            closing(Nwc(nip47.parse_uri(made.uri), "regtest", make_pool)) as wallet:
        with pytest.raises(WalletUnreachable, match="info event"):
            wallet.balance()


def test_what_is_not_offered_is_not_asked_for(service):
    wallet, made = service(methods=METHODS[:5], notifications=())
    assert not wallet.can_hold and not wallet.pushes
    for call in (wallet.history, lambda: wallet.settle("00" * 32),
                 lambda: wallet.cancel("00" * 32),
                 lambda: wallet.make_invoice(AMOUNT, "x", 600, "", "ab" * 32)):
        with pytest.raises(WalletError, match="does not offer"):
            call()
    assert {method for method, _ in made.log} == {"get_info"}


def test_a_wallet_that_learns_is_believed(service):
    wallet, made = service(methods=METHODS[:5])
    made.methods = METHODS
    assert not wallet.can_hold
    wait_for(lambda: made.tell_info() or wallet.can_hold)


def test_the_network_is_seen_in_an_invoice_where_the_wallet_does_not_say_it(service):
    wallet, made = service()
    made.network = "the internet"
    assert wallet.ask_network() == "regtest"


# ---- relays -------------------------------------------------------------------------------------

def test_one_of_two_relays_is_enough_and_two_pay_once(service, ledgers, relay):
    with LocalRelay() as second:
        wallet, made = service(relays=[relay.url, second.url])
        wait_for(lambda: all(wallet.info()["relays"].values()))
        invoice = invoice_of(ledgers)
        assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP).state == "paid"
        assert [method for method, _ in made.log].count("pay_invoice") == 1
        second.stop()
        assert wallet.balance() == made.ledger.balance()
        wait_for(lambda: not wallet.info()["relays"][second.url])
        assert wallet.balance() == made.ledger.balance()


def test_a_relay_that_comes_back_is_used_again(service, ledgers):
    with LocalRelay() as only:
        wallet, made = service(relays=[only.url])
        heard = []
        wallet.watch(heard.append)
        only.stop()
        wait_for(lambda: not any(wallet._line.relays().values()))
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(wallet.balance()))
        waiting.start()
        heard.clear()
        only.start()
        waiting.join(20)
        assert answers == [made.ledger.balance()]
        assert None in heard                # anything may have happened meanwhile


def test_no_relay_at_all_is_unreachable_in_time(service, impatient):
    with LocalRelay() as only:
        wallet, _ = service(relays=[only.url])
        only.stop()
        wait_for(lambda: not any(wallet._line.relays().values()))
        started = time.monotonic()
        with pytest.raises(WalletUnreachable, match="no relay"):
            wallet.balance()
        assert time.monotonic() - started < SLOW_SECS + 2


def test_a_relay_that_refuses_the_call_is_named_as_the_reason(service):
    with LocalRelay(reject={nip47.CALL: "blocked: no wallets here"}) as only:
        with pytest.raises(WalletUnreachable, match="no wallets here"):
            service(relays=[only.url])


def test_closing_ends_the_waiting(service):
    wallet, made = service()
    made.sin = "silent"
    failed = []

    def wait():
        try:
            wallet.balance()
        except WalletUnreachable as err:
            failed.append(str(err))
    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_for(lambda: wallet._line._waiting)
    wallet.close()
    waiting.join(5)
    assert failed == ["the wallet is closed"]


# ---- only the prepared call is sent -------------------------------------------------------------

def prepared_for(wallet, invoice, secs=60):
    return wallet.prepare_payment(invoice.bolt11, FEE_CAP, int(time.time()) + secs)


def pays_of(made):
    return [id_ for method, id_ in made.log if method == "pay_invoice"]


def test_only_the_prepared_call_is_sent_and_preparing_sends_nothing(service, ledgers):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    prepared = prepared_for(wallet, invoice)
    assert pays_of(made) == []
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP, prepared).state == "paid"
    assert len(pays_of(made)) == 1 and pays_of(made)[0] in prepared


def test_e65_after_a_crash_the_same_event_is_resent_and_acted_upon_once(service, ledgers,
                                                                        impatient):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    prepared = prepared_for(wallet, invoice)
    made.sin, made.only = "silent_after", "pay_invoice"
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP, prepared).state == "unknown"
    wallet.close()
    made.sin = ""
    with closing(connect(made)) as again:
        again.pay(invoice.bolt11, AMOUNT, FEE_CAP, prepared)        # nobody answers it twice
        assert again.lookup_payment(invoice.payment_hash).preimage == invoice.preimage
    assert len(set(pays_of(made))) == 1
    assert made.ledger.balance() == 10_000_000 - AMOUNT


def test_an_expired_call_is_not_sent_any_more(service, ledgers):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    prepared = prepared_for(wallet, invoice, -1)
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP, prepared).state == "missing"
    assert pays_of(made) == []


def test_a_call_that_was_prepared_for_something_else_is_not_sent(service, ledgers):
    wallet, made = service()
    one, two = invoice_of(ledgers), invoice_of(ledgers)
    stranger = nip47.build_call(keys.generate(), made.keys.pubkey, "pay_invoice",
                                {"invoice": one.bolt11}, "nip44", int(time.time()), None)
    balance = wallet._line.build("get_balance", {}, int(time.time()) + 60)
    good = prepared_for(wallet, one)
    for prepared in (prepared_for(wallet, two), stranger.to_json(), balance.to_json(), "", "{}",
                     "null", good.replace('"kind":23194', '"kind":23195'), good[:-2]):
        with pytest.raises(WalletMismatch):
            wallet.pay(one.bolt11, AMOUNT, FEE_CAP, prepared)
    assert pays_of(made) == []


# ---- answers that lie ---------------------------------------------------------------------------

@pytest.mark.parametrize("sin", ["silent", "stranger", "other_call", "not_for_us", "no_json"])
def test_what_is_no_answer_of_the_wallet_to_this_call_does_not_count(service, impatient, sin):
    wallet, made = service()
    made.sin = sin
    with pytest.raises(WalletUnreachable, match="in time"):
        wallet.balance()


def test_an_answer_to_another_method_is_a_contradiction(service):
    wallet, made = service()
    made.sin = "other_type"
    with pytest.raises(WalletMismatch):
        wallet.balance()


def test_an_answer_without_a_p_tag_counts(service):
    """Alby's SDK tags its answers with `e` alone; a subscription to `p` never saw them."""
    wallet, made = service()
    made.sin = "without_p"
    assert wallet.balance() == 10_000_000


def test_an_answer_that_comes_twice_counts_once(service):
    wallet, made = service()
    made.sin = "twice"
    assert [wallet.balance() for _ in range(3)] == [10_000_000] * 3


@pytest.mark.parametrize("code,error", [
    (nip47.UNAUTHORIZED, WalletDenied), (nip47.RESTRICTED, WalletDenied),
    (nip47.RATE_LIMITED, WalletUnreachable), (nip47.INTERNAL, WalletUnreachable),
    (nip47.OTHER, WalletError), (nip47.QUOTA_EXCEEDED, WalletError), ("NEW_CODE", WalletError)])
def test_d57_errors_are_told_apart(service, code, error):
    wallet, made = service()
    made.sin, made.error_code = "error", code
    with pytest.raises(error) as caught:
        wallet.balance()
    assert type(caught.value) is error or error is WalletError
    assert code in str(caught.value)
    with pytest.raises(error):          # an error is not "there is none"
        wallet.lookup("ab" * 32)


@pytest.mark.parametrize("bad", [-1, 1.5, "21", None, True, [], MAX_MSATS + 1])
def test_d58_amounts_that_are_none(service, ledgers, bad):
    wallet, made = service()
    ours = wallet.make_invoice(AMOUNT, "x", 600, "")
    other = ledgers("c")
    other.fund(AMOUNT)
    other.pay(ours.bolt11, AMOUNT, 0)
    made.sin = "spoils"
    made.spoil = lambda result: {**result, "balance": bad, "amount": bad}
    for call in (wallet.balance, lambda: wallet.lookup(ours.payment_hash)):
        with pytest.raises(WalletMismatch):
            call()


@pytest.mark.parametrize("wrong", ["amount", "hash", "network", "none", "number"])
def test_d56_an_invoice_that_was_not_asked_for(service, ledgers, wrong):
    wallet, made = service()
    other = invoice_of(ledgers, amount=AMOUNT if wrong == "hash" else 1000).bolt11
    text = {"none": None, "number": 7}.get(wrong, other)
    made.sin, made.only = "spoils", "make_invoice"
    made.spoil = lambda result: {**result, "invoice": text}
    wallet.network = "mainnet" if wrong == "network" else "regtest"
    with pytest.raises(WalletMismatch):
        wallet.make_invoice(AMOUNT, "x", 600, "")


def test_an_answer_about_another_hash_is_a_contradiction(service):
    wallet, made = service()
    one, two = (wallet.make_invoice(AMOUNT, "x", 600, "").payment_hash for _ in range(2))
    made.sin, made.spoil = "spoils", lambda result: {**result, "payment_hash": two}
    with pytest.raises(WalletMismatch):
        wallet.lookup(one)


@pytest.mark.parametrize("state", ["settled", "SETTLED", None])
def test_a_wallet_that_says_no_state_says_when_it_was_settled(service, ledgers, state):
    wallet, made = service()
    ours = wallet.make_invoice(AMOUNT, "x", 600, "")
    made.without_states = state is None
    if state:
        made.sin, made.spoil = "spoils", lambda result: {**result, "state": state}
    else:
        assert wallet.lookup(ours.payment_hash).state == "open"
    other = ledgers("c")
    other.fund(AMOUNT)
    other.pay(ours.bolt11, AMOUNT, 0)
    assert wallet.lookup(ours.payment_hash).state == "paid"


def test_a_preimage_alone_does_not_make_an_invoice_paid(service):
    wallet, made = service()
    ours = wallet.make_invoice(AMOUNT, "x", 600, "")
    made.without_states = True
    made.sin, made.spoil = "spoils", lambda result: {**result, "preimage": "ab" * 32}
    assert wallet.lookup(ours.payment_hash).state == "open"


# ---- paying -------------------------------------------------------------------------------------

@pytest.mark.parametrize("sin,code", [
    ("silent_after", ""), ("error_after", nip47.PAYMENT_FAILED), ("error_after", nip47.INTERNAL),
    ("error_after", nip47.OTHER), ("error_after", nip47.UNAUTHORIZED), ("stranger", "")])
def test_e62_paid_although_the_wallet_says_otherwise_or_nothing(service, ledgers, impatient, sin,
                                                                code):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    made.sin, made.only, made.error_code = sin, "pay_invoice", code
    outcome = wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP)
    assert outcome.state in ("paid", "unknown")
    assert wallet.lookup_payment(invoice.payment_hash).preimage == invoice.preimage
    assert made.ledger.balance() == 10_000_000 - AMOUNT


@pytest.mark.parametrize("code,state", [
    (nip47.PAYMENT_FAILED, "failed"), (nip47.INSUFFICIENT_BALANCE, "failed"),
    (nip47.QUOTA_EXCEEDED, "failed"), (nip47.UNAUTHORIZED, "failed"), (nip47.OTHER, "unknown"),
    (nip47.INTERNAL, "unknown"), (nip47.RATE_LIMITED, "unknown")])
def test_not_paid_is_failed_only_where_the_wallet_is_clear(service, ledgers, code, state):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    made.sin, made.only, made.error_code = "error", "pay_invoice", code
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP).state == state
    assert wallet.lookup_payment(invoice.payment_hash).state == "missing"


def test_an_error_whose_truth_cannot_be_looked_up_is_unknown(service, ledgers):
    wallet, made = service()
    made.sin, made.error_code = "error", nip47.PAYMENT_FAILED
    invoice = invoice_of(ledgers)
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP).state == "unknown"


@pytest.mark.parametrize("preimage", ["ab" * 32, "", None, 7, "zz" * 32])
def test_a_wrong_preimage_proves_nothing(service, ledgers, preimage):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    made.sin, made.only = "spoils", "pay_invoice"
    made.spoil = lambda result: {**result, "preimage": preimage}
    with pytest.raises(WalletMismatch):
        wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP)
    assert wallet.lookup_payment(invoice.payment_hash).state == "paid"


@pytest.mark.parametrize("state,outcome", [("failed", "failed"), ("pending", "unknown"),
                                           ("expired", "unknown"), ("weird", "unknown")])
def test_e64_only_failed_is_failed(service, ledgers, state, outcome):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP)
    made.sin, made.spoil = "spoils", lambda result: {**result, "state": state}
    assert wallet.lookup_payment(invoice.payment_hash).state == outcome


def test_a_payment_that_the_wallet_calls_incoming_never_becomes_missing(service, ledgers):
    wallet, made = service()
    invoice = invoice_of(ledgers)
    made.calls_all_incoming = True
    assert wallet.pay(invoice.bolt11, AMOUNT, FEE_CAP).state == "paid"
    with pytest.raises(WalletMismatch):
        wallet.lookup_payment(invoice.payment_hash)


# ---- notifications ------------------------------------------------------------------------------

def test_d59_a_notification_by_a_stranger_is_not_heard_and_the_wallet_s_is_a_hint(service):
    wallet, made = service()
    heard = []
    wallet.watch(heard.append)
    ours = wallet.make_invoice(AMOUNT, "x", 600, "")
    made.notify("payment_received", "ab" * 32, keys.generate())
    for _ in range(100):
        made.notify("payment_received", ours.payment_hash)
    wait_for(lambda: ours.payment_hash in heard)
    assert "ab" * 32 not in heard
    assert wallet.lookup(ours.payment_hash).state == "open"


def test_notifications_that_make_no_sense_say_that_something_changed(service):
    wallet, made = service()
    heard = []
    wallet.watch(heard.append)
    heard.clear()
    made._send(nip47.build_notification(made.keys, made.client.pubkey, "new_kind", {}, "nip44",
                                        int(time.time())))
    wait_for(lambda: heard == [None])


# ---- secrets ------------------------------------------------------------------------------------

def test_no_secret_is_shown(service):
    wallet, made = service()
    secret = made.client._secret.hex()
    shown = [repr(wallet), repr(vars(wallet)), repr(vars(wallet._line)), str(wallet.info()),
             repr(nip47.parse_uri(made.uri))]
    assert not [text for text in shown if secret in text]


@pytest.mark.parametrize("uri", ["", "https://x", "nostr+walletconnect://ab?secret=zz"])
def test_a_connection_string_that_is_none(uri):
    with pytest.raises(ConfigError):
        nip47.parse_uri(uri)
