"""NIP-SA, sovereign agents: the events of kinds 39200 to 39231, built and (where we read) parsed.

All of these kinds are addressable: a relay keeps one for each author, kind and `d` tag. So every
tick and step has a `d` of its own, which the first Pylon forgot, and re-publishing needs a later
`created_at`. The agent is its own signer, operator and runner.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pylon.errors import InvalidMessage
from pylon.nostr import strictjson
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys

PROFILE, STATE, SCHEDULE, GOALS = 39200, 39201, 39202, 39203
TICK_REQUEST, TICK_RESULT, SESSION, STEP = 39210, 39211, 39230, 39231
TRIGGERS = ("heartbeat", "mention", "dm", "zap", "manual")
STATUSES = ("success", "failure", "timeout")
STEP_TYPES = ("ToolUse", "ToolResult", "Message", "Thinking")
NO_TRAJECTORY = "0" * 64
STATE_META = "goals memory pending_tasks beliefs tick_count last_tick content_bytes"


def profile(keys: Keys, name: str, about: str, capabilities: Sequence[str], autonomy: str,
            version: str, created_at: int, picture: str = "", lud16: str = "") -> Event:
    """Who the agent is; `autonomy` is supervised, bounded or autonomous."""
    content: dict[str, Any] = {"name": name, "about": about}
    if picture:
        content["picture"] = picture
    content |= {"capabilities": list(capabilities), "autonomy_level": autonomy,
                "version": version}
    tags = [["d", "profile"], ["threshold", "1", "1"], ["signer", keys.pubkey],
            ["operator", keys.pubkey]]
    if lud16:
        tags.append(["lud16", lud16])
    return keys.sign(PROFILE, _dump(content), tags, created_at)


def state(keys: Keys, content: Mapping[str, Any], created_at: int) -> Event:
    """The agent's own memory, encrypted to itself. Raises InvalidMessage when too large."""
    meta = [name for name in STATE_META.split() if name in content or name == "content_bytes"]
    return keys.sign(STATE, keys.nip44_encrypt(keys.pubkey, _dump(content)),
                     [["d", "state"], ["encrypted"], ["state_version", "1"],
                      ["state_meta", *meta]], created_at)


def parse_state(event: Event, keys: Keys) -> dict[str, Any]:
    """Raises InvalidMessage. A relay may hold back or repeat old ones: the store is the truth."""
    if event.kind != STATE or event.pubkey != keys.pubkey or event.first("d") != "state":
        raise InvalidMessage("not this agent's state")
    content = strictjson.load(keys.nip44_decrypt(keys.pubkey, event.content))
    if type(content) is not dict:
        raise InvalidMessage("an agent's state is an object")
    return content


def schedule(keys: Keys, heartbeat_secs: int, triggers: Iterable[str], created_at: int,
             active: bool = True, business_hours: str = "") -> Event:
    """When the agent wakes; a trigger on a kind of event is written `custom:KIND`."""
    tags = [["d", "schedule"], ["active", "true" if active else "false"],
            ["heartbeat", str(heartbeat_secs)], *(["trigger", trigger] for trigger in triggers)]
    if business_hours:
        tags.append(["business_hours", business_hours])
    return keys.sign(SCHEDULE, "", tags, created_at)


def goals(keys: Keys, items: Sequence[Mapping[str, Any]], created_at: int) -> Event:
    """What the agent wants, in public."""
    return keys.sign(GOALS, _dump({"goals": list(items)}), [["d", "goals"]], created_at)


def tick_request(keys: Keys, tick_id: str, trigger: str, created_at: int) -> Event:
    """A tick begins."""
    return keys.sign(TICK_REQUEST, "", [["d", tick_id], ["runner", keys.pubkey],
                                        ["trigger", trigger]], created_at)


def tick_result(keys: Keys, tick_id: str, request_id: str, status: str, duration_ms: int,
                actions: Sequence[Mapping[str, Any]], tokens_in: int, tokens_out: int,
                created_at: int, trajectory: str = "", goals_updated: int = 0) -> Event:
    """A tick has ended. The content is public: it must not repeat what was private."""
    tags = [["d", f"{tick_id}:result"], ["request", request_id], ["runner", keys.pubkey],
            ["status", status], ["duration_ms", str(max(1, duration_ms))],
            ["actions", str(len(actions))]]
    if trajectory:
        tags.append(["trajectory_hash", trajectory])
    content = {"tokens_in": tokens_in, "tokens_out": tokens_out, "cost_usd": 0.0,
               "goals_updated": goals_updated, "actions": [dict(action) for action in actions]}
    return keys.sign(TICK_RESULT, _dump(content), tags, created_at)


def session(keys: Keys, tick_id: str, session_id: str, started_at: int, model: str,
            total_events: int, created_at: int, ended_at: int | None = None,
            trajectory: str = "") -> Event:
    """The trajectory of one tick, opened and (with `ended_at`) closed under the same `d`."""
    tags = [["d", session_id], ["tick", tick_id], ["started_at", str(started_at)],
            ["model", model], ["visibility", "public"]]
    content: dict[str, Any] = {"session_id": session_id, "started_at": started_at,
                               "model": model, "total_events": total_events}
    if ended_at is not None:
        tags.append(["ended_at", str(ended_at)])
        content |= {"ended_at": ended_at, "trajectory_hash": trajectory or NO_TRAJECTORY}
    return keys.sign(SESSION, _dump(content), tags, created_at)


def step(keys: Keys, session_id: str, tick_id: str, number: int, step_type: str,
         content: Mapping[str, Any], created_at: int) -> Event:
    """One step of a trajectory, counted from 1; `content` is redacted already."""
    return keys.sign(STEP, step_content(step_type, content),
                     [["d", f"{session_id}:{number}"], ["session", session_id],
                      ["tick", tick_id], ["seq", str(number)], ["step", step_type]], created_at)


def step_content(step_type: str, content: Mapping[str, Any]) -> str:
    """The text of a step, which the trajectory's hash is made of."""
    return _dump({"type": step_type, **content})


def trajectory_hash(steps: Sequence[str]) -> str:
    """SHA-256 (hex) of the steps' contents, joined by newlines; zeros without one."""
    if not steps:
        return NO_TRAJECTORY
    return hashlib.sha256("\n".join(steps).encode(errors="replace")).hexdigest()


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
