"""pylon compute: what could think for this node."""

from __future__ import annotations

import pytest

from tests.fakes.hostile_backend import MODEL, HostileBackend
from tests.node import Node
from tests.parts.program import free_port


@pytest.fixture
def backend():
    with HostileBackend() as backend:
        yield backend


@pytest.fixture
def places(backend):
    """One backend that is there and one that is not, told by the environment."""
    return {"OLLAMA_HOST": backend.url, "LLAMACPP_URL": f"http://127.0.0.1:{free_port()}"}


def test_json_in_the_form_of_the_first_pylon(openagents, backend, places):
    found = Node(openagents, "").json("compute", **places)
    assert list(found) == ["pylon", "local_backends", "cloud_providers", "swarm_providers"]
    assert found["pylon"] == {"running": False, "status": None}
    ollama, llamacpp = found["local_backends"]
    assert ollama == {"name": "ollama", "type": "ollama", "available": True, "error": None,
                      "endpoint": backend.url, "models": [MODEL]}
    assert (llamacpp["available"], llamacpp["models"]) == (False, [])
    assert "Connection refused" in llamacpp["error"]
    assert found["cloud_providers"] == found["swarm_providers"] == []


def test_for_a_person(openagents, places):
    said = Node(openagents, "").run("compute", OPENAI_API_KEY="sk-hidden0", **places).stdout
    assert "Daemon:    not running" in said and MODEL in said
    assert "llamacpp   not available" in said
    assert "keys for openai" in said and "hidden" not in said


def test_keys_of_clouds_are_named_and_not_used(openagents, places):
    found = Node(openagents, "").json("compute", OPENAI_API_KEY="x", GOOGLE_API_KEY="y", **places)
    assert found["cloud_providers"] == [{"name": "openai"}, {"name": "google"}]
    assert len(found["local_backends"]) == 2


def test_configured_backends_by_their_names(openagents, home, backend, places):
    node = Node(openagents, "")
    node.configure(f'[backends.big]\ntype = "openai"\nurl = "{backend.url}/v1"\n'
                   '[backends.llamacpp]\nenabled = false\n')
    found = node.json("compute", **places)
    assert [(b["name"], b["type"]) for b in found["local_backends"]] == [
        ("ollama", "ollama"), ("big", "openai")]


def test_the_swarm_is_the_daemons_to_ask(openagents, places):
    done = Node(openagents, "").run("compute", "--swarm", check=False, **places)
    assert done.returncode == 3 and "not running" in done.stderr


def test_with_a_daemon(openagents, backend, places):
    node = Node(openagents, 'relays = []\nrequire_payment = false\nbackend_preference = '
                            f'["ollama"]\n[backends.ollama]\nurl = "{backend.url}"\n').init()
    node.start()
    try:
        found = node.json("compute", **places)
        assert found["pylon"]["running"] and set(found["pylon"]["status"]) == {
            "uptime_secs", "jobs_completed", "provider_active", "host_active"}
        assert "running for" in node.run("compute", **places).stdout
        assert "nobody sells" in node.run("compute", "--swarm", **places).stdout
    finally:
        node.stop()


def test_a_reload_takes_other_backends_and_a_failure_shows(openagents, backend, wait_for):
    """The daemon's own word on its backends, as `pylon status` shows it."""
    text = ('relays = []\nrequire_payment = false\nbackend_preference = ["one"]\n'
            '[backends.one]\ntype = "llamacpp"\nurl = "{}"\n')
    node = Node(openagents, text.format(f"http://127.0.0.1:{free_port()}")).init()
    node.start()
    try:
        assert not node.status()["backend_states"][0]["available"]
        assert node.status()["default_backend"] is None
        node.configure(text.format(backend.url))
        node.run("reload")
        wait_for(lambda: node.status()["default_backend"] == "one")
        assert node.status()["backend_states"][0]["models"] == [MODEL]
    finally:
        node.stop()
