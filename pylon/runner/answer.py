"""From a model's text to one action, or the reason why it is none. Pure.

Exactly one top-level object counts. It may stand in a code fence; anything quoted inside strings,
doubled keys, more objects, unknown fields: the whole answer is refused.
"""

from __future__ import annotations

import json
from typing import Any

MAX_CHARS = 16_000
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "post": {"text": str},
    "direct_message": {"to": str, "text": str},
    "zap": {"to": str, "amount_sats": int, "text": str},
    "pay_invoice": {"bolt11": str, "reason": str},
    "request_payment": {"to": str, "amount_sats": int, "text": str},
    "update_goal": {"goal": str, "status": str, "progress": (int, float)},
    "add_memory": {"text": str},
    "none": {},
}
OPTIONAL = {("zap", "text"), ("pay_invoice", "reason"), ("request_payment", "text"),
            ("update_goal", "status"), ("update_goal", "progress")}


class NoAction(ValueError):
    """Why an answer is refused, in words for the model."""


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """(thought, action). Raises NoAction."""
    value = _object(text)
    if not isinstance(value, dict):
        raise NoAction("it is no JSON object")
    if set(value) - {"thought", "action"}:
        raise NoAction("the object may only have thought and action")
    action, thought = value.get("action"), value.get("thought", "")
    if not isinstance(action, dict) or not isinstance(thought, str):
        raise NoAction("action must be an object and thought a text")
    return thought, check(action)


def check(action: dict[str, Any]) -> dict[str, Any]:
    """An action with exactly its fields. Raises NoAction."""
    kind = action.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise NoAction(f"the action's type must be one of {', '.join(FIELDS)}")
    wanted = FIELDS[kind]
    unknown = set(action) - set(wanted) - {"type"}
    if unknown:
        raise NoAction(f"{kind} has no field {sorted(unknown)[0]!r}")
    for name, kinds in wanted.items():
        if name not in action:
            if (kind, name) in OPTIONAL:
                continue
            raise NoAction(f"{kind} needs the field {name!r}")
        if isinstance(action[name], bool) or not isinstance(action[name], kinds):
            raise NoAction(f"the field {name!r} of {kind} has the wrong type")
    return dict(action)


def _object(text: str) -> Any:
    if len(text) > MAX_CHARS:
        raise NoAction("it is too long")
    body = text.strip()
    if body.startswith("```"):
        body = body.removeprefix("```json").removeprefix("```").strip()
        if not body.endswith("```"):
            raise NoAction("the code fence does not end")
        body = body.removesuffix("```").strip()
    try:
        return json.loads(body, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except NoAction:
        raise
    except (ValueError, RecursionError):
        raise NoAction("it is not one JSON object") from None


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise NoAction("a name stands twice in an object")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise NoAction(f"{name} is no number of JSON")
