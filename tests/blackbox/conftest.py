"""Nodes for black-box tests: the real process, a real relay, strangers that share no code."""

from __future__ import annotations

import contextlib

import pytest

from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.fakes.stranger import Stranger
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

FREE = """
relays = [{relays}]
default_model = "{model}"
require_payment = false
[provider]
max_concurrent_jobs = {workers}
max_queue = 200
{provider}
[admission]
jobs_per_minute = 100000
jobs_per_minute_total = 100000
[backends.{type}]
url = "{backend}"
[relay]
backoff_max_secs = 1
ca_file = "{ca}"
"""


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def relay(stack, tmp_path):
    return stack.enter_context(LocalRelay(record=tmp_path / "relay.log"))


@pytest.fixture
def backend(stack):
    made = LoggedBackend()
    stack.callback(made.close)
    return made


@pytest.fixture
def make_node(openagents, stack):
    """A node that serves for free over these relays; started, connected, stopped at the end."""
    def make(relays, backend_url, model=MODEL, type_="ollama", ca="", provider="", start=True,
             workers=1):
        node = Node(openagents, FREE.format(
            relays=", ".join(f'"{url}"' for url in relays), backend=backend_url, model=model,
            type=type_, ca=ca, provider=provider, workers=workers)).init()
        stack.callback(node.stop)
        if start:
            node.start()
            wait_for(lambda: connected(node), 20, "the relays")
        return node
    return make


@pytest.fixture
def make_stranger(stack):
    def make(url, **kwargs):
        made = Stranger(url, **kwargs)
        stack.callback(made.close)
        return made
    return make


def connected(node: Node) -> bool:
    """Every relay connected and asked."""
    states = node.status()["relay_states"]
    return bool(states) and all(one["connected"] and one["subscriptions"] for one in states)


def relay_connected(node: Node, url: str) -> bool:
    return any(one["url"] == url and one["connected"] and one["subscriptions"]
               for one in node.status()["relay_states"])
