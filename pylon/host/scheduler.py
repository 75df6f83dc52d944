"""The scheduler: whose turn it is. And the tickers, the threads that run the turns.

Threads: scheduler, tick-1..n. The scheduler waits for its next due time or a ring; times run on
the monotonic clock, with jitter, so that a boot does not wake everybody at once and a clock that
jumps wakes nobody. It alone moves agents through their lives.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pylon.errors import PylonError
from pylon.host import lifecycle
from pylon.host.agentfile import AgentFile
from pylon.host.lifecycle import Runway
from pylon.host.registry import Registry
from pylon.host.tick import Errand, Listener, Ticks
from pylon.role import Role
from pylon.states import AgentState, TickState
from pylon.store import agents, books, spending
from pylon.store.agents import AgentRow
from pylon.store.database import Database

log = logging.getLogger(__name__)

LOOK_SECS = 60.0                    # how often a life is looked at when nobody rings
JITTER = 0.1                        # of a heartbeat
GATHER_SECS = 2.0                   # triggers that come together are one tick
MIN_GAP_SECS = 5.0                  # from one tick's end to the next trigger's tick
BACKOFF_FIRST_SECS, BACKOFF_MAX_SECS = 60, 3600
QUARANTINE_AFTER, QUARANTINE_SECS = 5, 6 * 3600
TRIGGERS_PER_TICK = 5
WEEK = spending.Cap("", 0, lifecycle.HISTORY_DAYS * lifecycle.DAY_SECS)


@dataclass(slots=True)
class Turn:
    """What the scheduler knows of one agent; monotonic times."""

    beat_at: float | None = None    # the next heartbeat
    look_at: float = 0.0            # the next look at its life
    free_at: float = 0.0            # not before this: back-off, quarantine, gap
    trigger_at: float | None = None     # something waits for it since then (and its gathering)
    period: int | None = None       # the heartbeat that `beat_at` was made for
    running: bool = False


class Scheduler(Role):
    """`errands` is the queue of the tickers; `rings` wakes one of them."""

    def __init__(self, db: Database, registry: Registry, errands: deque[Errand],
                 ring_tickers: Callable[[], None], auto_start: Callable[[], bool],
                 steady: Callable[[], float] = time.monotonic,
                 chance: Callable[[], float] = random.random) -> None:
        super().__init__("scheduler")
        self._db, self._registry, self._errands = db, registry, errands
        self._ring_tickers, self._auto_start = ring_tickers, auto_start
        self._steady, self._chance = steady, chance
        self._turn = threading.Lock()               # guards the two below
        self._turns: dict[str, Turn] = {}
        self._wishes: deque[Errand] = deque()       # of the owner: `agent tick`

    # -- for other threads --

    def look(self, npub: str) -> None:
        """Something changed for this agent: money, a trigger, its settings."""
        with self._turn:
            turn = self._turns.setdefault(npub, Turn())
            turn.look_at = 0.0
        self.wake()

    def heard(self, npub: str) -> None:
        """A trigger is stored for this agent."""
        with self._turn:
            turn = self._turns.setdefault(npub, Turn())
            if turn.trigger_at is None:
                turn.trigger_at = self._steady() + GATHER_SECS
        self.wake()

    def wish(self, npub: str, listener: Listener | None) -> None:
        """The owner wants a tick now."""
        self._wishes.append(Errand(npub, "manual", (), listener))
        self.wake()

    def ended(self, npub: str, state: TickState) -> None:
        """A ticker is done with this agent: count failures, and let it rest."""
        now = int(time.time())
        with self._turn:
            turn = self._turns.setdefault(npub, Turn())
            turn.running = False
            turn.look_at = 0.0
            turn.free_at = self._steady() + self._record(npub, state, now)
            if turn.period:
                turn.beat_at = self._steady() + self._jittered(turn.period)
        self.wake()

    def _record(self, npub: str, state: TickState, now: int) -> float:
        """Seconds until the next tick may be."""
        row = agents.get(self._db, npub)
        if row is None or state == TickState.SUCCEEDED:
            if row is not None and (row.crashes or row.trouble):
                with self._db.transaction(durable=False) as tx:
                    agents.update(tx, npub, now, crashes=0, trouble=None, quarantined_until=None)
            return MIN_GAP_SECS
        crashes = row.crashes + 1
        last = agents.ticks(self._db, npub, 1)
        why = last[0]["reason"] if last else "the tick failed"
        pause, until = min(BACKOFF_FIRST_SECS * 2 ** (crashes - 1), BACKOFF_MAX_SECS), None
        if crashes >= QUARANTINE_AFTER:
            pause, until = QUARANTINE_SECS, now + QUARANTINE_SECS
            log.error("agent %s: quarantined after %d failed ticks: %s", row.name, crashes, why)
        with self._db.transaction(durable=False) as tx:
            agents.update(tx, npub, now, crashes=crashes, quarantined_until=until,
                          trouble=f"{crashes} ticks in a row failed; the last: {why}")
        return pause

    def running(self) -> int:
        with self._turn:
            return sum(turn.running for turn in self._turns.values())

    def is_running(self, npub: str) -> bool:
        with self._turn:
            turn = self._turns.get(npub)
            return turn is not None and turn.running

    # -- the role --

    def step(self, now: int) -> None:
        mono = self._steady()
        agents.expire_approvals(self._db, now)
        due_at = [mono + LOOK_SECS]
        while self._wishes:
            self._grant(self._wishes.popleft(), mono)
        for agent in self._registry.all():
            with self._turn:
                turn = self._turns.setdefault(agent.npub, Turn())
            due_at.append(self._consider(agent, turn, now, mono))
        self.wait(max(0.0, min(due_at) - self._steady()))

    def _grant(self, wish: Errand, mono: float) -> None:
        """The owner's word goes before back-off and quarantine, not before money."""
        row = agents.get(self._db, wish.npub)
        with self._turn:
            turn = self._turns.setdefault(wish.npub, Turn())
            if row is None or turn.running or row.state == AgentState.DORMANT:
                why = "it is in a tick already" if turn.running else "it has no money"
                if wish.listener is not None:
                    wish.listener({"event": "ended", "state": "refused", "reason": why})
                return
            turn.running = True
        self._errands.append(wish)
        self._ring_tickers()

    def _consider(self, agent: AgentFile, turn: Turn, now: int, mono: float) -> float:
        """Look at one agent; when to look again."""
        if turn.running:
            return mono + LOOK_SECS
        if mono >= turn.look_at:
            self._live(agent, turn, now, mono)
        row_free = mono >= turn.free_at
        due = [turn.look_at]
        if turn.trigger_at is not None:
            if mono >= turn.trigger_at and row_free:
                turn.trigger_at = None
                if self._start_triggered(agent, turn, now):
                    return mono + LOOK_SECS
            else:
                due.append(max(turn.trigger_at, turn.free_at))
        if turn.beat_at is not None:
            if mono >= turn.beat_at and row_free:
                self._start(agent, turn, Errand(agent.npub, "heartbeat"), mono)
                return mono + LOOK_SECS
            due.append(max(turn.beat_at, turn.free_at))
        return min(due)

    def _live(self, agent: AgentFile, turn: Turn, now: int, mono: float) -> None:
        """Money decides the state, the state the heartbeat."""
        row = agents.get(self._db, agent.npub)
        if row is None:
            turn.look_at = mono + LOOK_SECS
            return
        runway = self.runway(agent, now)
        state = lifecycle.state_for(agent, runway)
        if state != row.state:
            with self._db.transaction(durable=False) as tx:
                agents.advance(tx, agent.npub, state, {
                    "balance_msats": runway.balance_msats, "runway": runway.words()}, now)
            log.info("agent %s: %s: %s", agent.name, state, runway.words())
        if turn.look_at == 0.0 and row.quarantined_until and row.quarantined_until > now:
            turn.free_at = max(turn.free_at, mono + row.quarantined_until - now)
        turn.look_at = mono + LOOK_SECS
        awake = self._auto_start() and not row.paused
        period = lifecycle.heartbeat_secs(agent, state) if awake else None
        if period != turn.period:
            first = turn.period is None and row.next_tick_at is not None
            rest = min(max(0, (row.next_tick_at or 0) - now), period or 0) if first else period
            turn.period = period
            turn.beat_at = mono + self._jittered(rest or 0) if period else None
        if turn.trigger_at is None and awake and agents.waiting_triggers(self._db, agent.npub, 1):
            turn.trigger_at = mono
        self._note_next(row, turn, now, mono)

    def _note_next(self, row: AgentRow, turn: Turn, now: int, mono: float) -> None:
        """For people, and for the next boot."""
        next_at = now + int(turn.beat_at - mono) if turn.beat_at is not None else None
        if (next_at is None) != (row.next_tick_at is None) or \
                abs((next_at or 0) - (row.next_tick_at or 0)) > 2:
            with self._db.transaction(durable=False) as tx:
                agents.update(tx, row.npub, now, next_tick_at=next_at)

    def _start_triggered(self, agent: AgentFile, turn: Turn, now: int) -> bool:
        row = agents.get(self._db, agent.npub)
        waiting = agents.waiting_triggers(self._db, agent.npub, TRIGGERS_PER_TICK)
        if row is None or not waiting or row.paused or not self._auto_start():
            return False
        able = [one for one in waiting if lifecycle.may_wake(agent, row.state, one["kind"])]
        if len(able) < len(waiting):
            kinds = tuple({one["kind"] for one in waiting} - {one["kind"] for one in able})
            with self._db.transaction(durable=False) as tx:
                agents.drop_waiting(tx, agent.npub, f"state-{row.state}", kinds)
        if not able:
            return False
        self._start(agent, turn, Errand(agent.npub, able[0]["kind"], tuple(able)),
                    self._steady())
        return True

    def _start(self, agent: AgentFile, turn: Turn, errand: Errand, mono: float) -> None:
        with self._turn:
            turn.running = True
        self._errands.append(errand)
        self._ring_tickers()

    def _jittered(self, secs: float) -> float:
        return secs * (1 + JITTER * (2 * self._chance() - 1))

    def runway(self, agent: AgentFile, now: int) -> Runway:
        """What it has and what it burns."""
        account = books.agent_account(agent.npub)
        balance = books.balance(self._db, account)
        first = agents.first_tick_at(self._db, agent.npub)
        alive = max(0, now - first) if first is not None else 0
        burnt = spending.spent(self._db, account, WEEK, now) if alive else 0
        return Runway(balance, *lifecycle.burn(agent, burnt, alive))


class Ticker(Role):
    """Runs one tick after the other."""

    def __init__(self, name: str, errands: deque[Errand], scheduler: Scheduler, ticks: Ticks,
                 registry: Registry, db: Database) -> None:
        super().__init__(name)
        self._errands, self._scheduler, self._ticks = errands, scheduler, ticks
        self._registry, self._db = registry, db

    def step(self, now: int) -> None:
        try:
            errand = self._errands.popleft()
        except IndexError:
            self.wait(None)
            return
        state = TickState.FAILED
        try:
            state = self._tick(errand, now)
        finally:
            self._scheduler.ended(errand.npub, state)

    def _tick(self, errand: Errand, now: int) -> TickState:
        agent, row = self._registry.get(errand.npub), agents.get(self._db, errand.npub)
        try:
            if agent is None or row is None:
                raise PylonError("the agent is gone")
            keys = self._registry.keys(agent.npub)
            return self._ticks.run(errand, agent, keys, row, self._scheduler.runway(agent, now))
        except PylonError as err:
            log.warning("agent %s: no tick: %s", agent.name if agent else errand.npub, err)
            if errand.listener is not None:
                errand.listener({"event": "ended", "state": "failed", "reason": str(err)})
            return TickState.FAILED
