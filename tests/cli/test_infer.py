"""pylon infer: the answer on stdout, the talk on stderr, and honest exit statuses."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.fakes.hostile_backend import MODEL, HostileBackend
from tests.node import LAUNCHER, Node
from tests.parts import models
from tests.parts.program import free_port

FRANCE = "The capital of France is Paris."


@pytest.fixture
def backend():
    with HostileBackend() as backend:
        yield backend


@pytest.fixture
def node(openagents, home, backend):
    """A home with nothing in it but a configuration; infer needs no identity and no daemon."""
    node = Node(openagents, "")
    node.configure('backend_preference = ["ollama"]\n[backends.ollama]\n'
                   f'url = "{backend.url}"\n[limits]\nfirst_token_secs = 2\n')
    return node


def sent(backend):
    return backend.completions()[-1]


def test_the_answer_comes_on_stdout_and_the_choice_on_stderr(node, backend):
    done = node.run("infer", "--prompt", "What is the capital of France?")
    assert done.stdout == FRANCE + "\n"
    assert f"{MODEL} on ollama ({backend.url})" in done.stderr
    assert "[finish_reason=stop] 7 tokens" in done.stderr
    assert sent(backend)["messages"] == [{"role": "user",
                                          "content": "What is the capital of France?"}]
    assert sent(backend)["options"]["num_predict"] == 128


def test_without_a_configuration_the_environment_says_where(openagents, backend):
    done = Node(openagents, "").run("infer", "hi", OLLAMA_HOST=backend.url)
    assert done.stdout == FRANCE + "\n"


@pytest.mark.parametrize("words", [["-"], ["--prompt", "-"], ["-p", "-"]])
def test_a_prompt_from_stdin(node, backend, words):
    node.run("infer", *words, text_in="über\nalles")
    assert sent(backend)["messages"][-1]["content"] == "über\nalles"


def test_files_stand_behind_the_prompt(node, backend, tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    node.run("infer", "sum up:", "-f", str(tmp_path / "a"), "--file", str(tmp_path / "b"),
             "--system", "be brief")
    assert sent(backend)["messages"] == [{"role": "system", "content": "be brief"},
                                         {"role": "user", "content": "sum up:\n\none\n\ntwo"}]


def test_all_parameters_arrive(node, backend):
    node.run("infer", "hi", "--max-tokens", "7", "--temperature", "0.5", "--top-p", ".9",
             "--top-k", "5", "--seed", "1", "--stop", "a", "--stop", "b", "-m", MODEL)
    assert sent(backend)["options"] == {
        "num_ctx": 2048, "num_predict": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 5,
        "seed": 1, "stop": ["a", "b"]}


def test_one_json_object(node):
    done = node.run("infer", "hi", "--json")
    answer = json.loads(done.stdout)
    assert answer.pop("duration_ms") >= 0
    assert answer == {"text": FRANCE, "model": MODEL, "backend": "ollama",
                      "finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": 7}
    assert done.stderr == ""


def test_no_stream_prints_the_whole_only(node, backend):
    assert node.run("infer", "hi", "--no-stream").stdout == FRANCE + "\n"
    backend.sin = "resets_mid_stream"
    done = node.run("infer", "hi", "--no-stream", check=False)
    assert done.returncode == 1 and done.stdout == ""


@pytest.mark.parametrize("words, status, said", [
    ([], 2, "there is no prompt"), (["  "], 2, "there is no prompt"),
    (["a", "--prompt", "b"], 2, "once"), (["a", "--file", "/nonexistent"], 2, "No such file"),
    (["a", "--max-tokens", "0"], 2, "from 1 to"), (["a", "--max-tokens", "1_0"], 2, "from 1 to"),
    (["a", "--temperature", "nan"], 2, "from 0 to 2"), (["a", "--top-k", "-1"], 2, "top-k"),
    (["a", "--model", "nope"], 1, f"there are: {MODEL}"), (["--bogus"], 2, "bogus")])
def test_what_cannot_be_done_is_said(node, words, status, said):
    done = node.run("infer", *words, check=False)
    assert done.returncode == status and said in done.stderr and done.stdout == ""


def test_a_file_that_is_no_text(node, tmp_path):
    (tmp_path / "x").write_bytes(b"ab\xff")
    done = node.run("infer", "-f", str(tmp_path / "x"), check=False)
    assert done.returncode == 2 and "byte 2 is not UTF-8" in done.stderr


def test_no_backend_says_what_was_tried(openagents, home):
    done = Node(openagents, "").run("infer", "hi", check=False,
                                    OLLAMA_HOST=f"127.0.0.1:{free_port()}",
                                    LLAMACPP_URL=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stderr.count("Connection refused") == 2 and "[backends.NAME]" in done.stderr


def test_options_of_the_first_pylon_are_taken_and_said_to_mean_nothing(node):
    done = node.run("infer", "--prompt", "hi", "--layers", "3", "--no-harmony")
    assert done.stdout == FRANCE + "\n"
    assert "--layers means nothing" in done.stderr and "--no-harmony means" in done.stderr
    assert "--max-kv" not in done.stderr


def test_another_backend_begins_anew(openagents, home, backend):
    node = Node(openagents, "")
    with HostileBackend("resets_mid_stream") as bad:
        node.configure('backend_preference = ["bad", "good"]\n'
                       f'[backends.bad]\ntype = "openai"\nurl = "{bad.url}"\n'
                       f'[backends.good]\ntype = "openai"\nurl = "{backend.url}"\n')
        done = node.run("infer", "hi")
    assert done.stdout == f"The\n{FRANCE}\n"
    assert "another one begins anew" in done.stderr and "on good" in done.stderr


def test_an_escape_sequence_of_the_model_does_not_reach_the_terminal(node, backend):
    backend.words = ["\x1b[2J", "hello", "\x07"]
    assert node.run("infer", "hi").stdout == "\x1b[2Jhello\x07\n"      # a pipe gets it as it is
    master, slave = pty.openpty()
    child = subprocess.Popen([sys.executable, LAUNCHER, "--home", node.home.root, "infer", "hi"],
                             stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    shown = b""
    while b"hello" not in shown:
        shown += os.read(master, 4096)
    assert child.wait(20) == 0
    os.close(master)
    assert b"\x1b" not in shown and b"\x07" not in shown


def test_interrupting_hangs_up(node, backend, wait_for):
    backend.sin = "stalls_mid_stream"
    # A shell's background job ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen([sys.executable, LAUNCHER, "--home", node.home.root, "infer", "hi",
                              "--max-tokens", "1000000"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(backend.completions, 20)
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130
    assert backend.gone.wait(5)


def test_a_true_model(openagents, home):
    node = Node(openagents, "")
    with models.llama_server() as model:
        done = node.run("infer", models.QUESTION, "--temperature", "0", LLAMACPP_URL=model.url,
                        OLLAMA_HOST=f"127.0.0.1:{free_port()}")
    assert "Paris" in done.stdout and f"{models.NAME} on llamacpp" in done.stderr
