"""Money arriving: booked once, by the wallet's word, whatever comes when."""

from __future__ import annotations

import pytest

from pylon.errors import IllegalTransition
from pylon.states import JobStage
from pylon.store import books, checks, earnings, invoices, jobs, meta, outbox, owed
from pylon.store.invoices import InvoiceRow
from tests.store.conftest import NOW

J = JobStage


def settle(db, invoice, received=21_000, can_run=True, now=NOW + 5):
    return invoices.settle(db, invoice, received, can_run, now)


def booked(db):
    assert checks.all_findings(db) == []
    return (books.balance(db, books.PROVIDER), books.balance(db, books.OWED), earnings.total(db))


def test_a_quote_stands_with_its_feedback(db, fill):
    invoice = fill.quoted(1)
    assert fill.stage(invoice.job_id) == J.QUOTED
    assert outbox.get(db, "quote", invoice.job_id) is not None
    assert [row.id for row in invoices.watched(db)] == [invoice.id]
    assert booked(db) == (0, 0, 0)


def test_p3_a_payment_is_booked_once_however_often_it_is_told(db, fill):
    invoice = fill.quoted(1)
    assert settle(db, invoice) == J.PAID
    for _ in range(100):
        assert settle(db, invoice) is None
    assert booked(db) == (21_000, 0, 21_000)
    assert meta.total(db, "earnings_msats") == 21_000
    assert fill.journalled("PaymentReceived") == 1
    assert invoices.watched(db) == []


def test_d49_paid_at_the_expiry_second_is_paid(db, fill):
    invoice = fill.quoted(1)
    assert settle(db, invoice, now=invoice.expires_at) == J.PAID


def test_d49_paid_late_and_still_of_use_is_served(db, fill):
    invoice = fill.quoted(1)
    assert invoices.expire(db, invoice, NOW + 601)
    assert fill.stage(invoice.job_id) == J.EXPIRED
    assert settle(db, invoice, can_run=True, now=NOW + 602) == J.PAID
    assert booked(db) == (21_000, 0, 21_000)


@pytest.mark.parametrize("late_secs", [86_400, 8 * 86_400])
def test_d49_paid_too_late_is_owed(db, fill, late_secs):
    invoice = fill.quoted(1)
    invoices.expire(db, invoice, NOW + 601)
    assert settle(db, invoice, can_run=False, now=NOW + 600 + late_secs) == J.OWED
    assert booked(db) == (0, 21_000, 0)
    assert [(row.amount_msats, row.reason) for row in owed.list_all(db)] == [(21_000, "paid-late")]


def test_d51_overpaid_is_booked_as_received(db, fill):
    invoice = fill.quoted(1)
    assert settle(db, invoice, received=25_000) == J.PAID
    assert booked(db) == (25_000, 0, 25_000)


def test_d51_underpaid_is_not_paid_but_owed_back(db, fill):
    invoice = fill.quoted(1)
    assert settle(db, invoice, received=20_999) == J.OWED
    assert booked(db) == (0, 20_999, 0)
    assert owed.list_all(db)[0].reason == "paid-too-little"


def test_d52_what_is_paid_stays_paid_whatever_the_wallet_says_later(db, fill):
    invoice = fill.quoted(1)
    settle(db, invoice)
    invoices.expire(db, invoice, NOW + 700)
    invoices.unwatch(db, invoice, "expired", NOW + 700)
    row = invoices.by_hash(db, invoice.payment_hash)
    assert row.status == "paid"
    assert fill.stage(invoice.job_id) == J.PAID
    assert booked(db) == (21_000, 0, 21_000)


def test_c47_a_job_cancelled_before_its_late_payment_is_owed(db, fill):
    invoice = fill.quoted(1)
    with db.transaction(durable=False) as tx:
        jobs.advance(tx, invoice.job_id, J.CANCELLED, NOW)
    assert settle(db, invoice) == J.OWED
    assert booked(db) == (0, 21_000, 0)


def test_held_money_is_not_booked_until_it_is_taken(db, fill):
    invoice = fill.quoted(1, hold=True)
    assert invoices.hold(db, invoice, True, NOW + 300, NOW + 5) == J.HELD
    assert booked(db) == (0, 0, 0)
    assert jobs.get(db, invoice.job_id).deadline_at == NOW + 300
    for stage in (J.RUNNING, J.DONE, J.DELIVERED):
        with db.transaction(durable=True) as tx:
            jobs.advance(tx, invoice.job_id, stage, NOW)
    assert [job.stage for job in jobs.begin_settling(db, NOW)] == [J.SETTLING]
    assert settle(db, invoice) == J.SETTLED
    assert booked(db) == (21_000, 0, 21_000)


def test_a_hold_for_a_job_that_is_over_is_for_the_caller_to_cancel(db, fill):
    invoice = fill.quoted(1, hold=True)
    invoices.expire(db, invoice, NOW + 700)
    assert invoices.hold(db, invoice, False, NOW + 900, NOW + 700) is None


def test_an_invoice_of_the_owners_belongs_to_no_job(db):
    row = InvoiceRow("inv_own", None, "lnbcrt1", "ab" * 32, 5000, "pending", False, books.OWNER,
                     NOW, NOW + 600, None)
    invoices.add(db, row, "fake", NOW)
    assert settle(db, invoices.by_hash(db, "ab" * 32), 5000) is None
    assert books.balance(db, books.OWNER) == 5000
    assert earnings.total(db) == 0
    assert checks.all_findings(db) == []


def test_one_hash_has_one_invoice(db, fill):
    fill.quoted(1)
    with pytest.raises(Exception, match="UNIQUE"):
        fill.quoted(1)


def test_an_expired_invoice_expires_once(db, fill):
    invoice = fill.quoted(1)
    assert invoices.expire(db, invoice, NOW + 700)
    assert not invoices.expire(db, invoice, NOW + 701)
    assert fill.journalled("InvoiceExpired") == 1
    with pytest.raises(IllegalTransition):
        with db.transaction(durable=False) as tx:
            jobs.advance(tx, invoice.job_id, J.RUNNING, NOW)
