"""The program: one tick, from the host's situation to one action and a summary."""

from __future__ import annotations

import sys
from typing import Any

from pylon.runner import answer, prompt
from pylon.runner.answer import NoAction
from pylon.runner.wire import HostGone, HostRefused, Wire

TRIES = 2                           # the first answer, and one repair


def main() -> int:
    wire = Wire(sys.stdin, sys.stdout)
    try:
        number, tick = wire.wait_for_tick()
        wire.answer(number, run(wire, tick))
    except HostGone:
        return 1
    return 0


def run(wire: Wire, tick: dict[str, Any]) -> dict[str, Any]:
    """One tick; its answer."""
    try:
        thought, action = think(wire, tick)
    except HostRefused as err:
        return {"summary": f"could not think: {err} ({err.code})"}
    except NoAction as err:
        return {"summary": f"the model gave no action: {err}"}
    kind = action["type"]
    if kind == "none":
        return {"summary": thought or "nothing to do"}
    try:
        done = wire.call("act", **action)
    except HostRefused as err:
        return {"summary": f"{kind} was refused ({err.code}): {err}"}
    word = "waits for the owner" if done.get("outcome") == "waiting" else "done"
    return {"summary": f"{kind} {word}: {thought}"[:400],
            "memory": f"I chose {kind}: {action.get('text', thought)}"[:200]}


def think(wire: Wire, tick: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Ask the model, at most twice. Raises HostRefused, NoAction."""
    chat = prompt.messages(tick)
    for left in reversed(range(TRIES)):
        said = wire.call("infer", messages=chat, json_schema=prompt.schema(tick),
                         max_tokens=int((tick.get("limits") or {}).get("max_tokens", 300)))
        text = str(said.get("text", ""))
        try:
            return answer.parse(text)
        except NoAction as err:
            if not left:
                raise
            wire.log(f"no action: {err}")
            chat = prompt.repair(tick, text, str(err))
    raise NoAction("there was no answer")


if __name__ == "__main__":
    sys.exit(main())
