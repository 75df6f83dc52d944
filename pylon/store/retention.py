"""What is forgotten, and when: a setting for every table; rows that money hangs on stay."""

from __future__ import annotations

from typing import Any

from pylon.failpoints import hit
from pylon.states import JobStage
from pylon.store import jobs, orders, outbox, seen
from pylon.store.database import Database

DAY_SECS = 86400
SEEN_WINDOWS = 4                # ids are kept four times as long as jobs are accepted
BATCH_ROWS = 5000               # at most so many at once, so that no transaction is long


def undelivered(db: Database, now: int) -> list[jobs.JobRow]:
    """Finished jobs whose result no relay took before it expired."""
    rows = db.query("SELECT j.* FROM jobs j JOIN outbox o ON o.purpose = 'result' AND "
                    "o.ref = j.id WHERE j.stage = 'done' AND o.expires_at <= ?", (now,))
    return [jobs.JobRow.of(row) for row in rows]


def prune(db: Database, config: Any, now: int) -> dict[str, int]:
    """Forget what is old enough, in short transactions; returns rows by table."""
    window = max(3600, config.provider.max_job_age_secs * SEEN_WINDOWS)
    keep_before = now - config.store.retention_days * DAY_SECS
    content_before = now - config.store.content_days * DAY_SECS
    done = {}
    with db.transaction(durable=False) as tx:
        done["seen"] = seen.prune(tx, now - window)
        done["outbox"] = outbox.prune(tx, now)
    hit("K16")
    with db.transaction(durable=False) as tx:
        done["content"] = tx.execute(
            "UPDATE jobs SET event_json = NULL, inputs_json = NULL, hold_preimage = NULL "
            "WHERE id IN (SELECT id FROM jobs WHERE event_json IS NOT NULL AND completed_at < ? "
            "AND stage IN ('rejected', 'delivered', 'settled', 'failed', 'cancelled', "
            "'refunded', 'waived') LIMIT ?)", (content_before, BATCH_ROWS)).rowcount
    with db.transaction(durable=False) as tx:
        done["journal"] = tx.execute(
            "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE at < ? LIMIT ?)",
            (keep_before, BATCH_ROWS)).rowcount
        gone = [row[0] for row in tx.execute(
            "SELECT id FROM jobs WHERE completed_at < ? AND stage IN (?, ?, ?, ?) AND NOT EXISTS "
            "(SELECT 1 FROM invoices i WHERE i.job_id = jobs.id) AND NOT EXISTS (SELECT 1 FROM "
            "earnings e WHERE e.job_id = jobs.id) LIMIT ?",
            (keep_before, *(s.value for s in (JobStage.REJECTED, JobStage.DELIVERED,
                                              JobStage.FAILED, JobStage.CANCELLED)),
             BATCH_ROWS))]
        tx.executemany("DELETE FROM outbox WHERE ref = ? AND purpose IN ('result', 'quote', "
                       "'error')", [(job_id,) for job_id in gone])
        tx.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in gone])
        done["jobs"] = len(gone)
    with db.transaction(durable=False) as tx:
        done["orders"] = orders.prune(tx, keep_before, content_before, BATCH_ROWS)
    return done
