"""Two Pylons trade over a real relay with the ledger, while either side is killed at random.

PYLON_TRADE_ORDERS orders (CI: 60; `make soak`: 1,000). At the end every order has ended, nothing
was paid twice, and both books agree with the ledger and with each other.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3

import pytest

from pylon.control import client
from pylon.errors import PylonError
from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.matrix.world import CONFIG
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

ORDERS = int(os.environ.get("PYLON_TRADE_ORDERS", "60"))
BATCH = 10
SEED = int(os.environ.get("PYLON_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(180 + ORDERS * 4)]

BUYER = """
relays = ["{relay}"]
backend_preference = []
[provider]
announce = false
[customer]
daily_limit_sats = 1000000
max_sats_per_job = 100
quote_secs = 1
timeout_secs = 60
[relay]
backoff_max_secs = 2
"""


@pytest.fixture
def market(openagents):
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(LocalRelay(record=openagents / "relay.log"))
        backend = LoggedBackend()
        stack.callback(backend.close)
        seller = Node(openagents, CONFIG.format(relay=relay.url, model=MODEL, escrow="auto",
                                                backend=backend.url), "seller").init()
        buyer = Node(openagents, BUYER.format(relay=relay.url), "buyer").init()
        for node in (seller, buyer):
            stack.callback(node.stop)
            up(node)
        buyer.run("wallet", "fund", "--amount", "1000000")
        yield relay, seller, buyer


def up(node: Node) -> None:
    node.start()
    wait_for(lambda: all(one["connected"] for one in node.status()["relay_states"]), 30)


def rows(node: Node, sql: str) -> list[tuple]:
    db = sqlite3.connect(f"file:{node.home.database}?mode=ro", uri=True, timeout=10)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_a_thousand_orders_and_the_books_of_both_sides(market):
    _, seller, buyer = market
    assert not trade(seller, buyer, ORDERS), f"paid, and not answered (seed {SEED})"


def trade(seller: Node, buyer: Node, orders: int, patience_secs: int = 150) -> list[tuple]:
    """So many orders under random kills, and what must be true of both sides afterwards.

    `patience_secs`: longer than an order may live. What was paid too late to be answered in that
    time is owed: its hashes.
    """
    chance, npub = random.Random(SEED), seller.json("whoami")["npub"]
    ordered, kills = 0, 0
    while ordered < orders:
        for _ in range(BATCH):
            ordered += order(buyer, npub, ordered)
        wait_for(lambda: len(open_orders(buyer)) <= BATCH, patience_secs,
                 f"earlier orders to end (seed {SEED})")
        victim = chance.choice([seller, buyer, None])
        if victim is not None:
            victim.kill()
            up(victim)
            kills += 1
    wait_for(lambda: not open_orders(buyer), patience_secs, f"every order to end (seed {SEED})")
    wait_for(lambda: not half_done(seller), patience_secs, f"every job to end (seed {SEED})")
    for node in (seller, buyer):
        wait_for(lambda node=node: node.run("wallet", "audit", check=False).returncode == 0, 30,
                 f"a clean audit of {node.home.root.name} (seed {SEED}):\n{node.tail()}")
    owed = compare(seller, buyer)
    ends = dict(rows(buyer, "SELECT state, count(*) FROM orders GROUP BY state"))
    why = rows(buyer, "SELECT code, count(*) FROM orders WHERE state <> 'completed' GROUP BY code")
    print(f"seed {SEED}: {ordered} orders, {kills} kills, {ends}, not completed: {dict(why)}, "
          f"owed: {len(owed)}")
    assert ends.get("completed", 0) >= ordered * 0.5
    return owed


def order(buyer: Node, npub: str, number: int) -> int:
    """Submit one order that pays by itself; 1 when it was taken."""
    try:
        client.call(buyer.home, "JobSubmit", {
            "prompt": f"order {number}", "provider": npub, "auto_pay": True, "first": True,
            "request_id": f"{number:032x}"}, 15)
        return 1
    except PylonError:
        return 0


def open_orders(buyer: Node) -> list[tuple]:
    return rows(buyer, "SELECT id FROM orders WHERE state IN ('new', 'sent', 'accepted', 'paid')")


def half_done(seller: Node) -> list[tuple]:
    return rows(seller, "SELECT id FROM jobs WHERE stage IN ('received', 'gathering', 'invoicing', "
                        "'paid', 'held', 'running', 'done', 'settling', 'cancelling')")


def compare(seller: Node, buyer: Node) -> list[tuple]:
    """What one side paid is what the other has received, hash by hash; each order paid once.

    The hashes that were paid and not answered: the seller owes them.
    """
    paid = dict(rows(buyer, "SELECT payment_hash, amount_msats FROM payments WHERE "
                            "state = 'succeeded'"))
    received = dict(rows(seller, "SELECT payment_hash, paid_amount_msats FROM invoices WHERE "
                                 "status = 'paid'"))
    assert paid == received, f"seed {SEED}"
    twice = rows(buyer, "SELECT action_key FROM payments WHERE state <> 'failed' GROUP BY "
                        "action_key HAVING count(*) > 1")
    mixed_up = rows(buyer, "SELECT id FROM orders WHERE state = 'completed' AND "
                           "instr(result, prompt) = 0")
    assert not mixed_up, f"the answer to something else (seed {SEED})"
    assert not twice and sum(sum(r) for r in rows(buyer, "SELECT sum(amount_msats) FROM entries")
                             ) == 0
    unserved = rows(buyer, "SELECT payment_hash FROM payments WHERE state = 'succeeded' AND "
                           "action_key IN (SELECT id FROM orders WHERE state <> 'completed')")
    owed = rows(seller, "SELECT payment_hash FROM owed")
    assert set(unserved) <= set(owed), f"paid, not answered, and not owed (seed {SEED})"
    [(reserved,)] = rows(buyer, "SELECT coalesce(sum(amount_msats), 0) FROM entries WHERE "
                                "account = 'reserved'")
    assert reserved == 0
    return unserved
