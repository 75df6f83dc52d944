"""What relays say of themselves: read strictly, believed only about themselves."""

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.errors import RelayError
from pylon.relays import nip11
from pylon.relays.bell import Patience
from tests.relays.conftest import an_event


def answer(document, status="200 OK", headers=""):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def test_a_document():
    found = nip11.parse_answer(answer(
        {"name": "a relay", "software": "strfry", "version": "1", "supported_nips": [1, 42, "x"],
         "limitation": {"max_message_length": 131072, "max_subscriptions": 20, "max_filters": 100,
                        "max_limit": 500, "auth_required": True, "min_pow_difficulty": 8}},
        headers="Date: Sun, 22 Nov 2026 21:00:00 GMT\r\n"))
    assert (found.name, found.software, found.supported_nips) == ("a relay", "strfry", (1, 42))
    assert found.limits.max_message_length == 131072 and found.limits.auth_required
    assert found.date == "Sun, 22 Nov 2026 21:00:00 GMT"


@pytest.mark.parametrize("value", [True, -1, 1.5, "500", None, 2 ** 60, [], {}])
def test_nonsense_limits_are_no_limits(value):
    assert nip11.parse_answer(answer({"limitation": {"max_limit": value}})).limits.max_limit is None


@pytest.mark.parametrize("data", [
    b"", b"nonsense", answer({}, status="404 Not Found"), answer([1]), answer(b"{"),
    answer(b"\xff\xfe"), answer(b"[" * 50_000), answer(b'{"a":NaN}'),
    b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"name":"cut o',
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n{}"])
def test_what_is_no_document(data):
    with pytest.raises(RelayError):
        nip11.parse_answer(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_refused(data):
    for candidate in (data, b"HTTP/1.1 200 OK\r\n\r\n" + data):
        try:
            nip11.parse_answer(candidate)
        except RelayError:
            continue


def test_what_the_relay_would_not_take_is_not_sent():
    event = an_event("x" * 2000, tags=[["t", "a"]] * 10)
    text = event.to_json()
    assert nip11.Limits().refusal(event.id, text) is None
    assert "bytes" in nip11.Limits(max_message_length=2000).refusal(event.id, text)
    assert "tags" in nip11.Limits(max_event_tags=9).refusal(event.id, text)
    assert "characters" in nip11.Limits(max_content_length=1999).refusal(event.id, text)
    assert nip11.Limits(min_pow_difficulty=60).refusal(event.id, text).startswith("pow: ")
    assert nip11.Limits(max_message_length=len(text) + 12, max_event_tags=10,
                        max_content_length=2000).refusal(event.id, text) is None


@pytest.fixture
def serve():
    """serve(bytes, keep_open): a server that gives one answer to the first who asks."""
    running = []

    def start(data, keep_open=False):
        server = socket.create_server(("127.0.0.1", 0))

        def run():
            sock, _ = server.accept()
            request = sock.recv(4096)
            asked.append(request.decode())
            try:
                sock.sendall(data)
                if keep_open:
                    sock.recv(1)
            except OSError:
                pass
            sock.close()

        asked = []
        thread = threading.Thread(target=run)
        thread.start()
        running.append((server, thread))
        return f"ws://127.0.0.1:{server.getsockname()[1]}/path", asked

    yield start
    for server, thread in running:
        thread.join(5)
        server.close()


def test_it_is_fetched_with_the_right_question(serve):
    url, asked = serve(answer({"name": "me"}))
    assert nip11.fetch(url).name == "me"
    assert asked[0].startswith("GET /path HTTP/1.1\r\n")
    assert "Accept: application/nostr+json\r\n" in asked[0]


def test_a_relay_that_keeps_the_connection_open(serve):
    url, _ = serve(answer({"name": "me"}), keep_open=True)
    assert nip11.fetch(url, Patience(0.3)).name == "me"


def test_a_document_without_end(serve):
    url, _ = serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000)
    with pytest.raises(RelayError, match="too long"):
        nip11.fetch(url)


def test_a_server_that_says_nothing(serve):
    url, _ = serve(b"", keep_open=True)
    with pytest.raises(RelayError, match="no answer"):
        nip11.fetch(url, Patience(0.2))


def test_a_stranger_cannot_have_us_fetch_from_home():
    with pytest.raises(RelayError, match="no public address"):
        nip11.fetch("wss://127.0.0.1:1", public_only=True)
