"""Named points at which a test may kill the process or make a write fail.

Armed only by PYLON_FAILPOINT="NAME:ACTION[:NTH]" in the environment of a test; otherwise `hit`
costs one comparison. PYLON_FAILPOINT_MARK names a file that is made when the point is reached, so
that the test can tell that it was.

The names are the kill points of the crash matrix (K1..K16, A1..A8).
A leaf: imports nothing of the project.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading

ACTIONS = ("kill", "raise", "enospc", "eio")


class FailpointReached(RuntimeError):
    """The exception that an armed `raise` point throws."""


class _Armed:
    def __init__(self, spec: str) -> None:
        self.name, self.action, nth = (spec.split(":") + ["1"])[:3]
        if self.action not in ACTIONS:
            raise ValueError(f"PYLON_FAILPOINT {spec!r}: the action is one of {ACTIONS}")
        self.left = int(nth)
        self.lock = threading.Lock()

    def due(self, name: str) -> bool:
        if name != self.name:
            return False
        with self.lock:
            self.left -= 1
            return self.left == 0

    def fire(self) -> None:
        mark = os.environ.get("PYLON_FAILPOINT_MARK")
        if mark:
            open(mark, "w", encoding="ascii").close()
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "enospc":
            raise sqlite3.OperationalError("database or disk is full")
        if self.action == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        raise FailpointReached(self.name)


_armed = _Armed(os.environ["PYLON_FAILPOINT"]) if "PYLON_FAILPOINT" in os.environ else None


def hit(name: str) -> None:
    """Do what the armed test asked for at this point; normally nothing."""
    if _armed is not None and _armed.due(name):
        _armed.fire()
