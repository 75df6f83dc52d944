"""The choice among backends: order, names, failover, weights, and looking again."""

from __future__ import annotations

import collections
import threading
import time
from contextlib import ExitStack

import pytest

from pylon.backends.registry import Prober, Registry
from pylon.errors import BackendCancelled, BackendError, BackendUnavailable, Refused
from tests.backends.conftest import FRANCE, prompt
from tests.fakes.hostile_backend import MODEL, HostileBackend
from tests.parts.program import free_port

LIMITS = {"first_token_secs": 1, "between_tokens_secs": 1, "total_secs": 5}


@pytest.fixture
def servers():
    """servers(n): honest servers."""
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(HostileBackend()) for _ in range(count)]


@pytest.fixture
def registry(configured):
    """registry({name: server or url}, **more config): looked at once."""
    made = []

    def build(named, type_="llamacpp", **values):
        backends = {name: {"type": type_, "url": getattr(place, "url", place)}
                    for name, place in named.items()}
        for name, more in values.pop("sections", {}).items():
            backends[name].update(more)
        values.setdefault("limits", LIMITS)
        found = Registry(configured(backends=backends, backend_preference=list(named), **values))
        made.append(found)
        found.refresh()
        return found

    yield build
    for one in made:
        one.close()


def state(registry, name):
    return next(s for s in registry.states() if s["id"] == name)


def refused(call, *args):
    with pytest.raises(Refused) as caught:
        call(*args)
    return caught.value.code


# -- names and order --

def test_the_first_of_the_preference_that_has_the_model(registry, servers):
    one, two, three = servers(3)
    one.models, two.models, three.models = ["other"], [MODEL, "other"], [MODEL]
    found = registry({"one": one, "two": two, "three": three})
    assert found.choose(MODEL)[0].id == "two" == found.default()
    assert found.choose("other")[0].id == "one"
    assert [m.name for m in found.models()] == ["other", MODEL]


def test_no_name_means_the_default_model_else_the_first(registry, servers):
    [one] = servers(1)
    one.models = ["first", MODEL]
    assert registry({"one": one}).choose(None)[1] == MODEL
    assert registry({"one": one}, default_model="missing").choose(None)[1] == "first"
    assert registry({"one": one}, default_model="missing").choose("")[1] == "first"


@pytest.mark.parametrize("listed", ["llama3.2:latest", "llama3.2"])
@pytest.mark.parametrize("asked", ["llama3.2", "llama3.2:latest", None])
def test_latest_is_the_same_as_no_tag(registry, servers, listed, asked):
    [one] = servers(1)
    one.models = [listed]
    found = registry({"ollama": one}, "ollama", default_model="llama3.2",
                     provider={"models": ["llama3.2:latest"]})
    assert found.choose(asked)[1] == "llama3.2"


def test_an_alias_stands_for_a_model(registry, servers):
    [one] = servers(1)
    found = registry({"one": one}, provider={"aliases": {"gpt-4": MODEL, "nothing": "missing"}})
    assert found.choose("gpt-4")[1] == MODEL
    assert found.complete(prompt(), "gpt-4").model == MODEL
    assert found.aliases() == {"gpt-4": MODEL}
    assert refused(found.choose, "nothing") == "model-unknown"


def test_c41_only_models_that_are_there_and_allowed(registry, servers):
    [one] = servers(1)
    one.models = [MODEL, "secret:70b"]
    found = registry({"one": one}, provider={"models": [MODEL]})
    assert [m.name for m in found.models()] == [MODEL]
    for name in ("../../x", "secret:70b", "unknown", "TINY:1B", " tiny:1b", "x" * 10**6, "\x1b[2J"):
        with pytest.raises(Refused) as caught:
            found.choose(name)
        assert caught.value.code == "model-unknown"
        assert len(str(caught.value)) < 300 and "\x1b" not in str(caught.value)


def test_c41_an_alias_may_be_what_is_allowed(registry, servers):
    [one] = servers(1)
    found = registry({"one": one}, provider={"models": ["house"], "aliases": {"house": MODEL}})
    assert found.choose("house")[1] == MODEL
    assert found.complete(prompt(), MODEL).text == FRANCE       # as the stored job names it
    assert refused(found.choose, MODEL) == "model-unknown"


def test_c41_cloud_models_of_ollama_are_left_out(make, server):
    server.models = [MODEL, "huge:1t-cloud", "huge:cloud"]
    assert [m.name for m in make("ollama", server).probe()] == [MODEL]
    assert [m.name for m in make("ollama", server, models=["huge:1t-cloud"]).probe()] == \
        ["huge:1t-cloud"]


def test_a_backend_with_a_list_of_its_own(registry, servers):
    [one] = servers(1)
    one.models = [MODEL, "other"]
    found = registry({"one": one}, sections={"one": {"models": ["other"]}})
    assert [m.name for m in found.models()] == ["other"]


def test_no_backend_is_told_from_no_model(registry, servers):
    [one] = servers(1)
    down = f"http://127.0.0.1:{free_port()}"
    assert refused(registry({"one": down}).choose, MODEL) == "no-backend"
    assert refused(registry({"one": down}).choose, None) == "no-backend"
    assert registry({"one": down}).default() is None
    found = registry({"one": one, "down": down})
    assert refused(found.choose, "other") == "model-unknown"
    two = registry({"one": one})
    one.close()
    two.refresh()
    assert refused(two.choose, MODEL) == "no-backend"


def test_a_prompt_for_a_backend_that_is_away_may_be_tried_again(registry):
    """Not a refusal: a paid job waits for its backend to come back."""
    found = registry({"one": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(BackendUnavailable):
        found.complete(prompt(), MODEL)


# -- room --

def test_the_context_is_the_real_one_and_prompts_must_fit(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    assert found.context_tokens(MODEL) == 2048
    found.check_room(prompt("word " * 300).messages, 512, MODEL)
    with pytest.raises(Refused) as caught:
        found.check_room(prompt("word " * 900).messages, 512, MODEL)
    assert caught.value.code == "prompt-too-long"
    assert found.context_tokens("unknown") == 0


def test_a_prompt_that_cannot_fit_is_not_even_sent(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    assert refused(found.complete, prompt("word " * 2048), MODEL) == "prompt-too-long"
    assert not one.completions()


def test_a_prompt_goes_where_there_is_room(registry, servers):
    small, large = servers(2)
    found = registry({"small": small, "large": large},
                     sections={"large": {"context_tokens": 32768}})
    assert found.context_tokens(MODEL) == 32768
    assert found.complete(prompt("word " * 3000), MODEL).backend == "large"
    assert found.complete(prompt("word " * 900), MODEL).backend == "large"
    assert found.complete(prompt("word " * 30), MODEL).backend == "small"


def test_a_refusal_for_length_is_final_where_nobody_has_more_room(registry, servers):
    one, two = servers(2)
    one.sin = "refuses_long_prompts"
    found = registry({"one": one, "two": two})
    assert found.complete(prompt(), MODEL).backend == "two"
    two.sin = "refuses_long_prompts"
    assert refused(found.complete, prompt(), MODEL) == "prompt-too-long"
    assert state(found, "one")["available"], "it works; the prompt was too long"


# -- failover --

@pytest.mark.parametrize("sin", [
    "says_goodbye", "resets_at_once", "is_out_of_memory", "queue_is_full", "has_lost_the_model",
    "answers_with_nothing", "accepts_and_says_nothing", "is_no_model_server"])
def test_the_next_one_answers_where_one_fails(registry, servers, sin):
    bad, good = servers(2)
    found = registry({"bad": bad, "good": good})
    bad.sin = sin
    heard = []
    completion = found.complete(prompt(), MODEL, heard.append)
    assert completion.backend == "good" and "".join(heard) == FRANCE


@pytest.mark.parametrize("sin", ["resets_mid_stream", "stalls_mid_stream", "ends_without_done",
                                 "fails_mid_stream", "sends_broken_utf8"])
def test_f74_the_next_one_begins_anew_and_says_so(registry, servers, sin):
    bad, good = servers(2)
    found = registry({"bad": bad, "good": good})
    bad.sin = sin
    heard = []
    completion = found.complete(prompt(), MODEL, heard.append, on_restart=heard.clear)
    assert completion.text == FRANCE == "".join(heard) and completion.backend == "good"


def test_f74_who_cannot_take_words_back_hears_no_second_answer(registry, servers):
    bad, good = servers(2)
    found = registry({"bad": bad, "good": good})
    bad.sin = "resets_mid_stream"
    heard = []
    with pytest.raises(BackendError):
        found.complete(prompt(), MODEL, heard.append)
    assert heard == ["The"] and not good.completions()


def test_all_fail_and_the_last_error_is_told(registry, servers):
    one, two = servers(2)
    found = registry({"one": one, "two": two})
    one.sin, two.sin = "says_goodbye", "is_out_of_memory"
    with pytest.raises(BackendError, match="two failed"):
        found.complete(prompt(), MODEL)


def test_a_cancel_is_no_reason_to_ask_the_next(registry, servers):
    one, two = servers(2)
    found, cancel = registry({"one": one, "two": two}), threading.Event()
    cancel.set()
    one.sin = "accepts_and_says_nothing"
    with pytest.raises(BackendCancelled):
        found.complete(prompt(), MODEL, cancel=cancel)
    assert not two.completions()


def test_all_tries_together_keep_the_total(registry, servers):
    many = servers(4)
    found = registry({f"b{n}": one for n, one in enumerate(many)},
                     limits={**LIMITS, "total_secs": 2})
    for one in many:
        one.sin = "accepts_and_says_nothing"
    started = time.monotonic()
    with pytest.raises(BackendError):
        found.complete(prompt(), MODEL)
    assert time.monotonic() - started < 3.5


def test_f80_a_backend_that_is_away_pauses_the_intake_and_comes_back(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    one.sin = "queue_is_full"
    with pytest.raises(BackendUnavailable):
        found.complete(prompt(), MODEL)
    assert refused(found.choose, MODEL) == "no-backend"
    assert "busy" in state(found, "one")["error"]
    one.sin = None
    found.refresh()
    assert found.choose(MODEL)[1] == MODEL


def test_f80_three_failures_in_a_row_are_a_rest_and_longer_each_time(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    one.sin = "is_out_of_memory"
    rests = []
    for failures in (3, 1, 1):
        for _ in range(failures):
            assert state(found, "one")["available"]
            with pytest.raises(BackendError):
                found.complete(prompt(), MODEL)
        assert not state(found, "one")["available"]
        rests.append(found.next_look_secs())
        found.refresh()                     # its lists are fine all the time
    assert 29 < rests[0] <= 30 and 59 < rests[1] <= 60 and 119 < rests[2] <= 120
    one.sin = None
    found.complete(prompt(), MODEL)
    one.sin = "is_out_of_memory"
    for _ in range(3):
        with pytest.raises(BackendError):
            found.complete(prompt(), MODEL)
    assert 29 < found.next_look_secs() <= 30


def test_f80_a_deleted_model_is_no_longer_offered_after_a_look(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    one.sin, one.models = "has_lost_the_model", ["other"]
    with pytest.raises(BackendError):
        found.complete(prompt(), MODEL)
    assert found.next_look_secs() == 0
    found.refresh(only_due=True)
    assert refused(found.choose, MODEL) == "model-unknown"


# -- weights --

def test_equals_share_the_work_by_weight(configured, servers):
    one, two = servers(2)
    found = Registry(configured(backends={
        "one": {"type": "openai", "url": one.url, "weight": 3},
        "two": {"type": "openai", "url": two.url}}))
    found.refresh()
    given = collections.Counter(found.complete(prompt(), MODEL).backend for _ in range(40))
    assert given == {"one": 30, "two": 10}
    found.close()


def test_the_less_loaded_equal_goes_first(configured, servers, wait_for):
    one, two = servers(2)
    one.sin = "stalls_mid_stream"
    found = Registry(configured(limits=LIMITS, backends={
        "one": {"type": "openai", "url": one.url}, "two": {"type": "openai", "url": two.url}}))
    found.refresh()
    busy = threading.Thread(target=lambda: pytest.raises(BackendError, found.complete, prompt(),
                                                         MODEL, lambda piece: None))
    busy.start()
    wait_for(one.completions)
    answered = {found.complete(prompt(), MODEL).backend for _ in range(3)}
    busy.join()
    found.close()
    assert answered == {"two"}


def test_who_comes_back_does_not_get_all_the_work_it_missed(configured, servers):
    one, two = servers(2)
    one.sin = "is_loading"
    found = Registry(configured(backends={
        "one": {"type": "openai", "url": one.url}, "two": {"type": "openai", "url": two.url}}))
    found.refresh()
    for _ in range(20):
        found.complete(prompt(), MODEL)
    one.sin = None
    found.refresh()
    given = collections.Counter(found.complete(prompt(), MODEL).backend for _ in range(20))
    assert given == {"one": 10, "two": 10}
    found.close()


# -- looking again --

def test_looks_are_at_the_same_time_and_bounded(registry, servers, monkeypatch):
    monkeypatch.setattr("pylon.backends.llamacpp.PROBE_SECS", 0.3)
    many = servers(5)
    for one in many:
        one.sin = "accepts_and_says_nothing"
    started = time.monotonic()
    found = registry({f"b{n}": one for n, one in enumerate(many)})
    assert time.monotonic() - started < 1.5
    assert not any(s["available"] for s in found.states())


def test_who_is_away_is_looked_at_ever_more_rarely(registry):
    found = registry({"one": f"http://127.0.0.1:{free_port()}"})
    pauses = []
    for _ in range(6):
        pauses.append(round(found.next_look_secs()))
        found.refresh()
    assert pauses == [2, 5, 15, 30, 60, 60]


def test_who_works_is_left_alone_for_minutes(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    calls = len(one.requests)
    found.refresh(only_due=True)
    assert len(one.requests) == calls and found.next_look_secs() > 290


def test_the_prober_tells_what_changes(registry, servers, wait_for):
    [one] = servers(1)
    found, told = registry({"one": one}), []
    prober = Prober(found, lambda type_, data: told.append((type_, data)))
    prober.start()
    try:
        wait_for(lambda: len(told) == 3)
        assert told == [("BackendsRegistered", {"backend_ids": ["one"]}),
                        ("BackendAvailable", {"backend_id": "one"}),
                        ("ModelsRefreshed", {"backend_id": "one", "models": [MODEL]})]
        one.sin, one.models = "queue_is_full", ["other"]
        with pytest.raises(BackendUnavailable):
            found.complete(prompt(), MODEL)             # rings the prober
        wait_for(lambda: len(told) == 4)
        assert told[3][0] == "BackendUnavailable" and "busy" in told[3][1]["reason"]
        one.sin = None
        wait_for(lambda: len(told) == 6)                # it looks again by itself
        assert told[4:] == [("BackendAvailable", {"backend_id": "one"}),
                            ("ModelsRefreshed", {"backend_id": "one", "models": ["other"]})]
    finally:
        prober.stop()
        assert prober.join(5)


def test_a_prober_with_nothing_to_do_sleeps(registry, servers):
    [one] = servers(1)
    found = registry({"one": one})
    prober = Prober(found)
    waits = []
    prober.wait = lambda secs: waits.append(secs)
    prober.step(now=1000)
    assert 290 < waits[0] <= 300


def test_reload_takes_another_configuration_while_work_goes_on(configured, registry, servers):
    one, two = servers(2)
    one.sin = "stalls_mid_stream"
    found = registry({"one": one})
    found.changes()
    answers = []
    busy = threading.Thread(target=lambda: answers.append(
        pytest.raises(BackendError, found.complete, prompt(), MODEL)))
    busy.start()
    found.reload(configured(backend_preference=["two"], limits=LIMITS,
                            backends={"two": {"type": "openai", "url": two.url}}))
    assert found.complete(prompt(), MODEL).backend == "two"
    busy.join()
    assert len(answers) == 1
    assert [change[0] for change in found.changes()] == ["BackendsRegistered", "BackendAvailable",
                                                         "ModelsRefreshed"]


def test_states_hold_no_secret(registry, servers):
    [one] = servers(1)
    [shown] = registry({"one": one}).states()
    assert shown == {"id": "one", "type": "llamacpp", "url": one.url, "available": True,
                     "error": None, "models": [MODEL], "in_flight": 0, "weight": 1}
