"""Connections: kept, found dead, guarded by TLS, and deaf to the environment."""

from __future__ import annotations

import io
import socket
import ssl
import threading

import pytest

from pylon.backends.endpoint import Endpoint
from pylon.backends.http1 import Head, read_head
from pylon.backends.wire import Patience
from pylon.errors import BackendError, BackendUnavailable, ConfigError
from tests.backends.conftest import FRANCE, prompt
from tests.fakes.hostile_backend import MODEL, HostileBackend
from tests.parts import certificates


def test_a_connection_is_used_again(backend, server):
    for _ in range(5):
        backend.complete(prompt(), MODEL)
    backend.probe()
    assert server.connections == 1


def test_threads_have_connections_of_their_own_and_few_are_kept(backend, server):
    texts = []
    threads = [threading.Thread(target=lambda: texts.append(backend.complete(prompt(), MODEL)))
               for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.text for c in texts] == [FRANCE] * 12
    assert len(backend._server._idle) <= 4


def test_a_kept_connection_that_died_unseen_costs_nothing(backend, server):
    """A server may end an idle connection at any time; only the next call can find out."""
    server.sin = "answers_then_hangs_up"
    for _ in range(3):
        assert backend.complete(prompt(), MODEL).text == FRANCE
    assert server.connections == 3


def test_a_server_that_came_back_is_asked_over_a_new_connection(backend, server):
    backend.complete(prompt(), MODEL)
    dead = backend._server._idle[-1]
    dead.is_quiet = lambda: True           # its end has not come in yet: the race
    dead._sock.shutdown(socket.SHUT_RDWR)
    assert backend.complete(prompt(), MODEL).text == FRANCE
    assert server.connections == 2


def test_the_environment_is_not_asked(backend, server, monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert backend.complete(prompt(), MODEL).text == FRANCE
    assert not any(b"uthorization" in head or b"Cookie" in head for head in server.heads)


def test_a_base_url_may_have_a_path(server):
    endpoint = Endpoint("x", server.url + "/api/")
    assert endpoint.get("/tags", 2)[0] == 200
    endpoint.close()


def test_only_a_trusted_certificate_is_talked_to(make, tmp_path, monkeypatch):
    made = certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with HostileBackend(context=context) as server:
        backend = make("openai", server.url.replace("127.0.0.1", "localhost"))
        with pytest.raises(BackendUnavailable, match="(?i)certificate"):
            backend.complete(prompt(), MODEL)
        trusting = ssl.create_default_context(cafile=made.authority)
        monkeypatch.setattr("pylon.backends.endpoint._tls_context", lambda: trusting)
        for _ in range(2):
            assert backend.complete(prompt(), MODEL).text == FRANCE
        assert server.connections == 2


def test_tls_is_bound_by_the_deadlines_too(make, tmp_path, monkeypatch):
    made = certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    trusting = ssl.create_default_context(cafile=made.authority)
    monkeypatch.setattr("pylon.backends.endpoint._tls_context", lambda: trusting)
    with HostileBackend("stalls_mid_stream", context) as server:
        backend = make("openai", server.url.replace("127.0.0.1", "localhost"))
        with pytest.raises(Exception, match="next token"):
            backend.complete(prompt(), MODEL)


def test_the_key_goes_along_and_is_shown_nowhere(make, dialect, server):
    backend = make(dialect, server, key="sk-1234567890")
    backend.complete(prompt(), MODEL)
    backend.probe()
    assert all(b"Authorization: Bearer sk-1234567890\r\n" in head for head in server.heads)
    shown = repr(backend) + repr(backend._server) + str(backend.__class__)
    server.sin = "wants_a_key"
    with pytest.raises(BackendUnavailable) as caught:
        backend.complete(prompt(), MODEL)
    assert "1234567890" not in shown + str(caught.value)


def test_a_call_without_answer_leaves_no_connection(server):
    server.sin = "accepts_and_says_nothing"
    endpoint = Endpoint("x", server.url)
    with pytest.raises(Exception, match="first token"):
        endpoint.stream("/api/chat", {}, Patience(0.1, 0.1, 5))
    assert not endpoint._idle and server.gone.wait(5)


def test_an_address_in_another_script_and_a_path_with_signs():
    endpoint = Endpoint("x", "http://bücher.example:8080/träume/a b?")
    assert endpoint._host == "xn--bcher-kva.example:8080"
    assert endpoint._prefix == "/tr%C3%A4ume/a%20b"
    with pytest.raises(ConfigError):
        Endpoint("x", "http://ü..example")


@pytest.mark.parametrize("head", [
    b"", b"\r\n", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 9, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nA:" + b" " * 70000, b"\x00" * 70000])
def test_no_head_of_http(head):
    with pytest.raises(BackendError):
        read_head(io.BufferedReader(io.BytesIO(head)), "x")


@pytest.mark.parametrize("head, found", [
    (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\n", Head(200, "", False, 5, True)),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nA:b\r\n\r\n", Head(204, "", False, 0, True)),
    (b"HTTP/1.0 200 OK\nContent-Type: A/B; c\n\n", Head(200, "a/b", False, None, False)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 5\r\n\r\n",
     Head(200, "", True, None, True)),
    (b"HTTP/1.1 503 x\r\nno colon here\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
     Head(503, "", False, 0, False))])
def test_heads_of_http(head, found):
    assert read_head(io.BufferedReader(io.BytesIO(head)), "x") == found
