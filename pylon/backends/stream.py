"""The answer to one call: its status, and its body in lines as they come, or whole.

Used by the thread that made the call.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from pylon.backends.http1 import Head
from pylon.backends.wire import READ_BYTES, Wire
from pylon.errors import BackendError

LINE_BYTES = 1 << 20                # of one token's line; also of one chunk
CHUNK_HEAD_BYTES = 256
DRAIN_SECS = 0.5                    # for the rest of a body whose tokens are complete
DRAIN_PIECES = 8


class Stream:
    """One answer: its status, and its body as it comes. Leaving the `with` frees the connection."""

    def __init__(self, name: str, wire: Wire, head: Head,
                 release: Callable[[Wire, bool], None]) -> None:
        self.wire, self.status, self.content_type = wire, head.status, head.content_type
        self._name, self._head, self._release = name, head, release
        self._body = self._pieces()
        self._ended = False
        self._abandoned = False

    def lines(self) -> Iterator[bytes]:
        """The lines of the body, without their ends and without empty ones."""
        begun: list[bytes] = []             # the pieces of a line whose end has not come
        size = 0
        for piece in self._body:
            *lines, rest = piece.split(b"\n")
            if lines and begun:
                lines[0] = b"".join((*begun, lines[0]))
                begun, size = [], 0
            for line in lines:
                if line and line != b"\r":
                    yield line
            if rest:
                begun.append(rest)
                size += len(rest)
                if size > LINE_BYTES:
                    raise self._bad(f"sends a line of more than {LINE_BYTES} bytes")
        if begun:
            yield b"".join(begun)

    def read(self, max_bytes: int) -> bytes:
        """The whole body; raises BackendError when it is longer."""
        parts, size = [], 0
        for piece in self._body:
            parts.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise self._bad(f"answers with more than {max_bytes} bytes")
        return b"".join(parts)

    def abandon(self) -> None:
        """What is still to come is not wanted: hang up instead of reading it."""
        self._abandoned = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None and not self._ended and not self._abandoned:
            self._drain()
        self._release(self.wire, kind is None and self._ended and self._head.keep)

    def _drain(self) -> None:
        """All tokens are here; read what ends the body, if it comes at once."""
        self.wire.hurry(DRAIN_SECS)
        try:
            for count, _ in enumerate(self._body):
                if count == DRAIN_PIECES:
                    return
        except BackendError:
            return                          # the answer is good; only its connection is not

    def _pieces(self) -> Iterator[bytes]:
        """The body in the pieces in which it arrives."""
        reader = self.wire.reader
        if self._head.chunked:
            yield from self._chunks(reader)
        elif self._head.length is not None:
            yield from self._counted(reader, self._head.length)
        else:
            while piece := reader.read1(READ_BYTES):
                yield piece
        self._ended = True

    def _chunks(self, reader: io.BufferedReader[Any]) -> Iterator[bytes]:
        while size := self._chunk_size(reader.readline(CHUNK_HEAD_BYTES)):
            chunk = reader.read(size + 2)
            if chunk[-2:] != b"\r\n":
                raise self._cut() if len(chunk) < size + 2 else self._bad("sends no true chunks")
            yield chunk[:-2]
        while reader.readline(CHUNK_HEAD_BYTES) not in (b"\r\n", b"\n", b""):
            continue                        # trailers, bounded like everything by the wire

    def _chunk_size(self, head: bytes) -> int:
        if not head:
            raise self._cut()
        try:
            size = int(head.partition(b";")[0], 16)
        except ValueError:
            size = -1
        if not 0 <= size <= LINE_BYTES:
            raise self._bad("sends no true chunks, or too long ones")
        return size

    def _counted(self, reader: io.BufferedReader[Any], left: int) -> Iterator[bytes]:
        while left > 0:
            piece = reader.read1(min(left, READ_BYTES))
            if not piece:
                raise self._cut()
            left -= len(piece)
            yield piece

    def _cut(self) -> BackendError:
        return self._bad("closed the connection in the middle of its answer")

    def _bad(self, what: str) -> BackendError:
        return BackendError(f"{self._name} {what}")
