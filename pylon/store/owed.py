"""Owed: money that arrived for work that was not delivered, and how the owner ends it.

A row is open, settling (its refund is being paid), refunded, or waived (the owner keeps the money
by agreement). The money stands in the account `owed` until then. `settling`, `reopen` and
`refunded` run inside the steps of the refund's payment, so neither can be without the other.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pylon.errors import Refused
from pylon.states import JobStage
from pylon.store import books, earnings, jobs, journal
from pylon.store.database import Database, ReadOnly
from pylon.units import MSATS_PER_SAT, format_sats


@dataclass(frozen=True, slots=True)
class OwedRow:
    """What is owed to whom and why; `reason` is the code that the customer was told."""

    id: str
    job_id: str | None
    customer_pubkey: str
    payment_hash: str | None
    amount_msats: int
    reason: str
    state: str                      # open | settling | refunded | waived
    created_at: int
    settled_at: int | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "OwedRow":
        return cls(**{name: row[name] for name in cls.__slots__})


def list_all(db: Database | ReadOnly, ended: bool = False) -> list[OwedRow]:
    """What is owed, oldest first; with `ended` also what was."""
    return [OwedRow.of(row) for row in db.query(
        "SELECT * FROM owed WHERE ? OR state IN ('open', 'settling') ORDER BY created_at, id",
        (ended,))]


def find(db: Database, prefix: str) -> OwedRow:
    """The row whose id starts so. Raises Refused."""
    rows = [row for row in list_all(db, ended=True) if prefix and row.id.startswith(prefix)]
    if len(rows) != 1:
        raise Refused("not-owed", f"{len(rows) or 'nothing'} owed under the id {prefix[:64]!r}; "
                      "see: pylon owed")
    return rows[0]


def check_refund(row: OwedRow, amount_msats: int) -> None:
    """An invoice must ask for what is owed, odd millisatoshi aside. Raises Refused."""
    if row.state != "open":
        raise Refused("not-owed", f"{row.id} is {row.state} already")
    if not 0 <= row.amount_msats - amount_msats < MSATS_PER_SAT:
        raise Refused("refund-amount", f"{format_sats(row.amount_msats)} are owed; the invoice "
                      f"asks for {format_sats(amount_msats)}")


def waive(db: Database, owed_id: str, now: int) -> OwedRow:
    """The owner keeps the money, as agreed with the customer: it is earned. Raises Refused."""
    with db.transaction(durable=True) as tx:
        row = _in_state(tx, owed_id, "open")
        _end(tx, row, "waived", JobStage.WAIVED, now)
        _keep(tx, row, "waived", row.amount_msats, now)
        journal.add(tx, "OwedWaived", row.job_id or row.id, {"amount_msats": row.amount_msats}, now)
    return row


def add_second(tx: sqlite3.Connection, payment_hash: str, job_id: str | None,
               customer_pubkey: str, amount_msats: int, number: int, now: int) -> None:
    """The same invoice was paid again (`number` 2, 3, ...): booked as received, and owed."""
    ref = f"{payment_hash}#{number}"
    if books.stands(tx, "received-again", ref):
        return
    books.post(tx, "received-again", ref,
               {books.EXTERNAL: -amount_msats, books.OWED: amount_msats}, now)
    tx.execute("INSERT INTO owed(id, job_id, customer_pubkey, payment_hash, amount_msats, reason, "
               "created_at) VALUES (?, ?, ?, ?, ?, 'paid-twice', ?)",
               (f"{payment_hash[:14]}x{number}", job_id, customer_pubkey, payment_hash,
                amount_msats, now))
    journal.add(tx, "MoneyOwed", job_id or payment_hash,
                {"amount_msats": amount_msats, "code": "paid-twice"}, now)


# ---- steps of a refund's payment ----------------------------------------------------------------

def settling(tx: sqlite3.Connection, owed_id: str, now: int) -> None:
    """open -> settling: its refund is reserved. Raises Refused where it is not open."""
    _in_state(tx, owed_id, "open")
    tx.execute("UPDATE owed SET state = 'settling' WHERE id = ?", (owed_id,))


def reopen(tx: sqlite3.Connection, owed_id: str, now: int) -> None:
    """settling -> open: the refund failed."""
    tx.execute("UPDATE owed SET state = 'open' WHERE id = ? AND state = 'settling'", (owed_id,))


def refunded(tx: sqlite3.Connection, owed_id: str, amount_msats: int, now: int) -> None:
    """settling -> refunded: the wallet paid it. Odd millisatoshi that no invoice asks for stay."""
    row = _in_state(tx, owed_id, "settling")
    _end(tx, row, "refunded", JobStage.REFUNDED, now)
    if row.amount_msats > amount_msats:
        _keep(tx, row, "refund-rest", row.amount_msats - amount_msats, now)
    journal.add(tx, "OwedRefunded", row.job_id or row.id, {"amount_msats": amount_msats}, now)


def _in_state(tx: sqlite3.Connection, owed_id: str, state: str) -> OwedRow:
    found = tx.execute("SELECT * FROM owed WHERE id = ?", (owed_id,)).fetchone()
    if found is None:
        raise Refused("not-owed", f"nothing is owed under the id {owed_id[:64]!r}")
    if found["state"] != state:
        raise Refused("not-owed", f"{owed_id} is {found['state']} already")
    return OwedRow.of(found)


def _end(tx: sqlite3.Connection, row: OwedRow, state: str, stage: JobStage, now: int) -> None:
    tx.execute("UPDATE owed SET state = ?, settled_at = ? WHERE id = ?", (state, now, row.id))
    job = tx.execute("SELECT stage FROM jobs WHERE id = ?", (row.job_id,)).fetchone()
    if job is not None and job["stage"] == JobStage.OWED:
        jobs.advance(tx, str(row.job_id), stage, now)


def _keep(tx: sqlite3.Connection, row: OwedRow, kind: str, amount_msats: int, now: int) -> None:
    books.post(tx, kind, row.id, {books.OWED: -amount_msats, books.PROVIDER: amount_msats}, now)
    earnings.add(tx, f"{kind}-{row.id}", row.job_id, amount_msats, "job", row.payment_hash, now)
