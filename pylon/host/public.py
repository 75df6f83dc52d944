"""What the world sees of an agent: NIP-SA, its profile, and where to reach it.

Ticks and trajectories are public: what was private is not in them. Texts of messages, prompts and
answers are left out or replaced by their length; a hash of a short private text would give it
away, so there is none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from pylon import __version__
from pylon.host.agentfile import AgentFile
from pylon.nostr import nip65, nipsa
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.store import agents, outbox
from pylon.store.agents import AgentRow

PROFILE = 0
KEEP_SECS = 86400
GOAL_FIELDS = frozenset({"id", "description", "priority", "created_at", "status", "progress"})
PUBLIC_ACTIONS = ("post", "none", "add_memory", "update_goal")  # others have a recipient


def introduce(tx: sqlite3.Connection, agent: AgentFile, keys: Keys, own_relays: Sequence[str],
              now: int) -> None:
    """Profile, schedule and relay lists into the outbox, in place of older ones."""
    relays = agent.relays or list(own_relays)
    about = {"name": agent.name, "about": agent.about, "bot": True}
    about |= {name: value for name, value in (("picture", agent.picture),
                                              ("lud16", agent.lud16)) if value}
    events = {
        "profile": keys.sign(PROFILE, json.dumps(about, ensure_ascii=False), [], now),
        "relays": nip65.build_relay_list(keys, relays, now),
        "dm-relays": nip65.build_dm_relays(keys, relays, now),
        "sa-profile": nipsa.profile(keys, agent.name, agent.about, agent.capabilities,
                                    agent.autonomy, agent.version or __version__, now,
                                    agent.picture, agent.lud16),
        "sa-schedule": nipsa.schedule(keys, agent.heartbeat_seconds, agent.triggers, now,
                                      agent.active)}
    for name, event in events.items():
        _replace(tx, event, f"agent-{name}", agent, now)
    agents.update(tx, agent.npub, now, published_at=now)


def state(tx: sqlite3.Connection, agent: AgentFile, keys: Keys, row: AgentRow,
          balance_msats: int, now: int) -> None:
    """The encrypted backup of goals and memory; the store stays the authority."""
    memory = row.memory
    while memory and len(json.dumps(memory, ensure_ascii=False)) > 24_000:
        memory = memory[len(memory) // 2 + 1:]
    content = {"goals": row.goals, "memory": memory, "pending_tasks": [], "beliefs": {},
               "wallet_balance_sats": balance_msats // 1000, "last_tick": row.last_tick_at,
               "tick_count": row.tick_count}
    _replace(tx, nipsa.state(keys, content, now), "agent-state", agent, now)
    if row.goals:
        plain = [{name: value for name, value in one.items() if name in GOAL_FIELDS}
                 for one in row.goals]
        _replace(tx, nipsa.goals(keys, plain, now), "agent-goals", agent, now)


def tick_begins(tx: sqlite3.Connection, agent: AgentFile, keys: Keys, tick_id: str, trigger: str,
                now: int) -> Event:
    """Kind 39210, and the session that it opens (39230)."""
    asked = nipsa.tick_request(keys, tick_id, trigger, now)
    _add(tx, asked, "agent-tick", tick_id, agent, now)
    return asked


def tick_ended(tx: sqlite3.Connection, agent: AgentFile, keys: Keys, tick_id: str,
               request_id: str, status: str, duration_ms: int, tokens: tuple[int, int],
               steps: Sequence[tuple[str, dict[str, Any]]], model: str, started_at: int,
               now: int) -> None:
    """Kind 39211 with the trajectory: 39231 for each step, and 39230."""
    rows = tx.execute("SELECT type, outcome, event_id FROM tick_actions WHERE tick_id = ? "
                      "ORDER BY number", (tick_id,)).fetchall()
    session_id = f"session-{tick_id}"
    texts = []
    for number, (kind, content) in enumerate(steps, 1):
        texts.append(nipsa.step_content(kind, content))
        _add(tx, nipsa.step(keys, session_id, tick_id, number, kind, content, now),
             "agent-step", f"{tick_id}:{number}", agent, now)
    trajectory = nipsa.trajectory_hash(texts)
    _add(tx, nipsa.session(keys, tick_id, session_id, started_at, model, len(steps), now, now,
                           trajectory), "agent-session", tick_id, agent, now)
    _add(tx, nipsa.tick_result(keys, tick_id, request_id, status, duration_ms,
                               list(_shown(rows)), *tokens, now, trajectory),
         "agent-result", tick_id, agent, now)


def _shown(rows: Iterable[sqlite3.Row]) -> Iterable[dict[str, Any]]:
    """Actions without their words; an event's id only where the event is public."""
    for row in rows:
        shown = {"type": row["type"], "outcome": row["outcome"]}
        if row["event_id"] and row["type"] in PUBLIC_ACTIONS:
            shown["id"] = row["event_id"]
        yield shown


def _replace(tx: sqlite3.Connection, event: Event, purpose: str, agent: AgentFile,
             now: int) -> None:
    outbox.withdraw(tx, purpose, agent.npub)
    outbox.add(tx, event, purpose, agent.npub, agent.relays, now, now + KEEP_SECS)


def _add(tx: sqlite3.Connection, event: Event, purpose: str, ref: str, agent: AgentFile,
         now: int) -> None:
    outbox.add(tx, event, purpose, ref, agent.relays, now, now + KEEP_SECS)
