"""The journal: what happened, in order, in words that `events` and `explain` show.

Types are the first Pylon's CamelCase names and those added since. Never a prompt, an answer or
a secret: sizes and ids only.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from pylon.store.database import Database


def add(tx: sqlite3.Connection, type_: str, subject: str, data: dict[str, Any], now: int) -> None:
    """One line of the story of `subject` (a full id, an npub, a relay URL or a hash)."""
    tx.execute("INSERT INTO journal(at, type, subject, data) VALUES (?, ?, ?, ?)",
               (now, type_, subject, json.dumps(data, separators=(",", ":"))))


def story(db: Database, subject: str) -> list[sqlite3.Row]:
    """Every line about one subject, oldest first."""
    return db.query("SELECT id, at, type, subject, data FROM journal WHERE subject = ? "
                    "ORDER BY id", (subject,))


def since(db: Database, last_id: int, limit: int = 1000) -> list[sqlite3.Row]:
    """Lines after `last_id`, oldest first."""
    return db.query("SELECT id, at, type, subject, data FROM journal WHERE id > ? ORDER BY id "
                    "LIMIT ?", (last_id, limit))


def latest(db: Database, limit: int) -> list[sqlite3.Row]:
    """The newest lines, oldest of them first."""
    rows = db.query("SELECT id, at, type, subject, data FROM journal ORDER BY id DESC LIMIT ?",
                    (limit,))
    return rows[::-1]
