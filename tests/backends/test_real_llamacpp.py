"""The real llama.cpp server with a real model: what it says, and what happens when it dies."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from pylon.backends import tokens
from pylon.backends.backend import Limits, Prompt
from pylon.backends.registry import Prober, Registry
from pylon.errors import BackendCancelled, BackendRefused, BackendUnavailable, Refused
from tests.backends.conftest import prompt
from tests.parts import models
from tests.parts.program import free_port

PATIENT = Limits(60, 30, 90)
STORY = "Tell me a very long story about a lighthouse keeper, with many details."


@pytest.fixture(scope="module")
def llama():
    with models.llama_server() as server:
        yield server


@pytest.fixture(params=["llamacpp", "openai"])
def real(request, make, llama):
    return make(request.param, llama, limits=PATIENT)


def test_what_it_has(real):
    [model] = real.probe()
    assert (model.name, model.context_tokens) == (models.NAME, models.CONTEXT)


def test_a_true_answer(real):
    heard = []
    completion = real.complete(prompt(models.QUESTION, temperature=0, max_tokens=40), models.NAME,
                               heard.append)
    assert "Paris" in completion.text and "".join(heard) == completion.text
    assert len(heard) > 3 and completion.finish_reason == "stop"
    assert 10 < completion.prompt_tokens < 100 and 3 < completion.completion_tokens <= 40


def test_as_many_tokens_as_asked_for(real):
    completion = real.complete(prompt(STORY, max_tokens=5, seed=1), models.NAME)
    assert completion.completion_tokens == 5 and completion.finish_reason == "length"


def test_every_parameter_is_understood(real):
    completion = real.complete(
        prompt(models.QUESTION, max_tokens=20, temperature=0.1, top_p=0.9, top_k=5, seed=7,
               frequency_penalty=0.5, stop=["Paris"]), models.NAME)
    assert completion.text.strip() and "Paris" not in completion.text


def test_the_form_of_an_answer_can_be_asked_for(real):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20},
                                               "age": {"type": "integer", "maximum": 99}},
              "required": ["name", "age"], "additionalProperties": False}
    completion = real.complete(prompt("Name and age of a person?", max_tokens=80, temperature=0,
                                      json_schema=schema), models.NAME)
    assert set(json.loads(completion.text)) == {"name", "age"}


def test_f79_it_refuses_a_prompt_that_does_not_fit(real):
    with pytest.raises(BackendRefused) as caught:
        real.complete(prompt("word " * 3000), models.NAME)
    assert caught.value.code == "prompt-too-long"


def test_a_cancel_frees_its_slot(make, llama, wait_for):
    real, cancel = make("llamacpp", llama, limits=PATIENT), threading.Event()
    with pytest.raises(BackendCancelled):
        real.complete(prompt(STORY, max_tokens=1500), models.NAME, lambda piece: cancel.set(),
                      cancel)
    wait_for(lambda: not llama.get("/slots")[0]["is_processing"])


def test_the_estimates_enclose_what_the_tokenizer_counts(llama):
    texts = {
        "english": "The quick brown fox jumps over the lazy dog. " * 10,
        "code": "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n" * 8,
        "json": json.dumps([{"id": n, "name": f"item-{n}", "ok": True} for n in range(20)]),
        "digits": "3141592653589793238462643383279502884197" * 4,
        "base64": "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0IGVuY29kZWQgdGV4dC4" * 4,
        "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" * 3,
        "capitals": "WHY ARE YOU SHOUTING AT EVERYBODY IN THIS ROOM? " * 6,
        "german": "Donaudampfschifffahrtsgesellschaft und Straßenbahnhaltestelle, übrigens. " * 6,
        "finnish": "epäjärjestelmällistyttämättömyydelläänsäkäänköhän juoksentelisinkohan " * 6,
        "russian": "Как пройти в библиотеку в три часа ночи? " * 6,
        "chinese": "图书馆在哪里,现在几点了,我不知道。" * 6,
        "emoji": "😀👩‍👩‍👧‍👦🏳️‍🌈" * 10,
        "punctuation": "!?#$%^&*()_+-=[]{};':,./<>~`|" * 6,
        "spaces": " \t  \n\n    x" * 20,
    }
    for name, text in texts.items():
        count = len(llama.post("/tokenize", {"content": text})["tokens"])
        least = tokens.at_least([{"role": "user", "content": text}])
        assert least <= count <= tokens.at_most(text), name


def test_a_template_adds_no_more_than_is_reckoned(real):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": "what is a lighthouse?"}]
    completion = real.complete(Prompt(messages, max_tokens=2), models.NAME)
    assert completion.prompt_tokens <= tokens.at_most_in(messages)


def test_its_key_is_needed_and_used(make):
    with models.llama_server(api_key="sk-of-the-test") as server:
        with pytest.raises(BackendUnavailable, match="key"):
            make("llamacpp", server, limits=PATIENT).complete(prompt(), models.NAME)
        with pytest.raises(BackendUnavailable, match="key"):
            make("llamacpp", server, limits=PATIENT).probe()
        real = make("llamacpp", server, limits=PATIENT, key="sk-of-the-test")
        assert real.probe()[0].context_tokens == models.CONTEXT
        assert real.complete(prompt(models.QUESTION, max_tokens=5), models.NAME).text


def test_two_servers_with_weights_and_one_dies_in_mid_answer(configured, wait_for, monkeypatch):
    """The way to an engine that scales out: the work goes on, and the dead one comes back."""
    monkeypatch.setattr("pylon.backends.place.TROUBLE_SECS", (0.5,))
    told = []
    with models.llama_server() as one, models.llama_server() as two:
        registry = Registry(configured(backends={
            "one": {"type": "openai", "url": one.url, "weight": 2},
            "two": {"type": "openai", "url": two.url + "/v1"}}))
        registry.refresh()
        prober = Prober(registry, lambda type_, data: told.append((type_, data["backend_id"]))
                        if type_ != "BackendsRegistered" else None)
        prober.start()
        try:
            short = prompt(models.QUESTION, max_tokens=3)
            assert [registry.complete(short, models.NAME).backend for _ in range(3)].count(
                "one") == 2

            heard, restarts = [], []

            def hear(piece):
                heard.append(piece)
                if len(heard) == 10 and not restarts:
                    one.program.stop(signal.SIGKILL)

            def restart():
                restarts.append(len(heard))
                heard.clear()

            completion = registry.complete(prompt(STORY, max_tokens=30, temperature=0),
                                           models.NAME, hear, on_restart=restart)
            assert completion.backend == "two" and restarts and restarts[0] >= 10
            assert "".join(heard) == completion.text and completion.completion_tokens == 30

            wait_for(lambda: ("BackendUnavailable", "one") in told)
            assert [registry.complete(short, models.NAME).backend for _ in range(3)] == ["two"] * 3

            port = int(one.url.rpartition(":")[2])
            told.clear()                # before it comes back: the prober may be faster than we
            with models.llama_server(port=port):
                wait_for(lambda: ("BackendAvailable", "one") in told, 20)
                assert "one" in {registry.complete(short, models.NAME).backend for _ in range(3)}
        finally:
            prober.stop()
            assert prober.join(10)
            registry.close()


def test_a_prompt_that_the_estimate_let_pass_is_refused_for_good(configured, llama):
    registry = Registry(configured(backends={"llamacpp": {"url": llama.url}},
                                   backend_preference=["llamacpp"]))
    registry.refresh()
    long = prompt("word " * 2045)
    with pytest.raises(Refused) as caught:
        registry.complete(long, models.NAME)
    assert caught.value.code == "prompt-too-long"
    with pytest.raises(Refused):
        registry.check_room(long.messages, 10, models.NAME)
    registry.close()


def test_a_server_that_still_loads_is_not_there_yet(make, wait_for):
    """From the first moment on, a probe either fails as it should or finds the model."""
    port, found = free_port(), []
    backend = make("llamacpp", f"http://127.0.0.1:{port}", limits=PATIENT)

    def look():
        try:
            found.extend(backend.probe())
        except BackendUnavailable:
            return False
        return True

    watcher = threading.Thread(target=lambda: wait_for(look, 60))
    watcher.start()
    with models.llama_server(port=port):
        watcher.join()
    assert [model.name for model in found] == [models.NAME]
