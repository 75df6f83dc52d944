"""The socket below a call to a backend: deadlines, a byte cap, a cancel, and hanging up.

Every byte of an answer comes in through a `Wire`. It knows until when bytes may come and how many,
so that neither a server that trickles nor one that floods can hold a thread or fill the memory.
Used by one thread at a time.
"""

from __future__ import annotations

import io
import select
import socket
import threading
import time
from typing import Any, NamedTuple

from pylon.errors import BackendCancelled, BackendError, BackendUnavailable

READ_BYTES = 65536
CANCEL_CHECK_SECS = 0.25            # how long a silent backend can delay a cancel


class Patience(NamedTuple):
    """Seconds to wait: for the first token, between two, and in all."""

    first_secs: float
    between_secs: float
    total_secs: float


class Wire(io.RawIOBase):
    """A connected socket that enforces the deadlines and the byte cap of the present exchange."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._name = name
        self.reader: io.BufferedReader[Any] = io.BufferedReader(self, READ_BYTES)

    def begin(self, patience: Patience, started: float, max_bytes: int,
              cancel: threading.Event | None) -> None:
        """Start an exchange; STARTED is when its total began (monotonic)."""
        self.reader.detach()                # what an answer before left unread is not for us
        self.reader = io.BufferedReader(self, READ_BYTES)
        self._patience, self._cancel = patience, cancel
        self._room, self._max_bytes = max_bytes, max_bytes
        self._total_at = started + patience.total_secs
        self._set_step("first token", patience.first_secs, time.monotonic())
        self.progress = False           # set by whoever read a token: the step's clock restarts
        self.touched = False            # a byte of this exchange came in

    def hurry(self, secs: float) -> None:
        """Leave only SECS for what is still to come."""
        self.progress = False
        self._set_step("end", secs, time.monotonic())

    def readinto(self, buffer: Any) -> int:
        count = self._receive(buffer)
        self.touched = self.touched or count > 0
        self._room -= count
        if self._room < 0:
            raise BackendError(f"{self._name} answers with more than {self._max_bytes} bytes")
        return count

    def _receive(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self._wait_secs())
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue                # _wait_secs says whether the time is up
            except OSError as err:
                if self.touched:
                    raise BackendError(f"{self._name} broke the connection in the middle of its "
                                       f"answer: {why(err)}") from err
                raise BackendUnavailable(f"{self._name} hung up without an answer") from err

    def _wait_secs(self) -> float:
        """Until the next deadline; raises when it has passed, or on a cancel."""
        now = time.monotonic()
        if self.progress:
            self.progress = False
            self._set_step("next token", self._patience.between_secs, now)
        if self._cancel is not None and self._cancel.is_set():
            raise BackendCancelled(f"{self._name}: cancelled")
        if now >= self._total_at:
            raise BackendError(f"{self._name} was not done in {self._patience.total_secs:g} s")
        if now >= self._step_at:
            raise BackendError(f"{self._name} did not send its {self._awaited} "
                               f"in {self._step_secs:g} s")
        left = min(self._step_at, self._total_at) - now
        return left if self._cancel is None else min(left, CANCEL_CHECK_SECS)

    def _set_step(self, awaited: str, secs: float, now: float) -> None:
        self._awaited, self._step_secs, self._step_at = awaited, secs, now + secs

    def readable(self) -> bool:
        return True

    def hang_up(self) -> None:
        self._sock.close()

    def is_quiet(self) -> bool:
        """Whether an idle connection is fit for use: neither its end nor stray bytes wait."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def send(self, data: bytes) -> None:
        """Raises BackendUnavailable."""
        self._sock.settimeout(self._wait_secs())
        try:
            self._sock.sendall(data)
        except OSError as err:
            raise BackendUnavailable(f"{self._name} does not take our call: {why(err)}") from err


def why(err: Exception) -> str:
    """The reason alone, without numbers."""
    return (err.strerror if isinstance(err, OSError) else None) or str(err) or type(err).__name__
