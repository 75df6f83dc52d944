"""The thread wrapper: a role has a name, `step(now)`, and an owner who starts, stops and joins it.

One wrapper owns the loop, the catch-all, the back-off and the stop flag, so that a test calls
`role.step(now=1000)` with fakes and no thread. Waiting is on a doorbell that never loses a ring;
nothing polls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pylon.log import Repeated

log = logging.getLogger(__name__)

BACKOFF_FIRST_SECS = 1.0
BACKOFF_MAX_SECS = 60.0


class Role:
    """Subclasses write `step`; it does one piece of work and, with nothing to do, waits."""

    max_step_secs: float | None = None      # a longer step counts as stuck; None: may take for ever

    def __init__(self, name: str) -> None:
        self.name = name
        self.last_step_at = time.monotonic()    # written by the role's thread
        self._thread: threading.Thread | None = None
        self._bell = threading.Condition()
        self._rung = False                      # guarded by _bell
        self._stopping = False                  # guarded by _bell; never goes back
        self._resting = 0                       # >0 while the thread waits for something to do
        self._step_trouble = Repeated(log, logging.ERROR)

    # -- for the subclass --

    def step(self, now: int) -> None:
        """One iteration at wall-clock time NOW. Runs in the role's thread."""
        raise NotImplementedError

    def leave(self) -> None:
        """Close what the role's thread holds; runs there, after the last step."""

    def wait(self, timeout_secs: float | None) -> bool:
        """Rest until somebody rings, the role is stopped, or time is up. True after a ring."""
        with self._bell, self.resting():
            self._bell.wait_for(lambda: self._rung or self._stopping, timeout_secs)
            rung, self._rung = self._rung, False
            return rung

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Around any other way of waiting for work, so that the watchdog knows it is no hang."""
        self._resting += 1
        try:
            yield
        finally:
            self._resting -= 1
            self.last_step_at = time.monotonic()

    @property
    def stopping(self) -> bool:
        return self._stopping

    # -- for the owner and other threads --

    def start(self) -> None:
        self.last_step_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ring the doorbell. Any thread; cheap; a ring before the wait is not lost."""
        if self._rung:
            return                          # it has not been answered yet
        with self._bell:
            self._rung = True
            self._bell.notify_all()

    def stop(self) -> None:
        """Ask the role to end; does not wait."""
        with self._bell:
            self._stopping = True
            self._bell.notify_all()
        self.wake()

    def join(self, timeout_secs: float | None = None) -> bool:
        """Wait for the thread's end; False when it still runs."""
        if self._thread is None:
            return True
        self._thread.join(timeout_secs)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stuck_secs(self) -> float:
        """How much longer than allowed the present step takes; 0 when all is well."""
        if self.max_step_secs is None or self._resting or not self.alive:
            return 0.0
        return max(0.0, time.monotonic() - self.last_step_at - self.max_step_secs)

    # -- the wrapper --

    def _run(self) -> None:
        pause = BACKOFF_FIRST_SECS
        while not self._stopping:
            self.last_step_at = time.monotonic()
            try:
                self.step(int(time.time()))
            except BaseException as err:        # a role never dies silently
                self._tell(err)
                self._pause(pause)
                pause = min(pause * 2, BACKOFF_MAX_SECS)
            else:
                self._step_trouble.over("%s: works again", self.name)
                pause = BACKOFF_FIRST_SECS
        try:
            self.leave()
        except Exception:
            log.exception("%s: could not end cleanly", self.name)

    def _tell(self, err: BaseException) -> None:
        if self._step_trouble.count == 0:
            log.error("%s: unexpected failure; going on after a pause", self.name, exc_info=err)
        self._step_trouble.failed("%s: %s: %s", self.name, type(err).__name__, err)

    def _pause(self, secs: float) -> None:
        """Only a stop ends a back-off; a ring stays rung for the next wait."""
        with self._bell, self.resting():
            self._bell.wait_for(lambda: self._stopping, secs)
