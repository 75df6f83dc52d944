"""Admission: the one place where a job is taken or refused, with one code for each refusal.

Called on the relay threads by intake, for verified events only. Cheap facts come first. The
rate limits live in memory (a restart only makes us generous once); everything that money or
uniqueness hangs on is counted in the store.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable

from pylon.backends import params
from pylon.errors import Refused
from pylon.nostr import nip13
from pylon.nostr.event import Event
from pylon.nostr.nip90 import Job
from pylon.provider import pricing, prompts
from pylon.relays import address
from pylon.states import JobStage
from pylon.store import clock, jobs
from pylon.store.database import Database

DAY_SECS = 86400
MAX_FUTURE_SECS = 300
MAX_BUCKETS = 10_000                # customers remembered by the rate limit
CHARS_PER_TOKEN = 3                 # a cautious estimate where no tokenizer is at hand
RESULT_OVERHEAD_BYTES = 1024        # ids, signature, tags other than `request` and `i`
RESULT_BYTES, ENCRYPTED_RESULT_BYTES = 60 * 1024, 40 * 1024
MIN_OUTPUT_BYTES = 1024

# Every refusal of the provider: code -> what it means. The manual is generated from this.
REFUSALS: dict[str, str] = {
    "clock-wrong": "the machine's clock is wrong, so nothing is signed",
    "invalid-job": "the event is not a job that NIP-90 describes",
    "stale": "the job is older than [provider] max_job_age_secs, or dated in the future",
    "expired": "the job's expiration tag has passed",
    "blocked": "the customer is on [admission] block, or not on a non-empty allow list",
    "rate-limited": "the customer, or all customers together, send too many jobs a minute",
    "low-pow": "the job carries less proof of work than [admission] min_pow_bits",
    "too-large": "the prompt, or the room an answer needs, is over the limits",
    "unsupported-input": "the job has an input of a type that this node does not take (url)",
    "unsupported-output": "the job wants an output format that this node does not make",
    "no-input": "the job has no text to work on",
    "bad-param": "a parameter is not what it must be",
    "cannot-decrypt": "the encrypted part of the job could not be read",
    "model-unknown": "the wanted model is not served here",
    "no-backend": "no backend is able to work at the moment",
    "prompt-too-long": "the prompt does not fit the model's context",
    "bid-too-low": "the job's bid is below this node's price for it",
    "queue-full": "too many jobs are waiting already",
    "too-many-quotes": "too many unpaid quotes are open, for this customer or in all",
    "no-wallet": "payment is required and no wallet works",
    "play-money": "the ledger's play money is not quoted to the public: a relay is not local",
    "closed": "the node takes no new work now (stopping, disk full, paused)",
    "inputs-not-found": "an event that the job names as input could not be fetched",
    "wallet-mismatch": "the wallet's invoice was not what was asked for",
    "not-paid": "the invoice was not paid in time",
    "paid-late": "money came after the job could no longer be served; it is owed",
    "paid-too-little": "less money came than the invoice says; it is owed",
    "backend-failed": "the model failed on this job several times",
    "interrupted": "the job was interrupted by crashes too often",
    "deadline": "the job could not be finished in the time it had",
    "undelivered": "no relay took the result before it expired",
    "result-too-large": "the answer does not fit an event",
    "cancelled": "the customer cancelled the job",
}
SILENT = frozenset({"clock-wrong", "stale", "expired", "blocked", "rate-limited", "low-pow",
                    "invalid-job", "play-money"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that may be served: what it will cost and how large its answer may be."""

    model: str
    price_msats: int                # 0: free
    free: bool
    max_tokens: int
    output_bytes: int
    needs_inputs: bool


class RateLimit:
    """Token buckets: `per_minute` jobs for each customer, and for all of them together."""

    def __init__(self, per_minute: int, total_per_minute: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._total = per_minute, total_per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}      # customer -> (tokens, at)

    def take(self, customer: str) -> bool:
        """True where the customer may send one more job now."""
        with self._lock:
            now = self._clock()
            mine = self._level(customer, self._per_minute, now)
            everyone = self._level("", self._total, now)
            if mine < 1 or everyone < 1:
                return False
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets = dict(list(self._buckets.items())[MAX_BUCKETS // 2:])
            self._buckets[customer] = (mine - 1, now)
            self._buckets[""] = (everyone - 1, now)
            return True

    def _level(self, key: str, per_minute: int, now: float) -> float:
        tokens, at = self._buckets.get(key, (float(per_minute), now))
        return min(per_minute, tokens + (now - at) * per_minute / 60)


class Admission:
    """Decides on every job; raises Refused, or says on which terms it is taken."""

    def __init__(self, db: Database, config: Any, registry: Any, wallet: Callable[[], Any],
                 relay_event_bytes: Callable[[], int]) -> None:
        self._db = db
        self._registry = registry
        self._wallet = wallet                   # () -> the wallet, or None while none works
        self._relay_event_bytes = relay_event_bytes
        self._newest_at = clock.newest_at(db)   # the last time that an earlier boot wrote down
        self.closed: str | None = None          # set by Provider: why nothing is taken
        self.configure(config)

    def configure(self, config: Any) -> None:
        self._config = config
        self._rate = RateLimit(config.admission.jobs_per_minute,
                               config.admission.jobs_per_minute_total)

    def precheck(self, event: Event, now: int) -> None:
        """What is known before the job is parsed. Raises Refused."""
        terms = self._config.admission
        wrong = self.clock_trouble(now)
        if wrong is not None:
            raise Refused("clock-wrong", wrong)
        age = now - event.created_at
        if age > self._config.provider.max_job_age_secs or age < -MAX_FUTURE_SECS:
            raise Refused("stale", f"the job is {age} s old")
        expires_at = event.expiration()
        if expires_at is not None and expires_at <= now:
            raise Refused("expired", "the job has expired")
        if event.pubkey in terms.block or (terms.allow and event.pubkey not in terms.allow):
            raise Refused("blocked", "this customer is not served here")
        if not self._rate.take(event.pubkey):
            raise Refused("rate-limited", "too many jobs; try again in a minute")
        if terms.min_pow_bits and nip13.committed(event) < terms.min_pow_bits:
            raise Refused("low-pow", f"{terms.min_pow_bits} bits of work are asked for")

    def clock_trouble(self, now: int) -> str | None:
        """Why no time of this machine can be signed now; None when all is well."""
        return clock.trouble(now, self._newest_at)

    def admit(self, job: Job, now: int, fetched: list[str] | None = None) -> Admitted:
        """The terms on which a parsed job is taken. Raises Refused.

        A job whose inputs are events is looked at twice: on arrival, and with what was fetched.
        """
        if self.closed:
            raise Refused("closed", self.closed)
        self._check_disk()
        needs_inputs = self._check_inputs(job) and fetched is None
        options = params.parse(job.params, self._config)
        _, model = self._registry.choose(job.params.get("model"))
        text = "" if needs_inputs else prompts.prompt_text(job, fetched)
        self._check_size(text)
        if not needs_inputs:
            self._registry.check_room(prompts.messages(job, fetched), options["max_tokens"], model)
        output_bytes = self.output_room(job)
        price = self._price(job, model, text, options["max_tokens"], now)
        self._check_queue(job, price)
        return Admitted(model, price, price == 0, options["max_tokens"], output_bytes,
                        needs_inputs)

    def _check_disk(self) -> None:
        """Money is not taken for what could not be recorded."""
        if self._db.trouble is not None:
            raise Refused("closed", "the store cannot be written")
        disk = os.statvfs(self._db.path.parent)
        if disk.f_bavail * disk.f_frsize < self._config.store.quote_free_mb * 1_000_000:
            raise Refused("closed", "the disk is nearly full")

    def _check_inputs(self, job: Job) -> bool:
        types = {type_ for _, type_, _, _ in job.inputs}
        if "url" in types:
            raise Refused("unsupported-input", "inputs of type url are not fetched here")
        fetch = bool(types & {"event", "job"})
        if fetch and not self._config.provider.fetch_inputs:
            raise Refused("unsupported-input", "inputs of type event and job are not fetched here")
        wanted = (job.output or "text/plain").split(";")[0].strip().lower()
        if wanted not in ("text/plain", "text/markdown", "text", ""):
            raise Refused("unsupported-output", "this node answers in text/plain only")
        return fetch

    def _check_size(self, text: str) -> None:
        size, limit = len(text.encode()), self._config.provider.max_prompt_bytes
        if size > limit:
            raise Refused("too-large", f"the prompt has {size} bytes, {limit} are taken")

    def output_room(self, job: Job) -> int:
        """Bytes of answer that fit one result event beside its request and i tags."""
        if job.encryption:
            room = ENCRYPTED_RESULT_BYTES
        else:
            request = job.event.to_json()
            room = min(RESULT_BYTES, self._relay_event_bytes()) - RESULT_OVERHEAD_BYTES
            room -= len(request.encode()) + request.count('"') + request.count("\\")
            room -= sum(len(data.encode()) + 32 for data, *_ in job.inputs)
        if room < MIN_OUTPUT_BYTES:
            raise Refused("too-large", "the job leaves no room for an answer in one event")
        return room

    def _price(self, job: Job, model: str, text: str, max_tokens: int, now: int) -> int:
        """Msats, 0 where this job is free. Raises Refused (`no-wallet`, `bid-too-low`)."""
        if self._is_free(job, now):
            return 0
        wallet = self._wallet()
        if wallet is None:
            raise Refused("no-wallet", "payment is required and no wallet works")
        if wallet.name == "ledger" and not all(map(address.is_local, self._config.relays)):
            raise Refused("play-money", "play money is quoted on local relays only")
        price = pricing.rate_for(self._config, model).price(
            estimate_tokens(text), max_tokens, wallet.whole_sats)
        if price <= 0:
            raise Refused("no-wallet", "payment is required and the price is zero")
        if job.bid_msats is not None and job.bid_msats < price:
            raise Refused("bid-too-low", f"the price is {price} msats")
        return price

    def _is_free(self, job: Job, now: int) -> bool:
        terms, customer = self._config.admission, job.event.pubkey
        if not self._config.require_payment or customer in terms.trusted:
            return True
        return (terms.free_jobs_per_day > 0 and
                jobs.free_since(self._db, customer, now - DAY_SECS) < terms.free_jobs_per_day)

    def _check_queue(self, job: Job, price: int) -> None:
        most = self._config.provider.max_queue
        if jobs.queued(self._db, most) >= most:
            raise Refused("queue-full", "too many jobs are waiting; try again later")
        if price:
            open_quotes = (JobStage.RECEIVED, JobStage.INVOICING, JobStage.QUOTED)
            terms = self._config.admission
            if (jobs.count(self._db, open_quotes) >= terms.max_open_quotes or
                    jobs.count(self._db, open_quotes, job.event.pubkey)
                    >= terms.quotes_per_customer):
                raise Refused("too-many-quotes", "pay or let expire the quotes that are open")


def estimate_tokens(text: str) -> int:
    """A cautious guess of a prompt's tokens: no backend counts for us before it works."""
    return -(-len(text.encode()) // CHARS_PER_TOKEN) + 8
