"""Ids that have had their effect: one id acts at most once, across relays and restarts."""

from __future__ import annotations

import sqlite3

from pylon.store.database import Database


def add(tx: sqlite3.Connection, event_id: str, now: int) -> bool:
    """Remember a verified id (64 hex); False where it was known already."""
    done = tx.execute("INSERT OR IGNORE INTO seen(event_id, seen_at) VALUES (?, ?)",
                      (bytes.fromhex(event_id), now))
    return done.rowcount == 1


def known(db: Database, event_id: str) -> bool:
    return db.one("SELECT 1 FROM seen WHERE event_id = ?", (bytes.fromhex(event_id),)) is not None


def prune(tx: sqlite3.Connection, before: int) -> int:
    """Forget ids older than `before`; the caller keeps four acceptance windows."""
    return tx.execute("DELETE FROM seen WHERE seen_at < ?", (before,)).rowcount
