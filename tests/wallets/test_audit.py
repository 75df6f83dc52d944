"""The audit: clean on a node that did everything, and never clean on a falsified one."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest

from pylon.states import JobStage
from pylon.store import books, invoices, jobs, owed, payments, spending
from pylon.store.invoices import InvoiceRow
from pylon.wallets import audit as auditing
from pylon.wallets.audit import audit
from pylon.wallets.wallet import Outcome, Receipt
from tests.fakes.scripted_wallet import hash_of, preimage_of
from tests.store.conftest import Filler
from tests.store.test_payments import trade
from tests.wallets.paying import AGENT, NOW

J = JobStage
PAID, OWED_JOB, REFUNDED, WAIVED, OPEN = 101, 102, 103, 104, 105


def report(purse):
    return audit(purse.db, purse.wallet, "regtest", purse.clock.now())


def codes(purse):
    return {finding.code for finding in report(purse).findings}


@pytest.fixture
def node(purse):
    """A node that has earned, owed, refunded, waived, paid, failed, traded and waited."""
    report(purse)                               # the opening balance is the owner's
    purse.clock.pass_by(10)
    fill = Filler(purse.db)
    fill.hash = hash_of
    for number in (PAID, OWED_JOB, REFUNDED, WAIVED, OPEN):
        invoice = quoted(fill, number)
        if number == OPEN:
            continue
        if number != PAID:
            invoices.expire(purse.db, invoice, purse.clock.now())
        purse.wallet.receive(hash_of(number), 21_000)
        invoices.settle(purse.db, invoice, 21_000, number == PAID, purse.clock.now())
    deliver(purse, invoices.by_hash(purse.db, hash_of(PAID)).job_id)
    debts = {row.payment_hash: row.id for row in owed.list_all(purse.db)}
    owed.waive(purse.db, debts[hash_of(WAIVED)], purse.clock.now())
    purse.wallet.fee_msats = 250
    assert purse.pay(1, amount_msats=21_000, account=books.OWED, purpose=payments.REFUND,
                     scope=debts[hash_of(REFUNDED)]).paid
    assert purse.pay(2).paid
    for number, manner in ((3, "fails"), (4, "holds")):
        purse.wallet.manner = manner
        purse.pay(number)
    row = payments.reserve(purse.db, trade(1), purse.proposal(1).limits, purse.clock.now(),
                           purse.clock.uptime())
    with purse.db.transaction(durable=True) as tx:
        payments.settle_trade(tx, row.id, "provider", purse.clock.now())
    payments.transfer(purse.db, books.OWNER, AGENT, 5_000, "fund", "fund-1", purse.clock.now())
    purse.wallet.receive(hash_of(150), 7_000)
    purse.wallet.spend_elsewhere(hash_of(151), 3_000)
    report(purse)
    purse.clock.pass_by(100)
    return purse


def quoted(fill, number) -> InvoiceRow:
    invoice = fill.quoted(number)
    with fill.db.transaction(durable=True) as tx:
        tx.execute("UPDATE invoices SET wallet = 'scripted' WHERE id = ?", (invoice.id,))
    return invoice


def deliver(purse, job_id):
    for stage in (J.RUNNING, J.DONE, J.DELIVERED):
        with purse.db.transaction(durable=True) as tx:
            jobs.advance(tx, job_id, stage, NOW)


def test_p25_a_node_that_did_everything_is_clean(node):
    found = report(node)
    assert found.findings == []
    assert found.clean and not found.cover.underfunded
    assert found.checked == {"invoices": 5, "payments": 4, "movements": 8, "of_other_wallets": 0}
    assert [row.payment_hash for row in found.pending] == [hash_of(4)]
    assert found.cover.wallet_msats == node.wallet.funds_msats
    assert found.as_dict()["clean"] is True
    assert list(auditing.describe(found))[-1] == "clean"


def test_p25_auditing_again_changes_nothing(node):
    report(node)
    before = books.version(node.db)
    for _ in range(3):
        assert report(node).clean
    assert books.version(node.db) == before


def test_a_payment_that_the_books_wait_for_is_pending_and_no_difference(node):
    node.wallet.arrive()
    assert report(node).clean


# ---- twenty falsifications, and some more -------------------------------------------------------

FALSIFIED = {}


def falsification(code):
    def keep(change):
        FALSIFIED[change.__name__] = (change, code)
        return change
    return keep


def sql(purse, *statements):
    """Write past every trigger, as somebody with the file in an editor would."""
    db = sqlite3.connect(purse.home.database, isolation_level=None)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert db.execute(statement).rowcount > 0, statement
    db.close()


@falsification("not-balanced")
def one_side_of_a_booking_grows(purse):
    sql(purse, f"UPDATE entries SET amount_msats = amount_msats + 1 WHERE account = '{AGENT}' "
        "AND kind = 'fund'")


@falsification("not-balanced")
def a_booking_loses_a_side(purse):
    sql(purse, "DELETE FROM entries WHERE kind = 'received' AND account = 'provider'")


@falsification("receipt-differs")
def a_receipt_is_taken_out_of_the_books(purse):
    sql(purse, f"DELETE FROM entries WHERE kind = 'received' AND ref = '{hash_of(PAID)}'")


@falsification("receipt-differs")
def a_receipt_grows_on_both_sides(purse):
    sql(purse, "UPDATE entries SET amount_msats = amount_msats * 2 WHERE kind = 'received' AND "
        f"ref = '{hash_of(PAID)}'")


@falsification("receipt-differs")
def a_receipt_goes_to_another_account(purse):
    sql(purse, "UPDATE entries SET account = 'owner' WHERE kind = 'received' AND account = "
        f"'provider' AND ref = '{hash_of(PAID)}'")


@falsification("receipt-differs")
def a_receipt_is_invented(purse):
    sql(purse, "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        "('received', 'ff', 'external', -9, 1), ('received', 'ff', 'provider', 9, 1)")


@falsification("not-in-wallet")
def an_invoice_is_called_paid_that_was_not(purse):
    name = hash_of(OPEN)
    sql(purse, "UPDATE invoices SET status = 'paid', paid_amount_msats = 21000 WHERE "
        f"payment_hash = '{name}'",
        "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('received', '{name}', 'external', -21000, 1), ('received', '{name}', 'provider', "
        "21000, 1)", "INSERT INTO earnings(id, job_id, amount_msats, source, payment_hash) SELECT "
        f"'earn-x', job_id, 21000, 'job', payment_hash FROM invoices WHERE payment_hash = '{name}'",
        "UPDATE totals SET value = value + 21000 WHERE name = 'earnings_msats'")


@falsification("arrived-not-booked")
def a_payment_that_came_is_called_unpaid(purse):
    sql(purse, "UPDATE invoices SET status = 'expired', paid_amount_msats = NULL WHERE "
        f"payment_hash = '{hash_of(PAID)}'")


@falsification("amount-differs")
def a_receipt_is_another_amount_everywhere(purse):
    sql(purse, f"UPDATE invoices SET paid_amount_msats = 20000 WHERE "
        f"payment_hash = '{hash_of(PAID)}'",
        "UPDATE entries SET amount_msats = amount_msats * 20 / 21 WHERE kind = 'received' AND "
        f"ref = '{hash_of(PAID)}'",
        f"UPDATE earnings SET amount_msats = 20000 WHERE payment_hash = '{hash_of(PAID)}'",
        "UPDATE totals SET value = value - 1000 WHERE name = 'earnings_msats'")


@falsification("earnings-differ")
def an_earning_is_taken_out(purse):
    sql(purse, f"DELETE FROM earnings WHERE payment_hash = '{hash_of(PAID)}'")


@falsification("total-differs")
def an_earning_is_invented(purse):
    sql(purse, "INSERT INTO earnings(id, amount_msats, source) VALUES ('tip', 1000, 'tip')")


@falsification("total-differs")
def the_total_of_jobs_shrinks(purse):
    sql(purse, "UPDATE totals SET value = 0 WHERE name = 'jobs_completed'")


@falsification("unpaid-work")
def unpaid_work_is_called_delivered(purse):
    sql(purse, "UPDATE jobs SET stage = 'delivered' WHERE id = (SELECT job_id FROM invoices WHERE "
        f"payment_hash = '{hash_of(OPEN)}')")


@falsification("payment-differs")
def a_paid_one_is_called_failed(purse):
    sql(purse, f"UPDATE payments SET state = 'failed' WHERE payment_hash = '{hash_of(2)}'")


@falsification("paid-but-failed")
def a_paid_one_is_called_failed_and_its_money_given_back(purse):
    row = purse.row(2)
    sql(purse, f"UPDATE payments SET state = 'failed' WHERE id = {row.id}",
        f"DELETE FROM entries WHERE kind = 'paid' AND ref = 'payment-{row.id}'",
        "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('release', 'payment-{row.id}', 'reserved', -{row.cost_msats}, 1), "
        f"('release', 'payment-{row.id}', '{AGENT}', {row.cost_msats}, 1)")


@falsification("not-in-wallet")
def a_failed_one_is_called_paid_and_its_money_taken(purse):
    row = purse.row(3)
    sql(purse, f"UPDATE payments SET state = 'succeeded', fee_msats = 0 WHERE id = {row.id}",
        f"DELETE FROM entries WHERE kind = 'release' AND ref = 'payment-{row.id}'",
        "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('paid', 'payment-{row.id}', 'reserved', -{row.cost_msats}, 1), "
        f"('paid', 'payment-{row.id}', 'external', {row.amount_msats}, 1), "
        f"('paid', 'payment-{row.id}', '{AGENT}', {row.fee_cap_msats}, 1)")


@falsification("payment-differs")
def a_payment_is_another_amount(purse):
    sql(purse, f"UPDATE payments SET amount_msats = 9000 WHERE payment_hash = '{hash_of(2)}'")


@falsification("fee-differs")
def a_fee_is_another_one_everywhere(purse):
    row = purse.row(2)
    sql(purse, f"UPDATE payments SET fee_msats = 100 WHERE id = {row.id}",
        "UPDATE entries SET amount_msats = 100 WHERE kind = 'paid' AND account = 'fees' AND "
        f"ref = 'payment-{row.id}'",
        "UPDATE entries SET amount_msats = amount_msats + 150 WHERE kind = 'paid' AND "
        f"account = '{AGENT}' AND ref = 'payment-{row.id}'")


@falsification("bad-preimage")
def a_preimage_is_another_one(purse):
    sql(purse, f"UPDATE payments SET preimage = '{preimage_of(9)}' WHERE "
        f"payment_hash = '{hash_of(2)}'")


@falsification("payment-differs")
def a_payment_is_charged_to_another_account(purse):
    sql(purse, "UPDATE entries SET account = 'owner' WHERE kind = 'reserve' AND account = "
        f"'{AGENT}' AND ref = 'payment-{purse.row(2).id}'")


@falsification("account-differs")
def a_reservation_is_forgotten(purse):
    sql(purse, f"DELETE FROM payments WHERE payment_hash = '{hash_of(4)}'")


@falsification("paid-twice")
def one_action_has_two_payments(purse):
    db = sqlite3.connect(purse.home.database, isolation_level=None)
    db.execute("DROP INDEX idx_payments_action")
    db.close()
    sql(purse, f"UPDATE payments SET action_key = 'action-2' WHERE payment_hash = '{hash_of(4)}'")


@falsification("account-differs")
def a_debt_is_forgotten(purse):
    sql(purse, "DELETE FROM owed WHERE state = 'open'")


@falsification("account-differs")
def a_debt_is_called_waived(purse):
    sql(purse, "UPDATE owed SET state = 'waived' WHERE state = 'open'")


@falsification("account-negative")
def an_agent_is_robbed_for_the_owner(purse):
    sql(purse, "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('withdraw', 'w', '{AGENT}', -2000000, 1), ('withdraw', 'w', 'owner', 2000000, 1)")


@falsification("external-differs")
def a_deposit_of_the_owners_is_invented(purse):
    sql(purse, "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('external', 'in:{hash_of(160)}', 'external', -500, 1), "
        f"('external', 'in:{hash_of(160)}', 'owner', 500, 1)")


@falsification("underfunded")
def the_wallet_is_emptied_from_outside(purse):
    purse.wallet.funds_msats = 100_000


@falsification("underfunded")
def an_agent_is_given_what_the_wallet_does_not_have(purse):
    sql(purse, "INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
        f"('fund', 'x', '{AGENT}', 90000000, 1), ('fund', 'x', 'owner', -90000000, 1)")


@falsification("paid-twice")
def the_wallet_paid_a_hash_twice(purse):
    paid = next(move for move in purse.wallet.moves if move.payment_hash == hash_of(2))
    purse.wallet.moves.append(dataclasses.replace(paid, at=paid.at + 1))


@falsification("not-in-wallet")
def the_wallet_forgot_a_payment(purse):
    purse.wallet.moves = [m for m in purse.wallet.moves if m.payment_hash != hash_of(2)]
    purse.wallet.outcomes[hash_of(2)] = Outcome("missing")


@falsification("amount-differs")
def the_wallet_lists_another_amount(purse):
    purse.wallet.moves = [dataclasses.replace(m, amount_msats=m.amount_msats + 1)
                          if m.payment_hash == hash_of(PAID) else m for m in purse.wallet.moves]


@falsification("amount-differs")
def the_wallets_record_has_another_amount(purse):
    purse.wallet.moves = [m for m in purse.wallet.moves if m.payment_hash != hash_of(PAID)]
    purse.wallet.receipts[hash_of(PAID)] = Receipt("paid", 20_999)


@falsification("wrong-network")
def the_wallet_is_on_another_network(purse):
    purse.wallet.network = "mainnet"


@falsification("wallet-unreadable")
def the_wallet_is_silent(purse):
    purse.wallet.answers = False


@pytest.mark.parametrize("name", FALSIFIED)
def test_p25_a_falsification_is_found(node, name):
    change, code = FALSIFIED[name]
    change(node)
    assert code in codes(node), report(node).findings
    assert not report(node).clean
    last = list(auditing.describe(report(node)))[-1]
    assert "difference" in last


def test_p25_there_are_at_least_twenty():
    assert len(FALSIFIED) >= 20


# ---- stopping and starting ----------------------------------------------------------------------

def test_a_clean_audit_ends_the_stop_of_a_restored_home(node):
    with node.db.transaction(durable=True) as tx:
        spending.freeze(tx, spending.RESTORED, node.clock.now())
    assert report(node).clean
    assert spending.frozen(node.db) == []


def test_a_restored_home_that_differs_stays_stopped(node):
    with node.db.transaction(durable=True) as tx:
        spending.freeze(tx, spending.RESTORED, node.clock.now())
    a_payment_that_came_is_called_unpaid(node)
    assert not report(node).clean
    assert spending.frozen(node.db) == [spending.RESTORED]


def test_a_clean_audit_leaves_the_owners_own_stop(node):
    with node.db.transaction(durable=True) as tx:
        spending.freeze(tx, spending.BY_OWNER, node.clock.now())
    assert report(node).clean
    assert spending.frozen(node.db) == [spending.BY_OWNER]


def test_h100_a_database_of_last_week_is_found_out(node, tmp_path):
    """Restored from a backup: what was paid and received since then stands in the wallet only."""
    copy = sqlite3.connect(tmp_path / "old.db")
    source = sqlite3.connect(node.home.database)
    source.backup(copy)
    source.close()
    copy.close()
    invoice = invoices.by_hash(node.db, hash_of(OPEN))
    node.wallet.receive(hash_of(OPEN), 21_000)
    invoices.settle(node.db, invoice, 21_000, True, node.clock.now())
    node.wallet.arrive()
    node.reconcile(10)
    assert report(node).clean
    node.db.close()
    node.home.database.write_bytes((tmp_path / "old.db").read_bytes())
    for rest in node.home.root.glob("pylon.db-*"):
        rest.unlink()
    node.clock.pass_by(3600)
    node.db = type(node.db)(node.home.database)
    node.boot()
    assert codes(node) == {"arrived-not-booked"}
    before = node.wallet.calls("pay")
    node.reconcile(10)
    assert node.wallet.calls("pay") == before


# ---- moments ------------------------------------------------------------------------------------

def test_money_that_came_this_minute_is_being_booked(node):
    node.wallet.receive(hash_of(OPEN), 21_000)
    assert report(node).clean
    node.clock.pass_by(61)
    assert codes(node) == {"arrived-not-booked"}


def test_hashes_of_another_wallet_are_counted_and_left_out(node):
    node.wallet.name = "other"
    found = report(node)
    assert found.clean and found.checked["of_other_wallets"] == 9


def test_without_a_wallet_the_books_are_still_checked(node):
    a_booking_loses_a_side(node)
    found = audit(node.db, None, "regtest", node.clock.now())
    assert {"no-wallet", "not-balanced"} <= {finding.code for finding in found.findings}


def test_d50_an_invoice_paid_twice_is_owed_and_then_clean(node):
    node.clock.pass_by(5)
    node.wallet.receive(hash_of(PAID), 21_000)
    assert report(node).clean
    assert (21_000, "paid-twice") in [(row.amount_msats, row.reason)
                                      for row in owed.list_all(node.db)]


def test_d54_fifty_one_newer_movements_hide_nothing(node):
    invoice = invoices.by_hash(node.db, hash_of(OPEN))
    node.wallet.receive(hash_of(OPEN), 21_000)
    for number in range(300, 400):
        node.wallet.receive(hash_of(number), 1_000)
    invoices.settle(node.db, invoice, 21_000, True, node.clock.now())
    assert report(node).clean


def test_payments_while_the_audit_looks_make_no_differences(node):
    """The books go on between the look and the comparison; it looks again."""
    looks = []
    history = node.wallet.history

    def busy(*args):
        looks.append(1)
        if len(looks) < 3:
            node.wallet.manner = "pays"
            node.pay(10 + len(looks))
        return history(*args)
    node.wallet.history = busy
    assert report(node).clean
    assert len(looks) >= 3
