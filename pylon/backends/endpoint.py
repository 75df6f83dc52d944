"""One HTTP server that a backend talks to: kept-alive connections, and calls over them.

http.client, without proxies, redirects, cookies or anything else from the environment. Any thread
may call; idle connections are shared.
"""

from __future__ import annotations

import functools
import http.client
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from pylon.backends.stream import Stream
from pylon.backends.wire import Link, Patience, why
from pylon.errors import BackendError, BackendUnavailable

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
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = dict(headers or {})
        self._idle: list[Link] = []         # guarded by _lock
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
        for link in idle:
            link.wire.hang_up()

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
        kept = self._take_idle()
        if kept is not None:
            kept.wire.begin(patience, started, max_bytes, cancel)
            try:
                return self._ask(kept, method, path, data)
            except BackendUnavailable:
                if kept.wire.touched:
                    raise
                # It hung up while nobody looked. Ask again, once, over a new connection.
        link = self._connect()
        link.wire.begin(patience, started, max_bytes, cancel)
        return self._ask(link, method, path, data)

    def _ask(self, link: Link, method: str, path: str, data: bytes | None) -> Stream:
        headers = self._headers
        if data is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            link.http.request(method, self._prefix + path, data, headers)
            return Stream(self.name, link, link.http.getresponse(), self._release)
        except BaseException as err:
            self._release(link, False)
            if isinstance(err, OSError):        # also http.client's RemoteDisconnected
                raise BackendUnavailable(f"{self.name} hung up without an answer") from err
            if isinstance(err, (http.client.HTTPException, ValueError)):
                raise BackendError(f"{self.name} does not answer in HTTP") from err
            raise

    def _connect(self) -> Link:
        half: http.client.HTTPConnection
        if self._tls:
            half = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_SECS,
                                               context=_tls_context())
        else:
            half = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECS)
        try:
            half.connect()
        except (OSError, ValueError) as err:    # ValueError: a host name that IDNA refuses
            half.close()
            raise BackendUnavailable(f"{self.name} cannot be reached at {self.url}: "
                                     f"{why(err)}") from err
        return Link(half, self.name)

    def _take_idle(self) -> Link | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                link = self._idle.pop()
            if link.wire.is_quiet():
                return link
            link.wire.hang_up()

    def _release(self, link: Link, keep: bool) -> None:
        with self._lock:
            if keep and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(link)
                return
        link.http.close()
        link.wire.hang_up()


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One for all (it costs 0.9 MB); create_default_context would obey SSLKEYLOGFILE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
