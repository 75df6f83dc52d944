"""What is LNbits' own: keys, its two versions, other people's wallets, the push."""

from contextlib import closing

import pytest

from pylon.errors import ConfigError, WalletDenied, WalletMismatch
from pylon.wallets import lnbits
from pylon.wallets.lnbits import Lnbits
from tests.fakes import lnbits as fake
from tests.waiting import wait_for

AMOUNT = 21_000
KEYS = f"{fake.ADMIN_KEY}\n{fake.INVOICE_KEY}\n"


@pytest.fixture
def server(ledgers):
    ledger = ledgers("a")
    ledger.fund(10_000_000)
    with closing(fake.Lnbits(ledger)) as server:
        yield server


@pytest.fixture
def wallet(server):
    with closing(Lnbits(server.url, KEYS, "regtest")) as wallet:
        yield wallet


@pytest.mark.parametrize("keys", ["", "short", "a b c", "x" * 15, "ä" * 32, "a" * 32 + "/../x"])
def test_what_is_no_key_is_refused_without_showing_it(keys):
    with pytest.raises(ConfigError) as caught:
        Lnbits("http://127.0.0.1:1", keys, "regtest")
    assert not keys or keys not in str(caught.value)


def test_the_admin_key_is_used_for_paying_only(wallet, server, ledgers):
    wallet.make_invoice(AMOUNT, "x", 600, "n")
    wallet.find_invoice("n")
    wallet.balance()
    wallet.history()
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    wallet.pay(other.bolt11, AMOUNT, 10_000)
    used = {call.headers["X-Api-Key"] for call in server.calls if not call.values.get("out")}
    assert used == {fake.INVOICE_KEY}
    paying = [call for call in server.calls if call.values.get("out")]
    assert [call.headers["X-Api-Key"] for call in paying] == [fake.ADMIN_KEY]


def test_one_key_does_everything(server, ledgers):
    with closing(Lnbits(server.url, fake.ADMIN_KEY, "regtest")) as wallet:
        assert wallet.info()["can_pay"] is True
        other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
        assert wallet.pay(other.bolt11, AMOUNT, 10_000).state == "paid"
    with closing(Lnbits(server.url, fake.INVOICE_KEY, "regtest")) as wallet:
        assert wallet.info()["can_pay"] is False


def test_a_key_that_is_not_known_is_denied_and_nothing_is_missing(wallet, server, ledgers):
    """Asked with an unknown key, LNbits looks into everybody's wallets or says 404."""
    made = wallet.make_invoice(AMOUNT, "x", 600, "n")
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    wallet.pay(other.bolt11, AMOUNT, 10_000)
    server.known_keys.clear()
    for call in (wallet.balance, wallet.history, wallet.info, wallet.ask_network,
                 lambda: wallet.lookup(made.payment_hash), lambda: wallet.lookup("ab" * 32),
                 lambda: wallet.lookup_payment(other.payment_hash),
                 lambda: wallet.lookup_payment("ab" * 32), lambda: wallet.find_invoice("n"),
                 lambda: wallet.make_invoice(AMOUNT, "x", 600, "m")):
        with pytest.raises(WalletDenied):
            call()


def test_names_are_found_on_servers_that_do_not_know_them(wallet, server):
    server.without_external_id = True
    made = wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    for _ in range(3):
        wallet.make_invoice(AMOUNT, "x", 600, "")
    assert wallet.find_invoice("job-1").payment_hash == made.payment_hash
    assert wallet.find_invoice("job-2") is None


def test_the_oldest_of_two_invoices_of_one_name_is_adopted(wallet, clock):
    first = wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    clock.now += 1
    wallet.make_invoice(AMOUNT, "x", 600, "job-1")
    assert wallet.find_invoice("job-1").payment_hash == first.payment_hash


def test_e69_a_fee_reserve_above_the_cap_pays_nothing(wallet, server, ledgers):
    other = ledgers("b").make_invoice(AMOUNT, "x", 600, "")
    outcome = wallet.pay(other.bolt11, AMOUNT, 1999)
    assert outcome.state == "failed" and "reserve" in outcome.reason
    assert not [call for call in server.calls if call.values.get("out")]
    assert wallet.pay(other.bolt11, AMOUNT, 2000).state == "paid"
    assert wallet.pay(other.bolt11, AMOUNT, 0).state == "paid"      # how it ended stays


def test_pages_are_followed(wallet, monkeypatch, ledgers):
    monkeypatch.setattr(lnbits, "PAGE", 3)
    other, hashes = ledgers("b"), set()
    other.fund(10_000_000)
    for _ in range(10):
        made = wallet.make_invoice(AMOUNT, "x", 600, "")
        other.pay(made.bolt11, AMOUNT, 0)
        hashes.add(made.payment_hash)
    assert {movement.payment_hash for movement in wallet.history()} >= hashes
    assert len(wallet.history(0, 4)) == 4


def test_a_late_payment_of_an_old_invoice_is_in_the_history_since_then(wallet, ledgers, clock):
    made = wallet.make_invoice(AMOUNT, "x", 86400, "")
    clock.now += 50_000
    since = int(clock.now)
    other = ledgers("b")
    other.fund(AMOUNT)
    other.pay(made.bolt11, AMOUNT, 0)
    assert [movement.payment_hash for movement in wallet.history(since)] == [made.payment_hash]


def test_the_network_is_seen_in_its_invoices(wallet, server):
    assert wallet.ask_network() == "regtest"        # made one to see it
    assert len(server.records()) == 1
    assert wallet.ask_network() == "regtest"
    assert len(server.records()) == 1


def test_an_answer_that_is_no_invoice_says_no_network(wallet, server, monkeypatch):
    monkeypatch.setattr(server, "create", lambda values: (201, {"bolt11": "lnbc"}))
    with pytest.raises(WalletMismatch):
        wallet.ask_network()


def test_d59_what_the_push_says_is_a_hint(wallet, server, ledgers):
    heard = []
    wallet.watch(heard.append)
    wait_for(lambda: heard == [None])               # connected: anything may have happened
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    for text in ('{"payment": {"payment_hash": "' + made.payment_hash + '"}}', "{}", "no json",
                 '{"payment": {"payment_hash": 7}}', "[" * 10_000):
        server.push(text)
    wait_for(lambda: heard == [None, made.payment_hash, None, None, None, None])
    assert wallet.lookup(made.payment_hash).state == "open"


def test_the_push_comes_back_after_a_cut(wallet, server, ledgers):
    heard = []
    wallet.watch(heard.append)
    wait_for(lambda: server.listeners() == 1)
    server.hang_up()
    wait_for(lambda: heard.count(None) == 2)
    made = wallet.make_invoice(AMOUNT, "x", 600, "")
    other = ledgers("b")
    other.fund(AMOUNT)
    wait_for(lambda: server.listeners() == 1)
    other.pay(made.bolt11, AMOUNT, 0)
    wait_for(lambda: made.payment_hash in heard)


def test_the_key_in_the_push_s_address_is_not_logged(server, caplog):
    caplog.set_level("DEBUG", "pylon")
    with closing(Lnbits(server.url, KEYS, "regtest")) as wallet:
        server.close()
        wallet.watch(lambda changed: None)
        wait_for(lambda: "no push" in caplog.text, 40)
    assert fake.INVOICE_KEY not in caplog.text and fake.ADMIN_KEY not in caplog.text
