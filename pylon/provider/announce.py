"""Announcements: what this node serves (NIP-89, kind 31990), that it lives (kind 11998), and
where it reads and writes (NIP-65, kind 10002).

Runs in the thread announcer. Waits until the next heartbeat is due, or until it is rung because
what is served has changed. `withdraw` is called once, at a graceful stop.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Callable

from pylon.nostr import nip65, nip89
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.provider import pricing
from pylon.role import Role
from pylon.store import meta, outbox
from pylon.store.database import Database

log = logging.getLogger(__name__)

D_TAG = "pylon"
REPUBLISH_SECS = 86400
KEEP_SECS = 2 * 86400


class Announcer(Role):
    """Publishes what is on offer when it changes and once a day, and a heartbeat in between."""

    def __init__(self, db: Database, keys: Keys, config: Any, registry: Any,
                 publish: Callable[[Event, list[str]], None], ring: Callable[[], None]) -> None:
        super().__init__("announcer")
        self._db, self._keys, self._config, self._registry = db, keys, config, registry
        self._publish, self._ring = publish, ring
        self._announced: tuple[Any, ...] = ()       # what the relays were told last
        self._announced_at = 0
        self._beat_at = 0

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def step(self, now: int) -> None:
        offer = self._offer()
        if offer != self._announced or now - self._announced_at >= REPUBLISH_SECS:
            self._announce(now)
            self._announced, self._announced_at = offer, now
        period = self._config.provider.heartbeat_secs
        if now - self._beat_at >= period:
            self._publish(nip89.heartbeat(self._keys, D_TAG, now, now + period), [])
            self._beat_at = now
        self.wait(max(1, self._beat_at + period - now))

    def _offer(self) -> tuple[Any, ...]:
        models = tuple(sorted(model.name for model in self._registry.models()))
        return (models, self._config.name, self._config.description, self._config.min_price_msats,
                tuple(self._config.provider.kinds), tuple(self._config.relays))

    def _announce(self, now: int) -> None:
        models = sorted(model.name for model in self._registry.models())
        free = not self._config.require_payment
        prices = {name: 0 if free else pricing.rate_for(self._config, name).price(0, 0, False)
                  for name in models}
        facts = nip89.Announcement(
            d=D_TAG, name=self._config.name, about=self._config.description or "",
            kinds=list(self._config.provider.kinds), models=models, prices_msats=prices,
            network=self._config.network, relays=list(self._config.relays))
        created_at = self._later_than_last(now)
        events = {"announcement": nip89.build(self._keys, facts, created_at),
                  "relay-list": nip65.build_relay_list(self._keys, list(self._config.relays),
                                                       created_at)}
        with self._db.transaction(durable=False) as tx:
            for purpose, event in events.items():
                outbox.withdraw(tx, purpose, D_TAG)
                outbox.add(tx, event, purpose, D_TAG, [], now, now + KEEP_SECS)
            meta.put(tx, "announced_at", json.dumps(created_at))
        log.info("announced %d kinds and %d models", len(self._config.provider.kinds), len(models))
        self._ring()

    def _later_than_last(self, now: int) -> int:
        """Replaceable events of the same second tie; force the date to grow."""
        return max(now, int(meta.get(self._db, "announced_at") or 0) + 1)

    def withdraw(self, now: int) -> None:
        """Take the announcement back (NIP-09); the relays get it if they answer in time."""
        if self._announced:
            with self._db.transaction(durable=False) as tx:
                outbox.withdraw(tx, "announcement", D_TAG)
            self._publish(nip89.withdraw(self._keys, D_TAG, self._later_than_last(now)), [])
