"""Two Pylons trade over a real relay through one LNbits server, while either is killed at random.

As test_trade_soak.py, with a wallet that each side reaches over HTTP and that writes `lnbc`
invoices: network is mainnet, the money is play money. PYLON_TRADE_ORDERS orders (CI: 20).
"""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.matrix import test_trade_soak as soak
from tests.matrix.world import CONFIG
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.parts.wallets import Keys, LnbitsServer
from tests.waiting import wait_for

ORDERS = int(os.environ.get("PYLON_TRADE_ORDERS", "20"))
SATS = 1_000_000
# A call takes LNbits a quarter of a second, and ten times that where the machine is busy.
ORDER_SECS = 240
BUYER = soak.BUYER.replace("timeout_secs = 60", f"timeout_secs = {ORDER_SECS}")

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200 + ORDERS * 15)]

WALLET = """
[wallet]
backend = "lnbits"
[wallet.lnbits]
url = "{url}"
key_file = "lnbits"
"""


@pytest.fixture
def market(openagents):
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(LocalRelay(record=openagents / "relay.log"))
        lnbits = stack.enter_context(LnbitsServer())
        backend = LoggedBackend()
        stack.callback(backend.close)
        selling = CONFIG.format(relay=relay.url, model=MODEL, escrow="auto", backend=backend.url)
        seller = make(openagents, "seller", selling, lnbits, lnbits.wallet("seller"))
        buyer = make(openagents, "buyer", BUYER.format(relay=relay.url), lnbits,
                     lnbits.wallet("buyer", SATS))
        for node in (seller, buyer):
            stack.callback(node.stop)
            soak.up(node)
            wait_for(lambda node=node: node.status()["wallet"]["ok"], 30, "the wallet")
        yield seller, buyer


def make(place, name: str, config: str, lnbits: LnbitsServer, keys: Keys) -> Node:
    node = Node(place, 'network = "mainnet"\n' + config + WALLET.format(url=lnbits.url),
                name).init()
    secret = node.home.secrets / "lnbits"
    secret.write_text(keys.file_text)
    secret.chmod(0o600)
    return node


def test_trade_through_lnbits_and_the_books_of_both_sides(market):
    seller, buyer = market
    soak.trade(seller, buyer, ORDERS, 2 * ORDER_SECS)
    earned = seller.json("earnings")["summary"]["total_msats"]
    [(paid,)] = soak.rows(buyer, "SELECT coalesce(sum(amount_msats), 0) FROM payments WHERE "
                                 "state = 'succeeded'")
    held = [node.json("wallet", "balance")["wallet_msats"] for node in (seller, buyer)]
    assert held == [paid, SATS * 1000 - paid]
    assert earned <= paid               # what failed after the payment is owed, not earned
