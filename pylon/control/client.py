"""Asking the daemon of a home. Used by the command line; holds no state."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pylon.control.protocol import MAX_REPLY_BYTES, encode_command, parse_reply
from pylon.errors import ControlError, NotRunning
from pylon.home import MAX_SOCKET_PATH_BYTES, Home

BUSY_SECS = 5.0
BUSY_PAUSE_SECS = 0.01


def call(home: Home, name: str, args: dict[str, Any] | None = None,
         timeout_secs: float = 5.0) -> Any:
    """Ask one command, give its result. Raises NotRunning, ControlError."""
    deadline = time.monotonic() + timeout_secs
    with _connected(home, timeout_secs) as conn:
        try:
            _send(conn, encode_command(name, args))
            return parse_reply(_read_line(conn, deadline, b"")[0], name)
        except TimeoutError:
            raise ControlError(f"the daemon did not answer within {timeout_secs:g} s") from None
        except OSError as err:
            raise ControlError(f"the daemon ended the talk: {err.strerror}") from err


def stream(home: Home, name: str, args: dict[str, Any] | None = None,
           timeout_secs: float | None = None) -> Iterator[Any]:
    """Ask a command that answers with many lines; TIMEOUT_SECS is the longest silence."""
    with _connected(home, timeout_secs) as conn:
        rest = b""
        try:
            _send(conn, encode_command(name, args))
            while True:
                deadline = time.monotonic() + timeout_secs if timeout_secs else None
                line, rest = _read_line(conn, deadline, rest)
                if not line:
                    return
                yield parse_reply(line, name)
        except TimeoutError:
            raise ControlError(f"the daemon was silent for {timeout_secs:g} s") from None
        except OSError as err:
            raise ControlError(f"the daemon ended the talk: {err.strerror}") from err


def answers(home: Home, timeout_secs: float = 2.0) -> bool:
    """Whether a daemon answers a ping."""
    try:
        return bool(call(home, "Ping", timeout_secs=timeout_secs) == "Pong")
    except (NotRunning, ControlError):
        return False


def daemon_pid(home: Home) -> int | None:
    """The process that listens on the socket, as the kernel knows it; None when nobody does."""
    try:
        with _connected(home, 2.0) as conn:
            creds = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except (NotRunning, ControlError):
        return None
    pid: int = struct.unpack("3i", creds)[0]
    return pid if pid > 0 else None         # 0: it lives in another PID namespace


@contextmanager
def _connected(home: Home, timeout_secs: float | None) -> Iterator[socket.socket]:
    path = str(home.socket)
    if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
        raise ControlError(f"{path} is too long for a socket; give a shorter home")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
        try:
            _connect(conn, path, timeout_secs)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NotRunning("the daemon is not running; start it with: pylon start") from None
        except PermissionError:
            raise ControlError(f"you may not talk to the daemon at {path}; it belongs to "
                               "another user") from None
        except (TimeoutError, BlockingIOError):
            raise ControlError("the daemon is too busy to answer") from None
        except OSError as err:
            raise ControlError(f"{path}: {err.strerror}") from err
        yield conn


def _connect(conn: socket.socket, path: str, timeout_secs: float | None) -> None:
    """A full queue of callers makes connect() fail at once on a socket with a timeout; ask
    again until there is room. Raises BlockingIOError when time is up."""
    deadline = time.monotonic() + (timeout_secs or BUSY_SECS)
    conn.settimeout(timeout_secs)
    while True:
        try:
            conn.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_SECS)


def _send(conn: socket.socket, data: bytes) -> None:
    """A server that refuses us hangs up before it has read; its reason can be read all the same."""
    with suppress(BrokenPipeError, ConnectionResetError):
        conn.sendall(data)


def _read_line(conn: socket.socket, deadline: float | None, rest: bytes) -> tuple[bytes, bytes]:
    """One line and what came after it; empty at the end. Raises TimeoutError, ControlError."""
    chunks = bytearray(rest)
    start = 0
    while (end := chunks.find(b"\n", start)) < 0:
        start = len(chunks)
        if start > MAX_REPLY_BYTES:
            raise ControlError("the daemon's answer does not end")
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            conn.settimeout(left)
        data = conn.recv(65536)
        if not data:
            if chunks:
                raise ControlError("the daemon's answer was cut off")
            return b"", b""
        chunks += data
    return bytes(chunks[:end]), bytes(chunks[end + 1:])
