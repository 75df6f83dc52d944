"""The outbox: events that are signed and stored and must still reach relays.

`(purpose, ref)` is unique, so a job has one quote and one result for ever. Resending means
sending `event_json` again, byte for byte.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Iterable

from pylon.failpoints import hit
from pylon.nostr.event import Event
from pylon.states import JobStage
from pylon.store import jobs, journal
from pylon.store.database import Database

RESULT = "result"


def add(tx: sqlite3.Connection, event: Event, purpose: str, ref: str, relays: Iterable[str],
        now: int, expires_at: int) -> None:
    """Store a signed event for sending; no relays means all of the node's own.

    Raises sqlite3.IntegrityError where `(purpose, ref)` was published already.
    """
    tx.execute("INSERT INTO outbox(event_id, event_json, purpose, ref, relays, created_at, "
               "expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
               (event.id, event.to_json(), purpose, ref, json.dumps(list(relays)), now,
                expires_at))


def newer(db: Database, after_row: int, now: int, limit: int) -> list[sqlite3.Row]:
    """Rows stored after `after_row` and not expired, in their order, with their text."""
    return db.query("SELECT row, event_id, event_json, purpose, relays FROM outbox WHERE row > ? "
                    "AND expires_at > ? ORDER BY row LIMIT ?", (after_row, now, limit))


def unsettled(db: Database, relay: str, after_row: int, now: int, limit: int) -> list[sqlite3.Row]:
    """Rows after `after_row` that some relay must still take, as this relay sees them: `taken` by
    it, `refusal` what it said last, or NULL. Whether it is meant at all is not looked at."""
    return db.query(
        "SELECT o.row, o.event_id, o.purpose, o.relays, o.accepted_at, "
        "coalesce(a.accepted, 0) AS taken, a.message AS refusal FROM outbox o "
        "LEFT JOIN outbox_acks a ON a.event_id = o.event_id AND a.relay = ? "
        "WHERE o.settled = 0 AND o.row > ? AND o.expires_at > ? ORDER BY o.row LIMIT ?",
        (relay, after_row, now, limit))


def naming_relays(db: Database, after_row: int, now: int, limit: int) -> list[sqlite3.Row]:
    """Unsettled rows that are meant for other relays than the node's own."""
    return db.query("SELECT row, purpose, relays FROM outbox WHERE settled = 0 AND row > ? AND "
                    "expires_at > ? AND relays <> '[]' ORDER BY row LIMIT ?",
                    (after_row, now, limit))


def last_row(db: Database) -> int:
    row = db.one("SELECT coalesce(max(row), 0) AS last FROM outbox")
    return row["last"] if row else 0


def find(db: Database, event_id: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM outbox WHERE event_id = ?", (event_id,))


def relays_of(row: sqlite3.Row) -> list[str]:
    """Relays that an event is meant for beside the node's own."""
    text = row["relays"]
    return [] if text == "[]" else list(json.loads(text))


def taken_by(db: Database, event_id: str) -> set[str]:
    """Relays that have taken an event."""
    return {row["relay"] for row in db.query(
        "SELECT relay FROM outbox_acks WHERE event_id = ? AND accepted", (event_id,))}


def text(db: Database, event_id: str) -> str | None:
    """The very bytes to send; None where the event was withdrawn."""
    row = db.one("SELECT event_json FROM outbox WHERE event_id = ?", (event_id,))
    return row["event_json"] if row else None


def settle_expired(db: Database, now: int) -> None:
    """Nothing more is sent of what has expired."""
    with db.transaction(durable=False) as tx:
        tx.execute("UPDATE outbox SET settled = 1 WHERE settled = 0 AND expires_at <= ?", (now,))


def get(db: Database, purpose: str, ref: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM outbox WHERE purpose = ? AND ref = ?", (purpose, ref))


def ack(db: Database, event_id: str, relay: str, accepted: bool, message: str,
        now: int) -> bool:
    """Record one relay's OK; True at the event's first acceptance. See `ack_many`."""
    return event_id in ack_many(db, [(event_id, relay, accepted, message)], now)


def ack_many(db: Database, answers: list[tuple[str, str, bool, str]], now: int,
             settled: Iterable[str] = ()) -> set[str]:
    """Record OKs `(event id, relay, accepted, message)` in one transaction.

    The first acceptance of a result makes its job DELIVERED in the same transaction. Returns
    the ids that were accepted for the first time. Losing this record in a power cut only means
    that the same bytes are offered again. Of the events in `settled`, nothing more is to be sent.
    """
    first: set[str] = set()
    hit("K14")
    with db.transaction(durable=False) as tx:
        for event_id, relay, accepted, message in answers:
            row = tx.execute("SELECT purpose, ref, accepted_at FROM outbox WHERE event_id = ?",
                             (event_id,)).fetchone()
            if row is None:
                continue
            tx.execute("INSERT INTO outbox_acks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                       "accepted = max(accepted, excluded.accepted), message = excluded.message, "
                       "at = excluded.at", (event_id, relay, accepted, message, now))
            if accepted and row["accepted_at"] is None:
                tx.execute("UPDATE outbox SET accepted_at = ? WHERE event_id = ?",
                           (now, event_id))
                first.add(event_id)
                if row["purpose"] == RESULT:
                    _delivered(tx, row["ref"], relay, now)
        tx.executemany("UPDATE outbox SET settled = 1 WHERE event_id = ?",
                       [(event_id,) for event_id in settled])
    if first:
        hit("K15")
    return first


def _delivered(tx: sqlite3.Connection, job_id: str, relay: str, now: int) -> None:
    row = tx.execute("SELECT stage FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is not None and row["stage"] == JobStage.DONE:
        jobs.advance(tx, job_id, JobStage.DELIVERED, now)
        journal.add(tx, "ResultDelivered", job_id, {"relay": relay}, now)


def withdraw(tx: sqlite3.Connection, purpose: str, ref: str) -> None:
    """Forget an event that is to be replaced by a newer one (announcements)."""
    tx.execute("DELETE FROM outbox WHERE purpose = ? AND ref = ?", (purpose, ref))


def prune(tx: sqlite3.Connection, before: int) -> int:
    """Drop what expired before `before`; results and quotes of known jobs stay with the job."""
    return tx.execute("DELETE FROM outbox WHERE expires_at < ? AND (purpose NOT IN ('quote', "
                      "'result') OR ref NOT IN (SELECT id FROM jobs))", (before,)).rowcount
