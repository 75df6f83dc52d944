"""What an agent may spend, as limits that the store enforces in the reserving transaction. Pure.

Per tick, per 24 hours, and never more than its account has. Zaps to the author of a trigger have a
cap of their own for each author.
"""

from __future__ import annotations

from pylon.host.agentfile import AgentFile
from pylon.store.spending import Cap, Limits
from pylon.units import MSATS_PER_SAT

INFER, ZAP, PAY = "infer", "zap", "pay_invoice"


def limits(agent: AgentFile, tick_id: str, action_msats: int | None = None,
           zapped_author: str | None = None) -> Limits:
    """For one payment of one tick."""
    caps = [Cap("over-tick-limit", agent.per_tick_limit_sats * MSATS_PER_SAT, None,
                scope=tick_id),
            Cap("over-day-limit", agent.daily_limit_sats * MSATS_PER_SAT)]
    if zapped_author is not None:
        caps.append(Cap("over-author-limit", agent.zap_author_daily_sats * MSATS_PER_SAT,
                        purposes=(ZAP,), counterparty=zapped_author))
    return Limits(action_msats=action_msats, caps=tuple(caps))
