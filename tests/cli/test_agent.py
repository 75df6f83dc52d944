"""pylon agent without a daemon: everything but ticks, and never a secret on the way."""

import json
import time

import pytest

from pylon.host import cage
from pylon.host.supervisor import Runner
from tests.node import Node

PAYEE = "node:02" + "ab" * 32


@pytest.fixture
def node(openagents):
    return Node(openagents, "relays = []\n").init()


def test_an_agent_is_made_changed_and_deleted(node):
    made = node.json("agent", "spawn", "-n", "scribe", "--autonomy", "supervised",
                     "--heartbeat", "2h", "--trigger", "dm")
    file = node.home.agents / f"{made['npub']}.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    words = next(line for line in file.read_text().splitlines() if "mnemonic" in line).split('"')[1]
    info = node.run("agent", "info", "scribe", "--json").stdout
    assert words not in info and words not in node.run("agent", "list", "--json").stdout
    settings = json.loads(info)["settings"]
    assert (settings["heartbeat_seconds"], settings["triggers"]) == (7200, ["dm"])
    assert node.json("agent", "set", "scribe", "daily_limit_sats", "50")["settings"][
        "daily_limit_sats"] == 50
    assert node.json("agent", "allow", "scribe", PAYEE)["settings"]["allow"] == [PAYEE]
    assert node.json("agent", "deny", "scribe", PAYEE)["settings"]["allow"] == []
    node.run("agent", "goal", "scribe", "add", "be kind")
    assert node.json("agent", "goal", "scribe", "done", "1")["goals"][0]["status"] == "completed"
    assert node.json("agent", "pause", "scribe")["paused"]
    assert "scribe" in node.run("agent", "list").stdout
    assert node.run("agent", "delete", "scribe", check=False).returncode == 2
    node.run("agent", "delete", "scribe", "--confirm", "scribe")
    assert node.json("agent", "list")["agents"] == [] and not file.exists()


@pytest.mark.parametrize("words", [
    ("info", "nobody"), ("spawn", "-n", "../../x"), ("spawn", "-n", "a", "--relay", "http://x"),
    ("tick", "nobody"), ("fund", "nobody", "5"), ("approve", "x")])
def test_what_makes_no_sense_is_one_line(node, words):
    done = node.run("agent", *words, check=False)
    assert done.returncode in (2, 3) and done.stderr.startswith("pylon: ")
    assert done.stderr.count("\n") == 1


def test_a_broken_file_hides_no_other(node):
    node.json("agent", "spawn", "-n", "scribe")
    (node.home.agents / "npub1x.toml").write_text("name = [")
    found = node.json("agent", "list")
    assert len(found["agents"]) == 1 and "npub1x.toml" in found["broken"]


def test_the_built_in_runner_starts_without_a_cage_too():
    runner = Runner(cage.command("", "x", 20, confined=False), time.monotonic() + 20)
    try:
        runner.send({"jsonrpc": "2.0", "id": 1, "method": "tick", "params": {}})
        assert runner.receive()["method"] == "infer"
    finally:
        runner.close()
