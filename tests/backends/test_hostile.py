"""What a backend may do to us and what it must not achieve (section F of the bad inputs)."""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from pylon.backends.backend import Limits
from pylon.errors import BackendCancelled, BackendError, BackendRefused, BackendUnavailable
from tests.backends.conftest import FRANCE, SHORT, prompt
from tests.fakes.hostile_backend import CONTEXT, MB, MODEL
from tests.parts.program import free_port

MARGIN_SECS = 1.5                   # on top of a deadline, on a busy machine


def fails(backend, kind=BackendError, within=None, **options):
    """The error that a completion ends with, and that it came in time."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        backend.complete(prompt(**options), MODEL)
    assert time.monotonic() - started < (within or 2) + MARGIN_SECS
    return caught.value


def test_honest_answer_comes_in_pieces(backend, server):
    heard = []
    completion = backend.complete(prompt(), MODEL, heard.append)
    assert completion.text == FRANCE == "".join(heard) and len(heard) == 7
    assert (completion.prompt_tokens, completion.completion_tokens) == (9, 7)
    assert (completion.finish_reason, completion.model) == ("stop", MODEL)


def test_f74_connection_refused(make, dialect):
    backend = make(dialect, f"http://127.0.0.1:{free_port()}")
    err = fails(backend, BackendUnavailable)
    assert "cannot be reached" in str(err) and "Connection refused" in str(err)
    with pytest.raises(BackendUnavailable):
        backend.probe()


@pytest.mark.parametrize("sin", ["resets_mid_stream", "closes_mid_chunk"])
def test_f74_connection_lost_mid_job(backend, server, sin):
    server.sin = sin
    assert "middle of its answer" in str(fails(backend))


@pytest.mark.parametrize("sin", ["says_goodbye", "resets_at_once"])
def test_f74_connection_lost_before_the_answer(backend, server, sin):
    server.sin = sin
    assert "hung up without an answer" in str(fails(backend, BackendUnavailable))


def test_f75_never_ending_tokens_are_cut_at_max_tokens(backend, server):
    server.sin = "never_ends"
    completion = backend.complete(prompt(max_tokens=20), MODEL)
    assert completion.text == " and" * 20 and completion.finish_reason == "length"
    assert completion.completion_tokens == 20
    assert server.gone.wait(5), "the connection must be closed, else the model goes on"


def test_f75_never_ending_tokens_are_cut_at_the_byte_limit(make, dialect, server):
    server.sin = "never_ends"
    backend = make(dialect, server, Limits(5, 5, 10, output_bytes=1001))
    completion = backend.complete(prompt(max_tokens=10**6), MODEL)
    assert len(completion.text.encode()) == 1001 and completion.finish_reason == "length"


def test_f75_never_ending_thoughts_are_no_answer(backend, server):
    server.sin = "thinks_for_ever"
    assert "answered with nothing" in str(fails(backend, max_tokens=50))


def test_f75_the_total_time_bounds_what_nothing_else_does(make, dialect, server):
    server.sin = "never_ends"
    backend = make(dialect, server, Limits(5, 5, 0.5, output_bytes=10**9))
    err = fails(backend, within=0.5, max_tokens=10**9)
    assert "was not done in 0.5 s" in str(err)


def test_a_deadline_of_the_caller_bounds_the_total(backend, server):
    server.sin = "accepts_and_says_nothing"
    started = time.monotonic()
    with pytest.raises(BackendError):
        backend.complete(prompt(), MODEL, deadline=started + 0.1)
    assert time.monotonic() - started < 0.1 + MARGIN_SECS


@pytest.mark.parametrize("sin, awaited", [
    ("accepts_and_says_nothing", "first token"), ("trickles_heads", "first token"),
    ("trickles_bytes", "first token"), ("stalls_mid_stream", "next token"),
    ("keeps_alive_without_tokens", "next token")])
def test_f76_silence_ends_at_the_deadline_of_the_token(backend, server, sin, awaited):
    """Bytes alone are no progress: a slow loris and keep-alive comments do not buy time."""
    server.sin = sin
    err = fails(backend, within=SHORT.first_token_secs)
    assert f"did not send its {awaited}" in str(err)


@pytest.mark.parametrize("sin", ["ends_without_done", "announces_less_than_it_sends"])
def test_f77_the_end_of_a_stream_without_done_is_a_failure(make, server, sin):
    server.sin = sin
    assert fails(make("ollama", server))


def test_f77_sse_without_done(make, server):
    server.sin = "ends_without_done"
    for type_ in ("llamacpp", "openai"):
        assert "without saying that it is done" in str(fails(make(type_, server)))


def test_f77_announced_length_is_not_reached(backend, server):
    server.sin = "announces_more_than_it_sends"
    assert "middle of its answer" in str(fails(backend))


@pytest.mark.parametrize("sin", ["answers_with_nothing", "answers_with_blanks"])
def test_f78_empty_output_is_a_failure(backend, server, sin):
    server.sin = sin
    assert "answered with nothing" in str(fails(backend))


def test_f78_invalid_utf8_is_a_failure(backend, server):
    server.sin = "sends_broken_utf8"
    assert "not UTF-8" in str(fails(backend))


def test_f78_half_characters_are_a_failure(backend, server):
    server.sin = "sends_half_characters"
    assert "half characters" in str(fails(backend))


def test_f78_a_hundred_megabytes_are_cut(make, dialect, server):
    server.sin = "floods"
    backend = make(dialect, server, Limits(5, 5, 30, output_bytes=65536))
    err = fails(backend, within=5)
    assert "line of more than" in str(err) or "too long ones" in str(err)


@pytest.mark.parametrize("sin", ["floods", "sends_a_line_without_end", "heads_without_end",
                                 "sends_a_chunk_of_exabytes"])
def test_f78_floods_take_no_memory(make, dialect, server, sin):
    """The server's own buffers are counted too: they are of 1 MB."""
    server.sin = sin
    backend = make(dialect, server)
    tracemalloc.start()
    try:
        fails(backend, within=5)
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()


def test_f78_a_probe_that_gets_a_gigabyte_takes_no_memory(backend, server):
    server.sin = "lists_for_ever"
    tracemalloc.start()
    try:
        with pytest.raises(BackendUnavailable, match="more than"):
            backend.probe()
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text, limit", [("é" * 50, 11), ("€" * 50, 10), ("😀" * 50, 9),
                                         ("a😀" * 50, 13)])
def test_c40_output_is_never_cut_inside_a_character(make, dialect, server, text, limit):
    server.words = [text]
    backend = make(dialect, server, Limits(5, 5, 5, output_bytes=limit))
    completion = backend.complete(prompt(), MODEL)
    assert text.startswith(completion.text) and "\ufffd" not in completion.text
    assert limit - 3 <= len(completion.text.encode()) <= limit
    assert completion.finish_reason == "length"


def test_c40_prompt_of_emoji_arrives_whole(backend, server):
    text = "😀" * 3000
    backend.complete(prompt(text), MODEL)
    assert server.completions()[0]["messages"][0]["content"] == text


def test_a_prompt_may_allow_fewer_bytes_than_the_limits(backend):
    assert backend.complete(prompt(max_bytes=5), MODEL).text == "The c"


@pytest.mark.parametrize("sin", ["shortens_the_prompt", "drops_messages"])
def test_f79_a_silently_shortened_prompt_is_detected(make, server, sin):
    server.sin = sin
    backend = make("ollama", server, context_tokens=CONTEXT)
    err = fails(backend, BackendRefused)
    assert err.code == "prompt-too-long" and "shortened the prompt" in str(err)


def test_f79_a_refusal_of_a_long_prompt_has_its_code(backend, server):
    server.sin = "refuses_long_prompts"
    assert fails(backend, BackendRefused).code == "prompt-too-long"


def test_f80_model_deleted(backend, server):
    server.sin = "has_lost_the_model"
    assert "not found" in str(fails(backend, BackendRefused))


def test_f80_out_of_memory(backend, server):
    server.sin = "is_out_of_memory"
    err = fails(backend)
    assert not isinstance(err, (BackendRefused, BackendUnavailable))
    assert "more system memory" in str(err)


@pytest.mark.parametrize("sin", ["queue_is_full", "is_loading", "wants_a_key", "redirects"])
def test_f80_busy_loading_locked_or_moved(backend, server, sin):
    server.sin = sin
    fails(backend, BackendUnavailable)
    assert len(server.completions()) <= 1, "a redirect must not be followed"


@pytest.mark.parametrize("sin", [
    "is_no_model_server", "speaks_something_else", "sends_no_json", "nests_deep",
    "sends_a_number_of_5000_digits", "sends_numbers_as_text", "sends_lists", "fails_mid_stream",
    "lies_about_chunks", "sends_a_chunk_of_exabytes", "sends_a_line_without_end",
    "heads_without_end"])
def test_nonsense_is_a_backend_error_and_nothing_else(backend, server, sin):
    server.sin = sin
    fails(backend)


def test_bulk_around_the_tokens_is_bounded(make, dialect, server, monkeypatch):
    monkeypatch.setattr("pylon.backends.endpoint.STREAM_BYTES", 4 * MB)
    server.sin = "floods_around_tokens"
    backend = make(dialect, server, Limits(20, 20, 30))
    assert f"more than {4 * MB} bytes" in str(fails(backend, within=10))


@pytest.mark.parametrize("sin", ["lists_for_ever", "lists_garbage", "redirects", "wants_a_key",
                                 "is_loading", "is_no_model_server", "says_goodbye"])
def test_a_probe_that_meets_nonsense_finds_nobody(backend, server, sin):
    server.sin = sin
    started = time.monotonic()
    with pytest.raises(BackendUnavailable):
        backend.probe()
    assert time.monotonic() - started < 10


def test_a_silent_server_bounds_a_probe(backend, server, monkeypatch):
    for module in ("ollama", "openai", "llamacpp", "backend"):
        monkeypatch.setattr(f"pylon.backends.{module}.PROBE_SECS", 0.2)
    for server.sin in ("accepts_and_says_nothing", "trickles_heads"):
        started = time.monotonic()
        with pytest.raises(BackendUnavailable):
            backend.probe()
        assert time.monotonic() - started < 0.2 + MARGIN_SECS


@pytest.mark.parametrize("lie", [-1, 0, 1e300, 1.5, "many", True, None, [], 10**30])
def test_lies_about_tokens_are_not_believed(backend, server, lie):
    server.prompt_tokens = lie
    completion = backend.complete(prompt(), MODEL)
    assert completion.text == FRANCE and completion.prompt_tokens is None


@pytest.mark.parametrize("sin", ["answers_then_lingers", "finishes_without_usage"])
def test_a_complete_answer_is_taken_although_its_body_never_ends(backend, server, sin):
    server.sin = sin
    started = time.monotonic()
    assert backend.complete(prompt(), MODEL).text == FRANCE
    assert time.monotonic() - started < 2 + MARGIN_SECS


@pytest.mark.parametrize("sin", ["accepts_and_says_nothing", "stalls_mid_stream", "never_ends",
                                 "trickles_bytes"])
def test_cancel_hangs_up(make, dialect, server, sin):
    server.sin = sin
    backend, cancel = make(dialect, server, Limits(30, 30, 60, 10**9)), threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(BackendCancelled):
        backend.complete(prompt(max_tokens=10**9), MODEL, cancel=cancel)
    timer.join()
    assert time.monotonic() - started < 0.5 + MARGIN_SECS
    assert server.gone.wait(5)


def test_a_listener_that_fails_hangs_up_and_is_heard(backend, server):
    server.sin = "never_ends"

    def listen(piece):
        raise KeyError("mine")

    with pytest.raises(KeyError):
        backend.complete(prompt(max_tokens=10**6), MODEL, listen)
    assert server.gone.wait(5)
