"""Kill points A1 to A6 of paying, with SIGKILL, an exception, a full disk and an I/O error.

A process of its own pays over a real ledger file and is struck at the point; the next process
looks. Twenty-four cells; in each the invoice is paid at most once, the money is where the ledger
says, and trying the same action again pays it exactly once in all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pylon.errors import Refused
from pylon.failpoints import ACTIONS
from pylon.states import PaymentState
from pylon.store import books, checks, payments
from pylon.store.database import Database
from pylon.wallets.audit import audit
from pylon.wallets.payer import Payer
from pylon.wallets.reconciler import Reconciler
from tests.wallets.pay_once import open_ledger, proposal
from tests.wallets.paying import AGENT

P = PaymentState
POINTS = ("A1", "A2", "A3", "A4", "A5", "A6")
FUNDS, AMOUNT = 1_000_000, 25_000
# What must be true of the payment once the next process has looked; at A3 the ledger was never
# asked, and its record, which is one with the payment, says so.
PAID_AT = {"A1": None, "A2": False, "A3": False, "A4": True, "A5": True, "A6": True}


class Node:
    """What a restart of the paying process finds."""

    def __init__(self, home) -> None:
        self.home = home
        self.payee = open_ledger(home, b"\x32" * 32)
        ledger = open_ledger(home)
        ledger.fund(FUNDS)
        ledger.close()
        db = Database(home.database)
        with db.transaction(durable=True) as tx:
            books.post(tx, "test-funds", "f", {books.EXTERNAL: -FUNDS, AGENT: FUNDS}, 1)
        db.close()

    def run(self, text: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        if failpoint:
            env["PYLON_FAILPOINT"] = failpoint
        return subprocess.run([sys.executable, "-m", "tests.wallets.pay_once",
                               str(self.home.root), text], env=env, capture_output=True,
                              text=True, timeout=60)

    def restart(self):
        self.db, self.ledger = Database(self.home.database), open_ledger(self.home)
        self.payer = Payer(self.db, lambda: self.ledger, "regtest")
        self.reconciler = Reconciler(self.payer)
        self.reconciler.look(self.payer.clock.now())

    def stop(self):
        self.db.close()
        self.ledger.close()

    def received(self) -> int:
        return self.payee.balance()

    def whole(self) -> None:
        assert checks.all_findings(self.db) == []
        assert audit(self.db, self.ledger, "regtest", self.payer.clock.now()).findings == []
        assert books.balance(self.db, AGENT) == self.ledger.balance()


@pytest.fixture
def node(home):
    node = Node(home)
    yield node
    node.payee.close()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", POINTS)
def test_struck_at(node, point, action):
    invoice = node.payee.make_invoice(AMOUNT, "a thought", 3600, "")
    struck = node.run(invoice.bolt11, f"{point}:{action}")
    assert struck.stdout.splitlines()[:1] == ["ready"], struck.stderr
    assert struck.returncode == (-9 if action == "kill" else 1)
    node.restart()
    try:
        row = payments.by_hash(node.db, invoice.payment_hash)
        if PAID_AT[point] is None:
            assert row is None
        else:
            assert row.state == (P.SUCCEEDED if PAID_AT[point] else P.FAILED)
        assert node.received() == (AMOUNT if PAID_AT[point] else 0)
        node.whole()
        assert node.payer.pay(proposal(invoice.bolt11)).paid
        with pytest.raises(Refused):
            node.payer.pay(proposal(invoice.bolt11, "another action"))
        assert node.received() == AMOUNT
        assert books.balance(node.db, AGENT) == FUNDS - AMOUNT
        node.whole()
    finally:
        node.stop()


def test_unstruck_it_pays_once(node):
    invoice = node.payee.make_invoice(AMOUNT, "a thought", 3600, "")
    for _ in range(2):
        done = node.run(invoice.bolt11)
        assert done.stdout.split() == ["ready", "succeeded"], done.stderr
    assert node.received() == AMOUNT
    node.restart()
    node.whole()
    node.stop()


def test_killed_at_any_instant_it_pays_at_most_once(node):
    """SIGKILL after growing delays, not at points that somebody chose."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    paid = 0
    for number in range(12):
        invoice = node.payee.make_invoice(AMOUNT, "a thought", 3600, "")
        child = subprocess.Popen([sys.executable, "-m", "tests.wallets.pay_once",
                                  str(node.home.root), invoice.bolt11, f"action-{number}"],
                                 env=env, text=True, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        killer = threading.Timer(number * 0.004, child.kill)
        killer.start()
        child.communicate()
        killer.join()
        node.restart()
        row = payments.by_hash(node.db, invoice.payment_hash)
        arrived = node.payee.lookup(invoice.payment_hash).state == "paid"
        assert row is None and not arrived or (row.state == P.SUCCEEDED) == arrived
        paid += arrived
        node.whole()
        assert node.received() == paid * AMOUNT
        node.stop()
