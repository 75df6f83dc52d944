"""A wallet's server that sins: it stands before a stand-in and spoils chosen calls.

`sin` is one of SINS and holds for calls whose path contains `only`, `times` often (None: always).
What is called ..._after does its work first: the money moves, and the answer lies.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HUGE_BYTES = 1 << 30
SINS = ("denies_401", "denies_403", "fails_500", "fails_500_after", "hangs", "hangs_after",
        "hangs_up", "hangs_up_after", "trickles_headers", "trickles_body", "answers_html",
        "answers_truncated", "answers_nothing", "floods_body", "floods_headers", "redirects",
        "nests", "not_utf8", "is_a_list", "is_a_text", "spoils")


class HostileWallet:
    """Use its `url` instead of the stand-in's. `spoil(value)` changes answers for `spoils`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.sin = ""
        self.only = ""
        self.times: int | None = None
        self.spoil: Callable[[Any], Any] = lambda value: value
        self.calls: list[str] = []
        self.redirected: list[str] = []
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="hostile-wallet",
                                        kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _sin_for(self, path: str) -> str:
        if self.only not in path or self.times == 0:
            return ""
        if self.times is not None:
            self.times -= 1
        return self.sin

    def _forward(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._upstream.netloc, timeout=30)
        try:
            connection.request(method, path, body or None, {
                name: value for name, value in headers.items() if name.lower() != "host"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _spoiled(self, data: bytes) -> bytes:
        try:
            return json.dumps(self.spoil(json.loads(data))).encode()
        except ValueError:              # plain text stays what it is
            return data

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        wallet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def _serve(self) -> None:
                wallet.calls.append(f"{self.command} {self.path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sin = wallet._sin_for(self.path)
                self.close_connection = bool(sin)
                try:
                    if not sin or sin.endswith("_after") or sin == "spoils":
                        status, data = wallet._forward(self.command, self.path, self.headers, body)
                    if not sin:
                        self._send(status, data)
                    elif sin == "spoils":
                        self._send(status, wallet._spoiled(data))
                    else:
                        getattr(self, sin.removesuffix("_after"))()
                except OSError:             # the client has had enough
                    self.close_connection = True

            def _send(self, status: int, data: bytes, *headers: tuple[str, str]) -> None:
                self.send_response(status)
                for name, value in headers or (("Content-Length", str(len(data))),):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def denies_401(self) -> None:
                self._send(401, b'{"detail": "no"}')

            def denies_403(self) -> None:
                self._send(403, b'{"detail": "no"}')

            def fails_500(self) -> None:
                self._send(500, b"Internal Server Error")

            def hangs(self) -> None:
                wallet._stop.wait(30)

            def hangs_up(self) -> None:
                self.connection.close()

            def trickles_headers(self) -> None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not wallet._stop.wait(0.05):
                    self.wfile.write(b"X-A: b\r\n"[:1])

            def trickles_body(self) -> None:
                self._send(200, b"{", ("Content-Length", "100000"))
                while not wallet._stop.wait(0.05):
                    self.wfile.write(b" ")

            def answers_html(self) -> None:
                self._send(200, b"<html><body>Please log in to the hotel's network</body></html>")

            def answers_truncated(self) -> None:
                self._send(200, b'{"balance": 10')

            def answers_nothing(self) -> None:
                self._send(200, b"")

            def floods_body(self) -> None:
                self._send(200, b"[", ("Content-Length", str(HUGE_BYTES)))
                block = b"0," * 32768
                for _ in range(HUGE_BYTES // len(block)):
                    self.wfile.write(block)

            def floods_headers(self) -> None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
                for _ in range(1000):
                    self.wfile.write(b"a" * 65536)

            def redirects(self) -> None:
                where = wallet.url + "/elsewhere"
                self._send(302, b"", ("Location", where), ("Content-Length", "0"))

            def nests(self) -> None:
                self._send(200, b"[" * 100_000)

            def not_utf8(self) -> None:
                self._send(200, b'{"balance": "\xff"}')

            def is_a_list(self) -> None:
                self._send(200, b"[1]")

            def is_a_text(self) -> None:
                self._send(200, b'"fine"')
        return Handler
