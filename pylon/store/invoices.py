"""Invoices that Pylon made, and the transactions by which their money arrives.

`watch_until` is set while the wallet must still be asked about the hash: long after expiry,
because Lightning pays late. `settle` is the only place where arriving money is booked.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pylon.failpoints import hit
from pylon.nostr.event import Event
from pylon.states import JobStage
from pylon.store import books, earnings, jobs, journal, outbox
from pylon.store.database import Database

J = JobStage
LATE_MAY_RUN, LATE_IS_OWED = True, False


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice of ours; `hold` means that payment is only held until we take it."""

    id: str
    job_id: str | None
    bolt11: str
    payment_hash: str
    amount_msats: int
    status: str                     # pending | paid | expired | cancelled
    hold: bool
    account: str
    created_at: int
    expires_at: int
    watch_until: int | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "InvoiceRow":
        return cls(row["id"], row["job_id"], row["bolt11"], row["payment_hash"],
                   row["amount_msats"], row["status"], bool(row["hold"]), row["account"],
                   row["created_at"], row["expires_at"] or 0, row["watch_until"])


def begin(db: Database, job_id: str, price_msats: int, hold_preimage: str | None,
          now: int) -> None:
    """RECEIVED -> INVOICING: the intent stands before the wallet is asked."""
    with db.transaction(durable=True) as tx:
        jobs.advance(tx, job_id, J.INVOICING, now, price_msats=price_msats,
                     payment="hold" if hold_preimage else "invoice", hold_preimage=hold_preimage)
    hit("K3")


def quote(db: Database, job: jobs.JobRow, invoice: InvoiceRow, wallet: str, feedback: Event,
          watch_until: int, now: int) -> None:
    """INVOICING -> QUOTED: invoice and payment-required feedback stand before they are sent."""
    with db.transaction(durable=True) as tx:
        _insert(tx, invoice, wallet, watch_until)
        jobs.advance(tx, job.id, J.QUOTED, now, price_msats=invoice.amount_msats)
        outbox.add(tx, feedback, "quote", job.id, job.answer_relays, now, invoice.expires_at)
        journal.add(tx, "InvoiceCreated", job.id,
                    {"amount_msats": invoice.amount_msats, "payment_hash": invoice.payment_hash,
                     "expires_at": invoice.expires_at, "hold": invoice.hold}, now)
    hit("K6")


def add(db: Database, invoice: InvoiceRow, wallet: str, now: int) -> None:
    """An invoice that belongs to no job: the owner's, or an agent's."""
    with db.transaction(durable=True) as tx:
        _insert(tx, invoice, wallet, invoice.watch_until or invoice.expires_at)
        journal.add(tx, "InvoiceCreated", invoice.payment_hash,
                    {"amount_msats": invoice.amount_msats, "account": invoice.account}, now)


def _insert(tx: sqlite3.Connection, invoice: InvoiceRow, wallet: str, watch_until: int) -> None:
    tx.execute("INSERT INTO invoices(id, job_id, bolt11, amount_msats, status, created_at, "
               "payment_hash, account, wallet, hold, expires_at, watch_until) "
               "VALUES (?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?)",
               (invoice.id, invoice.job_id, invoice.bolt11, invoice.amount_msats,
                invoice.created_at, invoice.payment_hash, invoice.account, wallet, invoice.hold,
                invoice.expires_at, watch_until))


def watched(db: Database) -> list[InvoiceRow]:
    """Invoices whose hash the wallet must still be asked about, oldest first."""
    return [InvoiceRow.of(row) for row in db.query(
        "SELECT * FROM invoices WHERE watch_until IS NOT NULL ORDER BY created_at")]


def by_hash(db: Database, payment_hash: str) -> InvoiceRow | None:
    row = db.one("SELECT * FROM invoices WHERE payment_hash = ?", (payment_hash,))
    return InvoiceRow.of(row) if row else None


def of_job(db: Database, job_id: str) -> InvoiceRow | None:
    row = db.one("SELECT * FROM invoices WHERE job_id = ? AND payment_hash IS NOT NULL",
                 (job_id,))
    return InvoiceRow.of(row) if row else None


def settle(db: Database, invoice: InvoiceRow, received_msats: int, can_run: bool,
           now: int) -> JobStage | None:
    """The wallet shows the money: book it once and move the job. Returns the job's new stage.

    In time and in full: PAID. Late: PAID where `can_run`, else OWED. Too little, or for a job
    that was cancelled or refused meanwhile: OWED. A held payment that was taken: SETTLED.
    A second call finds the invoice paid and does nothing (None).
    """
    with db.transaction(durable=True) as tx:
        row = tx.execute("SELECT status FROM invoices WHERE id = ?", (invoice.id,)).fetchone()
        if row["status"] == "paid":
            return None
        tx.execute("UPDATE invoices SET status = 'paid', paid_amount_msats = ?, paid_at = ?, "
                   "watch_until = NULL WHERE id = ?", (received_msats, now, invoice.id))
        books.post(tx, "received", invoice.payment_hash,
                   {books.EXTERNAL: -received_msats, invoice.account: received_msats}, now)
        journal.add(tx, "PaymentReceived", invoice.job_id or invoice.payment_hash,
                    {"amount_msats": received_msats, "payment_hash": invoice.payment_hash}, now)
        stage = None
        if invoice.job_id is not None:
            earnings.add(tx, f"earn-{invoice.payment_hash[:32]}", invoice.job_id, received_msats,
                         "job", invoice.payment_hash, now)
            stage = _move_paid_job(tx, invoice, received_msats, can_run, now)
    hit("K10")
    return stage


def _move_paid_job(tx: sqlite3.Connection, invoice: InvoiceRow, received_msats: int,
                   can_run: bool, now: int) -> JobStage:
    job = jobs.JobRow.of(tx.execute("SELECT * FROM jobs WHERE id = ?",
                                    (invoice.job_id,)).fetchone())
    if job.stage == J.SETTLING:
        jobs.advance(tx, job.id, J.SETTLED, now)
        return J.SETTLED
    enough = received_msats >= invoice.amount_msats
    if enough and (job.stage == J.QUOTED or (job.stage == J.EXPIRED and can_run)):
        jobs.advance(tx, job.id, J.PAID, now, payment="invoice")
        return J.PAID
    if job.stage == J.HELD:                       # somebody took the held money for us
        jobs.advance(tx, job.id, J.PAID, now, payment="invoice")
        return J.PAID
    if job.stage in (J.QUOTED, J.EXPIRED, J.CANCELLED, J.CANCELLING, J.REJECTED):
        code = "paid-too-little" if not enough else "paid-late"
        owe(tx, job, received_msats, code, now)
        return J.OWED
    return job.stage


def hold(db: Database, invoice: InvoiceRow, can_run: bool, deadline_at: int,
         now: int) -> JobStage | None:
    """The wallet holds the customer's money: QUOTED/EXPIRED -> HELD; nothing is booked.

    Returns HELD, or None where the job can't use it any more: the caller cancels the hold.
    """
    with db.transaction(durable=True) as tx:
        row = tx.execute("SELECT * FROM jobs WHERE id = ?", (invoice.job_id,)).fetchone()
        job = jobs.JobRow.of(row)
        if job.stage == J.QUOTED or (job.stage == J.EXPIRED and can_run):
            jobs.advance(tx, job.id, J.HELD, now,
                         deadline_at=min(job.deadline_at or deadline_at, deadline_at))
            journal.add(tx, "PaymentHeld", job.id, {"payment_hash": invoice.payment_hash,
                                                    "deadline_at": deadline_at}, now)
            return J.HELD
    return job.stage if job.stage != J.EXPIRED and job.stage != J.CANCELLED else None


def expire(db: Database, invoice: InvoiceRow, now: int) -> bool:
    """QUOTED -> EXPIRED; the hash stays watched until `watch_until`. True where it changed."""
    with db.transaction(durable=False) as tx:
        done = tx.execute("UPDATE invoices SET status = 'expired' WHERE id = ? AND "
                          "status = 'pending'", (invoice.id,)).rowcount
        row = tx.execute("SELECT stage FROM jobs WHERE id = ?", (invoice.job_id,)).fetchone()
        if row is not None and row["stage"] == J.QUOTED:
            jobs.advance(tx, str(invoice.job_id), J.EXPIRED, now, code="not-paid",
                         error_message="the invoice was not paid in time")
            journal.add(tx, "InvoiceExpired", str(invoice.job_id),
                        {"payment_hash": invoice.payment_hash}, now)
    return bool(done)


def unwatch(db: Database, invoice: InvoiceRow, status: str, now: int) -> None:
    """The wallet's last word is spoken, or the watching time is over: ask no more."""
    with db.transaction(durable=False) as tx:
        tx.execute("UPDATE invoices SET watch_until = NULL, status = CASE status WHEN 'paid' "
                   "THEN 'paid' ELSE ? END WHERE id = ?", (status, invoice.id))


def owe(tx: sqlite3.Connection, job: jobs.JobRow, amount_msats: int, code: str,
        now: int, stage_too: bool = True) -> None:
    """Money arrived for work that will not be delivered: it moves to `owed` (promise 1)."""
    row = tx.execute("SELECT payment_hash FROM invoices WHERE job_id = ? AND "
                     "payment_hash IS NOT NULL", (job.id,)).fetchone()
    payment_hash = row["payment_hash"] if row else None
    if stage_too:
        jobs.advance(tx, job.id, J.OWED, now, code=code)
    books.post(tx, "owed", job.id, {books.PROVIDER: -amount_msats, books.OWED: amount_msats}, now)
    earnings.add(tx, f"owed-{job.id}", job.id, -amount_msats, "job", payment_hash, now)
    tx.execute("INSERT INTO owed(id, job_id, customer_pubkey, payment_hash, amount_msats, reason, "
               "created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
               (job.id[:16], job.id, job.customer_pubkey, payment_hash, amount_msats, code, now))
    journal.add(tx, "MoneyOwed", job.id, {"amount_msats": amount_msats, "code": code}, now)
