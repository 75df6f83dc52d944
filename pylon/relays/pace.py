"""How fast: the pause before connecting again, and what one relay may use up. Pure; monotonic."""

from __future__ import annotations

import random

FIRST_PAUSE_SECS = 1.0
HEALTHY_SECS = 60.0                 # a connection that lived this long was a good one
PENALTY_STEPS = 6                   # a relay that misbehaved waits as after six failures more


class Backoff:
    """Full jitter: a random pause of up to 1 s, 2 s, 4 s, ... so that clients do not return in
    step. Only a connection that lived for a minute brings it back to the start."""

    def __init__(self, longest_secs: float, draw: random.Random | None = None) -> None:
        self.longest_secs = longest_secs
        self.failures = 0
        self._draw = draw or random.Random()

    def failed(self, lived_secs: float, penalty: bool = False) -> float:
        """The connection is gone after so many seconds; how long to pause."""
        if lived_secs >= HEALTHY_SECS:
            self.failures = 0
        ceiling = min(self.longest_secs, FIRST_PAUSE_SECS * 2.0 ** min(self.failures, 30))
        self.failures += 1
        if penalty:
            self.failures += PENALTY_STEPS
            ceiling = min(self.longest_secs, FIRST_PAUSE_SECS * 2.0 ** min(self.failures, 30))
            return self._draw.uniform(ceiling / 2, ceiling)
        return self._draw.uniform(0.0, ceiling)


class Bucket:
    """Tokens that refill at a steady rate up to `size`; spending may overdraw it once."""

    def __init__(self, rate: float, size: float, mono: float) -> None:
        self.rate = rate
        self.size = size
        self._left = size
        self._at = mono

    def spend(self, cost: float, mono: float) -> bool:
        """Take `cost`; False when the bucket is overdrawn by it."""
        self._refill(mono)
        self._left -= cost
        return self._left >= 0

    def empty_until(self, mono: float) -> float | None:
        """Monotonic time at which there is something again; None when there is."""
        self._refill(mono)
        return None if self._left >= 0 else mono - self._left / self.rate

    def _refill(self, mono: float) -> None:
        self._left = min(self.size, self._left + (mono - self._at) * self.rate)
        self._at = mono
