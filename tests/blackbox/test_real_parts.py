"""Real models behind real servers, over real relays that disagree with each other, asked by
clients that we did not write."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path

import pytest
from nostr_sdk import Keys

from tests.fakes.stranger import Stranger
from tests.parts import models, venvs
from tests.parts.relays import LocalRelay, NodeRelay, PythonRelay
from tests.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

QUESTION = models.QUESTION
TAGS = [["param", "temperature", "0"], ["param", "max_tokens", "40"]]
HERE = Path(__file__).resolve().parents[1] / "parts"


@pytest.fixture(scope="module")
def llama():
    with models.llama_server() as server:
        yield server


@pytest.fixture(scope="module")
def ollama():
    with models.ollama_server() as server:
        yield server


def relay_of(name: str):
    return {"nostr-sdk": lambda: LocalRelay(), "nostr-sdk-auth": lambda: LocalRelay(auth="write"),
            "nostr-relay": lambda: PythonRelay(),
            "node": lambda: NodeRelay(), "node-auth": lambda: NodeRelay(auth=True)}[name]()


@pytest.mark.parametrize("name", ["nostr-sdk", "nostr-relay", "node"])
@pytest.mark.parametrize("server", ["llama", "ollama"])
def test_a_real_model_answers_a_stranger(name, server, llama, ollama, make_node, make_stranger,
                                         stack):
    relay = stack.enter_context(relay_of(name))
    model = {"llama": llama, "ollama": ollama}[server]
    node = make_node([relay.url], model.url, model.name,
                     "llamacpp" if server == "llama" else "ollama")
    stranger = make_stranger(relay.url)
    assert "Paris" in stranger.result(stranger.job(QUESTION, tags=TAGS), 120)["content"]
    secret = stranger.secret_job(QUESTION, node.json("whoami")["pubkey"], "nip44")
    answer = stranger.result(secret, 120)
    assert "Paris" not in answer["content"] and len(stranger.open(answer)) > 10


@pytest.mark.parametrize("name", ["nostr-sdk-auth", "node-auth"])
def test_a_relay_that_wants_authentication_is_served_too(name, llama, make_node, stack):
    """Both sides authenticate (NIP-42); neither sees anything before. (nostr-relay answers no
    AUTH and nostr-tools waits for the answer, so that relay has a test of its own.)"""
    guarded = stack.enter_context(relay_of(name))
    make_node([guarded.url], llama.url, llama.name, "llamacpp")
    assert "Paris" in result_of(nostr_tools(guarded.url))


@pytest.mark.parametrize("scheme", ["plain", "nip44"])
def test_a_job_over_nostr_relay_with_authentication(scheme, llama, make_node, stack):
    """It acknowledges no AUTH, and gives rights by a table in which both sides must stand first;
    the key that does not stand there gets nothing in."""
    relay = stack.enter_context(PythonRelay(auth=True))
    node = make_node([relay.url], llama.url, llama.name, "llamacpp", start=False)
    provider, customer = node.json("whoami")["pubkey"], Keys.generate()
    for pubkey in (provider, customer.public_key().to_hex()):
        relay.admit(pubkey)
    node.start()
    wait_for(lambda: node.status()["relay_states"][0]["auth"] == "ok", 30)
    stranger = stack.enter_context(contextlib.closing(Stranger(relay.url, customer, guarded=True)))
    if scheme == "plain":
        assert "Paris" in stranger.result(stranger.job(QUESTION, tags=TAGS), 120)["content"]
    else:
        answer = stranger.result(stranger.secret_job(QUESTION, provider, scheme), 120)
        assert "Paris" not in answer["content"] and len(stranger.open(answer)) > 10
    nobody = stack.enter_context(contextlib.closing(Stranger(relay.url, guarded=True)))
    assert nobody.refused(nobody.sign(5050, [["i", "hello", "text"]])).startswith("restricted")


@pytest.mark.parametrize("name", ["nostr-sdk", "nostr-relay", "node"])
def test_nostr_tools_gets_its_answer(name, llama, make_node, stack):
    relay = stack.enter_context(relay_of(name))
    make_node([relay.url], llama.url, llama.name, "llamacpp")
    lines = nostr_tools(relay.url)
    assert "Paris" in result_of(lines)
    assert ["status", "processing"] in [tag for line in lines for tag in line["tags"]]


def result_of(lines: list[dict]) -> str:
    return next(line["content"] for line in lines if line["kind"] == 6050)


def nostr_tools(url: str) -> list[dict]:
    done = subprocess.run(["node", HERE / "customer_nostr_tools.mjs",
                           venvs.ensure("node") / "node_modules", url, QUESTION],
                          capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_when_one_of_two_real_servers_dies_the_other_takes_over(make_node, make_stranger, stack):
    relay = stack.enter_context(LocalRelay())
    first = stack.enter_context(models.llama_server())
    second = stack.enter_context(models.llama_server())
    node = make_node([relay.url], first.url, first.name, "llamacpp", start=False)
    node.configure(node.home.config.read_text().replace(
        "[relay]", f'[backends.second]\ntype = "openai"\nurl = "{second.url}/v1"\n[relay]'))
    node.start()
    stranger = make_stranger(relay.url)
    assert "Paris" in stranger.result(stranger.job(QUESTION, tags=TAGS), 120)["content"]
    first.program.stop(signal.SIGKILL)
    assert "Paris" in stranger.result(stranger.job(QUESTION + " ", tags=TAGS), 120)["content"]
    wait_for(lambda: any(not s["available"] for s in node.status()["backend_states"]), 60)


def test_kill_9_while_a_real_model_thinks_gives_one_result(llama, make_node, make_stranger, stack):
    relay = stack.enter_context(LocalRelay())
    node = make_node([relay.url], llama.url, llama.name, "llamacpp")
    stranger = make_stranger(relay.url)
    job = stranger.job("Tell me a long story about a lighthouse.",
                       tags=[["param", "max_tokens", "300"]])
    wait_for(lambda: "started" in node.run("explain", job[:12], check=False).stdout, 30)
    node.kill()
    node.start()
    stranger.result(job, 120)
    node.stop()
    assert len({event["id"] for event in stranger.results(job)}) == 1
