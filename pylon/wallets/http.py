"""HTTP to a wallet's server: `requests` without its trust and with the limits that it lacks.

Nothing of the environment is used (proxies, netrc), no redirect followed, no cookie kept. Every
byte comes in through `_Bounded`, which ends a call at its deadline and above its size, also while
the headers trickle. What a secret was sent with is never repeated in an error.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from pylon.errors import InvalidMessage, WalletDenied, WalletError, WalletUnreachable
from pylon.log import peer_text
from pylon.nostr import strictjson

CONNECT_SECS = 10
CALL_SECS = 20
MAX_ANSWER_BYTES = 4 * 1024 * 1024      # a page of a thousand payments has about a megabyte
_DENIED = (401, 403)
# Each of the houses below has errors of its own; ValueError is among them.
_BROKEN = (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError)


class Answer:
    """What came back: the status and the text of its body."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text

    def wanted(self, *statuses: int) -> "Answer":
        """Itself, with one of these statuses. Raises WalletUnreachable (5xx), WalletError."""
        if self.status in statuses:
            return self
        kind = WalletUnreachable if self.status >= 500 else WalletError
        raise kind(f"the wallet answers HTTP {self.status}: {peer_text(self.detail())}")

    def detail(self) -> str:
        """The reason in an error's body: FastAPI says {"detail": ...}, others plain text."""
        try:
            value = strictjson.load(self.text)
        except InvalidMessage:
            return self.text
        detail = value.get("detail", value) if isinstance(value, dict) else value
        return detail if isinstance(detail, str) else str(detail)

    def json(self) -> Any:
        """The body. Raises WalletUnreachable: who does not speak JSON is not the wallet."""
        try:
            return strictjson.load(self.text)
        except InvalidMessage as err:
            raise WalletUnreachable(f"the wallet's answer (HTTP {self.status}) is not JSON: "
                                    f"{peer_text(self.text[:80])}") from err

    def object(self) -> dict[str, Any]:
        """The body, which is a JSON object. Raises WalletUnreachable."""
        value = self.json()
        if not isinstance(value, dict):
            raise WalletUnreachable("the wallet's answer is no JSON object")
        return value

    def objects(self) -> list[dict[str, Any]]:
        """The body, which is a list of JSON objects. Raises WalletUnreachable."""
        value = self.json()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise WalletUnreachable("the wallet's answer is no list of JSON objects")
        return value


class Api:
    """One server. Thread-safe: every call has a connection of its own."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        self.url = url.rstrip("/")
        self._verify: str | bool = ca_file or True

    def get(self, path: str, auth: AuthBase, params: dict[str, str | int] | None = None) -> Answer:
        """Raises WalletUnreachable, WalletDenied."""
        return self._call("GET", path, auth, CALL_SECS, params=params)

    def post(self, path: str, auth: AuthBase, secs: float | None = None, *,
             json: dict[str, Any] | None = None,
             form: dict[str, str | int] | None = None) -> Answer:
        """Raises WalletUnreachable (what it did is not known), WalletDenied."""
        return self._call("POST", path, auth, secs or CALL_SECS, json=json, data=form)

    def _call(self, method: str, path: str, auth: AuthBase, secs: float, **body: Any) -> Answer:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", _Adapter(secs))
            session.mount("https://", _Adapter(secs))
            try:
                response = session.request(
                    method, self.url + path, auth=auth, stream=True, allow_redirects=False,
                    timeout=(CONNECT_SECS, secs), verify=self._verify,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity",
                             "User-Agent": "Pylon"}, **body)
                data = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            except _BROKEN as err:
                raise WalletUnreachable(f"no answer from the wallet at {self.url}: "
                                        f"{_reason(err)}") from None
        return _judge(response.status_code, data)


def _judge(status: int, data: bytes) -> Answer:
    if status in _DENIED:
        raise WalletDenied(f"the wallet refuses our credentials (HTTP {status}); renew them with: "
                           "pylon wallet connect")
    if len(data) > MAX_ANSWER_BYTES:
        raise WalletUnreachable(f"the wallet's answer is longer than {MAX_ANSWER_BYTES} bytes")
    if 300 <= status < 400:
        raise WalletUnreachable(f"the wallet redirects (HTTP {status}); write the address where "
                                "it really is into the configuration")
    try:
        return Answer(status, data.decode())
    except UnicodeDecodeError:
        raise WalletUnreachable("the wallet's answer is not UTF-8") from None


def _reason(err: BaseException) -> str:
    """The innermost reason. Its own text could quote a header, so only the plain ones are shown."""
    found = type(err).__name__
    link: BaseException | None = err
    depth = 0
    while link is not None and depth < 20:
        if isinstance(link, OSError) and link.strerror:
            found = link.strerror
        link, depth = link.__cause__ or link.__context__ or _argument(link), depth + 1
    return found


def _argument(err: BaseException) -> BaseException | None:
    reason = getattr(err, "reason", None) or (err.args[0] if err.args else None)
    return reason if isinstance(reason, BaseException) else None


class _Ended(OSError):
    """The deadline or the size ended a call."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


class _Bounded(io.RawIOBase):
    """A connected socket that knows until when it may be read, and how much.

    http.client closes its socket as soon as an answer begins after which the connection ends; the
    answer's own file keeps it open until it is read.
    """

    def __init__(self, sock: Any, secs: float) -> None:
        self._sock, self._secs = sock, secs
        self._until = time.monotonic() + secs
        self._room_bytes = MAX_ANSWER_BYTES + 256 * 1024    # with its headers
        self._is_read = False

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise _Ended(f"not done after {self._secs:g} s")
        self._sock.settimeout(left)
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError:
            raise _Ended(f"not done after {self._secs:g} s") from None
        self._room_bytes -= count
        if self._room_bytes < 0:
            raise _Ended("an answer without end")
        return count

    def readable(self) -> bool:
        return True

    def makefile(self, *args: Any, **kwargs: Any) -> io.BufferedReader:
        self._is_read = True
        return _File(self, 65536)

    def settimeout(self, secs: float | None) -> None:
        """The deadline is one for all."""

    def close(self) -> None:
        if not self._is_read:
            self.end()

    def end(self) -> None:
        self._sock.close()
        super().close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _File(io.BufferedReader):
    """The file of an answer; the socket ends with it."""

    raw: _Bounded

    def close(self) -> None:
        self.raw.end()


class _Adapter(HTTPAdapter):
    """Pools whose connections hand out bounded sockets."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        secs = self._secs

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                self.sock = _Bounded(self.sock, secs)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                self.sock = _Bounded(self.sock, secs)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
