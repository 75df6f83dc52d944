"""Two Lightning nodes with a channel, and Pylons whose wallets they are."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from tests.customer.real import Buyer
from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.fakes.stranger import Stranger
from tests.node import Node
from tests.parts import venvs
from tests.parts.program import free_port
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

SCRIPT = Path(__file__).parents[1] / "parts/lightning.sh"
PLACE = venvs.PARTS / "lightning"
INSTALL_SECS, UP_SECS, CALL_SECS = 1800, 600, 90
PORTS = ("RPC", "ELECTRUM", "ADMIN", "PEER")

CONFIG = """
network = "regtest"
relays = ["{relay}"]
[wallet]
backend = "nwc"
[wallet.nwc]
uri_file = "nwc"
[relay]
backoff_max_secs = 1
"""
SELLER = CONFIG.replace("[wallet]", """default_model = "{model}"
backend_preference = ["ollama"]
min_price_msats = 21000
[backends.ollama]
url = "{backend}"
[wallet]""")
BUYER = CONFIG + """[customer]
quote_secs = 5
max_sats_per_job = 100
daily_limit_sats = 10000
"""


class Pair:
    """alice, who has the money, and bob; their wallets are reached through the relay at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._env = {**os.environ, **{f"LIGHTNING_{name}_PORT": str(free_port())
                                      for name in PORTS}}

    def __enter__(self) -> Self:
        self._script("install", secs=INSTALL_SECS)
        self._script("up", self.url, secs=UP_SECS)
        return self

    def __exit__(self, *_: object) -> None:
        self._script("down")

    def uri(self, name: str) -> str:
        return (PLACE / f"{name}.uri").read_text().strip()

    def electrum(self, name: str, *words: str) -> Any:
        """What one command of a node prints, which is JSON."""
        return json.loads(self._script("electrum", name, *words))

    def pay(self, invoice: str) -> str:
        """alice pays; the preimage."""
        paid = self.electrum("alice", "lnpay", invoice)
        assert paid["success"] is True, paid
        return paid["preimage"]

    def _script(self, *words: str, secs: float = CALL_SECS) -> str:
        done = subprocess.run([SCRIPT, *words], env=self._env, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=secs)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def relay():
    with LocalRelay() as made:
        yield made


@pytest.fixture(scope="session")
def pair(relay):
    with Pair(relay.url) as made:
        yield made


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def backend(stack):
    made = LoggedBackend()
    stack.callback(made.close)
    return made


@pytest.fixture
def stranger(stack, relay):
    made = Stranger(relay.url)
    stack.callback(made.close)
    return made


@pytest.fixture
def seller(openagents, stack, relay, pair, backend):
    """bob's Pylon, selling."""
    node = Node(openagents, SELLER.format(relay=relay.url, model=MODEL, backend=backend.url),
                "seller").init()
    return up(stack, node, pair.uri("bob"))


@pytest.fixture
def buyer(openagents, stack, relay, pair):
    """alice's Pylon, buying."""
    node = Buyer(openagents, BUYER.format(relay=relay.url), "buyer").init()
    return up(stack, node, pair.uri("alice"))


def up(stack: contextlib.ExitStack, node: Node, uri: str) -> Node:
    secret = node.home.secrets / "nwc"
    secret.write_text(uri)
    secret.chmod(0o600)
    stack.callback(node.stop)
    node.start()
    wait_for(lambda: ready(node.status()), 60, "relay and wallet")
    return node


def ready(status: dict[str, Any]) -> bool:
    """Buyers subscribe to nothing while they have no order."""
    return status["wallet"]["ok"] and all(
        one["connected"] and (one["subscriptions"] or not status["daemon"]["provider_active"])
        for one in status["relay_states"])
