"""A bell that wakes a thread out of poll(), and the patience of one connection attempt.

The thread that waits on a `Bell` clears it and then looks at its inbox; whoever puts something
into the inbox rings afterwards. In this order no ring is lost.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pylon.errors import RelayError

READ, WRITE = select.POLLIN, select.POLLOUT


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Bell:
    """An eventfd; ringing twice before anybody listens is ringing once."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung = False
        # Also guards the descriptor: a ring after close() must not write into another file.
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._fd

    def ring(self) -> None:
        """Wake the listener; any thread, never blocks, harmless after close()."""
        with self._lock:
            if self._rung or self._fd < 0:
                return
            self._rung = True
            os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        with self._lock:
            if self._rung:
                self._rung = False
                os.eventfd_read(self._fd)

    def wait(self, timeout_secs: float | None) -> None:
        """Sleep until a ring or the timeout, and clear."""
        poll = select.poll()
        poll.register(self._fd, READ)
        poll.poll(milliseconds(timeout_secs))
        self.clear()

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class Patience:
    """The deadline of everything up to an open connection; `stopping` cuts it short."""

    def __init__(self, secs: float, bell: Bell | None = None,
                 stopping: Callable[[], bool] = lambda: False) -> None:
        self._until = time.monotonic() + secs
        self._secs = secs
        self._bell = bell
        self._stopping = stopping

    def left_secs(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def over(self) -> bool:
        return self._stopping() or not self.left_secs()

    def share(self, tries: int) -> Patience:
        """For the next of so many tries."""
        return Patience(self.left_secs() / tries, self._bell, self._stopping)

    def wait(self, file: HasFileno, events: int) -> None:
        """Sleep until `file` is ready. Raises RelayError at the deadline or on stopping."""
        poll = select.poll()
        poll.register(file.fileno(), events)
        if self._bell is not None:
            poll.register(self._bell.fileno(), READ)
        while True:
            if self._stopping():
                raise RelayError("stopped while connecting")
            left = self.left_secs()
            if not left:
                raise RelayError(f"no answer within {self._secs:.3g} s")
            ready = {fd for fd, _ in poll.poll(milliseconds(left))}
            if self._bell is not None and self._bell.fileno() in ready:
                self._bell.clear()          # the caller looks at its inbox before it next sleeps
            if file.fileno() in ready:
                return


def milliseconds(secs: float | None) -> int | None:
    """For poll(): rounded up, so that a deadline has passed when poll() returns."""
    return None if secs is None else max(0, int(secs * 1000) + 1)
