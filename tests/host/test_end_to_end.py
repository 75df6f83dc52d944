"""A real node, a real relay, the ledger, and an agent that thinks, pays and speaks."""

import pytest

from tests.fakes.model import MODEL, ScriptedModel, acting
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

CONFIG = """
relays = ["{relay}"]
default_model = "{model}"
min_price_msats = 3000
[backends.ollama]
url = "{backend}"
[relay]
backoff_max_secs = 1
allow_private = true
"""
WORDS = "leader monkey parrot ring guide accident before fence cannon height naive bean"
NPUB = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu"


@pytest.fixture
def world(openagents, tmp_path):
    model = ScriptedModel(lambda prompt: acting(type="post", text="hello, world"))
    with LocalRelay(record=tmp_path / "relay.log") as relay:
        node = Node(openagents, CONFIG.format(relay=relay.url, model=MODEL, backend=model.url))
        node.init().start()
        node.run("wallet", "fund", "-a", "100000")
        yield node, relay, model
        node.stop()
    model.close()


def published(relay, kind):
    return [one["event"] for one in relay.recorded() if one["event"]["kind"] == kind]


def test_an_agent_wakes_thinks_pays_and_posts(world):
    node, relay, model = world
    made = node.json("agent", "spawn", "-n", "scribe", "--heartbeat", "1h")
    assert made["state"] == "spawning" and "words" not in made and "mnemonic" not in str(made)
    node.run("agent", "goal", "scribe", "add", "say hello")
    node.run("agent", "fund", "scribe", "20000")
    wait_for(lambda: node.json("agent", "info", "scribe")["state"] == "active", 10, "revived")
    done = node.run("agent", "tick", "scribe").stdout
    assert "acted" in done and "state=succeeded" in done
    wait_for(lambda: published(relay, 1), 10, "the note at the relay")
    assert published(relay, 1)[0]["content"] == "hello, world"
    assert "say hello" in model.prompts[0]
    info = node.json("agent", "info", "scribe")
    assert info["balance_msats"] == 20_000_000 - 3000      # the node's own price, in the books
    last = node.json("agent", "history", "scribe")["ticks"][0]
    assert (last["state"], last["cost_msats"]) == ("succeeded", 3000)
    for kind in (0, 10002, 10050, 39200, 39201, 39202, 39203, 39210, 39211, 39230, 39231):
        wait_for(lambda: published(relay, kind), 10, f"kind {kind}")
    assert node.json("wallet", "audit")["clean"]
    assert node.json("agent", "withdraw", "scribe", "all")["balance_msats"] == 0
