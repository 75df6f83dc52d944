"""A real store in a home of its own, and short ways to fill it."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from pylon.nostr import keys as nostr_keys
from pylon.states import JobStage
from pylon.store import books, invoices, jobs, payments
from pylon.store.database import Database
from pylon.store.invoices import InvoiceRow
from pylon.store.jobs import JobRow
from pylon.store.payments import Intent
from pylon.store.spending import NO_LIMITS, Uptime

NOW = 1_800_000_000
CUSTOMER = "c" * 64
AGENT = books.agent_account("npub1agent")


class Filler:
    """Puts rows into a store. Preimage number n is the byte n, 32 times over (mod 256)."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.keys = nostr_keys.Keys(b"\7" * 32)
        self._numbers = itertools.count(1)

    def preimage(self, number: int) -> str:
        return hashlib.sha256(f"preimage {number}".encode()).hexdigest()

    def hash(self, number: int) -> str:
        return hashlib.sha256(bytes.fromhex(self.preimage(number))).hexdigest()

    def job(self, stage=JobStage.RECEIVED, job_id=None, payment="none", price_msats=0,
            created_at=NOW, **fields) -> JobRow:
        """A job in RECEIVED (or whatever may be born), with the columns that are given."""
        number = next(self._numbers)
        job_id = job_id or hashlib.sha256(f"job {number}".encode()).hexdigest()
        values = {"id": job_id, "kind": 5050, "customer_pubkey": CUSTOMER, "stage": stage,
                  "payment": payment, "price_msats": price_msats, "model": "tiny",
                  "bid_msats": None, "encryption": "", "answer_relays": [],
                  "deadline_at": NOW + 600, "attempts": 0, "event_json": "{}",
                  "inputs_json": None, "hold_preimage": None, "created_at": created_at,
                  "code": None, "error_message": None, **fields}
        names = [name for name in JobRow.__slots__]
        row = JobRow(**{name: values.get(name) for name in names})
        with self.db.transaction(durable=False) as tx:
            jobs.add(tx, row, created_at)
        return row

    def quoted(self, number: int, amount_msats=21_000, hold=False) -> InvoiceRow:
        """A job with a published invoice, QUOTED."""
        job = self.job()
        invoices.begin(self.db, job.id, amount_msats, "00" * 32 if hold else None, NOW)
        invoice = InvoiceRow(f"inv{number}", job.id, f"lnbcrt{number}", self.hash(number),
                             amount_msats, "pending", hold, books.PROVIDER, NOW, NOW + 600, None)
        feedback = self.keys.sign(7000, "", [["e", job.id]], NOW)
        row = jobs.get(self.db, job.id)
        assert row is not None
        invoices.quote(self.db, row, invoice, "fake", feedback, NOW + 700_000, NOW)
        return invoice

    def fund(self, account: str, msats: int, ref: str | None = None) -> None:
        """Money from outside into an account."""
        with self.db.transaction(durable=True) as tx:
            books.post(tx, "test-funds", ref or str(next(self._numbers)),
                       {books.EXTERNAL: -msats, account: msats}, NOW)

    def intent(self, number: int, amount_msats=10_000, fee_cap_msats=1_000, account=AGENT,
               **fields) -> Intent:
        values = {"action_key": f"action-{number}", "account": account, "purpose": "infer",
                  "wallet": "fake", "bolt11": f"lnbcrt{number}", "payment_hash": self.hash(number),
                  "amount_msats": amount_msats, "fee_cap_msats": fee_cap_msats, **fields}
        return Intent(**values)

    def reserve(self, number: int, limits=NO_LIMITS, now=NOW, uptime=None, **fields):
        return payments.reserve(self.db, self.intent(number, **fields), limits, now,
                                uptime or Uptime("boot", now - NOW + 1000))

    def sent(self, number: int, **fields):
        return payments.mark_sent(self.db, self.reserve(number, **fields).id, None, NOW)

    def stage(self, job_id: str) -> str:
        return self.db.one("SELECT stage FROM jobs WHERE id = ?", (job_id,))["stage"]

    def journalled(self, type_: str) -> int:
        return self.db.one("SELECT count(*) AS n FROM journal WHERE type = ?", (type_,))["n"]


@pytest.fixture
def db(home):
    database = Database(home.database, home.backups)
    yield database
    database.close()


@pytest.fixture
def fill(db):
    return Filler(db)
