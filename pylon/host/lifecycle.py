"""The life of an agent: which state its balance means, and what may wake it then. Pure.

Burn is what it really spent over the last 7 days; until there is a day of history, the file's
`daily_burn_sats`. No agent ever dies: dormant costs nothing, and money revives it.
"""

from __future__ import annotations

from typing import NamedTuple

from pylon.host.agentfile import AgentFile
from pylon.states import AgentState
from pylon.units import MSATS_PER_SAT

A = AgentState
DAY_SECS = 86400
HISTORY_DAYS = 7
OPERATIONAL = (A.ACTIVE, A.LOW_BALANCE)
SLOWER = 2                          # low on money: half as many heartbeats


class Runway(NamedTuple):
    """What an agent has, what it burns a day, and how long that lasts (None: for ever)."""

    balance_msats: int
    burn_msats: int
    measured: bool

    @property
    def days(self) -> float | None:
        return self.balance_msats / self.burn_msats if self.burn_msats else None

    def words(self) -> str:
        """'9.4 days left at 106 sats a day'."""
        if self.balance_msats <= 0:
            return "out of money"
        if self.days is None:
            return "lasts for ever: it spends nothing"
        how = "" if self.measured else " (assumed)"
        return f"{self.days:.1f} days left at {self.burn_msats // MSATS_PER_SAT} sats a day{how}"


def burn(agent: AgentFile, spent_msats: int, since_secs: int) -> tuple[int, bool]:
    """(msats a day, measured?) from what was spent in the last 7 days of `since_secs` alive."""
    if since_secs < DAY_SECS:
        return agent.daily_burn_sats * MSATS_PER_SAT, False
    return int(spent_msats * DAY_SECS / min(since_secs, HISTORY_DAYS * DAY_SECS)), True


def state_for(agent: AgentFile, runway: Runway) -> AgentState:
    """The state that a balance means."""
    balance = runway.balance_msats
    if balance <= 0:
        return A.DORMANT
    if balance < agent.hibernate_threshold_sats * MSATS_PER_SAT:
        return A.HIBERNATING
    if runway.days is not None and runway.days < agent.low_balance_days:
        return A.LOW_BALANCE
    return A.ACTIVE


def heartbeat_secs(agent: AgentFile, state: AgentState) -> int | None:
    """Seconds from one heartbeat to the next; None: none."""
    if not agent.active or state not in OPERATIONAL:
        return None
    return agent.heartbeat_seconds * (SLOWER if state == A.LOW_BALANCE else 1)


def may_wake(agent: AgentFile, state: AgentState, trigger: str) -> bool:
    """Whether this may cause a tick now. The owner wakes everybody who has a sat left."""
    if trigger == "manual":
        return state != A.DORMANT
    if trigger == "heartbeat":
        return heartbeat_secs(agent, state) is not None
    if trigger not in agent.triggers or not agent.active:
        return False
    return state in OPERATIONAL or (state == A.HIBERNATING and trigger == "zap")
