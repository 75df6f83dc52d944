"""The HTTP server of the endpoint: who may call, and how an answer travels.

One thread accepts, one thread serves each call, at most MAX_CALLS at a time. Loopback needs no
token unless the endpoint may buy; everything else does. The Host header must name this endpoint
and a browser's Origin is refused, so that no web page can reach it, let alone spend; there is no
CORS. Bodies, headers and silence are bounded.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pylon import __version__
from pylon.api import chat
from pylon.api.chat import Answer, BadCall, Call
from pylon.api.sources import Local, Market
from pylon.errors import ConfigError, EXIT_FAILED, PylonError

log = logging.getLogger(__name__)

MAX_CALLS = 16
MAX_CONNECTIONS = 64            # a thread each
MAX_BODY_BYTES = 1024 * 1024
SILENCE_SECS = 30.0             # a client that sends nothing for so long is dropped
COST_HEADER = "X-Pylon-Cost-Msats"


class PortTaken(PylonError):
    """The endpoint's address cannot be had."""

    exit_status = EXIT_FAILED


class Endpoint:
    """The endpoint as it is configured; `start` listens, `stop` ends."""

    def __init__(self, bind: str, local: Local, market: Market | None, token: str | None) -> None:
        host, _, port = bind.rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        self.local, self.market, self.token = local, market, token
        if not token and (market is not None or not is_loopback(self.host)):
            raise ConfigError("api: a token is needed to buy, and to listen beyond this machine; "
                              "set [api] token_file")
        self.slots = threading.BoundedSemaphore(MAX_CALLS)
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. Raises PortTaken."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        kind = type("Listener", (_Listener,), {"address_family": family})
        try:
            self._server = kind((self.host, self.port), _handler_of(self))
        except OSError as err:
            raise PortTaken(f"cannot listen on {self.host}:{self.port}: {err.strerror}; choose "
                            "another address with [api] bind or --bind") from err
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="api",
                                        kwargs={"poll_interval": 3600}, daemon=True)
        self._thread.start()
        log.info("api: listening on %s:%d", self.host, self.port)

    def stop(self) -> None:
        """Stop listening; calls under way are cut off with the process."""
        if self._server is None or self._thread is None:
            return
        threading.Thread(target=self._server.shutdown, name="api-stop", daemon=True).start()
        _poke(self.host, self.port)         # serve_forever looks at its flag after a connection
        self._thread.join(5)
        self._server.server_close()

    def may_talk(self, host_header: str) -> bool:
        """Whether a Host header names this endpoint (a rebound name of a web page does not)."""
        name = host_header.rsplit(":", 1)[0].strip("[]") if host_header else ""
        return not is_loopback(self.host) or name == "localhost" or is_loopback(name)

    def source_of(self, call: Call) -> Local | Market:
        """Who answers: `nostr:` is bought, what is here is local. Raises BadCall."""
        if call.network_model is None and self.local.has(call.model):
            return self.local
        if self.market is not None:
            return self.market
        if call.network_model is not None:
            raise BadCall(403, "buying_is_off", "this endpoint does not buy; set [api] buy = true")
        raise BadCall(404, "model_not_found", f"the model {call.model!r} is not here; GET "
                      "/v1/models lists what is")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, address: Any, handler: Any) -> None:
        self._open = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """No more connections than MAX_CONNECTIONS, idle ones included."""
        return self._open.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("api: a call from %s broke off", client_address, exc_info=True)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _poke(host: str, port: int) -> None:
    try:
        socket.create_connection((host if host not in ("0.0.0.0", "::") else "localhost", port),
                                 1).close()
    except OSError as err:
        log.debug("api: %s", err)


def _handler_of(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (Handler,), {"endpoint": endpoint})


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    endpoint: Endpoint
    protocol_version = "HTTP/1.1"
    server_version = f"pylon/{__version__}"
    sys_version = ""
    timeout = SILENCE_SECS

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("api: " + format, *args)

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, serve: Callable[[], None]) -> None:
        """Check the caller, serve, and turn every failure into OpenAI's error body."""
        if not self.endpoint.slots.acquire(blocking=False):
            self._send(503, chat.error("too many calls at once; try again", "busy",
                                       "server_error"), {"Retry-After": "1"})
            return
        try:
            self._check_caller()
            serve()
        except BadCall as err:
            self.close_connection = True
            self._send(err.status, chat.error(str(err), err.code))
        finally:
            self.endpoint.slots.release()

    def _check_caller(self) -> None:
        if not self.endpoint.may_talk(self.headers.get("Host", "")):
            raise BadCall(403, "wrong_host", "the Host header does not name this endpoint")
        if self.headers.get("Origin") is not None:
            raise BadCall(403, "no_browsers", "web pages may not call this endpoint")
        token = self.endpoint.token
        if token and self.path != "/health":
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise BadCall(401, "invalid_api_key", "the token is missing or wrong; see "
                              "[api] token_file")

    def _get(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [
                {"id": one.name, "object": "model", "created": 0, "owned_by": "local",
                 "context_length": one.context_tokens} for one in self.endpoint.local.models()]})
        else:
            raise BadCall(404, "not_found", f"there is nothing at {self.path[:100]}")

    def _post(self) -> None:
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            raise BadCall(404, "not_found", f"there is nothing at {self.path[:100]}")
        kind = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise BadCall(415, "not_json", "the Content-Type must be application/json")
        call = chat.parse(self._body(), self.path == "/v1/chat/completions")
        source = self.endpoint.source_of(call)
        call_id = ("chatcmpl-" if call.chat else "cmpl-") + secrets.token_hex(12)
        cancel = threading.Event()
        if call.stream:
            _Stream(self, call, call_id, cancel).run(source)
            return
        answer = source.complete(call, _ignore, cancel)
        self._send(200, chat.whole(call, call_id, answer), {COST_HEADER: str(answer.cost_msats)})

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()) or "Transfer-Encoding" in self.headers:
            raise BadCall(411, "length_required", "the body needs a Content-Length")
        if int(text) > MAX_BODY_BYTES:
            raise BadCall(413, "too_large", f"a body has {MAX_BODY_BYTES} bytes at most")
        body = self.rfile.read(int(text))
        if len(body) != int(text):
            raise BadCall(400, "cut_off", "the body was cut off")
        return body

    def _send(self, status: int, body: dict[str, Any], extra: dict[str, str] | None = None) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class _Stream:
    """One streamed answer: server-sent events, the header sent with the first piece."""

    def __init__(self, handler: Handler, call: Call, call_id: str,
                 cancel: threading.Event) -> None:
        self._handler, self._call, self._id, self._cancel = handler, call, call_id, cancel
        self._begun = False
        self._sent = ""

    def run(self, source: Local | Market) -> None:
        try:
            answer = source.complete(self._call, self._piece, self._cancel)
            # What was bought may come whole, or differ from its partial pieces at the end.
            self._piece(answer.text[len(self._sent):] if answer.text.startswith(self._sent)
                        else "")
            self._end(answer)
        except BadCall as err:
            if not self._begun:
                raise
            self._event(chat.error(str(err), err.code))
        except OSError:
            log.debug("api: the client of a stream has gone")
        self._handler.close_connection = True

    def _piece(self, text: str) -> None:
        if text:
            try:
                self._event(chat.chunk(self._call, self._id, self._call.model, text,
                                       first=not self._sent))
            except OSError:
                self._cancel.set()              # nobody listens: the backend may stop
                return
            self._sent += text

    def _end(self, answer: Answer) -> None:
        self._event(chat.chunk(self._call, self._id, answer.model, "", answer.finish_reason))
        if self._call.usage_wanted:
            self._event(chat.usage_chunk(self._call, self._id, answer))
        self._handler.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            handler = self._handler
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
            handler.send_header("Cache-Control", "no-store")
            handler.send_header("Connection", "close")
            handler.end_headers()
        self._handler.wfile.write(b"data: " + json.dumps(body, ensure_ascii=False).encode()
                                  + b"\n\n")


def _ignore(text: str) -> None:
    """The pieces of an answer that is sent as a whole."""
