"""The real Ollama with a real model."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from pylon.backends.backend import Limits
from pylon.backends.registry import Registry
from pylon.errors import BackendCancelled, BackendRefused
from tests.backends.conftest import prompt
from tests.parts import models

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
PATIENT = Limits(150, 60, 200)


@pytest.fixture(scope="module")
def ollama():
    with models.ollama_server() as server:
        yield server


@pytest.fixture
def real(make, ollama):
    backend = make("ollama", ollama, limits=PATIENT)
    backend.probe()
    return backend


def test_what_it_has(real):
    [model] = real.probe()
    assert (model.name, model.context_tokens, model.description) == (models.NAME, 8192, "llama")


def test_a_true_answer(real):
    heard = []
    completion = real.complete(prompt(models.QUESTION, temperature=0, max_tokens=40), models.NAME,
                               heard.append)
    assert "Paris" in completion.text and "".join(heard) == completion.text
    assert len(heard) > 3 and completion.finish_reason == "stop"
    assert 10 < completion.prompt_tokens < 100 and 3 < completion.completion_tokens <= 40


def test_the_same_prompt_again_is_not_taken_for_shortened(real):
    """What Ollama finds in its cache must count too."""
    for _ in range(3):
        assert real.complete(prompt(models.QUESTION, max_tokens=3), models.NAME).text


def test_every_parameter_is_understood(real):
    completion = real.complete(
        prompt(models.QUESTION, max_tokens=20, temperature=0.1, top_p=0.9, top_k=5, seed=7,
               frequency_penalty=0.5, stop=["Paris"]), models.NAME)
    assert completion.text.strip() and "Paris" not in completion.text


def test_as_many_tokens_as_asked_for(real):
    completion = real.complete(prompt("Tell me a long story.", max_tokens=5), models.NAME)
    assert completion.completion_tokens == 5 and completion.finish_reason == "length"


def test_the_form_of_an_answer_can_be_asked_for(real):
    schema = {"type": "object", "properties": {"name": {"type": "string"},
                                               "age": {"type": "integer"}},
              "required": ["name", "age"]}
    completion = real.complete(prompt("Name and age of a person?", max_tokens=100, temperature=0,
                                      json_schema=schema), models.NAME)
    assert set(json.loads(completion.text)) == {"name", "age"}


def test_f79_what_it_shortens_without_a_word_is_found(make, ollama):
    small = make("ollama", ollama, limits=PATIENT, context_tokens=256)
    with pytest.raises(BackendRefused) as caught:
        small.complete(prompt("word " * 600, max_tokens=2), models.NAME)
    assert caught.value.code == "prompt-too-long"


def test_f80_an_unknown_model(real):
    with pytest.raises(BackendRefused, match="not found"):
        real.complete(prompt(), "nope")


def test_a_cancel_ends_the_answer(real):
    cancel = threading.Event()
    with pytest.raises(BackendCancelled):
        real.complete(prompt("Tell me a long story.", max_tokens=2000), models.NAME,
                      lambda piece: cancel.set(), cancel)


def test_the_owners_num_ctx_is_respected(make):
    with models.ollama_server(parameters="PARAMETER num_ctx 1024") as server:
        backend = make("ollama", server, limits=PATIENT)
        assert backend.probe()[0].context_tokens == 1024
        assert backend.context_of(models.NAME) == 1024


def test_it_dies_in_mid_answer_and_llama_cpp_takes_over(configured):
    with models.ollama_server() as one, models.llama_server() as two:
        registry = Registry(configured(backends={"ollama": {"url": one.url},
                                                 "llamacpp": {"url": two.url}}))
        registry.refresh()
        heard = []

        def hear(piece):
            heard.append(piece)
            if len(heard) == 5:
                one.program.stop(signal.SIGKILL)

        completion = registry.complete(prompt(models.QUESTION, temperature=0, max_tokens=30),
                                       models.NAME, hear, on_restart=heard.clear)
        assert completion.backend == "llamacpp" and "Paris" in completion.text
        assert [s["available"] for s in registry.states()] == [True, True]
        registry.refresh()
        assert [s["available"] for s in registry.states()] == [False, True]
        registry.close()
