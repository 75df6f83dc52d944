"""The host: the facade that owns the roles of host mode.

Built by the daemon after the customer and the provider; the desk serves the owner's commands over
it. Without a cage for runners and without the owner's leave, no tick ever runs, and it says why.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pylon.config import Config
from pylon.customer.customer import Customer
from pylon.errors import PylonError, Refused
from pylon.home import Home
from pylon.host import cage, public, think
from pylon.host.agentfile import AgentFile
from pylon.host.ears import Ears
from pylon.host.hands import Hands
from pylon.host.registry import Registry
from pylon.host.scheduler import Scheduler, Ticker
from pylon.host.think import Thinker
from pylon.host.tick import Errand, Listener, Ticks
from pylon.nostr import nip19
from pylon.nostr.keys import Keys
from pylon.relays.pool import Pool
from pylon.role import Role
from pylon.store import agents, books
from pylon.store.database import Database
from pylon.wallets.payer import Payer

log = logging.getLogger(__name__)


class Host:
    """All agents of a node. `sells()`: whether the own provider would answer now."""

    def __init__(self, home: Home, db: Database, config: Config, registry: Registry, keys: Keys,
                 pool: Pool, payer: Payer, customer: Customer, backends: Any,
                 ring: Callable[[], None], on_invoice: Callable[[], None],
                 sells: Callable[[], bool]) -> None:
        self.home, self.db, self.registry = home, db, registry
        self._config, self._pool, self._ring, self._customer = config, pool, ring, customer
        self.no_cage = cage.probe()
        self.thinker = Thinker(db, lambda: self._config, backends, customer.orders, keys.pubkey,
                               sells)
        self.hands = Hands(db, pool, payer, config.network, ring, on_invoice, self._owner)
        self.ticks = Ticks(db, pool, self.thinker, self.hands, ring, self.log_file,
                           confined=self.no_cage is None)
        self._errands: deque[Errand] = deque()
        self.scheduler = Scheduler(db, registry, self._errands, self._ring_tickers,
                                   lambda: self._config.host.auto_start_agents and self.able)
        self.ears = Ears(db, registry, pool, self.scheduler.heard)
        self._tickers = [Ticker(f"tick-{number}", self._errands, self.scheduler, self.ticks,
                                registry, db)
                         for number in range(1, config.host.max_concurrent_ticks + 1)]

    @property
    def able(self) -> bool:
        """Whether ticks run at all: confined, or by the owner's leave."""
        return self.no_cage is None or bool(self._config.host.unconfined_ok)

    def explain_cage(self) -> str | None:
        """Why no tick runs, in words; None when they do."""
        if self.able:
            return None
        return (f"agents do not run: {self.no_cage}; to run them unconfined all the same: "
                "[host] unconfined_ok = true")

    # -- for the daemon --

    @property
    def roles(self) -> list[Role]:
        return [self.scheduler, self.ears, *self._tickers]

    def start(self) -> None:
        now = int(time.time())
        agents.interrupt_ticks(self.db, now)
        think.recover(self.db, now)
        for agent in self.registry.all():
            self.settle_in(agent, now)
        why = self.explain_cage()
        if why:
            log.error("%s", why)
        for role in self.roles:
            role.start()
        self.ears.listen()

    def stop(self, timeout_secs: float) -> None:
        """Runners end at once; what their ticks did stays done."""
        until = time.monotonic() + timeout_secs
        for role in self.roles:
            role.stop()
        self.ticks.abort()
        for role in self.roles:
            role.join(max(0.1, until - time.monotonic()))

    def reload(self, config: Config) -> None:
        self._config = config
        self.registry.scan()
        for agent in self.registry.all():
            self.settle_in(agent, int(time.time()))
        self.ears.listen()
        self.scheduler.wake()

    def facts(self) -> dict[str, Any]:
        rows = agents.everybody(self.db)
        return {"agents": len(rows), "ticking": self.scheduler.running(),
                "awake": sum(row.state in ("active", "low_balance") and not row.paused
                             for row in rows),
                "approvals": len(agents.approvals(self.db)), "trouble": self.explain_cage()}

    # -- for the desk --

    def settle_in(self, agent: AgentFile, now: int) -> None:
        """Know an agent's file: its row, its account, its way to its keys, its events."""
        with self.db.transaction(durable=True) as tx:
            agents.add(tx, agent.npub, agent.name, now, now)
        npub = agent.npub
        self._customer.add_account(
            books.agent_account(npub), lambda: self.registry.keys(npub),
            lambda order: self.thinker.terms(self.registry.get(npub), order))
        row = agents.get(self.db, npub)
        if row is not None and row.published_at is None:
            self.introduce(agent, now)

    def introduce(self, agent: AgentFile, now: int) -> None:
        """Tell relays who it is, again."""
        try:
            keys = self.registry.keys(agent.npub)
        except PylonError as err:
            log.warning("agent %s: not published: %s", agent.name, err)
            return
        with self.db.transaction(durable=False) as tx:
            public.introduce(tx, agent, keys, self._pool.own_urls(), now)
        self._ring()

    def changed(self, agent: AgentFile, now: int) -> None:
        """Its settings are others."""
        self.introduce(agent, now)
        self.ears.listen()
        self.scheduler.look(agent.npub)

    def tick_now(self, npub: str, listener: Listener | None) -> None:
        """Raises Refused."""
        why = self.explain_cage()
        if why:
            raise Refused("no-cage", why)
        self.scheduler.wish(npub, listener)

    def log_file(self, agent: AgentFile) -> Path:
        place = self._config.host.agent_log_dir
        directory = Path(place).expanduser() if place else self.home.agents
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / f"{agent.npub}.log"

    def _owner(self) -> str | None:
        npub = self._config.owner.npub
        return nip19.decode_pubkey(npub) if npub else None

    def _ring_tickers(self) -> None:
        for ticker in self._tickers:
            ticker.wake()
