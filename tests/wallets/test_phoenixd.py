"""What is phoenixd's own: two passwords, whole satoshis, fees, its way to say "not found"."""

from contextlib import closing

import pytest

from pylon.errors import ConfigError, WalletDenied, WalletError, WalletMismatch
from pylon.wallets import phoenixd
from pylon.wallets.phoenixd import Phoenixd
from tests.fakes import phoenixd as fake
from tests.waiting import wait_for

AMOUNT, FEE_CAP = 21_000, 10_000


@pytest.fixture
def server(ledgers):
    ledger = ledgers("a")
    ledger.fund(10_000_000)
    with closing(fake.Phoenixd(ledger)) as server:
        yield server


@pytest.fixture
def wallet(server):
    with closing(Phoenixd(server.url, "regtest", fake.FULL, fake.LIMITED)) as wallet:
        yield wallet


def test_without_any_password_there_is_no_wallet():
    with pytest.raises(ConfigError, match="password_file"):
        Phoenixd("http://127.0.0.1:1", "regtest")


def test_the_full_password_is_used_for_paying_only(wallet, server, ledgers):
    wallet.make_invoice(AMOUNT, "x", 600, "n")
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    assert wallet.pay(other.bolt11, AMOUNT, FEE_CAP).state == "paid"
    used = {(call.path == "/payinvoice", call.basic_password()) for call in server.calls}
    assert used == {(True, fake.FULL), (False, fake.LIMITED)}


def test_with_the_limited_password_alone_nothing_is_paid(server, ledgers):
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    with closing(Phoenixd(server.url, "regtest", limited=fake.LIMITED)) as wallet:
        assert wallet.info()["can_pay"] is False
        outcome = wallet.pay(other.bolt11, AMOUNT, FEE_CAP)
        assert outcome.state == "failed" and "limited" in outcome.reason
    assert not [call for call in server.calls if call.path == "/payinvoice"]


def test_a_limited_password_in_the_full_one_s_place_is_noticed(server, ledgers):
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    with closing(Phoenixd(server.url, "regtest", fake.LIMITED)) as wallet:
        assert wallet.info()["can_pay"] is False and wallet.balance() == 10_000_000
        with pytest.raises(WalletDenied):
            wallet.pay(other.bolt11, AMOUNT, FEE_CAP)
    with closing(Phoenixd(server.url, "regtest", fake.FULL)) as wallet:
        assert wallet.info()["can_pay"] is True


def test_it_says_that_it_was_not_exercised(wallet):
    assert "not exercised" in wallet.info()["note"] and "Not exercised" in phoenixd.__doc__


def test_d60_a_liquidity_fee_is_told_beside_the_gross_amount(wallet, server, ledgers):
    other = ledgers("b")
    other.fund(10 * AMOUNT)
    for fee in (1, 1500, 4000):
        server.liquidity_fee_msats = fee
        made = wallet.make_invoice(AMOUNT, "x", 600, "")
        other.pay(made.bolt11, AMOUNT, 0)
        receipt = wallet.lookup(made.payment_hash)
        assert (receipt.received_msats, receipt.fee_msats) == (AMOUNT, fee)
        movement = {m.payment_hash: m for m in wallet.history()}[made.payment_hash]
        assert (movement.amount_msats, movement.fee_msats) == (AMOUNT, fee)


def test_e69_an_invoice_whose_fee_is_above_the_cap_is_not_sent(wallet, server, ledgers):
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    outcome = wallet.pay(other.bolt11, AMOUNT, 4000 + AMOUNT * 4 // 1000 - 1)
    assert outcome.state == "failed" and "cap" in outcome.reason
    assert not [call for call in server.calls if call.path == "/payinvoice"]
    assert wallet.pay(other.bolt11, AMOUNT, 4000 + AMOUNT * 4 // 1000).state == "paid"


def test_a_phoenixd_without_the_call_proves_nothing(wallet, server, ledgers):
    """An unknown endpoint is a 404, too; read as "there is no such payment" it would pay twice."""
    server.without_lookup = True
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    for call in (lambda: wallet.lookup_payment(other.payment_hash),
                 lambda: wallet.pay(other.bolt11, AMOUNT, FEE_CAP)):
        with pytest.raises(WalletError, match="newer"):
            call()
    assert not [call for call in server.calls if call.path == "/payinvoice"]


@pytest.mark.parametrize("status,text", [(204, ""), (404, "Not found")])
def test_both_ways_to_say_that_there_is_none(wallet, server, monkeypatch, status, text):
    monkeypatch.setattr(server, "_one", lambda record: (status, text))
    assert wallet.lookup("ab" * 32).state == "missing"
    assert wallet.lookup_payment("ab" * 32).state == "missing"


def test_a_long_description_is_cut_and_not_refused(wallet):
    assert wallet.make_invoice(AMOUNT, "x" * 500, 600, "").amount_msats == AMOUNT


@pytest.mark.parametrize("chain,network", [
    ("mainnet", "mainnet"), ("testnet", "testnet"), ("testnet3", "testnet"),
    ("Testnet4", "testnet"), ("signet", "signet"), ("regtest", "regtest")])
def test_the_chain_is_the_network(wallet, server, chain, network):
    server.chain = chain
    assert wallet.ask_network() == network


@pytest.mark.parametrize("chain", ["", None, 7, "litecoin"])
def test_a_chain_that_is_none(wallet, server, chain):
    server.chain = chain
    with pytest.raises(WalletMismatch):
        wallet.ask_network()


def test_pages_are_followed(wallet, monkeypatch, ledgers):
    monkeypatch.setattr(phoenixd, "PAGE", 3)
    other, hashes = ledgers("b"), set()
    other.fund(10_000_000)
    for _ in range(10):
        made = wallet.make_invoice(AMOUNT, "x", 600, "")
        other.pay(made.bolt11, AMOUNT, 0)
        hashes.add(made.payment_hash)
    assert {movement.payment_hash for movement in wallet.history()} == hashes


def test_d59_the_push_needs_the_password_and_is_a_hint(wallet, server):
    heard = []
    wallet.watch(heard.append)
    wait_for(lambda: heard == [None])
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    for text in ('{"type": "payment_received", "paymentHash": "' + made.payment_hash + '"}', "{}",
                 "no", '{"paymentHash": 7}', "[1]"):
        server.push(text)
    wait_for(lambda: heard == [None, made.payment_hash, None, None, None, None])
    assert wallet.lookup(made.payment_hash).state == "open"


def test_a_push_that_is_refused_is_tried_again_and_told_once(server, caplog):
    caplog.set_level("INFO")
    with closing(Phoenixd(server.url, "regtest", "wrong")) as wallet:
        wallet.watch(lambda changed: None)
        wait_for(lambda: wallet._push._broken.count == 2)
    assert caplog.text.count("no push") == 1 and "401" in caplog.text
    assert "wrong" not in caplog.text
