"""A provider's parts without threads and relays: a real store, a real ledger, a pretended model."""

from __future__ import annotations

import threading
import time

import pytest

from pylon import config as configuration
from pylon.backends.completion import Completion, Model
from pylon.errors import BackendCancelled, Refused
from pylon.nostr import keys as nostr_keys
from pylon.provider.admission import Admission
from pylon.provider.intake import Intake
from pylon.provider.payments import Till, Watch
from pylon.provider.worker import Worker
from pylon.store.database import Database
from pylon.wallets.ledger import Ledger

SETTINGS = {"relays": ["ws://127.0.0.1:7000"], "default_model": "tiny",
            "admission": {"jobs_per_minute": 1000, "jobs_per_minute_total": 100000}}


class PretendedRegistry:
    """Has one model, `tiny`, and answers what it is told to."""

    def __init__(self) -> None:
        self.answer: str | Exception = "an answer"
        self.asked: list = []
        self.has_model = True

    def models(self):
        return [Model("tiny", 2048)] if self.has_model else []

    def choose(self, name):
        if not self.has_model:
            raise Refused("no-backend", "no backend")
        if name not in (None, "", "tiny"):
            raise Refused("model-unknown", "no such model")
        return None, "tiny"

    def context_tokens(self, model):
        return 2048

    def check_room(self, messages, max_tokens, model):
        if max_tokens > 2048:
            raise Refused("prompt-too-long", "too long")

    def complete(self, prompt, model, on_text=None, cancel: threading.Event | None = None,
                 on_restart=None, deadline=None):
        self.asked.append(prompt)
        if isinstance(self.answer, Exception):
            raise self.answer
        if cancel is not None and cancel.is_set():
            raise BackendCancelled("cancelled")
        if on_text:
            on_text(self.answer)
        return Completion(self.answer, model, 7, 5, "stop", "pretended")


class Bench:
    """Every part of a provider, built by hand; `now` moves only when a test moves it."""

    def __init__(self, home, settings) -> None:
        self.home = home
        self.config = configuration.from_values(settings)
        self.db = Database(home.database)
        self.keys = nostr_keys.generate()
        self.customer = nostr_keys.generate()
        self.registry = PretendedRegistry()
        self.wallet = Ledger(home.root / "ledger.db", b"\1" * 32, home.root / "a.sock")
        self.purse = Ledger(home.root / "ledger.db", b"\2" * 32, home.root / "b.sock")
        self.purse.fund(1_000_000_000)
        self.rings: list[str] = []
        self.sent: list = []
        self.open_wallet = self.wallet
        self.admission = Admission(self.db, self.config, self.registry, lambda: self.open_wallet,
                                   lambda: 61440)
        self.intake = Intake(self.db, self.keys, self.config, self.admission,
                             lambda urls: list(urls), lambda rows: self.rings.append("stored"),
                             lambda job_id: self.rings.append("cancel " + job_id))
        self.till = self.quiet(Till(self.db, self.keys, self.config, lambda: self.open_wallet,
                                    lambda: self.rings.append("quoted")))
        self.watch = self.quiet(Watch(self.db, self.keys, self.config, lambda: self.open_wallet,
                                      lambda: self.rings.append("told")))
        self.watch.on_paid = lambda: self.rings.append("paid")
        self.worker = self.new_worker("this-boot")

    def new_worker(self, lease: str) -> Worker:
        return self.quiet(Worker("worker-1", self.db, self.keys, self.config, self.registry, lease,
                                 lambda event, relays: self.sent.append(event),
                                 lambda job: self.rings.append("done"),
                                 self.admission.output_room, lambda customer: []))

    @staticmethod
    def quiet(role):
        """A role whose waiting ends at once, for calling `step` by hand."""
        role.wait = lambda timeout_secs: True
        return role

    def request(self, prompt="hello", tags=(), kind=5050, created_at=None, customer=None):
        return (customer or self.customer).sign(kind, "", [["i", prompt, "text"], *tags],
                                                created_at or int(time.time()))

    def arrive(self, *events):
        self.intake.on_jobs("ws://127.0.0.1:7000", list(events))

    def stage(self, event):
        row = self.db.one("SELECT stage FROM jobs WHERE id = ?", (event.id,))
        return row["stage"] if row else None

    def code(self, event):
        row = self.db.one("SELECT code FROM jobs WHERE id = ?", (event.id,))
        return row["code"] if row else None

    def outbox(self, purpose):
        return self.db.query("SELECT * FROM outbox WHERE purpose = ?", (purpose,))

    def pay(self, event):
        """The customer pays the quote of a job."""
        row = self.db.one("SELECT bolt11, amount_msats FROM invoices WHERE job_id = ?",
                          (event.id,))
        return self.purse.pay(row["bolt11"], row["amount_msats"], 0)

    def look(self):
        """The watch asks about everything now."""
        self.watch.pushed(None)
        self.watch.step(int(time.time()))

    def close(self):
        self.wallet.close()
        self.purse.close()
        self.db.close()


@pytest.fixture
def make_bench(home):
    made = []

    def make(**changes):
        settings = {**SETTINGS, **changes}
        made.append(Bench(home, settings))
        return made[-1]
    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench):
    """Payment required, plain invoices."""
    return make_bench(pricing={"escrow": "off"})


@pytest.fixture
def free_bench(make_bench):
    return make_bench(require_payment=False)


@pytest.fixture
def hold_bench(make_bench):
    return make_bench(pricing={"escrow": "on"})
