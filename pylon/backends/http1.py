"""The heads of HTTP/1.1, as far as a client of model servers needs them. Pure but for the reader.

http.client would do the same, but brings the mail parser and TLS along: importing it takes longer
than all of `pylon compute`.
"""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

from pylon.errors import BackendError, BackendUnavailable

MAX_HEAD_BYTES = 65536
MAX_INTERIM = 8                     # answers like 100 Continue before the true one

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class Head(NamedTuple):
    """What the head of an answer says. `length` None: chunks, or until the connection ends."""

    status: int
    content_type: str
    chunked: bool
    length: int | None
    keep: bool                      # the connection is good for another call


def request(method: str, host: str, path: str, headers: dict[str, str],
            data: bytes | None) -> bytes:
    """A whole request; the caller answers for what stands in the parts."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity",
             *(f"{name}: {value}" for name, value in headers.items())]
    if data is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (data or b"")


def read_head(reader: io.BufferedReader[Any], name: str) -> Head:
    """The head of the answer. Raises BackendUnavailable where none begins, BackendError."""
    for _ in range(MAX_INTERIM):
        version, status, headers = _read_one(reader, name)
        if status >= 200:
            return _understood(version, status, headers, name)
    raise _bad(name)


def _read_one(reader: io.BufferedReader[Any], name: str
              ) -> tuple[bytes, int, dict[bytes, bytes]]:
    """HTTP version, status, and the headers by their names in lower case."""
    first = reader.readline(MAX_HEAD_BYTES)
    if not first:
        raise BackendUnavailable(f"{name} hung up without an answer")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise _bad(name)
    headers: dict[bytes, bytes] = {}
    room = MAX_HEAD_BYTES
    while (line := reader.readline(room)) not in (b"\r\n", b"\n"):
        room -= len(line)
        if not line.endswith(b"\n") or room <= 0:
            raise _bad(name)
        field, _, value = line.partition(b":")
        field, value = field.strip().lower(), value.strip()
        if field == b"content-length" and headers.get(field, value) != value:
            raise _bad(name)
        headers[field] = value
    return status[1], int(status[2]), headers


def _understood(version: bytes, status: int, headers: dict[bytes, bytes], name: str) -> Head:
    chunked = b"chunked" in headers.get(b"transfer-encoding", b"").lower()
    length: int | None = None
    if not chunked and b"content-length" in headers:
        if not _LENGTH.fullmatch(headers[b"content-length"]):
            raise _bad(name)
        length = int(headers[b"content-length"])
    if status in (204, 304):
        chunked, length = False, 0
    wants_end = b"close" in headers.get(b"connection", b"").lower() or version == b"0"
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    return Head(status, content_type.partition(";")[0].strip().lower(), chunked, length,
                not wants_end and (chunked or length is not None))


def _bad(name: str) -> BackendError:
    return BackendError(f"{name} does not answer in HTTP")
