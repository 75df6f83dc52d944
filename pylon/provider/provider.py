"""Provider: builds the roles of provider mode, connects their doorbells, starts and stops them.

Owned by the daemon. Holds no job's state: that is in the store.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, Callable, Iterable

from pylon.nostr import nip65, nip90
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.provider.admission import RESULT_BYTES, Admission
from pylon.provider.announce import Announcer
from pylon.provider.housekeeper import Housekeeper
from pylon.provider.inputs import Gatherer
from pylon.provider.intake import MAX_ANSWER_RELAYS, Intake
from pylon.provider.payments import Till, Watch
from pylon.provider.worker import Doorbell, Worker, recover
from pylon.relays.pool import Pool, Subscription
from pylon.relays.publisher import Publisher
from pylon.role import Role
from pylon.states import JobStage
from pylon.store import jobs
from pylon.store.database import Database
from pylon.store.jobs import JobRow
from pylon.wallets.wallet import Wallet

log = logging.getLogger(__name__)

JOBS, CUSTOMERS = "jobs", "customers"
REFRESH_SECS = 1.0
LINGER_SECS = 600.0             # then it is looked whether anybody still has an open job
MAX_AUTHORS = 200
MAX_LISTS = 1000                # relay lists remembered
OPEN = (JobStage.RECEIVED, JobStage.GATHERING, JobStage.INVOICING, JobStage.QUOTED,
        JobStage.FREE, JobStage.RUNNING)


class Provider:
    """Provider mode of one node."""

    def __init__(self, db: Database, keys: Keys, config: Any, pool: Pool, publisher: Publisher,
                 registry: Any, wallet: Callable[[], Wallet | None], watch: Watch,
                 lease: str) -> None:
        self._db, self._keys, self._config, self._pool = db, keys, config, pool
        self._publisher, self._registry, self._lease = publisher, registry, lease
        self.admission = Admission(db, config, registry, wallet,
                                   lambda: pool.max_message_bytes(RESULT_BYTES))
        self._doorbell = Doorbell()
        self.till = Till(db, keys, config, wallet, self._rang_money)
        self._watch = watch                     # the node's: owners' invoices are watched, too
        watch.on_paid = self._doorbell.ring
        self.gatherer = Gatherer(db, keys, self.admission, pool, self._gathered)
        self.announcer = Announcer(db, keys, config, registry, self._publish, publisher.ring)
        self.housekeeper = Housekeeper(db, keys, config)
        self.customers = CustomerWatch(db, pool, self._intake_deletions)
        self.workers = [self._worker(number) for number in
                        range(1, config.provider.max_concurrent_jobs + 1)]
        self.intake = Intake(db, keys, config, self.admission, pool.usable, self._stored,
                             self._cancel)

    def _worker(self, number: int) -> Worker:
        worker = Worker(f"worker-{number}", self._db, self._keys, self._config, self._registry,
                        self._lease, self._publish, self._done, self.admission.output_room,
                        self.customers.read_relays)
        self._doorbell.add(worker)
        return worker

    @property
    def roles(self) -> list[Role]:
        return [self.till, self.gatherer, self.announcer, self.customers,
                self.housekeeper, *self.workers]

    def start(self) -> None:
        """Pick up what the last boot left, then open the doors."""
        now = int(time.time())
        lost = recover(self._db, self._keys, self._lease, self._config.provider.max_attempts, now)
        if lost:
            log.warning("%d jobs were interrupted by the last stop", lost)
        for role in self.roles:
            if role is not self.announcer or self._config.provider.announce:
                role.start()
        self._subscribe(now)

    def _subscribe(self, now: int) -> None:
        self._pool.subscribe(Subscription(
            JOBS, [{"kinds": list(self._config.provider.kinds),
                    "since": now - self._config.provider.max_job_age_secs}],
            self.intake.on_jobs, wanted=self.intake.wanted,
            resume_overlap_secs=self._config.provider.max_job_age_secs))

    def close_doors(self) -> None:
        """First act of a stop: nothing new is taken."""
        self.admission.closed = "the node is stopping"
        self._pool.unsubscribe(JOBS)

    def stop(self, grace_secs: float) -> None:
        """Let running jobs finish within the grace, then put them back into the queue."""
        self.close_doors()
        deadline = time.monotonic() + grace_secs
        if self._config.provider.announce:
            self.announcer.withdraw(int(time.time()))
        for role in self.roles:
            role.stop()
        for worker in self.workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                worker.abort()
        for role in self.roles:
            role.join(2)

    def abort(self) -> None:
        """The second signal: running jobs go back into the queue now."""
        for worker in self.workers:
            worker.abort()

    def reload(self, config: Any) -> None:
        """New settings for what comes in from now on; running jobs keep theirs."""
        self._config = config
        parts: list[Any] = [self.admission, self.intake, self.till, self.announcer,
                            self.housekeeper, *self.workers]
        for part in parts:
            part.configure(config)
        self._subscribe(int(time.time()))
        self.announcer.wake()

    def pause(self, why: str | None) -> None:
        """Take no new work (why), or take it again (None)."""
        self.admission.closed = why

    def facts(self) -> dict[str, Any]:
        """For status: what is under way."""
        return {"queued": jobs.queued(self._db),
                "running": sum(worker.job_id is not None for worker in self.workers),
                "quoted": jobs.count(self._db, (JobStage.QUOTED,)),
                "closed": self.admission.closed or self.admission.clock_trouble(int(time.time())),
                "models": sorted(model.name for model in self._registry.models())}

    def delivered(self) -> None:
        """A relay took a result: held money can be taken. Called by the publisher's owner."""
        if jobs.anything_held(self._db):
            self._watch.wake()

    def models_changed(self) -> None:
        self.announcer.wake()
        self._doorbell.ring(len(self.workers))

    def _publish(self, event: Event, relays: list[str]) -> None:
        """Send now what nothing hangs on; the pool drops it where a relay is slow or down."""
        text = event.to_json()
        self._pool.publish(event.id, text, None, _nobody_waits)
        if relays:
            self._pool.publish(event.id, text, relays, _nobody_waits)

    def _stored(self, rows: list[JobRow]) -> None:
        """New rows: ring those who have something to do, and nobody else."""
        stages = [row.stage for row in rows]
        if JobStage.RECEIVED in stages:
            self.till.wake()
        if JobStage.GATHERING in stages:
            self.gatherer.wake()
        if JobStage.REJECTED in stages:
            self._publisher.ring()
        self._doorbell.ring(stages.count(JobStage.FREE))
        self.customers.heard_of(row.customer_pubkey for row in rows)

    def _gathered(self) -> None:
        """Inputs were fetched, or could not be."""
        self.till.wake()
        self._doorbell.ring()
        self._publisher.ring()

    def _rang_money(self) -> None:
        self._publisher.ring()
        self._watch.wake()

    def _done(self, job: JobRow) -> None:
        """A job was answered or given up."""
        self._publisher.ring()
        if job.payment == "hold":
            self._watch.wake()

    def _cancel(self, job_id: str) -> None:
        for worker in self.workers:
            worker.cancel_job(job_id)

    def _intake_deletions(self, relay: str, events: list[Event]) -> None:
        self.intake.on_deletions(relay, events)


def _nobody_waits(relay: str, event_id: str, accepted: bool, message: str) -> None:
    """The answer to an event that nothing hangs on."""


class CustomerWatch(Role):
    """Listens to the customers whose jobs are open, and to nobody else: for deletions (NIP-09),
    which cancel a job, and for their relay lists (NIP-65), where they read their answers.

    Thread: customers. Woken when a customer comes that is not listened to yet; rests a second
    between two changes of the subscription.
    """

    def __init__(self, db: Database, pool: Pool,
                 on_deletions: Callable[[str, list[Event]], None]) -> None:
        super().__init__("customers")
        self._db, self._pool, self._on_deletions = db, pool, on_deletions
        self._authors: frozenset[str] = frozenset()     # replaced as a whole by this thread
        self._fresh: deque[str] = deque(maxlen=MAX_AUTHORS)     # came since the last look
        self._lists: dict[str, tuple[int, list[str]]] = {}      # customer -> (dated, read relays)

    def heard_of(self, customers: Iterable[str]) -> None:
        """Customers with new jobs. Any thread."""
        unknown = [one for one in customers if one not in self._authors]
        if unknown:
            self._fresh.extend(unknown)
            self.wake()

    def read_relays(self, customer: str) -> list[str]:
        """Where a customer reads, as far as its relay list is known. Any thread."""
        return self._lists.get(customer, (0, []))[1]

    def step(self, now: int) -> None:
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        authors = frozenset([*jobs.customers(self._db, OPEN, MAX_AUTHORS), *fresh])
        if authors and not authors <= self._authors:
            self._pool.subscribe(Subscription(
                CUSTOMERS, [{"kinds": [nip90.DELETION], "authors": sorted(authors),
                             "since": now - 60},
                            {"kinds": [nip65.RELAY_LIST], "authors": sorted(authors)}],
                self._heard))
            self._authors = authors
        elif not authors and self._authors:
            self._pool.unsubscribe(CUSTOMERS)
            self._authors = frozenset()
        self.wait(LINGER_SECS if self._authors else None)
        self._pause(REFRESH_SECS)               # gather further customers before asking again

    def _heard(self, relay: str, events: list[Event]) -> None:
        """Verified events, on a relay thread."""
        for event in events:
            if event.kind == nip65.RELAY_LIST:
                self._remember(event)
        deletions = [event for event in events if event.kind == nip90.DELETION]
        if deletions:
            self._on_deletions(relay, deletions)

    def _remember(self, event: Event) -> None:
        if self._lists.get(event.pubkey, (0, []))[0] >= event.created_at:
            return
        if len(self._lists) >= MAX_LISTS:
            self._lists = {}
        self._lists[event.pubkey] = (event.created_at, self._pool.usable(
            nip65.parse_relay_list(event).read)[:MAX_ANSWER_RELAYS])
