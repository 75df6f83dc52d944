"""The housekeeper: once an hour, ends what can't be delivered any more and forgets what is old.

Thread: housekeeper. Waits an hour at a time; stopped by the daemon.
"""

from __future__ import annotations

import logging
from typing import Any

from pylon.log import short
from pylon.nostr.keys import Keys
from pylon.provider.payments import stored_event
from pylon.provider.worker import give_up
from pylon.role import Role
from pylon.store import retention
from pylon.store.database import Database

log = logging.getLogger(__name__)

PERIOD_SECS = 3600


class Housekeeper(Role):
    """Keeps the store small and its promises ended."""

    def __init__(self, db: Database, keys: Keys, config: Any) -> None:
        super().__init__("housekeeper")
        self._db, self._keys, self._config = db, keys, config

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def step(self, now: int) -> None:
        for job in retention.undelivered(self._db, now):
            log.error("job %s: no relay took its result", short(job.id))
            give_up(self._db, self._keys, job, stored_event(job), "undelivered",
                    "no relay took the result in time", now)
        done = retention.prune(self._db, self._config, now)
        if any(done.values()):
            log.info("pruned %s", ", ".join(f"{n} {name}" for name, n in done.items() if n))
        self.wait(PERIOD_SECS)
