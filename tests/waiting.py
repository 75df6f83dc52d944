"""The only place of the tests that sleeps: waiting until something becomes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECS = 0.002
LONGEST_PAUSE_SECS = 0.1


def wait_for(predicate: Callable[[], T], timeout_secs: float = 10, what: str = "") -> T:
    """Call `predicate` until it returns something true, and return that.

    AssertionError after `timeout_secs`, naming `what` (or the predicate) and its last value.
    """
    deadline = time.monotonic() + timeout_secs
    pause = FIRST_PAUSE_SECS
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            name = what or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"waited {timeout_secs} s for {name}; last value: {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECS)
