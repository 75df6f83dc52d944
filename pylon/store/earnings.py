"""Earnings: one row when the wallet shows a job's money, and its reversal where it became owed."""

from __future__ import annotations

import sqlite3

from pylon.store.database import Database


def add(tx: sqlite3.Connection, earning_id: str, job_id: str | None, amount_msats: int,
        source: str, payment_hash: str | None, now: int) -> None:
    """`source` is job, tip or other. Raises sqlite3.IntegrityError on a second one."""
    tx.execute("INSERT INTO earnings(id, job_id, amount_msats, source, payment_hash, earned_at) "
               "VALUES (?, ?, ?, ?, ?, ?)",
               (earning_id, job_id, amount_msats, source, payment_hash, now))


def total(db: Database, since: int = 0) -> int:
    """Msats earned at or after `since`, what became owed taken off."""
    row = db.one("SELECT coalesce(sum(amount_msats), 0) AS n FROM earnings WHERE earned_at >= ?",
                 (since,))
    return row["n"] if row else 0
