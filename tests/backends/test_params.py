"""A customer's parameters: strict, clamped, and nothing unknown (section C of the bad inputs)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.backends import params
from pylon.backends.completion import Prompt
from pylon.config import from_values
from pylon.errors import Refused
from tests.backends.conftest import prompt
from tests.fakes.hostile_backend import MODEL

DEFAULTS = from_values({})
NUMERIC = ["max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty"]


@pytest.fixture
def config(configured):
    return configured(provider={"max_output_tokens": 2048, "default_max_tokens": 512})


def test_nothing_given(config):
    assert params.parse({}, config) == {"max_tokens": 512}


def test_hyphens_underscores_and_capitals(config):
    for names in (("max-tokens", "top-p", "top-k"), ("max_tokens", "top_p", "top_k"),
                  ("Max-Tokens", "TOP_P", "top-K")):
        found = params.parse(dict(zip(names, ("7", "0.5", "40"))), config)
        assert found == {"max_tokens": 7, "top_p": 0.5, "top_k": 40}


@pytest.mark.parametrize("name, text, value", [
    ("max_tokens", "1000000000", 2048), ("temperature", "9", 2.0), ("temperature", "-1", 0.0),
    ("top_p", "0", 0.01), ("top_p", "1.5", 1.0), ("top_k", "0", 1), ("top_k", "99999", 1000),
    ("frequency_penalty", "-9", -2.0), ("temperature", ".5", 0.5),
    ("seed", "99999999999", 2**31 - 1), ("stop", "END", ["END"])])
def test_clamped(config, name, text, value):
    assert params.parse({name: text}, config)[name] == value


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("text", [
    "1e9", "١٢٣", "1_000", " 1", "1 ", "+1", "", "nan", "inf", "-inf", "0x10", "1,5", "true",
    "9" * 5000, "1\n", "½", "1.2.3", "--1"])
def test_c42_strict_ascii_numbers(config, name, text):
    with pytest.raises(Refused) as caught:
        params.parse({name: text}, config)
    assert caught.value.code == "bad-param" and len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["-1", "0"])
def test_c42_no_tokens_or_fewer_is_refused(config, text):
    with pytest.raises(Refused, match="max_tokens"):
        params.parse({"max_tokens": text}, config)


def test_a_long_stop_is_refused(config):
    with pytest.raises(Refused, match="stop"):
        params.parse({"stop": "x" * 65}, config)


HOSTILE = {"n_discard": "-1", "num_gpu": "99", "keep_alive": "-1", "num_ctx": "1000000",
           "mirostat": "2", "grammar": "root ::= x", "stream": "false", "options": "{}",
           "model": "../../x", "__class__": "x", "messages": "[]", "n_predict": "-1",
           "cache_prompt": "false", "id_slot": "0", "raw": "true", "lora": "[]", "tools": "[]"}


def test_c43_unknown_names_are_dropped(config):
    assert params.parse({**HOSTILE, "temperature": "0"}, config) == {"max_tokens": 512,
                                                                     "temperature": 0.0}


def test_c43_unknown_names_never_reach_a_backend(config, backend, server):
    """A negative n_discard once wrote out of bounds in llama.cpp."""
    options = params.parse({**HOSTILE, "top-p": "0.9", "seed": "1"}, config)
    backend.complete(prompt(**options), MODEL)
    [body] = server.completions()
    sent = {**body, **body.get("options", {})}
    known = {"model", "messages", "stream", "options", "num_predict", "max_tokens", "num_ctx",
             "top_p", "seed", "stream_options", "truncate", "shift"}
    assert set(sent) <= known and sent["model"] == MODEL and sent["stream"] is True
    assert sent["top_p"] == 0.9 and sent["seed"] == 1


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(NUMERIC + ["stop", "top-k"]),
                       st.text(max_size=30), max_size=6))
def test_anything_is_a_prompt_or_a_refusal(given_params):
    try:
        found = params.parse(given_params, DEFAULTS)
    except Refused as err:
        assert err.code == "bad-param"
        return
    made = Prompt([], **found)
    assert 1 <= made.max_tokens <= 2048
    assert made.temperature is None or 0 <= made.temperature <= 2
