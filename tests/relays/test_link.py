"""One WebSocket by hand: bytes in, messages out, and every limit at its edge and one beyond."""

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon.errors import RelayError, RelayMisbehaved
from pylon.relays.link import MAX_PARTS, Limits, Link
from pylon.relays.stream import Stream
from tests.fakes.hostile_relay import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame


@pytest.fixture
def pair():
    """(link, the relay's end of its socket)"""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(5)
    yield Link(Stream(near), Limits(frame_bytes=1000, message_bytes=2000, message_secs=3)), far
    near.close()
    far.close()


def received(link, far, data):
    """All messages in these bytes."""
    far.sendall(data)
    found = []
    link.stream.fill()
    while (message := link.receive()) is not None:
        found.append(message)
    return found


def sent(link, far):
    """The frames that the link wrote: (opcode, payload)."""
    link.stream.flush()
    data, found = far.recv(65536), []
    while data:
        length, head = data[1] & 0x7f, 2
        if length == 126:
            length, head = struct.unpack("!H", data[2:4])[0], 4
        mask, payload = data[head:head + 4], data[head + 4:head + 4 + length]
        found.append((data[0] & 0x0f, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))))
        data = data[head + 4 + length:]
    return found


def test_whole_texts(pair):
    assert received(*pair, frame(b"one") + frame(b"") + frame("zw\u00f6lf".encode())) \
        == ["one", "", "zw\u00f6lf"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 999, 1000])
def test_every_size_up_to_the_limit(pair, size):
    assert received(*pair, frame(b"x" * size)) == ["x" * size]


def test_a_frame_one_byte_too_long_is_refused_before_it_is_there(pair):
    with pytest.raises(RelayMisbehaved, match="a frame of 1001 bytes") as caught:
        received(*pair, frame(b"x" * 1001)[:4])
    assert caught.value.close_code == 1009


def test_a01_a_frame_of_2_to_the_63_bytes_is_refused_by_its_header(pair):
    with pytest.raises(RelayMisbehaved, match="9223372036854775807"):
        received(*pair, b"\x81\x7f" + struct.pack("!Q", 2 ** 63 - 1))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 50))
@settings(deadline=None)
def test_bytes_may_come_in_any_pieces(sizes, step):
    near, far = socket.socketpair()
    near.setblocking(False)
    try:
        link = Link(Stream(near), Limits())
        data, found = b"".join(frame(b"y" * size) for size in sizes), []
        for start in range(0, len(data), step):
            found += received(link, far, data[start:start + step])
        assert found == ["y" * size for size in sizes]
    finally:
        near.close()
        far.close()


def test_parts_are_put_together(pair):
    assert received(*pair, frame(b"a", TEXT, False) + frame(b"b", CONT, False)
                    + frame(b"ping", PING) + frame(b"c", CONT)) == ["abc"]
    assert sent(*pair) == [(PONG, b"ping")]


def test_a_character_may_be_cut_in_two_by_parts(pair):
    data = "\u20ac".encode()
    assert received(*pair, frame(data[:1], TEXT, False) + frame(data[1:], CONT)) == ["\u20ac"]


def test_a02_parts_up_to_the_limit_and_one_byte_beyond(pair):
    whole = frame(b"a" * 1000, TEXT, False) + frame(b"b" * 1000, CONT)
    assert received(*pair, whole) == ["a" * 1000 + "b" * 1000]
    with pytest.raises(RelayMisbehaved, match="without end"):
        received(*pair, frame(b"a" * 1000, TEXT, False) + frame(b"b" * 1000, CONT, False)
                 + frame(b"c", CONT))


def test_a02_crumbs(pair):
    with pytest.raises(RelayMisbehaved, match="crumbs"):
        received(*pair, frame(b"", TEXT, False) + frame(b"", CONT, False) * MAX_PARTS)


@pytest.mark.parametrize("data", [
    pytest.param(frame(b"x", CONT), id="a part of nothing"),
    pytest.param(frame(b"x", TEXT, False) + frame(b"y", TEXT), id="a text inside a text"),
    pytest.param(b"\xc1\x00", id="a reserved bit"), pytest.param(b"\x83\x00", id="opcode 3"),
    pytest.param(b"\x09\x00", id="a ping in parts"), pytest.param(b"\x81\x80", id="masked"),
    pytest.param(b"\x89\x7e\x00\xff", id="a long ping"),
    pytest.param(frame(b"\x03", CLOSE), id="half a close code")])
def test_frames_against_the_protocol(pair, data):
    with pytest.raises(RelayMisbehaved):
        received(*pair, data)


def test_a08_binary_and_broken_utf8_come_as_bytes(pair):
    assert received(*pair, frame(b"x", BINARY) + frame(b"\xff") + frame(b"fine")) \
        == [b"x", b"\xff", "fine"]
    assert received(*pair, frame(b"\xff", TEXT, False) + frame(b"", CONT)) == [b"\xff"]


def test_a03_a_message_that_is_never_whole(pair):
    link, far = pair
    link.check_deadline(100.0)
    assert link.deadline() is None
    received(link, far, frame(b"hello")[:3])
    link.check_deadline(101.0)
    assert link.deadline() == 104.0
    link.check_deadline(103.9)
    with pytest.raises(RelayMisbehaved, match="longer than 3 s"):
        link.check_deadline(104.1)


def test_a03_each_message_has_its_own_deadline(pair):
    link, far = pair
    data = frame(b"hello")
    received(link, far, data[:3])
    link.check_deadline(100.0)
    for second in range(1, 20):
        assert received(link, far, data[3:] + data[:3]) == ["hello"]
        link.check_deadline(100.0 + second)


def test_pings_do_not_prolong_a_message_in_parts(pair):
    link, far = pair
    received(link, far, frame(b"a", TEXT, False))
    link.check_deadline(100.0)
    received(link, far, frame(b"", PING))
    with pytest.raises(RelayMisbehaved, match="longer"):
        link.check_deadline(104.1)


def test_a_goodbye_is_answered(pair):
    with pytest.raises(RelayError, match="closed the connection .1001."):
        received(*pair, frame(struct.pack("!H", 1001) + b"bye", CLOSE))
    assert sent(*pair)[0][0] == CLOSE


def test_the_end_of_the_stream(pair):
    link, far = pair
    far.close()
    with pytest.raises(RelayError, match="closed the connection"):
        link.stream.fill()


def test_what_came_before_the_end_is_read(pair):
    link, far = pair
    far.sendall(frame(b"last words"))
    far.close()
    link.stream.fill()
    assert link.receive() == "last words"


def test_a_relay_that_does_not_read(pair):
    link, _ = pair
    with pytest.raises(RelayMisbehaved, match="does not read"):
        for _ in range(1000):
            link.send("x" * 10_000)
            link.stream.flush()


def test_texts_are_sent_in_order_and_whole(pair):
    link, far = pair
    for text in ("one", "", "z" * 300, "\u20ac"):
        link.send(text)
    assert sent(link, far) == [(TEXT, text.encode()) for text in ("one", "", "z" * 300, "\u20ac")]
