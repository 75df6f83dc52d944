"""Agents as the store knows them: state, goals, memory, ticks, triggers, approvals.

Who an agent is and what it may do stands in its file (`host.agentfile`); what it has become stands
here. A tick is counted when it begins, in the transaction that takes its triggers, so a crash
never counts it twice; what it did is written beside the events that do it.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from pylon.states import AgentState, ApprovalState, TickState
from pylon.store import journal
from pylon.store.database import Database, ReadOnly

A, T = AgentState, TickState
OLD_WORD = {A.SPAWNING: "embryonic", A.ACTIVE: "active", A.LOW_BALANCE: "active",
            A.HIBERNATING: "dormant", A.DORMANT: "dormant"}
MAX_MEMORIES = 200
MAX_GOALS = 50
MAX_WAITING_TRIGGERS = 100          # of one agent; later ones are dropped


@dataclass(frozen=True, slots=True)
class AgentRow:
    """What an agent has become; times in Unix seconds."""

    npub: str
    name: str
    state: AgentState
    tick_count: int
    last_tick_at: int | None
    next_tick_at: int | None
    listen_since: int
    paused: bool
    crashes: int                    # failed ticks in a row
    quarantined_until: int | None
    trouble: str | None             # why, in words
    published_at: int | None
    goals: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    created_at: int

    @classmethod
    def of(cls, row: sqlite3.Row) -> "AgentRow":
        same = {name: row[name] for name in cls.__slots__
                if name not in ("state", "goals", "memory", "paused")}
        return cls(**same, state=A(row["state"]), paused=bool(row["paused"]),
                   goals=json.loads(row["goals_json"] or "[]"),
                   memory=json.loads(row["memory_json"] or "[]"))


def add(tx: sqlite3.Connection, npub: str, name: str, listen_since: int, now: int) -> None:
    """A new agent, in `spawning`; one that is known already stays as it is."""
    done = tx.execute(
        "INSERT OR IGNORE INTO agents(npub, name, lifecycle_state, state, listen_since, "
        "created_at, updated_at) VALUES (?, ?, 'embryonic', 'spawning', ?, ?, ?)",
        (npub, name, listen_since, now, now))
    if done.rowcount:
        journal.add(tx, "AgentSpawned", npub, {"name": name}, now)


def get(db: Database | ReadOnly, npub: str) -> AgentRow | None:
    row = db.one("SELECT * FROM agents WHERE npub = ?", (npub,))
    return AgentRow.of(row) if row else None


def everybody(db: Database | ReadOnly) -> list[AgentRow]:
    return [AgentRow.of(row) for row in db.query(
        "SELECT * FROM agents ORDER BY created_at DESC, name")]


def update(tx: sqlite3.Connection, npub: str, now: int, **columns: Any) -> None:
    """Set columns that no state machine guards."""
    setters = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE agents SET {setters}, updated_at = ? WHERE npub = ?",
               (*columns.values(), now, npub))


def advance(tx: sqlite3.Connection, npub: str, state: AgentState, facts: dict[str, Any],
            now: int) -> None:
    """A step of the agent's life; the same state again is no step."""
    done = tx.execute("UPDATE agents SET state = ?, lifecycle_state = ?, updated_at = ? "
                      "WHERE npub = ? AND state <> ?",
                      (state.value, OLD_WORD[state], now, npub, state.value))
    if done.rowcount:
        journal.add(tx, "AgentStateChanged", npub, {"state": state.value, **facts}, now)


def delete(tx: sqlite3.Connection, npub: str, now: int) -> None:
    """Forget an agent; its bookings and its journal stay."""
    tx.execute("DELETE FROM tick_history WHERE agent_npub = ?", (npub,))
    for table in ("triggers", "approvals"):
        tx.execute(f"DELETE FROM {table} WHERE agent_npub = ?", (npub,))
    tx.execute("DELETE FROM agents WHERE npub = ?", (npub,))
    journal.add(tx, "AgentDeleted", npub, {}, now)


# ---- goals and memory ---------------------------------------------------------------------------

def set_goals(tx: sqlite3.Connection, npub: str, goals: list[dict[str, Any]], now: int) -> None:
    update(tx, npub, now, goals_json=json.dumps(goals[-MAX_GOALS:], ensure_ascii=False))


def remember(tx: sqlite3.Connection, npub: str, entry: dict[str, Any], now: int) -> None:
    """One more memory; beyond the newest 200 they fade."""
    row = tx.execute("SELECT memory_json FROM agents WHERE npub = ?", (npub,)).fetchone()
    memory = [*json.loads(row["memory_json"] or "[]"), {**entry, "timestamp": now}]
    update(tx, npub, now, memory_json=json.dumps(memory[-MAX_MEMORIES:], ensure_ascii=False))


# ---- ticks --------------------------------------------------------------------------------------

def tick_id_of(npub: str, number: int) -> str:
    return f"tick-{npub[5:21]}-{number}"


def begin_tick(db: Database, npub: str, trigger: str, trigger_ids: list[int],
               now: int) -> tuple[str, int]:
    """Count a tick and take its triggers, in one transaction: (tick id, number)."""
    with db.transaction(durable=True) as tx:
        number = tx.execute(
            "UPDATE agents SET tick_count = tick_count + 1, last_tick_at = ?, updated_at = ? "
            "WHERE npub = ? RETURNING tick_count", (now, now, npub)).fetchone()["tick_count"]
        tick_id = tick_id_of(npub, number)
        tx.execute("INSERT INTO tick_history(agent_npub, tick_number, tick_id, state, trigger, "
                   "trigger_id, created_at) VALUES (?, ?, ?, 'started', ?, ?, ?)",
                   (npub, number, tick_id, trigger,
                    str(trigger_ids[0]) if trigger_ids else None, now))
        tx.executemany("UPDATE triggers SET tick_id = ? WHERE id = ? AND tick_id IS NULL",
                       [(tick_id, one) for one in trigger_ids])
        journal.add(tx, "TickStarted", tick_id, {"agent": npub, "trigger": trigger}, now)
    return tick_id, number


def end_tick(tx: sqlite3.Connection, tick_id: str, state: TickState, now: int, *,
             duration_ms: int = 0, prompt_tokens: int = 0, completion_tokens: int = 0,
             summary: str = "", code: str | None = None, reason: str | None = None) -> None:
    """Close a tick: what it did and cost is added up from what stands in the store."""
    actions = [dict(row) for row in tx.execute(
        "SELECT type, outcome, event_id, code FROM tick_actions WHERE tick_id = ? "
        "ORDER BY number", (tick_id,))]
    cost = tx.execute(
        "SELECT coalesce(sum(amount_msats + coalesce(fee_msats, 0)), 0) FROM payments "
        "WHERE scope = ? AND state = 'succeeded'", (tick_id,)).fetchone()[0]
    tx.execute(
        "UPDATE tick_history SET state = ?, ended_at = ?, duration_ms = ?, prompt_tokens = ?, "
        "completion_tokens = ?, summary = ?, code = ?, reason = ?, actions_json = ?, "
        "cost_msats = ?, cost_sats = ? WHERE tick_id = ?",
        (state.value, now, duration_ms, prompt_tokens, completion_tokens, summary[:500], code,
         reason and reason[:300], json.dumps(actions), cost, -(-cost // 1000), tick_id))
    journal.add(tx, "TickEnded", tick_id,
                {"state": state.value, "actions": len(actions), "cost_msats": cost, "code": code,
                 "reason": reason and reason[:300], "duration_ms": duration_ms}, now)


def interrupt_ticks(db: Database, now: int) -> int:
    """After a start: ticks that a crash cut off stay counted, and are over."""
    with db.transaction(durable=True) as tx:
        cut = [row["tick_id"] for row in tx.execute(
            "SELECT tick_id FROM tick_history WHERE state = 'started'")]
        for tick_id in cut:
            end_tick(tx, tick_id, T.INTERRUPTED, now, code="interrupted",
                     reason="the daemon ended while it ran")
    return len(cut)


def add_action(tx: sqlite3.Connection, tick_id: str, number: int, type_: str, outcome: str,
               now: int, event_id: str | None = None, code: str | None = None,
               amount_msats: int = 0) -> None:
    """What became of one action: done, waiting, refused or failed."""
    tx.execute("INSERT INTO tick_actions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
               (tick_id, number, type_, outcome, event_id, code, amount_msats, now))
    journal.add(tx, "AgentActed" if outcome == "done" else "AgentActionHeld", tick_id,
                {"type": type_, "outcome": outcome, "event_id": event_id, "code": code,
                 "amount_msats": amount_msats}, now)


def set_action(tx: sqlite3.Connection, tick_id: str, number: int, outcome: str, now: int,
               event_id: str | None = None, code: str | None = None) -> None:
    tx.execute("UPDATE tick_actions SET outcome = ?, event_id = coalesce(?, event_id), code = ? "
               "WHERE tick_id = ? AND number = ?", (outcome, event_id, code, tick_id, number))
    journal.add(tx, "AgentActionDecided", tick_id,
                {"number": number, "outcome": outcome, "event_id": event_id, "code": code}, now)


def actions_since(db: Database, npub: str, types: tuple[str, ...], since: int) -> int:
    """How many actions of these types an agent did since then."""
    marks = ",".join("?" * len(types))
    row = db.one("SELECT count(*) AS n FROM tick_actions a JOIN tick_history t USING (tick_id) "
                 f"WHERE t.agent_npub = ? AND a.type IN ({marks}) AND a.outcome = 'done' "
                 "AND a.created_at > ?", (npub, *types, since))
    return row["n"] if row else 0


def ticks(db: Database | ReadOnly, npub: str, limit: int) -> list[sqlite3.Row]:
    """The newest ticks first."""
    return db.query("SELECT * FROM tick_history WHERE agent_npub = ? ORDER BY id DESC LIMIT ?",
                    (npub, limit))


def tick(db: Database | ReadOnly, tick_id: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM tick_history WHERE tick_id = ?", (tick_id,))


def actions_of(db: Database | ReadOnly, tick_id: str) -> list[sqlite3.Row]:
    return db.query("SELECT * FROM tick_actions WHERE tick_id = ? ORDER BY number", (tick_id,))


def first_tick_at(db: Database | ReadOnly, npub: str) -> int | None:
    row = db.one("SELECT min(created_at) AS at FROM tick_history WHERE agent_npub = ?", (npub,))
    return row["at"] if row else None


# ---- triggers -----------------------------------------------------------------------------------

def add_trigger(tx: sqlite3.Connection, npub: str, event_id: str, kind: str, author: str,
                text: str, at: int, dropped: str | None = None, amount_msats: int = 0) -> bool:
    """Remember what may wake an agent, for ever by its id; False where it was known."""
    waiting = tx.execute("SELECT count(*) FROM triggers WHERE agent_npub = ? AND tick_id IS NULL "
                         "AND dropped IS NULL", (npub,)).fetchone()[0]
    if dropped is None and waiting >= MAX_WAITING_TRIGGERS:
        dropped = "too-many"
    done = tx.execute(
        "INSERT OR IGNORE INTO triggers(agent_npub, event_id, kind, author, text, at, dropped, "
        "amount_msats) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (npub, event_id, kind, author, None if dropped else text, at, dropped, amount_msats))
    return done.rowcount == 1


def knows_trigger(db: Database, npub: str, event_id: str) -> bool:
    return db.one("SELECT 1 FROM triggers WHERE agent_npub = ? AND event_id = ?",
                  (npub, event_id)) is not None


def waiting_triggers(db: Database, npub: str, limit: int = 20) -> list[sqlite3.Row]:
    """What waits to wake the agent, oldest first."""
    return db.query("SELECT * FROM triggers WHERE agent_npub = ? AND tick_id IS NULL AND "
                    "dropped IS NULL ORDER BY id LIMIT ?", (npub, limit))


def triggers_of_author(db: Database, npub: str, author: str, since: int) -> int:
    """How many triggers of one author were let in since then."""
    row = db.one("SELECT count(*) AS n FROM triggers WHERE agent_npub = ? AND author = ? AND "
                 "at > ? AND dropped IS NULL", (npub, author, since))
    return row["n"] if row else 0


def triggers_since(db: Database, npub: str, since: int) -> int:
    row = db.one("SELECT count(*) AS n FROM triggers WHERE agent_npub = ? AND at > ? AND "
                 "dropped IS NULL AND kind <> 'manual'", (npub, since))
    return row["n"] if row else 0


def drop_waiting(tx: sqlite3.Connection, npub: str, why: str, kinds: tuple[str, ...]) -> None:
    """Triggers that may not wake the agent in its present state are over."""
    marks = ",".join("?" * len(kinds))
    tx.execute(f"UPDATE triggers SET dropped = ?, text = NULL WHERE agent_npub = ? AND tick_id "
               f"IS NULL AND dropped IS NULL AND kind IN ({marks})", (why, npub, *kinds))


# ---- approvals ----------------------------------------------------------------------------------

def ask_owner(tx: sqlite3.Connection, npub: str, tick_id: str, number: int,
              action: dict[str, Any], now: int, expires_at: int) -> str:
    """An action waits for the owner; its id."""
    approval_id = f"{tick_id}:{number}"
    tx.execute("INSERT INTO approvals(id, agent_npub, tick_id, number, action, created_at, "
               "expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
               (approval_id, npub, tick_id, number, json.dumps(action, ensure_ascii=False), now,
                expires_at))
    return approval_id


def approval(db: Database | ReadOnly, approval_id: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM approvals WHERE id = ?", (approval_id,))


def approvals(db: Database | ReadOnly, npub: str | None = None) -> list[sqlite3.Row]:
    """What waits for the owner, oldest first."""
    return db.query("SELECT * FROM approvals WHERE state = 'waiting' AND coalesce(? = "
                    "agent_npub, 1) ORDER BY created_at, id", (npub,))


def decide(tx: sqlite3.Connection, approval_id: str, state: ApprovalState, now: int,
           outcome: str | None = None) -> bool:
    """One step of an approval; False where it stood there already."""
    done = tx.execute("UPDATE approvals SET state = ?, decided_at = ?, outcome = coalesce(?, "
                      "outcome) WHERE id = ? AND state <> ?",
                      (state.value, now, outcome, approval_id, state.value))
    return done.rowcount == 1


def expire_approvals(db: Database, now: int) -> int:
    """Nobody answered in time: refused."""
    with db.transaction(durable=False) as tx:
        late = [dict(row) for row in tx.execute(
            "SELECT id, tick_id, number FROM approvals WHERE state = 'waiting' AND "
            "expires_at <= ?", (now,))]
        for row in late:
            decide(tx, row["id"], ApprovalState.EXPIRED, now)
            set_action(tx, row["tick_id"], row["number"], "refused", now, code="expired")
    return len(late)
