"""The owner's desk: its commands by name, on a wallet that is no ledger."""

from __future__ import annotations

import dataclasses

import pytest

from pylon.errors import PylonError, Refused, UsageError
from pylon.store import books, invoices, payments
from pylon.wallets.desk import ASKING, HANDLERS, Desk
from tests.fakes.scripted_wallet import foreign_invoice, hash_of
from tests.store.conftest import Filler
from tests.wallets.paying import NOW

CHANGES = {"WalletInvoice", "WalletPay", "WalletFund", "WalletResolve", "WalletStopSpending",
           "OwedPay", "OwedWaive"}


@pytest.fixture
def rung():
    return []


@pytest.fixture
def desk(purse, rung):
    return Desk(purse.db, purse.payer, "regtest", lambda: rung.append("ring"), purse.clock.now)


def do(desk, name, **args):
    return HANDLERS[name](desk, args)


def test_what_changes_something_is_told_apart_from_what_only_asks():
    assert set(HANDLERS) == ASKING | CHANGES and not ASKING & CHANGES


def test_the_balance_says_whose_the_money_is(desk, purse):
    purse.wallet.manner = "holds"
    purse.pay(1)
    found = do(desk, "WalletBalance")
    assert found["agents_msats"] == {"npub1agent": 980_000}
    assert found["reserved_msats"] == 20_000 and found["owner_msats"] == 9_000_000


def test_the_status_of_a_silent_wallet_is_no_error(desk, purse):
    purse.wallet.answers = False
    found = do(desk, "WalletStatus")
    assert not found["connected"] and "does not answer" in found["trouble"]


def test_the_address_is_the_wallets_own(desk):
    assert do(desk, "WalletAddress")["lud16"] == "node@pay.example"
    assert do(desk, "WalletWhoami")["node"].startswith("02")


def test_the_same_invoice_command_twice_makes_one_invoice(desk, purse, rung):
    first, second = (do(desk, "WalletInvoice", amount_msats=21_000, key="k") for _ in range(2))
    assert first == second and rung == ["ring", "ring"]
    assert invoices.by_hash(purse.db, first["payment_hash"]).account == books.OWNER
    assert do(desk, "WalletInvoice", amount_msats=21_000)["bolt11"] != first["bolt11"]


def test_a_wallet_of_whole_sats_makes_no_odd_invoice(desk, purse):
    purse.wallet.whole_sats = True
    with pytest.raises(UsageError, match="whole sats"):
        do(desk, "WalletInvoice", amount_msats=21_001)


def test_the_same_payment_command_twice_pays_once(desk, purse):
    text = foreign_invoice(1, 10_000, at=NOW)
    states = [do(desk, "WalletPay", bolt11=text, key="k", max_fee_msats=0)["state"]
              for _ in range(2)]
    assert states == ["succeeded"] * 2 and purse.wallet.calls("pay") == 1


def test_history_says_what_each_movement_was_for(desk, purse):
    fill = Filler(purse.db)
    fill.hash = hash_of
    job = fill.quoted(101)
    purse.wallet.receive(hash_of(101), 21_000)
    own = do(desk, "WalletInvoice", amount_msats=5_000)
    purse.wallet.receive(own["payment_hash"], 5_000)
    purse.pay(1, scope="tick-1")
    purse.wallet.receive("", 1_000)
    found = do(desk, "WalletHistory", limit=10)["movements"]
    assert [(m["for"], m["ref"]) for m in found] == [
        ("external", None), ("infer", "tick-1"), ("owner", None), ("job", job.job_id)]
    assert len(do(desk, "WalletHistory", limit=2)["movements"]) == 2
    assert [row.scope for row in payments.of_scope(purse.db, "tick-1")] == ["tick-1"]


def test_play_money_is_the_ledgers_alone(desk):
    with pytest.raises(Refused) as raised:
        do(desk, "WalletFund", amount_msats=1)
    assert raised.value.code == "not-play-money"


@pytest.mark.parametrize("name, args", [
    ("WalletPay", {}), ("WalletPay", {"bolt11": ""}), ("WalletPay", {"bolt11": 5}),
    ("WalletPay", {"bolt11": "x", "max_msats": "9"}),
    ("WalletPay", {"bolt11": "x", "max_msats": -1}),
    ("WalletPay", {"bolt11": "x", "max_fee_msats": 1.5}),
    ("WalletInvoice", {"amount_msats": True}), ("WalletInvoice", {"amount_msats": 0}),
    ("WalletInvoice", {"amount_msats": 1000, "expiry_secs": 1}),
    ("WalletHistory", {"limit": 0}), ("WalletHistory", {"limit": 10**9}),
    ("WalletResolve", {}), ("OwedPay", {"id": "x"}), ("OwedWaive", {"id": None})])
def test_senseless_arguments_are_refused(desk, purse, name, args):
    with pytest.raises(PylonError):
        do(desk, name, **args)
    assert purse.wallet.calls("pay") == 0


def test_the_audit_in_lines_names_pending_payments_and_movements(desk, purse):
    do(desk, "WalletAudit")
    purse.clock.pass_by(5)
    purse.wallet.manner = "holds"
    purse.pay(1)
    purse.wallet.receive(hash_of(150), 7_000)
    purse.wallet.moves.append(dataclasses.replace(
        purse.wallet.moves[0], payment_hash=hash_of(151), incoming=False, state="pending"))
    found = do(desk, "WalletAudit")
    assert found["clean"] and [m["amount_msats"] for m in found["external"]] == [7_000]
    text = "\n".join(found["text"])
    assert "external: +7 sats" in text and "pending: payment" in text and "clean" in text


def test_the_audit_in_lines_says_what_could_not_be_compared(desk, purse):
    purse.pay(1)
    purse.wallet.name = "another"
    assert "1 of another wallet could not be compared" in do(desk, "WalletAudit")["text"]


def test_only_unknown_payments_are_resolved(desk, purse):
    for manner in ("holds", "pays"):
        purse.wallet.manner = manner
        purse.pay(1 if manner == "holds" else 2)
    with pytest.raises(Refused):
        do(desk, "WalletResolve", payment_hash=hash_of(2)[:8])
    purse.clock.pass_by(86_400)
    assert do(desk, "WalletResolve", payment_hash=hash_of(1)[:8])["state"] == "failed"
