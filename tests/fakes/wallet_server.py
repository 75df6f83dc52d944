"""What the stand-ins for wallets with an HTTP API share: calls in, answers and pushes out.

Behind each stands an account of a real ledger, so invoices, preimages and money are real (play
money on regtest) and stand-ins of different kinds can pay each other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pylon.wallets.ledger import Ledger

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Call:
    """One HTTP call; `values` are the query's parameters and the form's or JSON's fields."""

    method: str
    path: str
    values: dict[str, Any]
    headers: Any

    def basic_password(self) -> str:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else ""


class WalletServer:
    """Listens on a free port of loopback. Subclasses write `answer` and `may_listen`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[Call] = []
        self._listeners: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="wallet-server",
                                        kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        ledger.watch(self.changed)

    def answer(self, call: Call) -> tuple[int, Any]:
        """Status and body: a text, or what becomes JSON."""
        raise NotImplementedError

    def may_listen(self, call: Call) -> bool:
        raise NotImplementedError

    def changed(self, payment_hash: str | None) -> None:
        """The ledger says that something did."""

    def push(self, message: str) -> None:
        """One text frame to everybody who listens."""
        data = message.encode()
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        for listener in list(self._listeners):
            try:
                listener.sendall(b"\x81" + size + data)
            except OSError:                 # its own thread takes it away
                continue

    def listeners(self) -> int:
        return len(self._listeners)

    def hang_up(self) -> None:
        """Cut every push connection."""
        for listener in list(self._listeners):
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:                 # it was faster
                continue

    def close(self) -> None:
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def _serve(self) -> None:
                call = self._call()
                if self.headers.get("Upgrade", "").lower() == "websocket":
                    self._listen(call)
                    return
                server.calls.append(call)
                status, body = server.answer(call)
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def _call(self) -> Call:
                parts = urlsplit(self.path)
                values: dict[str, Any] = {k: v[0] for k, v in parse_qs(parts.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if "json" in self.headers.get("Content-Type", ""):
                    values |= json.loads(body)
                else:
                    values |= {k: v[0] for k, v in parse_qs(body.decode()).items()}
                return Call(self.command, parts.path, values, self.headers)

            def _listen(self, call: Call) -> None:
                if not server.may_listen(call):
                    self.send_error(401)
                    return
                key = self.headers["Sec-WebSocket-Key"].encode()
                accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest()).decode()
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.send_header("Sec-WebSocket-Accept", accept)
                self.end_headers()
                server._listeners.append(self.connection)
                self.close_connection = True
                while self._hears():
                    continue
                server._listeners.remove(self.connection)

            def _hears(self) -> bool:
                try:
                    return bool(self.connection.recv(4096))
                except OSError:
                    return False
        return Handler
