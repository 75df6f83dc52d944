"""The endpoint of a buying node in the hands of the official `openai` client, and of a program
that knows nothing of Pylon; the seller is another node with a real model, paid with the ledger."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.blackbox.conftest import connected
from tests.fakes.logged_backend import MODEL
from tests.node import Node
from tests.parts import models, venvs
from tests.parts.program import free_port
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SELLER = """
relays = ["{relay}"]
default_model = "{model}"
min_price_msats = 3000
[backends.llamacpp]
url = "{backend}"
"""
BUYER = """
relays = ["{relay}"]
[backends.ollama]
url = "{backend}"
[customer]
quote_secs = 2
[api]
enabled = true
buy = true
bind = "127.0.0.1:{port}"
"""
CLIENT = Path(__file__).resolve().parents[1] / "parts" / "openai_client.py"


@pytest.fixture
def market(openagents, stack, backend):
    """A seller and a buyer with an endpoint; (buyer, base URL, token, the sold model)."""
    relay = stack.enter_context(LocalRelay())
    server = stack.enter_context(models.llama_server())
    seller = Node(openagents, SELLER.format(relay=relay.url, backend=server.url,
                                            model=server.name), "seller").init()
    port = free_port()
    buyer = Node(openagents, BUYER.format(relay=relay.url, backend=backend.url, port=port),
                 "buyer").init()
    for node in (seller, buyer):
        stack.callback(node.stop)
        node.start()
        wait_for(lambda node=node: connected(node), 20)
    buyer.run("wallet", "fund", "--amount", "1000")
    token = buyer.run("api", "--show-token").stdout.strip()
    return seller, buyer, f"http://127.0.0.1:{port}/v1", token, server.name


def test_the_official_client_chats_streams_and_buys(market):
    seller, buyer, url, token, model = market
    done = subprocess.run([venvs.ensure("openai") / "bin/python", CLIENT, url, token, MODEL,
                           f"nostr:{model}", models.QUESTION], capture_output=True, text=True,
                          timeout=200)
    assert done.returncode == 0, done.stderr + buyer.tail() + seller.tail()
    seen = json.loads(done.stdout)
    assert seen["models"] == [MODEL]
    assert "France" in seen["local"]["text"] and seen["local"]["cost"] == "0"
    assert seen["local_stream"]["text"] == seen["local"]["text"]
    assert "Paris" in seen["bought"]["text"] and int(seen["bought"]["cost"]) == 3000
    assert "Paris" in seen["bought_stream"]["text"] and seen["bought_stream"]["cost_msats"] == 3000
    assert seen["wrong_token"] == 401 and seen["bad_request"] == "unsupported_parameter"
    for node in (seller, buyer):
        assert node.run("wallet", "audit").returncode == 0
    wait_for(lambda: seller.json("earnings")["summary"]["total_msats"] == 6000, 20)


def test_a_program_that_uses_such_endpoints_works_unchanged(market, tmp_path):
    """Simon Willison's `llm`, told of the endpoint by its own configuration file."""
    _, _, url, token, model = market
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: bought\n  model_name: 'nostr:{model}'\n  api_base: '{url}'\n"
        "  api_key_name: pylon\n")
    done = subprocess.run(
        [venvs.ensure("openai") / "bin/llm", "-m", "bought", "--key", token, models.QUESTION],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)})
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
