"""What is known of one backend: whether it works, what it has, how busy it is, when to look again.

Pure but for the clock. Its owner, the registry, calls everything here under its lock.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from pylon.backends.backend import Backend
from pylon.backends.completion import Model
from pylon.errors import BackendError, BackendRefused, BackendUnavailable
from pylon.log import Repeated

log = logging.getLogger(__name__)

RECHECK_SECS = 300.0                # models come and go; a failure shows at once anyway
TROUBLE_SECS = (2.0, 5.0, 15.0, 30.0, 60.0)     # between looks at a backend that is away
FAILURES_IN_A_ROW = 3               # then it rests, although it may answer when probed
REST_SECS = 30.0                    # doubled each time, until a completion succeeds
MAX_REST_SECS = 600.0

Change = tuple[str, dict[str, Any]]     # an event of the journal: type, data


class Place:
    """One backend in the registry."""

    def __init__(self, rank: int, backend: Backend) -> None:
        self.rank, self.backend = rank, backend
        self.models: dict[str, Model] = {}      # by name; kept while it is away
        self.available = False
        self.error = "not asked yet"
        self.look_at = 0.0                      # monotonic
        self.in_flight = 0
        self.warned = False                     # the owner knows that strangers can reach it
        self.told: tuple[bool, tuple[str, ...]] = (False, ())   # what `changes` said last
        self._work = 0.0                        # prompts taken, over the weight
        self._looks = 0                         # in vain, in a row
        self._failures = 0                      # of completions, in a row
        self._rest_secs = REST_SECS
        self._trouble = Repeated(log)

    def has(self, model: str) -> bool:
        return self.available and model in self.models

    def order(self) -> tuple[float, ...]:
        """The least goes first: by rank, then by load, then by share of the work so far."""
        return (self.rank, self.in_flight / self.backend.weight, self._work)

    def take(self) -> None:
        self.in_flight += 1
        self._work += 1 / self.backend.weight

    def give_back(self) -> None:
        self.in_flight -= 1

    def catch_up(self, peers: list[Place]) -> None:
        """Back after a while: it must not get all the work it has missed."""
        self._work = max([self._work, *(peer._work for peer in peers if peer.available)])

    def succeeded(self) -> None:
        self._failures, self._rest_secs = 0, REST_SECS
        self._trouble.over("backend %s: completes again", self.backend.id)

    def failed(self, err: BackendError) -> None:
        """Leave it alone for a while when it is away, or fails again and again."""
        self._trouble.failed("backend %s: %s", self.backend.id, err)
        self.look_at = time.monotonic()         # a refusal may mean that it has lost the model
        if isinstance(err, BackendRefused):
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._leave_alone(str(err), self._rest_secs)
            self._rest_secs = min(2 * self._rest_secs, MAX_REST_SECS)
        elif isinstance(err, BackendUnavailable):
            self._looks = 0
            self._leave_alone(str(err), TROUBLE_SECS[0])

    def is_there(self, models: list[Model]) -> None:
        """A probe found it."""
        if not self.available:
            self._failures = min(self._failures, FAILURES_IN_A_ROW - 1)
        self.models = {model.name: model for model in models}
        self.available, self._looks = True, 0
        self.look_at = time.monotonic() + RECHECK_SECS

    def is_away(self, why: str) -> None:
        """A probe did not find it."""
        self._leave_alone(why, TROUBLE_SECS[min(self._looks, len(TROUBLE_SECS) - 1)])
        self._looks += 1

    def _leave_alone(self, why: str, secs: float) -> None:
        self.available, self.error = False, why
        self.look_at = time.monotonic() + secs

    def changes(self) -> list[Change]:
        """The events between what was told before and what is so now."""
        (was_there, had), models = self.told, tuple(self.models)
        self.told = (self.available, models)
        data: dict[str, Any] = {"backend_id": self.backend.id}
        if not self.available:
            return [("BackendUnavailable", {**data, "reason": self.error})] if was_there else []
        events: list[Change] = [] if was_there else [("BackendAvailable", data)]
        if models != had or not was_there:
            events.append(("ModelsRefreshed", {**data, "models": list(models)}))
        return events

    def state(self) -> dict[str, Any]:
        """What `pylon status` and `pylon compute` show."""
        backend = self.backend
        return {"id": backend.id, "type": backend.type, "url": backend.url,
                "available": self.available, "error": None if self.available else self.error,
                "models": list(self.models) if self.available else [],
                "in_flight": self.in_flight, "weight": backend.weight}
