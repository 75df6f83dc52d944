"""What is owed: found, waived, and never twice."""

from __future__ import annotations

import pytest

from pylon.errors import Refused
from pylon.states import JobStage
from pylon.store import books, checks, earnings, invoices, jobs, owed
from tests.store.conftest import CUSTOMER, NOW


@pytest.fixture
def debt(fill, db):
    invoice = fill.quoted(1, amount_msats=21_500)
    invoices.expire(db, invoice, NOW + 700)
    invoices.settle(db, invoice, 21_500, False, NOW + 5000)
    return owed.list_all(db)[0]


def refused(call, code):
    with pytest.raises(Refused) as raised:
        call()
    assert raised.value.code == code


def test_a_row_says_what_is_owed_to_whom_and_why(debt):
    assert (debt.amount_msats, debt.customer_pubkey, debt.reason, debt.state) == (
        21_500, CUSTOMER, "paid-late", "open")


def test_waiving_keeps_the_money_as_earned(debt, db):
    assert earnings.total(db) == 0
    owed.waive(db, debt.id, NOW + 9000)
    assert earnings.total(db) == 21_500
    assert books.balance(db, books.PROVIDER) == 21_500 and books.balance(db, books.OWED) == 0
    assert jobs.get(db, debt.job_id).stage == JobStage.WAIVED
    assert owed.list_all(db) == []
    assert checks.all_findings(db) == []


def test_waiving_twice_is_refused_and_books_once(debt, db):
    owed.waive(db, debt.id, NOW)
    refused(lambda: owed.waive(db, debt.id, NOW), "not-owed")
    assert books.balance(db, books.PROVIDER) == 21_500


def test_a_refund_of_what_is_not_owed_is_refused(debt, db):
    with db.transaction(durable=True) as tx:
        refused(lambda: owed.settling(tx, "no such id", NOW), "not-owed")


def test_a_row_is_found_by_the_beginning_of_its_id(debt, db):
    assert owed.find(db, debt.id[:6]) == debt
    for wrong in ("", "zz", debt.id + "0"):
        refused(lambda: owed.find(db, wrong), "not-owed")


@pytest.mark.parametrize("amount, fits", [(21_500, True), (21_000, True), (20_500, False),
                                          (21_501, False), (0, False)])
def test_an_invoice_asks_for_what_is_owed_odd_msats_aside(debt, amount, fits):
    if fits:
        owed.check_refund(debt, amount)
    else:
        refused(lambda: owed.check_refund(debt, amount), "refund-amount")


def test_odd_msats_that_no_invoice_asked_for_are_kept(debt, db, fill):
    fill.fund("owner", 10_000)
    with db.transaction(durable=True) as tx:
        owed.settling(tx, debt.id, NOW)
        books.post(tx, "test", "paid", {books.OWED: -21_000, books.EXTERNAL: 21_000}, NOW)
        owed.refunded(tx, debt.id, 21_000, NOW)
    assert books.balance(db, books.OWED) == 0
    assert earnings.total(db) == 500
    assert checks.all_findings(db) == []


def test_d50_a_second_payment_of_one_invoice_is_owed_once(db, fill):
    invoice = fill.quoted(2)
    invoices.settle(db, invoice, 21_000, True, NOW)
    for _ in range(3):
        with db.transaction(durable=True) as tx:
            owed.add_second(tx, invoice.payment_hash, invoice.job_id, CUSTOMER, 21_000, 2, NOW)
    rows = owed.list_all(db)
    assert [(row.amount_msats, row.reason) for row in rows] == [(21_000, "paid-twice")]
    assert books.balance(db, books.OWED) == 21_000
    assert jobs.get(db, invoice.job_id).stage == JobStage.PAID
    assert checks.all_findings(db) == []
    owed.waive(db, rows[0].id, NOW)
    assert jobs.get(db, invoice.job_id).stage == JobStage.PAID
    assert checks.all_findings(db) == []
