"""Two Pylons on one machine trade through a real relay with the ledger, while either is killed at
random: no order is paid twice, no paid order stays without its answer, and both books balance.

PYLON_TRADE_ROUNDS x PYLON_TRADE_ORDERS; 50 x 20 = 1,000 orders are the figure to reach.
PYLON_TRADE_SEED repeats a run's moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading

import pytest

from pylon.control import client
from pylon.errors import ControlError, NotRunning
from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.matrix.world import CONFIG as SELLER
from tests.customer.real import Buyer
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

ROUNDS = int(os.environ.get("PYLON_TRADE_ROUNDS", "4"))
ORDERS = int(os.environ.get("PYLON_TRADE_ORDERS", "10"))
SEED = int(os.environ.get("PYLON_TRADE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
LONGEST_LIFE_SECS = 2.0             # after the orders were sent
PRICE_MSATS = 2000

BUYER = """
relays = ["{relay}"]
[customer]
quote_secs = 1
daily_limit_sats = 10000000
[relay]
backoff_max_secs = 2
"""

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(180 + ROUNDS * 60)]


class Trade:
    """A seller, a buyer, what lies between them, and every order that was sent."""

    def __init__(self, place, relay, backend, escrow):
        self.place, self.relay = place, relay
        self.seller = Node(place, SELLER.format(relay=relay.url, model=MODEL, escrow=escrow,
                                                backend=backend.url), "seller").init()
        self.buyer = Buyer(place, BUYER.format(relay=relay.url), "buyer").init()
        self.pubkey = self.seller.json("whoami")["pubkey"]
        self.submitted = 0

    def start(self):
        for node in (self.seller, self.buyer):
            if node.daemon is None or node.daemon.poll() is not None:
                node.start()
        wait_for(self.connected, 30, "both on the relay")

    def connected(self):
        return all(one["connected"] for node in (self.seller, self.buyer)
                   for one in client.call(node.home, "StatusJson")["relay_states"])

    def submit(self):
        """One order, unless the buyer falls meanwhile."""
        self.submitted += 1
        with contextlib.suppress(ControlError, NotRunning):
            self.buyer.buy(prompt=f"question {self.submitted}", provider=self.pubkey,
                           timeout_secs=120)

    def rows(self, node, sql):
        db = sqlite3.connect(f"file:{node.home.database}?mode=ro", uri=True, timeout=5)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def open(self):
        """Orders and payments of the buyer's that have not come to their end."""
        return self.rows(self.buyer, "SELECT id FROM orders WHERE state IN ('new', 'sent', "
                         "'accepted', 'paid')") + self.rows(
            self.buyer, "SELECT id FROM payments WHERE state IN ('reserved', 'sent', 'unknown')")

    def wrong(self):
        """What must not be, as sentences."""
        found = [f"order {key[:8]} was paid {times} times" for key, times in self.rows(
            self.buyer, "SELECT action_key, count(*) FROM payments WHERE state = 'succeeded' "
            "GROUP BY action_key HAVING count(*) > 1")]
        found += [f"order {key[:8]} is paid and {state} ({code})" for key, state, code in self.rows(
            self.buyer, "SELECT o.id, o.state, o.code FROM orders o JOIN payments p ON "
            "p.action_key = o.id AND p.state = 'succeeded' WHERE o.state <> 'completed'")]
        found += [f"order {key[:8]} is completed and was not paid" for key, in self.rows(
            self.buyer, "SELECT id FROM orders WHERE state = 'completed' AND id NOT IN "
            "(SELECT action_key FROM payments WHERE state = 'succeeded')")]
        found += [f"order {key[:8]} has the answer to another" for key, prompt, result in self.rows(
            self.buyer, "SELECT id, prompt, result FROM orders WHERE state = 'completed'")
            if prompt not in result]
        return found


@pytest.mark.parametrize("escrow", ["off", "on"])
def test_two_pylons_trade_under_random_kills(openagents, escrow):
    chance = random.Random(SEED + (escrow == "on"))
    backend = LoggedBackend()
    with LocalRelay() as relay:
        trade = Trade(openagents, relay, backend, escrow)
        try:
            trade.start()
            client.call(trade.buyer.home, "WalletFund", {"amount_msats": 10_000_000_000}, 15)
            for _ in range(max(1, ROUNDS // 2)):
                for _ in range(ORDERS):
                    trade.submit()
                threading.Event().wait(chance.random() * LONGEST_LIFE_SECS)
                for node in chance.choice(([trade.seller], [trade.buyer],
                                           [trade.seller, trade.buyer])):
                    node.kill()
                trade.start()
            wait_for(lambda: not trade.open(), 240, "every order to end")
            wait_for(lambda: not trade.rows(trade.seller, "SELECT id FROM jobs WHERE stage IN "
                                            "('paid', 'held', 'running', 'done', 'settling')"),
                     60, "every job to end")
            assert trade.wrong() == [], f"seed {SEED}"
            for node in (trade.seller, trade.buyer):
                audit = node.run("wallet", "audit", check=False)
                assert audit.returncode == 0, audit.stdout
            states = [state for state, in trade.rows(trade.buyer, "SELECT state FROM orders")]
            print(f"seed {SEED}, escrow {escrow}: {len(states)} orders, "
                  f"{states.count('completed')} completed")
            assert states.count("completed") > len(states) * 0.8
        finally:
            for node in (trade.seller, trade.buyer):
                if node.daemon is not None:
                    node.stop()
            backend.close()
