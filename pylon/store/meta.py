"""Single facts that must survive a restart, by name."""

from __future__ import annotations

import sqlite3

from pylon.store.database import Database, ReadOnly


def get(db: Database, key: str) -> str | None:
    row = db.one("SELECT value FROM meta WHERE key = ?", (key,))
    return row["value"] if row else None


def put(tx: sqlite3.Connection, key: str, value: str) -> None:
    tx.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = ?",
               (key, value, value))


def total(db: Database | ReadOnly, name: str) -> int:
    """A running total that triggers keep: `jobs_completed`, `earnings_msats`."""
    row = db.one("SELECT value FROM totals WHERE name = ?", (name,))
    return row["value"] if row else 0
