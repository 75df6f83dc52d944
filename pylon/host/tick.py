"""One tick: from what woke the agent to the transaction that closes it.

Runs in the thread of a `Ticker`. The tick is counted before the runner starts, everything that it
does is noted as it does it, and what the runner says last only adds words: so a crash of runner or
daemon costs the rest of one tick and nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pylon.errors import BackendError, ConfigError, PylonError, Refused
from pylon.failpoints import hit
from pylon.host import cage, public, rules
from pylon.host.agentfile import AgentFile
from pylon.host.hands import Act, Hands
from pylon.host.lifecycle import Runway
from pylon.host.supervisor import Runner, RunnerFailed
from pylon.host.think import Thinker, question
from pylon.nostr import nip19
from pylon.nostr.keys import Keys
from pylon.relays.pool import Pool
from pylon.states import TickState
from pylon.store import agents, books, spending
from pylon.store.agents import AgentRow
from pylon.store.database import Database
from pylon.units import MSATS_PER_SAT

log = logging.getLogger(__name__)

T = TickState
MAX_CALLS = 200                     # of one runner in one tick
MAX_STEPS = 40                      # published of a tick's trajectory
TOLD_MEMORIES = 20
SHOWN_CHARS = 100
REFUSED = -32000                    # JSON-RPC's own codes end at -32000
NO_METHOD = -32601

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Errand:
    """One tick to run: whose, why, and the stored triggers that it answers."""

    npub: str
    trigger: str
    rows: tuple[sqlite3.Row, ...] = ()
    listener: Listener | None = None


@dataclass(slots=True)
class Course:
    """What one tick has come to; written by its thread alone."""

    tick_id: str
    agent: AgentFile
    keys: Keys
    trigger: str
    rows: Sequence[sqlite3.Row]
    deadline: float
    tell: Listener
    heard: tuple[str, ...] = ()
    infers: int = 0
    actions: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    model: str = ""
    summary: str = ""
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def step(self, kind: str, **content: Any) -> None:
        if len(self.steps) < MAX_STEPS:
            self.steps.append((kind, content))


class Ticks:
    """Runs ticks; any number of threads may call `run` for different agents."""

    def __init__(self, db: Database, pool: Pool, thinker: Thinker, hands: Hands,
                 ring: Callable[[], None], log_file: Callable[[AgentFile], Path],
                 confined: bool = True) -> None:
        self._db, self._pool, self._thinker, self._hands = db, pool, thinker, hands
        self._ring, self._log_file, self._confined = ring, log_file, confined
        self._runners: set[Runner] = set()
        self._runners_lock = threading.Lock()

    def abort(self) -> None:
        """The daemon stops: every runner is ended; its tick closes with what was done."""
        with self._runners_lock:
            for runner in self._runners:
                runner.abort()

    def run(self, errand: Errand, agent: AgentFile, keys: Keys, row: AgentRow,
            runway: Runway) -> TickState:
        """One whole tick. `row` and `runway` are as they stood before it."""
        started, now = time.monotonic(), int(time.time())
        tick_id, number = agents.begin_tick(self._db, agent.npub, errand.trigger,
                                            [one["id"] for one in errand.rows], now)
        hit("A8")
        course = Course(tick_id, agent, keys, errand.trigger, errand.rows,
                        started + agent.timeout_secs, errand.listener or _nobody,
                        tuple(dict.fromkeys(one["author"] for one in errand.rows
                                            if one["kind"] in ("mention", "dm", "zap"))))
        log.info("%s: tick %d begins: %s", agent.name, number, errand.trigger)
        course.tell({"event": "started", "tick_id": tick_id, "trigger": errand.trigger})
        with self._db.transaction(durable=False) as tx:
            asked = public.tick_begins(tx, agent, keys, tick_id, errand.trigger, now)
        self._ring()
        course.step("Message", subtype="context", trigger=errand.trigger,
                    observations=len(errand.rows), balance_sats=runway.balance_msats // 1000)
        state, code, reason = self._guarded(course, row, runway)
        self._close(course, asked.id, state, code, reason, started, now)
        return state

    def _guarded(self, course: Course, row: AgentRow,
                 runway: Runway) -> tuple[TickState, str | None, str | None]:
        try:
            self._converse(course, row, runway)
            return T.SUCCEEDED, None, None
        except RunnerFailed as err:
            return T.FAILED, err.code, str(err)
        except PylonError as err:
            return T.FAILED, err.code, str(err)

    def _close(self, course: Course, request_id: str, state: TickState, code: str | None,
               reason: str | None, started: float, began_at: int) -> None:
        """One transaction ends it: history, counters, backup, and what the world sees."""
        now, agent = int(time.time()), course.agent
        took_ms = int((time.monotonic() - started) * 1000)
        status = {T.SUCCEEDED: "success"}.get(
            state, "timeout" if code == "runner-timeout" else "failure")
        with self._db.transaction(durable=True) as tx:
            agents.end_tick(tx, course.tick_id, state, now, duration_ms=took_ms,
                            prompt_tokens=course.tokens[0], completion_tokens=course.tokens[1],
                            summary=course.summary, code=code, reason=reason)
            fresh = tx.execute("SELECT * FROM agents WHERE npub = ?", (agent.npub,)).fetchone()
            public.tick_ended(tx, agent, course.keys, course.tick_id, request_id, status, took_ms,
                              (course.tokens[0], course.tokens[1]), course.steps,
                              course.model or "none", began_at, now)
            public.state(tx, agent, course.keys, AgentRow.of(fresh),
                         books.balance_in(tx, books.agent_account(agent.npub)), now)
        self._ring()
        level = logging.INFO if state == T.SUCCEEDED else logging.WARNING
        log.log(level, "%s: %s %s after %d ms, %d actions%s", agent.name, course.tick_id, state,
                took_ms, course.actions, f": {reason} ({code})" if code else "")
        course.tell({"event": "ended", "tick_id": course.tick_id, "state": state.value,
                     "summary": course.summary, "code": code, "reason": reason,
                     "duration_ms": took_ms})

    # -- the conversation --

    def _converse(self, course: Course, row: AgentRow, runway: Runway) -> None:
        """Raises RunnerFailed, ConfigError."""
        program = cage.runner_of(course.agent.runner)
        if program and not self._confined:
            raise ConfigError("without bubblewrap only the built-in runner is started")
        runner = Runner(cage.command(program, course.agent.name, course.agent.timeout_secs,
                                     self._confined), course.deadline,
                        self._log_file(course.agent))
        with self._runners_lock:
            self._runners.add(runner)
        try:
            runner.send({"jsonrpc": "2.0", "id": 1, "method": "tick",
                         "params": self._situation(course, row, runway)})
            self._serve(course, runner)
        finally:
            with self._runners_lock:
                self._runners.discard(runner)
            runner.close()

    def _serve(self, course: Course, runner: Runner) -> None:
        """Answer the runner until it answers the tick."""
        for _ in range(MAX_CALLS):
            message = runner.receive()
            if "method" not in message:
                if message.get("id") != 1:
                    raise RunnerFailed("runner-garbage", "an answer to nothing")
                return self._conclude(course, message)
            answer = self._answer(course, runner, message)
            if "id" in message:
                runner.send({"jsonrpc": "2.0", "id": _plain_id(message["id"]), **answer})
        raise RunnerFailed("runner-flood", f"the runner called more than {MAX_CALLS} times")

    def _answer(self, course: Course, runner: Runner, message: dict[str, Any]) -> dict[str, Any]:
        method, params = message["method"], message.get("params", {})
        try:
            if method == "infer":
                return {"result": self._infer(course, params)}
            if method == "act":
                return {"result": self._act(course, params)}
            if method == "log":
                text = str(params.get("text", "") if isinstance(params, dict) else params)[:500]
                runner.note(text)
                course.tell({"event": "log", "text": text})
                return {"result": {}}
        except (Refused, BackendError) as err:
            course.tell({"event": "refused", "method": method, "code": err.code,
                         "message": str(err)})
            return {"error": {"code": REFUSED, "message": str(err)[:300],
                              "data": {"code": err.code}}}
        return {"error": {"code": NO_METHOD, "message": "there are infer, act and log"}}

    def _infer(self, course: Course, params: Any) -> dict[str, Any]:
        asked = question(params, course.agent)
        if course.infers >= course.agent.max_infers:
            raise Refused("too-often", f"a tick may think {course.agent.max_infers} times")
        course.infers += 1
        course.step("ToolUse", tool="infer", messages=len(asked.messages),
                    max_tokens=asked.max_tokens)
        course.tell({"event": "thinking", "max_tokens": asked.max_tokens})
        thought = self._thinker.think(course.agent, course.keys, course.tick_id, course.infers,
                                      asked, course.deadline)
        course.model = thought.model or course.model
        course.tokens[0] += thought.prompt_tokens
        course.tokens[1] += thought.completion_tokens
        course.step("ToolResult", tool="infer", model=thought.model,
                    completion_tokens=thought.completion_tokens, cost_msats=thought.cost_msats)
        course.tell({"event": "thought", "text": thought.text[:2000], "model": thought.model,
                     "cost_msats": thought.cost_msats})
        return {"text": thought.text, "model": thought.model,
                "prompt_tokens": thought.prompt_tokens,
                "completion_tokens": thought.completion_tokens,
                "cost_msats": thought.cost_msats}

    def _act(self, course: Course, params: Any) -> dict[str, Any]:
        if course.actions >= course.agent.max_actions:
            raise Refused("too-many-actions",
                          f"a tick may act {course.agent.max_actions} times")
        course.actions += 1
        done = self._hands.act(Act(course.agent, course.keys, course.tick_id, course.actions,
                                   course.heard, _mention(course.rows)), params)
        course.step("Message", subtype="action", action_type=params["type"],
                    outcome=done["outcome"])
        course.tell({"event": "acted", "type": params["type"], **done})
        return done

    def _conclude(self, course: Course, message: dict[str, Any]) -> None:
        result = message.get("result")
        if not isinstance(result, dict):
            raise RunnerFailed("runner-error", "the runner reports an error")
        summary, memory = result.get("summary", ""), result.get("memory")
        course.summary = summary[:500] if isinstance(summary, str) else ""
        if isinstance(memory, str) and memory.strip():
            text = memory.strip().encode("utf-8", "replace").decode()[:rules.MAX_MEMORY_CHARS]
            with self._db.transaction(durable=False) as tx:
                agents.remember(tx, course.agent.npub, {
                    "type": "tick", "content": text, "tainted": bool(course.heard)},
                    int(time.time()))

    # -- what the runner is told --

    def _situation(self, course: Course, row: AgentRow, runway: Runway) -> dict[str, Any]:
        agent = course.agent
        return {
            "profile": {"name": agent.name, "npub": agent.npub, "about": agent.about,
                        "autonomy": agent.autonomy, "capabilities": agent.capabilities},
            "goals": row.goals, "memory": row.memory[-TOLD_MEMORIES:],
            "trigger": {"kind": course.trigger},
            "observations": [_observation(one) for one in course.rows],
            "balance": {"msats": runway.balance_msats, "sats": runway.balance_msats // 1000},
            "runway": runway.words(), "limits": self._limits(agent, row),
            "actions": list(rules.ACTIONS), "now": int(time.time())}

    def _limits(self, agent: AgentFile, row: AgentRow) -> dict[str, Any]:
        day = spending.spent(self._db, books.agent_account(agent.npub),
                             spending.Cap("", 0), int(time.time()))
        left = max(0, agent.daily_limit_sats * MSATS_PER_SAT - day)
        return {"tick_sats": min(agent.per_tick_limit_sats, left // MSATS_PER_SAT),
                "day_left_sats": left // MSATS_PER_SAT, "max_tokens": agent.max_tokens,
                "infers": agent.max_infers, "actions": agent.max_actions,
                "deadline_secs": agent.timeout_secs}


def _observation(row: sqlite3.Row) -> dict[str, Any]:
    """A trigger for the runner; whatever is in `text`, a stranger wrote it."""
    return {"kind": row["kind"], "author": _npub(row["author"]), "text": row["text"] or "",
            "at": row["at"], "amount_msats": row["amount_msats"], "untrusted": True}


def _npub(pubkey: str) -> str:
    return nip19.encode_npub(pubkey) if len(pubkey) == 64 else pubkey


def _mention(rows: Sequence[sqlite3.Row]) -> tuple[str, str] | None:
    """What a post answers: the one mention that woke the agent."""
    found = [one for one in rows if one["kind"] == "mention"]
    return (found[0]["event_id"], found[0]["author"]) if len(found) == 1 else None


def _plain_id(value: Any) -> Any:
    return value if isinstance(value, (int, str)) and len(str(value)) <= 64 else None


def _nobody(update: dict[str, Any]) -> None:
    """The listener of a tick that nobody watches."""
