"""The rules of acting: what an action looks like, and whether an agent may do it. Pure.

Whoever wrote the words that led to an action, a model or a stranger, these rules do not read them:
they look at the type, the amounts and the keys. Money has payees that the owner named; messages
have recipients that the owner named or who spoke first.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pylon.errors import PylonError, Refused
from pylon.host.agentfile import AgentFile
from pylon.nostr import nip19
from pylon.units import MAX_MSATS, MSATS_PER_SAT

MAX_POST_CHARS, MAX_DM_CHARS, MAX_MEMORY_CHARS = 2000, 4000, 500
TEXT, SATS, NUMBER = "text", "sats", "number"
# type: field -> (what, required, most characters)
ACTIONS: dict[str, dict[str, tuple[str, bool, int]]] = {
    "post": {"text": (TEXT, True, MAX_POST_CHARS)},
    "direct_message": {"to": (TEXT, True, 200), "text": (TEXT, True, MAX_DM_CHARS)},
    "pay_invoice": {"bolt11": (TEXT, True, 4000), "reason": (TEXT, False, 300)},
    "request_payment": {"to": (TEXT, True, 200), "amount_sats": (SATS, True, 0),
                        "text": (TEXT, False, 500)},
    "update_goal": {"goal": (TEXT, True, 300), "status": (TEXT, False, 20),
                    "progress": (NUMBER, False, 0)},
    "add_memory": {"text": (TEXT, True, MAX_MEMORY_CHARS)},
    "none": {},
}
INWARD = ("update_goal", "add_memory", "none")      # change nothing outside the agent
GOAL_STATES = ("active", "paused", "completed", "cancelled")
DO, ASK = "do", "ask"


def checked(params: Any) -> dict[str, Any]:
    """An action with exactly its fields. Raises Refused (`bad-action`)."""
    if not isinstance(params, dict) or not isinstance(params.get("type"), str):
        raise Refused("bad-action", "an action is an object with a type")
    kind = params["type"]
    if kind not in ACTIONS:
        raise Refused("bad-action", f"there is no action {kind[:40]!r}")
    wanted = ACTIONS[kind]
    for name in params.keys() - wanted.keys() - {"type"}:
        raise Refused("bad-action", f"{kind} has no field {str(name)[:40]!r}")
    for name, (what, required, most) in wanted.items():
        if name in params:
            _check(kind, name, params[name], what, most)
        elif required:
            raise Refused("bad-action", f"{kind} needs {name}")
    if params.get("status", "active") not in GOAL_STATES:
        raise Refused("bad-action", f"a goal's status is one of {', '.join(GOAL_STATES)}")
    return dict(params)


def _check(kind: str, name: str, value: Any, what: str, most: int) -> None:
    if what == SATS:
        if type(value) is not int or not 1 <= value <= MAX_MSATS // MSATS_PER_SAT:
            raise Refused("bad-action", f"{name} of {kind} must be a whole number of sats")
    elif what == NUMBER:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise Refused("bad-action", f"{name} of {kind} must be from 0 to 1")
    elif not isinstance(value, str) or not value.strip() or len(value) > most or "\0" in value:
        raise Refused("bad-action", f"{name} of {kind} must be a text of 1 to {most} characters")
    else:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused("bad-action", f"{name} of {kind} is not valid Unicode") from None


def recipient(text: str) -> str:
    """A person, as hex. Raises Refused."""
    try:
        return nip19.decode_pubkey(text.strip())
    except PylonError:
        raise Refused("bad-action", f"{text[:80]!r} is no npub") from None


def decide(agent: AgentFile, action: dict[str, Any], heard: Collection[str],
           owner: str | None) -> str:
    """DO, or ASK the owner. `heard`: the verified authors (hex) who caused this tick. Raises
    Refused."""
    kind = action["type"]
    if kind in INWARD:
        return DO
    if agent.autonomy == "supervised":
        return ASK
    if kind in ("direct_message", "request_payment"):
        to = recipient(action["to"])
        known = {owner, *heard, *_people(agent)}
        if agent.autonomy == "bounded" and to not in known:
            raise Refused("recipient-not-allowed", "this agent may write to those on its "
                          "allow-list, to its owner, and to who wrote to it")
    return DO


def may_pay(agent: AgentFile, payee: str) -> bool:
    """Whether money may go to this Lightning node (66 hex) without asking the owner."""
    return f"node:{payee}" in agent.allow


def _people(agent: AgentFile) -> set[str]:
    return {nip19.decode_pubkey(one) for one in agent.allow if one.startswith("npub1")}
