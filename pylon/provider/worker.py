"""The workers: each takes one queued job at a time, has it completed, and stores the answer.

Runs in the threads worker-1..n. Waits on the doorbell that every commit of claimable work rings;
the database is the queue, so a lost ring could only delay. Stopped by Provider.stop().
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from typing import Any, Callable

from pylon.backends import params
from pylon.backends.completion import Completion, Prompt
from pylon.errors import BackendCancelled, BackendError, InvalidMessage, Refused
from pylon.failpoints import hit
from pylon.log import short
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.nostr.nip90 import Job, parse_job
from pylon.provider import answer, prompts
from pylon.provider.payments import stored_event
from pylon.role import Role
from pylon.states import JobStage
from pylon.store import invoices, jobs, outbox
from pylon.store.database import Database
from pylon.store.jobs import JobRow

log = logging.getLogger(__name__)

J = JobStage
BACKOFF_SECS = (1, 5, 20)           # before the 2nd, 3rd, 4th attempt


class Doorbell:
    """Wakes workers for work that was stored: one idle worker for each job, and no busy one, which
    looks again by itself before it rests."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def add(self, worker: Worker) -> None:
        self._workers.append(worker)

    def ring(self, jobs: int = 1) -> None:
        """After the commit of this many claimable jobs. Any thread."""
        for worker in self._workers:
            if jobs <= 0:
                return
            if worker.idle:
                worker.idle = False         # woken: the next ring is for another one
                worker.wake()
                jobs -= 1


class Worker(Role):
    """One worker thread."""

    def __init__(self, name: str, db: Database, keys: Keys, config: Any, registry: Any,
                 lease: str, publish: Callable[[Event, list[str]], None],
                 on_done: Callable[[JobRow], None], room: Callable[[Job], int],
                 read_relays: Callable[[str], list[str]]) -> None:
        super().__init__(name)
        self._db, self._keys, self._config, self._registry = db, keys, config, registry
        self._lease = lease                     # this boot: jobs RUNNING under another are lost
        self._publish = publish                 # sends an event now, best effort, never blocks
        self._on_done = on_done                 # rings the publisher and the watch
        self._room = room                       # bytes of answer that a job's result can hold
        self._read_relays = read_relays         # where a customer reads (NIP-65)
        self._cancel = threading.Event()        # aborts the completion that runs now
        self.job_id: str | None = None          # what it works on, written by its own thread
        self.idle = False                       # looks for work or waits for it

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def step(self, now: int) -> None:
        self._cancel.clear()
        self.idle = True                        # before the look: what is stored later rings
        job = jobs.claim(self._db, self._lease, int(time.time()))
        if job is None:
            ready_at = jobs.next_ready_at(self._db)
            self.wait(None if ready_at is None else max(0.1, ready_at - time.time()))
            return
        self.idle = False
        self.job_id = job.id
        try:
            self._serve(job)
        except Exception:
            self._rescue(job)
            raise
        finally:
            self.job_id = None

    def abort(self) -> None:
        """Give up the completion that runs now; its job goes back to the queue. Any thread."""
        self._cancel.set()

    def cancel_job(self, job_id: str) -> None:
        """The customer cancelled: abort if this worker has that job. Any thread."""
        if self.job_id == job_id:
            self._cancel.set()

    def _serve(self, job: JobRow) -> None:
        started = time.monotonic()
        request = stored_event(job)
        try:
            self._check_deadline(job)
            completion, parsed = self._complete(job, request)
            text = answer.fit(completion.text, self._room(parsed))
        except Refused as err:
            self._give_up(job, request, err.code, str(err))
        except InvalidMessage as err:
            self._give_up(job, request, "result-too-large", str(err))
        except BackendError as err:
            self._try_later(job, request, err)
        else:
            hit("K12")
            self._finish(job, request, completion, text, started)

    def _rescue(self, job: JobRow) -> None:
        """Our own failure in the middle of a job: it must not stay RUNNING until a restart."""
        now_stored = jobs.get(self._db, job.id)
        if now_stored is None or now_stored.stage != J.RUNNING:
            return
        if job.attempts >= self._config.provider.max_attempts:
            self._give_up(job, stored_event(job), "backend-failed", "this job failed here")
            return
        with self._db.transaction(durable=False) as tx:
            jobs.put_back(tx, job, "internal error", int(time.time()),
                          delay_secs=BACKOFF_SECS[-1])

    def _check_deadline(self, job: JobRow) -> None:
        if job.deadline_at and time.time() >= job.deadline_at:
            raise Refused("deadline", "the time this job had is over")

    def _complete(self, job: JobRow, request: Event) -> tuple[Completion, Job]:
        parsed = parse_job(request, self._keys)
        fetched = json.loads(job.inputs_json) if job.inputs_json else None
        options = params.parse(parsed.params, self._config)
        prompt = Prompt(messages=prompts.messages(parsed, fetched),
                        max_bytes=self._room(parsed), **options)
        feedback = Progress(self._keys, job, request, self._config, self._publish)
        feedback.processing()
        left = job.deadline_at - time.time() if job.deadline_at else None
        completion = self._registry.complete(
            prompt, job.model, feedback.text, self._cancel, on_restart=feedback.restart,
            deadline=None if left is None else time.monotonic() + left)
        log.info("job %s: answered by %s, %d tokens", short(job.id), completion.backend,
                 completion.completion_tokens or 0)
        return completion, parsed

    def _finish(self, job: JobRow, request: Event, completion: Completion, text: str,
                started: float) -> None:
        now = int(time.time())
        invoice = invoices.of_job(self._db, job.id) if job.payment in ("invoice", "hold") else None
        event = answer.result(self._keys, request, job.encryption, text, invoice, now)
        facts = {
            "result_event_id": event.id, "backend": completion.backend, "model": completion.model,
            "output_hash": hashlib.sha256(text.encode()).hexdigest(),
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "duration_ms": int((time.monotonic() - started) * 1000)}
        with self._db.transaction(durable=invoice is not None) as tx:
            jobs.finish(tx, job, facts, invoice.amount_msats if invoice else None, now)
            relays = job.answer_relays or self._read_relays(job.customer_pubkey)
            outbox.add(tx, event, outbox.RESULT, job.id, relays, now,
                       now + answer.RESULT_KEEP_SECS)
        hit("K13")
        self._on_done(job)
        if "success" in self._config.provider.feedback:
            self._publish(answer.progress(self._keys, request, job.encryption, "success", "", "",
                                          now), job.answer_relays)

    def _try_later(self, job: JobRow, request: Event, err: BackendError) -> None:
        """An aborted or failed completion: back into the queue, or given up after some tries."""
        now = int(time.time())
        if job.deadline_at and now >= job.deadline_at:
            self._give_up(job, request, "deadline", "the time this job had is over")
            return
        stopping = self.stopping
        if isinstance(err, BackendCancelled) and not stopping:
            self._give_up(job, request, "cancelled", "cancelled by the customer")
            return
        if not stopping and job.attempts >= self._config.provider.max_attempts:
            log.warning("job %s: given up after %d attempts: %s", short(job.id), job.attempts, err)
            self._give_up(job, request, "backend-failed", "the model failed on this job")
            return
        delay = 0 if stopping else BACKOFF_SECS[min(job.attempts, len(BACKOFF_SECS)) - 1]
        log.warning("job %s: attempt %d: %s", short(job.id), job.attempts, err)
        with self._db.transaction(durable=False) as tx:
            jobs.put_back(tx, job, "stopping" if stopping else err.code, now,
                          count_attempt=not stopping, delay_secs=delay)

    def _give_up(self, job: JobRow, request: Event, code: str, reason: str) -> None:
        give_up(self._db, self._keys, job, request, code, reason, int(time.time()))
        self._on_done(job)


class Progress:
    """Feedback while a job runs: processing at once, the text so far at intervals."""

    def __init__(self, keys: Keys, job: JobRow, request: Event, config: Any,
                 publish: Callable[[Event, list[str]], None]) -> None:
        self._keys, self._job, self._request = keys, job, request
        self._publish = publish
        self._kinds = config.provider.feedback
        self._interval = config.provider.partial_interval_secs
        self._pending = ""
        self._number = 0
        self._sent_at = time.monotonic()

    def processing(self) -> None:
        if "processing" in self._kinds:
            self._send("processing", "", "")

    def text(self, piece: str) -> None:
        """Called with each piece of answer, on the worker's thread."""
        if "partial" not in self._kinds:
            return
        self._pending += piece
        if time.monotonic() - self._sent_at >= self._interval:
            self._number += 1
            self._send("partial", str(self._number), self._pending)
            self._pending = ""
            self._sent_at = time.monotonic()

    def restart(self) -> None:
        """Another backend begins anew: what was sent as partial does not count."""
        self._pending = ""
        if self._number:
            self._number = 0
            self._send("partial", "restart", "")

    def _send(self, status: str, extra: str, content: str) -> None:
        event = answer.progress(self._keys, self._request, self._job.encryption, status, extra,
                                content, int(time.time()))
        self._publish(event, self._job.answer_relays)


def give_up(db: Database, keys: Keys, job: JobRow, request: Event, code: str, reason: str,
            now: int) -> None:
    """End a job that won't be answered: free FAILED, held CANCELLING, paid OWED; tell the customer.

    One transaction with the booking and the feedback, durable where money hangs on it.
    """
    told = answer.error(keys, request, job.encryption, code, reason, now)
    with db.transaction(durable=job.payment != "none") as tx:
        if job.payment == "invoice":
            invoice = tx.execute("SELECT paid_amount_msats FROM invoices WHERE job_id = ? AND "
                                 "status = 'paid'", (job.id,)).fetchone()
            invoices.owe(tx, job, invoice["paid_amount_msats"], code, now)
        else:
            jobs.fail(tx, job, _given_up_stage(job, code), code, reason, now)
        outbox.withdraw(tx, "error", job.id)
        outbox.add(tx, told, "error", job.id, job.answer_relays, now,
                   now + answer.ERROR_KEEP_SECS)


def _given_up_stage(job: JobRow, code: str) -> JobStage:
    if job.payment == "hold":
        return J.CANCELLING
    return J.CANCELLED if code == "cancelled" else J.FAILED


def recover(db: Database, keys: Keys, lease: str, max_attempts: int, now: int) -> int:
    """At start: jobs that another boot left RUNNING go back, or are given up. Returns how many."""
    lost = jobs.interrupted(db, lease)
    for job in lost:
        if job.attempts >= max_attempts:
            log.error("job %s: interrupted %d times, given up", short(job.id), job.attempts)
            give_up(db, keys, job, stored_event(job), "interrupted",
                    "interrupted too often", now)
        else:
            with db.transaction(durable=False) as tx:
                jobs.put_back(tx, job, "the daemon stopped suddenly", now)
    return len(lost)
