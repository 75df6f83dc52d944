"""The owner's commands about agents, as the control socket serves them.

Plain functions `(desk, args) -> dict`. Without a daemon the command line calls the same functions
under the home's lock, with `host` None: what needs a running host then says so.
"""

from __future__ import annotations

import json
import queue
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pylon.errors import PylonError, Refused, UsageError
from pylon.host import agentfile, lifecycle
from pylon.host.agentfile import AgentFile
from pylon.host.hands import Act, heard_of
from pylon.host.host import Host
from pylon.host.lifecycle import Runway
from pylon.host.registry import Registry
from pylon.host.scheduler import WEEK
from pylon.nostr import nip06
from pylon.store import agents, books, journal, payments, spending
from pylon.store.database import Database
from pylon.units import MAX_MSATS

Args = dict[str, Any]
MAX_ROWS = 1000
KEEP_ALIVE_SECS = 5.0


@dataclass(slots=True)
class Desk:
    """What the commands work with. `learn_funds` reads the wallet, so that the owner's own
    movements are known before money is moved."""

    db: Database
    registry: Registry
    host: Host | None = None
    learn_funds: Callable[[], object] = lambda: None
    now: Callable[[], int] = lambda: int(time.time())

    def running(self) -> Host:
        if self.host is None:
            raise UsageError("this needs the running daemon, in mode host or both: pylon start")
        return self.host


# ---- looking ------------------------------------------------------------------------------------

def listing(desk: Desk, args: Args) -> Args:
    return {"agents": [_summary(desk, agent) for agent in desk.registry.all()],
            "broken": dict(desk.registry.broken),
            "trouble": desk.host.explain_cage() if desk.host else None}


def info(desk: Desk, args: Args) -> Args:
    agent = _agent(desk, args)
    row = agents.get(desk.db, agent.npub)
    goals, memory = (row.goals, len(row.memory)) if row else ([], 0)
    return {**_summary(desk, agent), "settings": agentfile.public(agent), "goals": goals,
            "memories": memory, "approvals": [_approval(one) for one in
                                              agents.approvals(desk.db, agent.npub)]}


def history(desk: Desk, args: Args) -> Args:
    agent = _agent(desk, args)
    limit = _number(args, "limit", 1, MAX_ROWS, 20)
    return {"ticks": [_tick(desk, row) for row in agents.ticks(desk.db, agent.npub, limit)]}


def waiting(desk: Desk, args: Args) -> Args:
    npub = _agent(desk, args).npub if args.get("agent") else None
    return {"approvals": [_approval(one) for one in agents.approvals(desk.db, npub)]}


def _summary(desk: Desk, agent: AgentFile) -> Args:
    row = agents.get(desk.db, agent.npub)
    runway = _runway(desk, agent)
    state = row.state.value if row else "spawning"
    return {"name": agent.name, "npub": agent.npub, "state": state,
            "paused": bool(row and row.paused), "autonomy": agent.autonomy,
            "balance_msats": runway.balance_msats,
            "burn_msats_per_day": runway.burn_msats, "burn_measured": runway.measured,
            "runway_days": None if runway.days is None else round(runway.days, 2),
            "runway": runway.words(), "ticks": row.tick_count if row else 0,
            "last_tick_at": row.last_tick_at if row else None,
            "next_tick_at": row.next_tick_at if row else None,
            "ticking": bool(desk.host and desk.host.scheduler.is_running(agent.npub)),
            "crashes": row.crashes if row else 0, "trouble": row.trouble if row else None,
            "quarantined_until": row.quarantined_until if row else None,
            "network": agent.network, "created_at": agent.created_at}


def _runway(desk: Desk, agent: AgentFile) -> Runway:
    account, now = books.agent_account(agent.npub), desk.now()
    first = agents.first_tick_at(desk.db, agent.npub)
    alive = max(0, now - first) if first is not None else 0
    burnt = spending.spent(desk.db, account, WEEK, now) if alive else 0
    return Runway(books.balance(desk.db, account), *lifecycle.burn(agent, burnt, alive))


def _tick(desk: Desk, row: Any) -> Args:
    names = ("tick_id", "tick_number", "state", "trigger", "prompt_tokens", "completion_tokens",
             "cost_msats", "duration_ms", "summary", "code", "reason", "created_at", "ended_at")
    return {**{name: row[name] for name in names},
            "actions": [dict(one) for one in agents.actions_of(desk.db, row["tick_id"])]}


def _approval(row: Any) -> Args:
    action, _ = heard_of(dict(json.loads(row["action"])))
    return {"id": row["id"], "agent": row["agent_npub"], "action": action,
            "created_at": row["created_at"], "expires_at": row["expires_at"]}


# ---- changing -----------------------------------------------------------------------------------

def spawn(desk: Desk, args: Args) -> Args:
    """`name`, settings, and `words` where the agent brings its own."""
    words = _text(args, "words", "") or nip06.generate_words()
    settings = args.get("settings", {})
    if not isinstance(settings, dict) or not settings.keys() <= {*agentfile.SETTABLE, "network"}:
        raise UsageError("these are no settings of an agent")
    agent = desk.registry.create(_text(args, "name"), nip06.normalise(words), desk.now(),
                                 **settings)
    now = desk.now()
    if desk.host is None:
        with desk.db.transaction(durable=True) as tx:
            agents.add(tx, agent.npub, agent.name, now, now)
    else:
        desk.host.settle_in(agent, now)
        desk.host.changed(agent, now)
    return _summary(desk, agent)


def set_one(desk: Desk, args: Args) -> Args:
    agent = _agent(desk, args)
    key, value = _text(args, "key"), args.get("value")
    if isinstance(value, str):
        value = agentfile.from_words(key, value)
    return _changed(desk, desk.registry.change(agent.npub, key, value))


def allow(desk: Desk, args: Args) -> Args:
    """`payee` joins the list of those who may get money and messages; with `deny`, leaves it."""
    agent, who = _agent(desk, args), agentfile.payee(_text(args, "payee"))
    rest = [one for one in agent.allow if one != who]
    if args.get("deny") and rest == agent.allow:
        raise UsageError(f"{who} is not on the list of {agent.name}")
    return _changed(desk, desk.registry.change(
        agent.npub, "allow", rest if args.get("deny") else [*rest, who]))


def goal(desk: Desk, args: Args) -> Args:
    """`what`: add (`text`), done (`goal`: its id or number), or list."""
    agent, what = _agent(desk, args), _text(args, "what", "list")
    _known(desk, agent)
    with desk.db.transaction(durable=True) as tx:
        goals = agents.AgentRow.of(tx.execute("SELECT * FROM agents WHERE npub = ?",
                                              (agent.npub,)).fetchone()).goals
        if what == "add":
            goals.append({"id": secrets.token_hex(3), "description": _text(args, "text")[:300],
                          "priority": 1, "created_at": desk.now(), "status": "active",
                          "progress": 0.0})
        elif what == "done":
            one = _text(args, "goal")
            found = [g for n, g in enumerate(goals, 1) if one in (g["id"], str(n))]
            if not found:
                raise UsageError(f"{agent.name} has no goal {one!r}")
            found[0] |= {"status": "completed", "progress": 1.0}
        elif what != "list":
            raise UsageError("a goal can be added, listed or done")
        if what != "list":
            agents.set_goals(tx, agent.npub, goals, desk.now())
    return {"goals": goals}


def pause(desk: Desk, args: Args) -> Args:
    agent = _agent(desk, args)
    _known(desk, agent)
    on = bool(args.get("on", True))
    with desk.db.transaction(durable=True) as tx:
        columns: Args = {"paused": int(on)}
        if not on:
            columns |= {"crashes": 0, "quarantined_until": None, "trouble": None}
        agents.update(tx, agent.npub, desk.now(), **columns)
        journal.add(tx, "AgentPaused" if on else "AgentResumed", agent.npub, {}, desk.now())
    if desk.host is not None:
        desk.host.scheduler.look(agent.npub)
    return _summary(desk, agent)


def fund(desk: Desk, args: Args) -> Args:
    """Money from the owner's account to the agent's; `key` makes it one movement."""
    return _move(desk, args, books.OWNER, None)


def withdraw(desk: Desk, args: Args) -> Args:
    """Money back to the owner; `all` takes everything."""
    return _move(desk, args, None, books.OWNER)


def _move(desk: Desk, args: Args, source: str | None, target: str | None) -> Args:
    agent = _agent(desk, args)
    _known(desk, agent)
    account = books.agent_account(agent.npub)
    if source is None and args.get("all"):
        amount = books.balance(desk.db, account)
        if amount <= 0:
            raise Refused("no-funds", f"{agent.name} has no money")
    else:
        amount = _number(args, "amount_msats", 1, MAX_MSATS)
    if source is not None:
        desk.learn_funds()
    kind = "agent-fund" if source else "agent-withdraw"
    payments.transfer(desk.db, source or account, target or account, amount, kind,
                      _text(args, "key", secrets.token_hex(16))[:64], desk.now())
    if desk.host is not None:
        desk.host.scheduler.look(agent.npub)
    return {**_summary(desk, agent), "moved_msats": amount}


def delete(desk: Desk, args: Args) -> Args:
    """`confirm` is the agent's name; its money goes to the owner first."""
    agent = _agent(desk, args)
    if args.get("confirm") != agent.name:
        raise UsageError(f"to delete it, its name must be repeated: {agent.name}")
    account = books.agent_account(agent.npub)
    if any(row.account == account for row in payments.open_intents(desk.db)):
        raise Refused("being-paid", "a payment of this agent is under way; try again later")
    if desk.host is not None and desk.host.scheduler.is_running(agent.npub):
        raise Refused("ticking", "the agent is in a tick; try again in a moment")
    left = books.balance(desk.db, account)
    if left > 0:
        payments.transfer(desk.db, account, books.OWNER, left, "agent-withdraw",
                          secrets.token_hex(16), desk.now())
    with desk.db.transaction(durable=True) as tx:
        agents.delete(tx, agent.npub, desk.now())
    kept = desk.registry.delete(agent.npub, desk.now())
    if desk.host is not None:
        desk.host.ears.listen()
    return {"deleted": agent.npub, "returned_msats": max(0, left), "kept": str(kept)}


def approve(desk: Desk, args: Args) -> Args:
    return _decide(desk, args, True)


def reject(desk: Desk, args: Args) -> Args:
    return _decide(desk, args, False)


def _decide(desk: Desk, args: Args, yes: bool) -> Args:
    host, wanted = desk.running(), _text(args, "id")
    found = [one for one in agents.approvals(desk.db) if one["id"].endswith(wanted)
             or one["id"].startswith(wanted)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} approvals match {wanted!r}; see: pylon agent approvals")
    row = found[0]
    if not yes:
        host.hands.reject(row)
        return {"id": row["id"], "outcome": "rejected"}
    agent = desk.registry.get(row["agent_npub"])
    if agent is None:
        raise PylonError("the agent is gone")
    action, heard = heard_of(json.loads(row["action"]))
    act = Act(agent, desk.registry.keys(agent.npub), row["tick_id"], row["number"], tuple(heard))
    return {"id": row["id"], **host.hands.approve(act, action, row["id"])}


# ---- live ---------------------------------------------------------------------------------------

def tick(desk: Desk, args: Args) -> Iterator[Args | None]:
    """A tick now; everything that happens in it, until it ends."""
    agent, heard = _agent(desk, args), queue.SimpleQueue[Args]()
    desk.running().tick_now(agent.npub, heard.put)
    while True:
        try:
            update = heard.get(timeout=KEEP_ALIVE_SECS)
        except queue.Empty:
            yield None
            continue
        yield update
        if update["event"] == "ended":
            return


# ---- arguments ----------------------------------------------------------------------------------

def _agent(desk: Desk, args: Args) -> AgentFile:
    return desk.registry.find(_text(args, "agent"))


def _known(desk: Desk, agent: AgentFile) -> None:
    """Files that came by another way than `spawn` get their row."""
    with desk.db.transaction(durable=True) as tx:
        agents.add(tx, agent.npub, agent.name, desk.now(), desk.now())


def _changed(desk: Desk, agent: AgentFile) -> Args:
    if desk.host is not None:
        desk.host.changed(agent, desk.now())
    return {**_summary(desk, agent), "settings": agentfile.public(agent)}


def _number(args: Args, name: str, low: int, high: int, default: int | None = None) -> int:
    value = args.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}")
    return value


def _text(args: Args, name: str, default: str | None = None) -> str:
    value = args.get(name, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UsageError(f"{name} must be given as a text")
    return value


HANDLERS: dict[str, Callable[[Desk, Args], Args]] = {
    "AgentList": listing, "AgentInfo": info, "AgentHistory": history, "AgentApprovals": waiting,
    "AgentSpawn": spawn, "AgentSet": set_one, "AgentAllow": allow, "AgentGoal": goal,
    "AgentPause": pause, "AgentFund": fund, "AgentWithdraw": withdraw, "AgentDelete": delete,
    "AgentApprove": approve, "AgentReject": reject}
STREAMS: dict[str, Callable[[Desk, Args], Iterator[Args | None]]] = {"AgentTick": tick}
ASKING = frozenset({"AgentList", "AgentInfo", "AgentHistory", "AgentApprovals"})
