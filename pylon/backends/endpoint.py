"""One HTTP server that a backend talks to: kept-alive connections, and calls over them.

No proxies, redirects, cookies or anything else from the environment. Any thread may call; idle
connections are shared.
"""

from __future__ import annotations

import functools
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import quote, urlsplit

from pylon.backends import http1
from pylon.backends.stream import Stream
from pylon.backends.wire import Patience, Wire, why
from pylon.errors import BackendError, BackendUnavailable, ConfigError

CONNECT_SECS = 5.0
IDLE_CONNECTIONS = 4                # kept for reuse
JSON_BYTES = 4 << 20                # of an answer that is no stream
STREAM_BYTES = 64 << 20             # of a stream, with everything around its tokens
ERROR_BYTES = 16384                 # of an error's text


class Endpoint:
    """One server at one base URL. `headers` go with every call and may hold a secret."""

    def __init__(self, name: str, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.name, self.url = name, url.rstrip("/")
        self._tls = parts.scheme == "https"
        self._address = (parts.hostname or "", parts.port or (443 if self._tls else 80))
        self._host = _ascii(parts.netloc)       # as the Host header wants it
        self._prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        self._headers = dict(headers or {})
        self._idle: list[Wire] = []         # guarded by _lock
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.url!r})"

    def get(self, path: str, timeout_secs: float) -> tuple[int, Any]:
        """Status and JSON of a GET, the text where the status is not 200.

        Raises BackendUnavailable, BackendError.
        """
        return self._call("GET", path, None, timeout_secs)

    def post(self, path: str, body: Any, timeout_secs: float) -> tuple[int, Any]:
        """As `get`, for a POST."""
        return self._call("POST", path, body, timeout_secs)

    def stream(self, path: str, body: Any, patience: Patience,
               cancel: threading.Event | None = None) -> Stream:
        """POST, and leave the answer to be read. Raises BackendUnavailable, BackendError."""
        return self._exchange("POST", path, body, patience, STREAM_BYTES, cancel)

    def close(self) -> None:
        """Hang up what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.hang_up()

    def _call(self, method: str, path: str, body: Any, timeout_secs: float) -> tuple[int, Any]:
        patience = Patience(timeout_secs, timeout_secs, timeout_secs)
        with self._exchange(method, path, body, patience, JSON_BYTES, None) as stream:
            data = stream.read(JSON_BYTES)
        if stream.status != 200:
            return stream.status, data[:ERROR_BYTES].decode("utf-8", "replace")
        try:
            return stream.status, json.loads(data)
        except (ValueError, RecursionError):
            raise BackendError(f"{self.name} answers {path} with something that is not JSON"
                               ) from None

    def _exchange(self, method: str, path: str, body: Any, patience: Patience, max_bytes: int,
                  cancel: threading.Event | None) -> Stream:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        started = time.monotonic()
        call = http1.request(method, self._host, self._prefix + path, self._headers, data)
        kept = self._take_idle()
        if kept is not None:
            kept.begin(patience, started, max_bytes, cancel)
            try:
                return self._ask(kept, call)
            except BackendUnavailable:
                if kept.touched:
                    raise
                # It hung up while nobody looked. Ask again, once, over a new connection.
        wire = Wire(self._connect(), self.name)
        wire.begin(patience, started, max_bytes, cancel)
        return self._ask(wire, call)

    def _ask(self, wire: Wire, call: bytes) -> Stream:
        try:
            wire.send(call)
            return Stream(self.name, wire, http1.read_head(wire.reader, self.name), self._release)
        except BaseException:
            self._release(wire, False)
            raise

    def _connect(self) -> socket.socket:
        sock: socket.socket | None = None
        try:
            sock = socket.create_connection(self._address, CONNECT_SECS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = _tls_context().wrap_socket(sock, server_hostname=self._address[0])
            return sock
        except (OSError, ValueError) as err:    # ValueError: a host name that IDNA refuses
            if sock is not None:
                sock.close()
            raise BackendUnavailable(f"{self.name} cannot be reached at {self.url}: "
                                     f"{why(err)}") from err

    def _take_idle(self) -> Wire | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                wire = self._idle.pop()
            if wire.is_quiet():
                return wire
            wire.hang_up()

    def _release(self, wire: Wire, keep: bool) -> None:
        with self._lock:
            if keep and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(wire)
                return
        wire.hang_up()


def _ascii(host: str) -> str:
    """A host with its port, in letters that a header can hold. Raises ConfigError."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ConfigError(f"{host!r} is not a host's name") from None


@functools.cache
def _tls_context() -> Any:
    """One for all (it costs 0.9 MB); create_default_context would obey SSLKEYLOGFILE."""
    import ssl                          # late: most backends are on this machine, without TLS
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
