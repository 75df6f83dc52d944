"""Inputs that are events: fetched from relays before a job is priced (NIP-90 `event` and `job`).

`Gatherer` (thread: gatherer) opens one bounded subscription for each job in GATHERING; what
arrives comes in on relay threads. A `job` input is the result of an earlier job, which may still
be under way: it is waited for, but not for ever. Woken by intake and by arrivals.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any, Callable

from pylon.errors import Refused
from pylon.log import short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.nostr.nip90 import Job, parse_job
from pylon.provider import answer
from pylon.provider.admission import Admission
from pylon.provider.payments import stored_event
from pylon.relays.pool import Pool, Subscription
from pylon.role import Role
from pylon.states import JobStage
from pylon.store import jobs, outbox
from pylon.store.database import Database
from pylon.store.jobs import JobRow

log = logging.getLogger(__name__)

J = JobStage
WAIT_SECS = {"event": 20, "job": 300}       # an event is there or not; a job may still run
MAX_INPUTS = 8
HEX_ID = 64


class Gatherer(Role):
    """Fetches the inputs of jobs in GATHERING, then hands them on to be priced."""

    def __init__(self, db: Database, keys: Keys, admission: Admission, pool: Pool,
                 on_ready: Callable[[], None]) -> None:
        super().__init__("gatherer")
        self._db, self._keys, self._admission, self._pool = db, keys, admission, pool
        self._on_ready = on_ready               # rings till, workers and publisher
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, str]] = {}     # job -> input id -> text; by relay threads

    def step(self, now: int) -> None:
        soonest = None
        for job in jobs.in_stage(self._db, J.GATHERING):
            left = self._serve(job, int(time.time()))
            if left is not None:
                soonest = left if soonest is None else min(soonest, left)
        self._forget()
        self.wait(soonest)

    def _serve(self, job: JobRow, now: int) -> float | None:
        """Move one job on if it is complete or hopeless; else the seconds it may still wait."""
        parsed = parse_job(stored_event(job), self._keys)
        wanted = [(data, type_) for data, type_, *_ in parsed.inputs if type_ in WAIT_SECS]
        try:
            self._check(wanted)
            found = self._ask(job, parsed, wanted)
            missing = [data for data, _ in wanted if data not in found]
            left = job.created_at + max(WAIT_SECS[t] for _, t in wanted) - now
            if missing and left > 0:
                return left
            if missing:
                raise Refused("inputs-not-found", f"event {missing[0]} was not found")
            self._ready(job, parsed, [found[data] for data, _ in wanted], now)
        except Refused as err:
            self._refuse(job, err, now)
        return None

    def _check(self, wanted: list[tuple[str, str]]) -> None:
        if len(wanted) > MAX_INPUTS:
            raise Refused("too-large", f"more than {MAX_INPUTS} events as input")
        for data, _ in wanted:
            if len(data) != HEX_ID or not set(data) <= set("0123456789abcdef"):
                raise Refused("unsupported-input", "an input names no event id")

    def _ask(self, job: JobRow, parsed: Job, wanted: list[tuple[str, str]]) -> dict[str, str]:
        """Subscribe once for a job's inputs; what has been found so far."""
        with self._lock:
            known = job.id in self._found
            found = self._found.setdefault(job.id, {})
        if not known:
            events = [data for data, type_ in wanted if type_ == "event"]
            results = [data for data, type_ in wanted if type_ == "job"]
            filters: list[dict[str, Any]] = []
            if events:
                filters.append({"ids": events})
            if results:
                filters.append({"#e": results})
            hints = self._pool.usable(relay for _, _, relay, _ in parsed.inputs if relay)
            self._pool.subscribe(Subscription(
                self._name(job.id), filters,
                lambda relay, arrived: self._arrived(job.id, set(events), set(results), arrived),
                relays=[*self._pool.own_urls(), *hints] if hints else None))
        return dict(found)

    def _arrived(self, job_id: str, events: set[str], results: set[str],
                 arrived: list[Event]) -> None:
        """Verified events, on a relay thread."""
        with self._lock:
            found = self._found.get(job_id)
            if found is None:
                return
            for event in arrived:
                answered = event.first("e") or ""
                if event.id in events:
                    found.setdefault(event.id, event.content)
                elif answered in results and 6000 <= event.kind <= 6999:
                    if not event.all("encrypted"):
                        found.setdefault(answered, event.content)
        self.wake()

    def _ready(self, job: JobRow, parsed: Job, fetched: list[str], now: int) -> None:
        terms = self._admission.admit(parsed, now, fetched)
        stage = J.FREE if terms.free else J.RECEIVED
        with self._db.transaction(durable=False) as tx:
            jobs.advance(tx, job.id, stage, now, inputs_json=json.dumps(fetched),
                         price_msats=terms.price_msats, model=terms.model,
                         payment="none" if terms.free else "invoice")
        log.info("job %s: %d inputs fetched", short(job.id), len(fetched))
        self._on_ready()

    def _refuse(self, job: JobRow, err: Refused, now: int) -> None:
        told = answer.error(self._keys, stored_event(job), job.encryption, err.code, str(err), now)
        with self._db.transaction(durable=False) as tx:
            jobs.refuse(tx, job.id, err.code, str(err), now)
            outbox.add(tx, told, "error", job.id, job.answer_relays, now,
                       now + answer.ERROR_KEEP_SECS)
        self._on_ready()

    def _forget(self) -> None:
        """Close the subscriptions of jobs that are gathering no more."""
        waiting = {job.id for job in jobs.in_stage(self._db, J.GATHERING)}
        with self._lock:
            gone = [job_id for job_id in self._found if job_id not in waiting]
            for job_id in gone:
                del self._found[job_id]
        for job_id in gone:
            self._pool.unsubscribe(self._name(job_id))

    def leave(self) -> None:
        for job_id in list(self._found):
            self._pool.unsubscribe(self._name(job_id))

    @staticmethod
    def _name(job_id: str) -> str:
        return "in-" + job_id[:16]
