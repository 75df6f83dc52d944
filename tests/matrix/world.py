"""The small world of a crash test: a real relay with a log, a backend with a log, a ledger that
is its own log, a node that may be killed, and a customer who pays what he is quoted."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from pylon.control import client
from pylon.crypto import secp
from pylon.home import Home
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger

from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.fakes.stranger import Stranger
from tests.matrix import checker
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

HALF_DONE = ("received", "gathering", "invoicing", "free", "paid", "held", "running", "done",
             "settling", "cancelling")
SETTLE_SECS = 25
CUSTOMER_KEY = b"\x07" * 32

CONFIG = """
relays = ["{relay}"]
default_model = "{model}"
backend_preference = ["ollama"]
min_price_msats = 2000
[provider]
heartbeat_secs = 3600
max_queue = 10000
feedback = ["error"]
[admission]
jobs_per_minute = 100000
jobs_per_minute_total = 100000
quotes_per_customer = 10000
max_open_quotes = 10000
[pricing]
escrow = "{escrow}"
invoice_expiry_secs = 120
[backends.ollama]
url = "{backend}"
[relay]
backoff_max_secs = 2
"""


class World:
    """Everything of one crash test; use it as a context manager."""

    def __init__(self, place: Path, escrow: str = "off", relay: LocalRelay | None = None,
                 backend: LoggedBackend | None = None) -> None:
        self.place = place
        self.escrow = escrow
        self._given_relay, self._given_backend = relay, backend
        self.paid: list[str] = []
        self._paying = threading.Event()

    def __enter__(self) -> "World":
        self._stack = contextlib.ExitStack()
        self.relay = self._given_relay or self._stack.enter_context(
            LocalRelay(record=self.place / "relay.log"))
        self.backend = self._given_backend or LoggedBackend()
        if self._given_backend is None:
            self._stack.callback(self.backend.close)
        self.node = Node(self.place, CONFIG.format(relay=self.relay.url, model=MODEL,
                                                   escrow=self.escrow, backend=self.backend.url))
        self.node.init()
        self.pubkey = self.node.json("whoami")["pubkey"]
        self.stranger = Stranger(self.relay.url)
        self._stack.callback(self.stranger.close)
        self.purse = Ledger(self.place / "ledger.db", CUSTOMER_KEY, self.place / "c.sock")
        self._stack.callback(self.purse.close)
        self.purse.fund(10_000_000_000)
        self._payer = threading.Thread(target=self._pay_what_is_asked, name="payer", daemon=True)
        self._payer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._paying.set()
        self._payer.join(10)
        if self.node.daemon is not None and self.node.daemon.poll() is None:
            self.node.daemon.kill()
            self.node.daemon.wait(10)
        self._stack.close()

    def _pay_what_is_asked(self) -> None:
        """Every quote is paid once, as soon as it is seen."""
        seen: set[str] = set()
        while not self._paying.wait(0.01):
            for event in list(self.stranger.log):
                amounts = [t for t in event["tags"] if t[0] == "amount" and len(t) > 2]
                if event["kind"] != 7000 or event["id"] in seen or not amounts:
                    continue
                seen.add(event["id"])
                invoice = amounts[0][2]
                self.purse.pay(invoice, int(bolt11.decode(invoice).amount_msats or 0), 0)
                self.paid.append(invoice)

    # -- the node --

    def start(self, failpoint: str = "") -> "World":
        self.mark.unlink(missing_ok=True)
        extra = {"PYLON_FAILPOINT": failpoint, "PYLON_FAILPOINT_MARK": str(self.mark)} \
            if failpoint else {}
        self.node.start(ready=not failpoint, **extra)
        return self

    @property
    def mark(self) -> Path:
        return self.place / "failpoint-reached"

    @property
    def died(self) -> bool:
        return self.node.daemon is not None and self.node.daemon.poll() is not None

    def until_ready_or_dead(self) -> None:
        wait_for(lambda: self.died or self.connected(), 30, "the daemon to serve or to die")

    def connected(self) -> bool:
        """Whether the node listens on its relay; jobs sent before come in one batch."""
        if not client.answers(self.node.home):
            return False
        states = self.node.status().get("relay_states") or []
        return bool(states) and all(one["connected"] and one["subscriptions"] for one in states)

    def order(self, prompt: str) -> str:
        """A job of the stranger's for this node; its id."""
        return self.stranger.job(prompt, tags=[["p", self.pubkey]])

    # -- what is --

    def query(self, sql: str) -> list[tuple]:
        db = sqlite3.connect(f"file:{self.node.home.database}?mode=ro", uri=True, timeout=5)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def stages(self) -> dict[str, str]:
        return dict(self.query("SELECT id, stage FROM jobs")) \
            if self.node.home.database.exists() else {}

    def settled(self, jobs: list[str]) -> bool:
        """Every job that the node knows has come to its end, and every one was taken. A quote that
        ran out unpaid is an end, too; the judge sees to it that nobody paid for it."""
        stages = self.stages()
        ended = ("delivered",) if self.escrow == "off" else ("settled", "cancelled")
        return all(stages.get(job) in (*ended, "owed", "rejected", "failed", "expired")
                   for job in jobs) \
            and not self.open_payments()

    def open_payments(self) -> list[tuple]:
        return self.query("SELECT state FROM payments WHERE state IN ('reserved', 'sent', "
                          "'unknown')")

    def verdict(self) -> list[str]:
        """What the judge says; [] is a pass."""
        return checker.check(self.node.home.database, self.place / "ledger.db", self.account(),
                             [line["event"] for line in self.relay.recorded()], self.pubkey)

    def account(self) -> str:
        """The node's account in the ledger."""
        key = bytes.fromhex((Home(self.node.home.root).secrets / "ledger.key").read_text().strip())
        return secp.pubkey_compressed(key).hex()
