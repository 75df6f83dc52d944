"""One WebSocket to one relay, with the limits that websocket-client lacks.

websocket-client shakes hands and decodes frames; what it is given to decode is only ever a whole
frame that was measured before. So no declared length allocates anything, no frame is waited for
inside the library, and a message that does not end runs into a deadline. The library would also
follow redirects, use proxies of the environment, and send one relay the cookies that another
one set: all of that is off.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import websocket
from websocket import _handshake as library_handshake

from pylon.errors import PylonError, RelayError, RelayMisbehaved
from pylon.relays.address import RelayUrl
from pylon.relays.stream import Stream

HANDSHAKE_BYTES = 16 * 1024
MAX_CONTROL_BYTES = 125             # RFC 6455, 5.5
MAX_PARTS = 1024                    # of one message; relays send one
_WHOLE_TEXT = 0x81                  # FIN and opcode 1: what relays send
_CONT, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_STATUS_SWITCHED = 101


@dataclass(frozen=True, slots=True)
class Limits:
    """What one relay may send us."""

    frame_bytes: int = 256 * 1024
    message_bytes: int = 512 * 1024
    message_secs: float = 30


class _NoCookies:
    """In the place of the library's cookie jar, which all relays would share."""

    def add(self, set_cookie: str | None) -> None:
        """Cookies are not kept."""

    def get(self, host: str | None) -> str:
        return ""


class Link:
    """An open WebSocket. Belongs to one thread."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.stream = stream
        self.limits = limits
        self.pings = 0                          # pings of the relay, which were answered
        self.pong_at: float | None = None       # monotonic
        self._socket = _codec(stream)
        self._parts = bytearray()               # of a message that comes in several frames
        self._parts_opcode = 0                  # 0: none is under way
        self._parts_count = 0
        self._begun_at: float | None = None     # monotonic, of the message that is not whole yet

    def shake_hands(self, target: RelayUrl, headers: Sequence[str] = ()) -> None:
        """Become a WebSocket; `headers` are sent besides the usual ones. Raises RelayError."""
        setattr(library_handshake, "CookieJar", _NoCookies())
        self.stream.expect_at_most(HANDSHAKE_BYTES)
        try:
            self._socket.connect(target.url, socket=self.stream, redirect_limit=0,
                                 host=target.host_header, suppress_origin=True,
                                 header=["User-Agent: Pylon", *headers])
        except PylonError:
            raise
        except websocket.WebSocketBadStatusException as err:
            raise RelayError(f"the relay refused the WebSocket: HTTP {err.status_code}") from err
        except Exception as err:                # the library lets many kinds through
            self._check_status()
            raise RelayError(f"no WebSocket handshake: {type(err).__name__}") from err
        self._check_status()
        self.stream.stop_waiting()

    def _check_status(self) -> None:
        status = self._socket.getstatus()
        if status not in (None, _STATUS_SWITCHED):
            raise RelayError(f"the relay answered HTTP {status}; redirects are not followed")

    def receive(self) -> str | bytes | None:
        """The next message that is whole; None when there is none yet.

        bytes stand for what no relay may send: a binary message, or text that is not UTF-8.
        Raises RelayMisbehaved on a broken limit, RelayError when the relay says goodbye.
        """
        while True:
            size = self._whole_frame_bytes()
            if size is None:
                return None
            if self.stream.inbox[0] == _WHOLE_TEXT and not self._parts_opcode:
                return self._take_text(size)
            message = self._decode()
            if message is not None:
                return message

    def check_deadline(self, mono: float) -> None:
        """Raises RelayMisbehaved when a message takes too long to become whole."""
        if not self.stream.inbox and not self._parts_opcode:
            self._begun_at = None
        elif self._begun_at is None:
            self._begun_at = mono
        elif mono - self._begun_at > self.limits.message_secs:
            raise RelayMisbehaved(f"a message took longer than {self.limits.message_secs:g} s",
                                  1008)

    def deadline(self) -> float | None:
        """Monotonic time at which `check_deadline` must be called."""
        return None if self._begun_at is None else self._begun_at + self.limits.message_secs

    def send(self, text: str) -> None:
        """Put one text message into the stream's outbox."""
        self._socket.send(text)

    def ping(self) -> None:
        self._socket.ping()

    def say_goodbye(self, close_code: int = 1000) -> None:
        """Send a close frame if the socket takes it at once."""
        try:
            self._socket.send_close(close_code)
            self.stream.flush()
        except (RelayError, OSError, websocket.WebSocketException):
            return                              # it is closed in any case

    def close(self) -> None:
        self.stream.close()

    # -- frames ------------------------------------------------------------------------------------

    def _whole_frame_bytes(self) -> int | None:
        """Length, with its header, of the first frame in the inbox; None while it is not whole.

        The limits are checked as soon as the header is there.
        """
        inbox = self.stream.inbox
        if len(inbox) < 2:
            return None
        opcode, length, header = inbox[0] & 0x0f, inbox[1], 2
        if length & 0x80:
            raise RelayMisbehaved("a frame of the relay is masked")
        if length >= 126:
            header = 4 if length == 126 else 10
            if len(inbox) < header:
                return None
            length = int.from_bytes(inbox[2:header], "big")
        if opcode >= _CLOSE:
            if length > MAX_CONTROL_BYTES:
                raise RelayMisbehaved("a control frame is too long")
        elif length > self.limits.frame_bytes:
            raise RelayMisbehaved(f"a frame of {length} bytes", 1009)
        elif len(self._parts) + length > self.limits.message_bytes:
            raise RelayMisbehaved("a message without end", 1009)
        return header + length if len(inbox) >= header + length else None

    def _take_text(self, size: int) -> str | bytes:
        """The common frame, cut out without the library: it would cost a tenth of verifying."""
        inbox = self.stream.inbox
        header = 2 if inbox[1] < 126 else 4 if inbox[1] == 126 else 10
        data = inbox[header:size]
        del inbox[:size]
        self._begun_at = None
        return _text(data)

    def _decode(self) -> str | bytes | None:
        """Let the library take one frame, which is whole. None: not the end of a message."""
        try:
            frame = self._socket.recv_frame()
        except websocket.WebSocketException as err:
            raise RelayMisbehaved(f"a broken frame: {err}") from err
        if frame.opcode in (_CONT, _TEXT, _BINARY):
            return self._gather(frame)
        if not self._parts_opcode:
            self._begun_at = None
        if frame.opcode == _CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            self.say_goodbye()
            raise RelayError(f"the relay closed the connection ({code or 'no reason given'})")
        if frame.opcode == _PING:
            self.pings += 1
            self._socket.pong(frame.data)
        else:
            self.pong_at = time.monotonic()
        return None

    def _gather(self, frame: Any) -> str | bytes | None:
        """Put parts together; the library's own way is quadratic in the number of parts."""
        if (frame.opcode == _CONT) != bool(self._parts_opcode):
            raise RelayMisbehaved("the parts of a message are out of order")
        self._parts += frame.data
        self._parts_opcode = self._parts_opcode or frame.opcode
        self._parts_count += 1
        if self._parts_count > MAX_PARTS:
            raise RelayMisbehaved("a message without end, in crumbs", 1009)
        if not frame.fin:
            return None
        whole, opcode = bytes(self._parts), self._parts_opcode
        self._parts, self._parts_opcode, self._parts_count = bytearray(), 0, 0
        self._begun_at = None
        return _text(whole) if opcode == _TEXT else whole


def _codec(stream: Stream) -> Any:
    """websocket-client over a stream; Any, since it knows only sockets."""
    codec = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    setattr(codec, "sock", stream)
    return codec


def _text(data: bytes | bytearray) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return bytes(data)
