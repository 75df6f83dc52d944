"""What the main thread waits on: signals and the wishes of other threads, in one descriptor.

A signal handler in Python may not set an Event (it can deadlock with a waiter), and a blocking
queue can miss a wake-up. So the interpreter writes each signal's number into a pipe, other
threads append to a list and write a zero, and the main thread selects on the pipe.
"""

from __future__ import annotations

import collections
import os
import select
import signal
import time
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Inbox:
    """Made, waited on and closed by the main thread; `post` is for every thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in SIGNALS}

    def post(self, work: Callable[[], None]) -> None:
        """Let the main thread run WORK soon."""
        self._posted.append(work)
        try:
            os.write(self._write, b"\0")
        except OSError:
            return                          # full: it is awake anyway; closed: nobody listens

    def wait(self, timeout_secs: float | None) -> tuple[list[int], list[Callable[[], None]]]:
        """Signals and posted work, as soon as there is any; nothing of both when time is up."""
        select.select([self._read], [], [], timeout_secs)
        numbers: list[int] = []
        try:
            numbers = [number for number in os.read(self._read, 4096) if number]
        except BlockingIOError:
            numbers = []
        works = []
        while self._posted:
            works.append(self._posted.popleft())
        return numbers, works

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        read, write, self._read, self._write = self._read, self._write, -1, -1
        os.close(read)
        os.close(write)


def _nothing(number: int, frame: object) -> None:
    """A handler must be there for the wake-up descriptor to be written."""


class Deadline:
    """A point of monotonic time that may be brought forward, when a second signal comes."""

    def __init__(self, secs: float) -> None:
        self.at = time.monotonic() + secs

    def left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    def skip(self) -> None:
        self.at = time.monotonic()
