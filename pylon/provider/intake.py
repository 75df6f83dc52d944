"""Intake: verified jobs and cancellations come in from the relays and become rows.

Runs on the relay threads. `wanted` is the cheap look before a signature is checked; `on_jobs`
gets verified events only and stores each batch in one transaction: seen row, job row and the
feedback of a refusal together, so that one id acts once, whichever relay delivers it and however
often the daemon restarts.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any, Callable

from pylon.errors import InvalidMessage, Refused
from pylon.failpoints import hit
from pylon.log import short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.nostr.nip90 import Job, parse_job
from pylon.provider import answer
from pylon.provider.admission import SILENT, Admission, Admitted
from pylon.states import JobStage
from pylon.store import jobs, journal, outbox, seen
from pylon.store.database import Database
from pylon.store.jobs import JobRow

log = logging.getLogger(__name__)

J = JobStage
MAX_ANSWER_RELAYS = 3               # of the customer's own choosing, beside ours
CANCELLABLE = (J.RECEIVED, J.GATHERING, J.INVOICING, J.QUOTED, J.FREE)


class Intake:
    """Turns events into rows and rings who must act on them."""

    def __init__(self, db: Database, keys: Keys, config: Any, admission: Admission,
                 usable_relays: Callable[[list[str]], list[str]],
                 on_stored: Callable[[list[JobRow]], None],
                 on_cancel: Callable[[str], None]) -> None:
        self._db, self._keys, self._config = db, keys, config
        self._admission = admission
        self._usable_relays = usable_relays     # drops private addresses, bounds the number
        self._on_stored = on_stored             # rings who must act on these rows
        self._on_cancel = on_cancel             # tells the worker that has the job

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def wanted(self, event: Event) -> bool:
        """Before verification: a kind we serve, for us or for all, and not ancient."""
        if event.kind not in self._config.provider.kinds:
            return False
        age = int(time.time()) - event.created_at
        if age > self._config.provider.max_job_age_secs:
            return False
        named = event.all("p")
        return not named or any(len(tag) > 1 and tag[1] == self._keys.pubkey for tag in named)

    def on_jobs(self, relay: str, events: list[Event]) -> None:
        """A batch of verified job events from one relay."""
        now = int(time.time())
        rows = [row for row in (self._consider(event, now) for event in events)
                if row is not None]
        if not rows:
            return
        hit("K1")
        with self._db.transaction(durable=False) as tx:
            fresh = [row[1] for row in rows if self._store(tx, row, now)]
        hit("K2")
        for job in fresh:
            if job.stage != J.REJECTED:
                log.info("job %s: %s for %s, %d msats", short(job.id), job.stage, job.model,
                         job.price_msats)
        if fresh:
            self._on_stored(fresh)

    def _consider(self, event: Event, now: int) -> tuple[Event, JobRow] | None:
        """The row that this event becomes; None where it is dropped without a trace."""
        try:
            self._admission.precheck(event, now)
            job = self._parse(event)
            terms = self._admission.admit(job, now)
        except Refused as err:
            log.info("job %s: refused: %s", short(event.id), err.code)
            return None if err.code in SILENT else (event, self._refused_row(event, err, now))
        return event, self._row(job, terms, now)

    def _parse(self, event: Event) -> Job:
        try:
            return parse_job(event, self._keys)
        except InvalidMessage as err:
            code = "cannot-decrypt" if event.all("encrypted") else "invalid-job"
            log.info("job %s: %s", short(event.id), err)
            raise Refused(code, "the encrypted part could not be read" if event.all("encrypted")
                          else "the job is malformed") from err

    def _row(self, job: Job, terms: Admitted, now: int) -> JobRow:
        stage = J.GATHERING if terms.needs_inputs else J.FREE if terms.free else J.RECEIVED
        return JobRow(job.event.id, job.kind, job.event.pubkey, stage,
                      "none" if terms.free else "invoice", terms.price_msats, terms.model,
                      job.bid_msats, job.encryption,
                      self._usable_relays(job.relays)[:MAX_ANSWER_RELAYS], job.expires_at or 0, 0,
                      job.event.to_json(), None, None, now, None, None)

    def _refused_row(self, event: Event, err: Refused, now: int) -> JobRow:
        relays = [url for tag in event.all("relays") for url in tag[1:]]
        encryption = "nip44" if event.all("encrypted") else ""
        return JobRow(event.id, event.kind, event.pubkey, J.REJECTED, "none", 0, None, None,
                      encryption, self._usable_relays(relays)[:MAX_ANSWER_RELAYS], 0, 0, None,
                      None, None, now, err.code, str(err))

    def _store(self, tx: sqlite3.Connection, row: tuple[Event, JobRow], now: int) -> bool:
        event, job = row
        if not seen.add(tx, event.id, now):
            return False
        jobs.add(tx, job, now)
        if job.stage == J.REJECTED:
            told = answer.error(self._keys, event, job.encryption, str(job.code),
                                str(job.error_message), now)
            outbox.add(tx, told, "error", job.id, job.answer_relays, now,
                       now + answer.ERROR_KEEP_SECS)
        return True

    def on_deletions(self, relay: str, events: list[Event]) -> None:
        """Kind 5 of the job's own author (NIP-09): cancels it before payment, never after."""
        now = int(time.time())
        for event in events:
            for tag in event.all("e"):
                if len(tag) > 1:
                    self._cancel(event, tag[1], now)

    def _cancel(self, event: Event, job_id: str, now: int) -> None:
        with self._db.transaction(durable=False) as tx:
            row = tx.execute("SELECT * FROM jobs WHERE id = ? AND customer_pubkey = ?",
                             (job_id, event.pubkey)).fetchone()
            job = JobRow.of(row) if row else None
            if job is not None and job.stage in CANCELLABLE:
                jobs.advance(tx, job.id, J.CANCELLED, now, code="cancelled",
                             error_message="cancelled by the customer")
                journal.add(tx, "JobCancelled", job.id, {"stage": job.stage.value}, now)
        if job is None:
            return
        log.info("job %s: cancelled by its customer in stage %s", short(job.id), job.stage)
        if job.stage == J.RUNNING and job.payment == "none":
            self._on_cancel(job.id)
