"""The provider paid for real: LNbits over HTTP, and a NIP-47 wallet service over a relay. The
customer pays with the other side's own means; kill -9 falls between payment and result."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.blackbox.conftest import connected
from tests.fakes.logged_backend import MODEL, answer_to
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.parts.wallets import Keys, LnbitsServer, NwcService
from tests.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CONFIG = """
network = "mainnet"
relays = ["{relay}"]
default_model = "{model}"
min_price_msats = 21000
[backends.ollama]
url = "{backend}"
[wallet]
backend = "{wallet}"
[wallet.lnbits]
url = "{url}"
key_file = "lnbits"
[wallet.nwc]
uri_file = "nwc"
[relay]
backoff_max_secs = 1
"""


@pytest.fixture(scope="module")
def lnbits():
    with LnbitsServer() as server:
        yield server


@pytest.fixture
def sell(openagents, stack, lnbits, backend):
    """(a running seller, its relay, pay(bolt11) with the customer's own LNbits wallet)."""
    def make(wallet: str):
        relay = stack.enter_context(LocalRelay(record=openagents / "relay.log"))
        till, purse = lnbits.wallet("seller"), lnbits.wallet("customer", 10_000)
        node = Node(openagents, CONFIG.format(
            relay=relay.url, model=MODEL, backend=backend.url, wallet=wallet,
            url=lnbits.url)).init()
        service = stack.enter_context(NwcService(relay.url, lnbits, till))
        for name, text in (("lnbits", till.file_text), ("nwc", service.uri)):
            (node.home.secrets / name).write_text(text)
            (node.home.secrets / name).chmod(0o600)
        stack.callback(node.stop)
        node.start()
        wait_for(lambda: connected(node) and node.status()["wallet"]["ok"], 30)
        return node, relay, lambda bolt11: pay(lnbits, purse, bolt11)
    return make


def pay(lnbits: LnbitsServer, purse: Keys, bolt11: str) -> None:
    body = json.dumps({"out": True, "bolt11": bolt11}).encode()
    with urllib.request.urlopen(urllib.request.Request(
            lnbits.url + "/api/v1/payments", body,
            {"X-Api-Key": purse.admin, "Content-Type": "application/json"}), timeout=30) as done:
        assert json.load(done)["payment_hash"]


@pytest.mark.parametrize("wallet", ["lnbits", "nwc"])
def test_quoted_paid_killed_and_delivered_once(sell, make_stranger, backend, wallet):
    node, relay, pay_with = sell(wallet)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    job = stranger.job("a thing worth 21 sats", tags=[["bid", "50000"]])
    invoice = stranger.invoice(job, 30)
    assert invoice.startswith("lnbc210n")
    pay_with(invoice)
    wait_for(lambda: backend.calls, 60, "the payment to be noticed and the job to run")
    node.kill()
    backend.gate.set()
    node.start()
    assert stranger.result(job, 60)["content"] == answer_to("a thing worth 21 sats")
    story = node.run("explain", job[:12]).stdout
    assert "21 sats" in story and "interrupted" in story
    assert node.json("earnings")["summary"]["total_msats"] == 21000
    assert node.run("wallet", "audit").returncode == 0
    node.stop()
    assert len({event["id"] for event in stranger.results(job)}) == 1
    assert len({event["id"] for event in stranger.about(job, 7000, "payment-required")}) == 1


@pytest.mark.parametrize("wallet", ["lnbits", "nwc"])
def test_paid_while_the_node_is_down_is_served_after_the_start(sell, make_stranger, backend,
                                                               wallet):
    node, relay, pay_with = sell(wallet)
    stranger = make_stranger(relay.url)
    job = stranger.job("paid in the dark")
    invoice = stranger.invoice(job, 30)
    node.kill()
    pay_with(invoice)
    node.start()
    assert stranger.result(job, 60)["content"] == answer_to("paid in the dark")
    assert node.run("wallet", "audit").returncode == 0
