"""Going into the background, and telling the starter the truth about it.

`start` forks twice before any thread, socket or database connection exists. The grandchild
becomes the daemon and writes one message into a pipe: that it answers, or why it never will. The
starter waits for that message, or for the pipe to close, which says that the daemon died.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from pylon.errors import EXIT_FAILED

READY_TIMEOUT_SECS = 60.0
_MAX_REPORT_BYTES = 65536


class Outcome(NamedTuple):
    """What became of a start: 0 and the daemon's pid, or an exit status and the reason."""

    status: int
    text: str
    pid: int = 0


class Report:
    """The daemon's end of the pipe; in the foreground there is none and both methods are mute."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd

    def ready(self) -> None:
        self._send(f"0 {os.getpid()}\n")

    def failed(self, status: int, reason: str) -> None:
        self._send(f"{status} {os.getpid()}\n{reason}")

    def _send(self, text: str) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.write(fd, text.encode("utf-8", "backslashreplace")[:4000])   # atomic below PIPE_BUF
        except BrokenPipeError:
            text = ""                       # the starter gave up; the log has it all
        finally:
            os.close(fd)


def into_background(serve: Callable[[Report], int]) -> Outcome:
    """Run SERVE in a daemon process; returns in the starter once SERVE has reported."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become_daemon(read_fd, write_fd, serve)        # never returns
    os.close(write_fd)
    os.waitpid(child, 0)
    try:
        return _await_report(read_fd)
    finally:
        os.close(read_fd)


def _become_daemon(read_fd: int, write_fd: int, serve: Callable[[Report], int]) -> None:
    status = EXIT_FAILED
    try:
        os.close(read_fd)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        _cut_loose(write_fd)
        status = serve(Report(write_fd))
    finally:
        os._exit(status)                # no atexit, no buffers: those belong to the starter


def _cut_loose(keep_fd: int) -> None:
    """Standard streams to /dev/null and every other inherited descriptor closed, so that nobody
    waits for the end of a pipe that we hold."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    limit = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep_fd)
    os.closerange(keep_fd + 1, limit if limit > 0 else 65536)


def _await_report(read_fd: int) -> Outcome:
    deadline = time.monotonic() + READY_TIMEOUT_SECS
    data = b""
    while len(data) < _MAX_REPORT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([read_fd], [], [], left)[0]:
            return Outcome(EXIT_FAILED, f"the daemon is not ready after {READY_TIMEOUT_SECS:g} s "
                                        "and still starting; see: pylon logs")
        chunk = os.read(read_fd, 4096)
        if not chunk:
            break
        data += chunk
    return _parse_report(data.decode("utf-8", "replace"))


def _parse_report(text: str) -> Outcome:
    head, _, reason = text.partition("\n")
    words = head.split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return Outcome(EXIT_FAILED, "the daemon died before it was ready; see: pylon logs")
    return Outcome(int(words[0]), reason, int(words[1]))


def fill_standard_fds() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed, lest a socket or the database take
    its number and be written to by a print."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)          # takes the lowest free number: fd
