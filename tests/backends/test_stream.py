"""Bodies in all framings and cut at any place give the same lines."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.backends.http1 import read_head
from pylon.backends.stream import LINE_BYTES, Stream
from pylon.backends.wire import Patience, Wire
from pylon.errors import BackendError

LINES = st.lists(st.binary(min_size=1, max_size=40).filter(
    lambda line: b"\n" not in line and line != b"\r"), max_size=12)


def chunked(data, cuts):
    """DATA as chunks that end at CUTS, with a chunk extension and a trailer."""
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    parts, start = [], 0
    for end in ends:
        if end > start:
            parts.append(b"%x;ext=1\r\n%s\r\n" % (end - start, data[start:end]))
        start = end
    return b"".join(parts) + b"0\r\nTrailer: x\r\n\r\n"


def framed(data, framing, cuts):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    if framing == "chunked":
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(data, cuts)
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(data) + data
    return head + b"Connection: close\r\n\r\n" + data


def lines_of(wire_bytes, splits=()):
    """What a Stream makes of these bytes when they arrive in these pieces."""
    ours, theirs = socket.socketpair()

    def send():
        start = 0
        with theirs, suppress(BrokenPipeError):     # the reader may have all that it wants
            for end in [*sorted(splits), len(wire_bytes)]:
                theirs.sendall(wire_bytes[start:end])
                start = max(start, end)

    sender = threading.Thread(target=send)
    sender.start()
    wire = Wire(ours, "backend")
    wire.begin(Patience(5, 5, 5), time.monotonic(), 1 << 24, None)
    try:
        head = read_head(wire.reader, "backend")
        return list(Stream("backend", wire, head, lambda *args: None).lines())
    finally:
        wire.hang_up()
        sender.join()


@given(LINES, st.sampled_from(["chunked", "length", "close"]),
       st.lists(st.integers(0, 400), max_size=8), st.lists(st.integers(0, 700), max_size=4),
       st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_every_framing_gives_the_same_lines(lines, framing, cuts, splits, end):
    data = b"".join(line + end for line in lines)
    wire_bytes = framed(data, framing, cuts)
    found = lines_of(wire_bytes, [min(s, len(wire_bytes)) for s in splits])
    expected = [line + (b"\r" if end == b"\r\n" else b"") for line in lines]
    assert found == expected


def test_a_last_line_without_an_end_is_a_line():
    assert lines_of(framed(b"a\nb", "close", ())) == [b"a", b"b"]


@pytest.mark.parametrize("size", [b"-5", b"xyz", b"", b"1" * 300])
def test_no_true_chunks(size):
    with pytest.raises(BackendError):
        lines_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello")


def test_a_line_of_many_small_pieces_costs_linear_time():
    """Joining what has come so far with each new piece would take minutes here."""
    data = b"x" * (LINE_BYTES - 10)
    wire_bytes = framed(data, "chunked", range(0, len(data), 8))
    assert lines_of(wire_bytes) == [data]
