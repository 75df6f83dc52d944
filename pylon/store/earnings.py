"""Earnings: one row when the wallet shows a job's money, and its reversal where it became owed."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timezone
from typing import Any

from pylon.store.database import Database, ReadOnly

DAY_SECS = 86400
SOURCES = ("job", "tip", "other")

_GROUPS = {
    "day": "date(e.earned_at, 'unixepoch')",
    "model": "coalesce(j.model, '-')",
    "customer": "coalesce(j.customer_pubkey, '-')",
}


def add(tx: sqlite3.Connection, earning_id: str, job_id: str | None, amount_msats: int,
        source: str, payment_hash: str | None, now: int) -> None:
    """`source` is job, tip or other. Raises sqlite3.IntegrityError on a second one."""
    tx.execute("INSERT INTO earnings(id, job_id, amount_msats, source, payment_hash, earned_at) "
               "VALUES (?, ?, ?, ?, ?, ?)",
               (earning_id, job_id, amount_msats, source, payment_hash, now))


def total(db: Database | ReadOnly, since: int = 0) -> int:
    """Msats earned at or after `since`, what became owed taken off."""
    row = db.one("SELECT coalesce(sum(amount_msats), 0) AS n FROM earnings WHERE earned_at >= ?",
                 (since,))
    return row["n"] if row else 0


def job_count(db: Database | ReadOnly, since: int = 0) -> int:
    """Jobs that earned something at or after `since`."""
    row = db.one("SELECT count(*) AS n FROM (SELECT job_id FROM earnings WHERE earned_at >= ? "
                 "AND job_id IS NOT NULL GROUP BY job_id HAVING sum(amount_msats) > 0)", (since,))
    return row["n"] if row else 0


def by_source(db: Database | ReadOnly, since: int = 0) -> dict[str, int]:
    """Msats for every source, zeros too."""
    found = {row["source"]: row["n"] for row in db.query(
        "SELECT source, sum(amount_msats) AS n FROM earnings WHERE earned_at >= ? "
        "GROUP BY source", (since,))}
    return {source: found.get(source, 0) for source in SOURCES}


def recent(db: Database | ReadOnly, limit: int, since: int = 0) -> list[sqlite3.Row]:
    """The newest rows first: id, job_id, amount_msats, source, payment_hash, earned_at."""
    return db.query("SELECT id, job_id, amount_msats, source, payment_hash, earned_at "
                    "FROM earnings WHERE earned_at >= ? ORDER BY earned_at DESC, rowid DESC "
                    "LIMIT ?", (since, limit))


def grouped(db: Database | ReadOnly, by: str, since: int = 0) -> list[sqlite3.Row]:
    """Totals by `day` (UTC), `model` or `customer`: name, amount_msats, jobs.

    Days newest first, the others by what they brought.
    """
    order = "name DESC" if by == "day" else "amount_msats DESC, name"
    name = _GROUPS[by]
    if by == "model" and not db.query("SELECT 1 FROM pragma_table_info('jobs') "
                                      "WHERE name = 'model'"):
        name = "'-'"                # a database that this version has not opened for writing yet
    return db.query(
        f"SELECT {name} AS name, sum(e.amount_msats) AS amount_msats, "
        "count(DISTINCT e.job_id) AS jobs FROM earnings e LEFT JOIN jobs j ON j.id = e.job_id "
        f"WHERE e.earned_at >= ? GROUP BY 1 ORDER BY {order}", (since,))


def summary(db: Database | ReadOnly, now: int, since: int = 0) -> dict[str, Any]:
    """Totals as `pylon earnings --json` shows them; days and weeks (from Monday) are UTC's."""
    msats = total(db, since)
    return {"total_sats": msats // 1000, "total_msats": msats, "job_count": job_count(db, since),
            "by_source": by_source(db, since),
            "today_msats": total(db, max(since, start_of_day(now))),
            "week_msats": total(db, max(since, start_of_week(now)))}


def start_of_day(now: int) -> int:
    return now - now % DAY_SECS


def start_of_week(now: int) -> int:
    weekday = datetime.fromtimestamp(now, timezone.utc).weekday()
    return start_of_day(now) - weekday * DAY_SECS
