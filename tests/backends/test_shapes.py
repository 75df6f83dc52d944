"""Honest servers answer in many shapes; each is understood."""

from __future__ import annotations

import pytest

from pylon.backends.backend import Limits
from tests.backends.conftest import FRANCE, prompt
from tests.fakes.hostile_backend import MODEL

SSE = ("llamacpp", "openai")


@pytest.mark.parametrize("shape", ["thinks_first", "answers_in_one_json"])
def test_shapes_of_every_type(backend, server, shape):
    server.sin = shape
    heard = []
    completion = backend.complete(prompt(), MODEL, heard.append)
    assert completion.text == FRANCE == "".join(heard)
    assert (completion.prompt_tokens, completion.completion_tokens) == (9, 7)


@pytest.mark.parametrize("type_", SSE)
@pytest.mark.parametrize("shape, reason", [
    ("answers_in_one_text", "stop"), ("answers_in_choices_of_text", "length"),
    ("streams_choices_of_text", "stop"), ("streams_bare_deltas", "stop"),
    ("streams_native_llama_cpp", "stop"), ("streams_in_other_clothes", "stop")])
def test_shapes_of_servers_that_say_they_are_openai(make, server, type_, shape, reason):
    server.sin = shape
    completion = make(type_, server).complete(prompt(), MODEL)
    assert (completion.text, completion.finish_reason) == (FRANCE, reason)
    assert completion.completion_tokens


@pytest.mark.parametrize("type_", SSE)
def test_an_answer_in_one_piece_is_cut_too(make, server, type_):
    server.sin = "answers_in_one_json"
    completion = make(type_, server, limits=Limits(1, 1, 5, 7)).complete(prompt(), MODEL)
    assert (completion.text, completion.finish_reason) == ("The cap", "length")


@pytest.mark.parametrize("url, path", [
    ("{}", "/v1/chat/completions"), ("{}/v1", "/v1/chat/completions"),
    ("{}/v1/", "/v1/chat/completions"), ("{}/x/v3", "/x/v3/chat/completions")])
def test_base_urls_of_openai_with_and_without_their_end(make, server, url, path):
    make("openai", url.format(server.url)).complete(prompt(), MODEL)
    assert server.requests[-1][1] == path


def test_llama_cpp_is_found_by_either_url(make, server):
    for url in (server.url, server.url + "/v1", server.url + "/v1/"):
        backend = make("llamacpp", url)
        assert backend.probe()[0].context_tokens == 2048
        assert backend.complete(prompt(), MODEL).text == FRANCE


@pytest.mark.parametrize("entry, context", [
    ({"max_model_len": 4096}, 4096), ({"context_length": 100}, 100), ({"meta": {"n_ctx": 5}}, 5),
    ({"context_window": 9}, 9), ({}, 8192), ({"max_model_len": "many"}, 8192),
    ({"max_model_len": -1}, 8192), ({"meta": []}, 8192)])
def test_the_context_in_the_words_of_many_servers(make, server, monkeypatch, entry, context):
    backend = make("openai", server)
    monkeypatch.setattr(backend, "_list_models", lambda: [{"id": "m", **entry}])
    assert backend.probe()[0].context_tokens == context


def test_the_owners_word_on_the_context_goes_above_all(make, server, dialect):
    assert make(dialect, server, context_tokens=777).probe()[0].context_tokens == 777


def test_a_server_without_a_list_of_models_is_believed_the_owner(make, server, monkeypatch):
    backend = make("openai", server.url + "/nothing/here", models=["a", "b"])
    monkeypatch.setattr(backend, "models_path", "/x")
    assert [model.name for model in backend.probe()] == ["a", "b"]


def test_top_k_is_kept_from_servers_that_would_not_know_it(make, server):
    for type_, known in (("llamacpp", True), ("openai", False)):
        make(type_, server).complete(prompt(top_k=5), MODEL)
        assert ("top_k" in server.completions()[-1]) == known
