"""Jobs: the rows that are the queue and the truth of every job's way.

Each function that changes a stage is one step of the machine in `states`; triggers refuse every
other step. What must be atomic with it (books, invoice, outbox, journal) is written in the same
transaction by `quotes`, `settle` and `finish` here and in `invoices`.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Sequence

from pylon.failpoints import hit
from pylon.states import CLAIMABLE, JobStage, PUBLIC_STATUS
from pylon.store import journal
from pylon.store.database import Database

J = JobStage
ENDED = ("completed", "failed", "cancelled")
_ORIGIN = {"none": J.FREE, "internal": J.FREE, "invoice": J.PAID, "hold": J.HELD}


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as stored; amounts in msats, times in Unix seconds."""

    id: str
    kind: int
    customer_pubkey: str
    stage: JobStage
    payment: str                    # none | invoice | hold | internal
    price_msats: int
    model: str | None
    bid_msats: int | None
    encryption: str                 # '' | nip04 | nip44
    answer_relays: list[str]
    deadline_at: int
    attempts: int
    event_json: str | None
    inputs_json: str | None
    hold_preimage: str | None
    created_at: int                 # when it was received
    code: str | None
    error_message: str | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "JobRow":
        return cls(row["id"], row["kind"], row["customer_pubkey"], JobStage(row["stage"]),
                   row["payment"], row["price_msats"], row["model"], row["bid_msats"],
                   row["encryption"], json.loads(row["answer_relays"]), row["deadline_at"] or 0,
                   row["attempts"], row["event_json"], row["inputs_json"], row["hold_preimage"],
                   row["created_at"], row["code"], row["error_message"])


def add(tx: sqlite3.Connection, job: JobRow, now: int) -> None:
    """Store a new job in RECEIVED, FREE, GATHERING or REJECTED; its seen row goes beside it."""
    tx.execute(
        "INSERT INTO jobs(id, kind, customer_pubkey, status, price_msats, started_at, "
        "created_at, stage, payment, code, error_message, event_json, answer_relays, encryption, "
        "model, bid_msats, deadline_at, updated_at, completed_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (job.id, job.kind, job.customer_pubkey, PUBLIC_STATUS[job.stage], job.price_msats, now,
         now, job.stage.value, job.payment, job.code, job.error_message, job.event_json,
         json.dumps(job.answer_relays), job.encryption, job.model, job.bid_msats,
         job.deadline_at, now, now if job.stage == J.REJECTED else None))
    if job.stage == J.REJECTED:
        journal.add(tx, "JobRefused", job.id, {"code": job.code, "reason": job.error_message,
                                               "kind": job.kind,
                                               "customer_pubkey": job.customer_pubkey}, now)
    else:
        journal.add(tx, "JobReceived", job.id, {"kind": job.kind, "model": job.model,
                                                "customer_pubkey": job.customer_pubkey,
                                                "bid_msats": job.bid_msats}, now)


def get(db: Database, job_id: str) -> JobRow | None:
    row = db.one("SELECT * FROM jobs WHERE id = ?", (job_id,))
    return JobRow.of(row) if row else None


def find(db: Database, prefix: str, limit: int = 2) -> list[str]:
    """Ids that start with `prefix` (hex), for people who type the short form."""
    rows = db.query("SELECT id FROM jobs WHERE id >= ? AND id < ? LIMIT ?",
                    (prefix, prefix + "g", limit))
    return [row["id"] for row in rows]


def in_stage(db: Database, *stages: JobStage, limit: int = 1000) -> list[JobRow]:
    """Jobs in these stages, oldest first."""
    marks = ",".join("?" * len(stages))
    rows = db.query(f"SELECT * FROM jobs WHERE stage IN ({marks}) ORDER BY created_at LIMIT ?",
                    (*(s.value for s in stages), limit))
    return [JobRow.of(row) for row in rows]


def begin_settling(db: Database, now: int) -> list[JobRow]:
    """DELIVERED -> SETTLING for held payments; returns all that are SETTLING or CANCELLING.

    Work whose hold ran out before a relay took the result is let go: DONE -> CANCELLING.
    """
    moves = db.query("SELECT id, stage FROM jobs WHERE payment = 'hold' AND (stage = 'delivered' "
                     "OR (stage = 'done' AND deadline_at <= ?))", (now,))
    if moves:
        with db.transaction(durable=True) as tx:
            for row in moves:
                to = J.SETTLING if row["stage"] == J.DELIVERED else J.CANCELLING
                advance(tx, row["id"], to, now)
                if to == J.CANCELLING:
                    tx.execute("DELETE FROM outbox WHERE purpose = 'result' AND ref = ?",
                               (row["id"],))
    return in_stage(db, J.SETTLING, J.CANCELLING)


def anything_held(db: Database) -> bool:
    """Whether a delivered job's held payment waits to be taken."""
    return db.one("SELECT 1 FROM jobs WHERE payment = 'hold' AND stage = 'delivered' "
                  "LIMIT 1") is not None


def customers(db: Database, stages: Sequence[JobStage], limit: int) -> list[str]:
    """Who has jobs in these stages."""
    marks = ",".join("?" * len(stages))
    return [row["customer_pubkey"] for row in db.query(
        f"SELECT DISTINCT customer_pubkey FROM jobs WHERE stage IN ({marks}) LIMIT ?",
        (*(s.value for s in stages), limit))]


def count(db: Database, stages: Sequence[JobStage], customer: str | None = None) -> int:
    marks = ",".join("?" * len(stages))
    sql = f"SELECT count(*) AS n FROM jobs WHERE stage IN ({marks})"
    params: list[Any] = [s.value for s in stages]
    if customer is not None:
        sql += " AND customer_pubkey = ?"
        params.append(customer)
    row = db.one(sql, tuple(params))
    return row["n"] if row else 0


def advance(tx: sqlite3.Connection, job_id: str, stage: JobStage, now: int,
            **fields: Any) -> None:
    """One step of the machine; `fields` are columns to set beside it. Raises IllegalTransition."""
    status = PUBLIC_STATUS[stage]
    columns = {"stage": stage.value, "status": status, "updated_at": now,
               "completed_at": now if status in ENDED else None, **fields}
    setters = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE jobs SET {setters} WHERE id = ?", (*columns.values(), job_id))


def refuse(tx: sqlite3.Connection, job_id: str, code: str, reason: str, now: int) -> None:
    """A job that was taken in and can't be served after all (RECEIVED/GATHERING/INVOICING)."""
    advance(tx, job_id, J.REJECTED, now, code=code, error_message=reason)
    journal.add(tx, "JobRefused", job_id, {"code": code, "reason": reason}, now)


_NEXT = ("(SELECT id FROM jobs WHERE stage = ? AND ready_at <= ? ORDER BY created_at LIMIT 1)")
_CLAIM = ("UPDATE jobs SET stage = 'running', lease = ?, attempts = attempts + 1, updated_at = ?, "
          f"started_at = ? WHERE id = coalesce({', '.join([_NEXT] * len(CLAIMABLE))}) RETURNING *")


def claim(db: Database, lease: str, now: int) -> JobRow | None:
    """Take the next job that may run, money first; None when there is none.

    One UPDATE..RETURNING, so that no two workers get the same job. Not durable: after a power
    cut the job simply stands unclaimed again.
    """
    wanted = [part for stage in CLAIMABLE for part in (stage.value, now)]
    with db.transaction(durable=False) as tx:
        row = tx.execute(_CLAIM, (lease, now, now, *wanted)).fetchone()
        if row is None:
            return None
        journal.add(tx, "JobStarted", row["id"], {"model": row["model"],
                                                  "attempt": row["attempts"]}, now)
    hit("K11")
    return JobRow.of(row)


def put_back(tx: sqlite3.Connection, job: JobRow, why: str, now: int,
             count_attempt: bool = True, delay_secs: int = 0) -> None:
    """An interrupted job goes back where it came from: FREE, PAID or HELD."""
    attempts = job.attempts if count_attempt else max(0, job.attempts - 1)
    advance(tx, job.id, _ORIGIN[job.payment], now, lease=None, attempts=attempts,
            ready_at=now + delay_secs)
    journal.add(tx, "JobInterrupted", job.id, {"reason": why, "attempt": job.attempts}, now)


def interrupted(db: Database, lease: str) -> list[JobRow]:
    """Jobs that another boot of this daemon left RUNNING."""
    rows = db.query("SELECT * FROM jobs WHERE stage = 'running' AND lease IS NOT ?", (lease,))
    return [JobRow.of(row) for row in rows]


def next_ready_at(db: Database) -> int | None:
    """When the earliest job that waits out a back-off may run; None when nothing waits."""
    marks = ",".join("?" * len(CLAIMABLE))
    row = db.one(f"SELECT min(ready_at) AS at FROM jobs WHERE stage IN ({marks})",
                 tuple(s.value for s in CLAIMABLE))
    return row["at"] if row else None


def finish(tx: sqlite3.Connection, job: JobRow, facts: dict[str, Any], amount_msats: int | None,
           now: int) -> None:
    """RUNNING -> DONE; the caller puts the signed result into the outbox in this transaction.

    `facts`: result_event_id, output_hash, backend, prompt_tokens, completion_tokens, duration_ms.
    """
    advance(tx, job.id, J.DONE, now, lease=None, **facts)
    journal.add(tx, "JobCompleted", job.id,
                {"amount_msats": amount_msats, "duration_ms": facts["duration_ms"],
                 "completion_tokens": facts["completion_tokens"],
                 "backend": facts["backend"]}, now)


def fail(tx: sqlite3.Connection, job: JobRow, stage: JobStage, code: str, reason: str,
         now: int) -> None:
    """Give a job up: FAILED (free) or CANCELLING (held); `invoices.owe` does the paid ones."""
    advance(tx, job.id, stage, now, code=code, error_message=reason, lease=None)
    journal.add(tx, "JobFailed", job.id, {"code": code, "reason": reason}, now)


def free_since(db: Database, customer: str, since: int) -> int:
    """How many jobs this customer was given free since then (refused ones not counted)."""
    row = db.one("SELECT count(*) AS n FROM jobs WHERE customer_pubkey = ? AND created_at >= ? "
                 "AND payment = 'none' AND stage NOT IN ('rejected', 'cancelled')",
                 (customer, since))
    return row["n"] if row else 0


def queued(db: Database, most: int = 1_000_000) -> int:
    """How many jobs wait for a worker; does not count beyond `most`."""
    marks = ",".join("?" * len(CLAIMABLE))
    row = db.one(f"SELECT count(*) AS n FROM (SELECT 1 FROM jobs WHERE stage IN ({marks}) "
                 "LIMIT ?)", (*(s.value for s in CLAIMABLE), most))
    return row["n"] if row else 0


def latest(db: Database, limit: int) -> list[sqlite3.Row]:
    return db.query("SELECT * FROM jobs ORDER BY created_at DESC, rowid DESC LIMIT ?", (limit,))
