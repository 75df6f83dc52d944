"""One JSON line asks, one JSON line answers. Pure.

Asked: `"Ping"`, `{"Ping": null}` or `{"Name": {argument: value}}`. Answered: `"Pong"`, `"Ok"`,
`{"Name": result}`, or `{"Error": "reason"}`. An argument `request_id` makes a command idempotent:
the same id asked twice has one effect and one answer.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pylon.errors import ControlError, InvalidMessage, PylonError, UsageError

MAX_LINE_BYTES = 65536              # of what a client may send
MAX_REPLY_BYTES = 16_777_216        # of what a client takes
MAX_NAME_CHARS = 64
STOP_SECS = 30.0                    # the grace of a Shutdown that does not say, and of a SIGTERM
MAX_STOP_SECS = 3600
NO_CODES = frozenset({"", PylonError.code, UsageError.code, InvalidMessage.code,
                      ControlError.code})


def parse_command(line: bytes) -> tuple[str, dict[str, Any]]:
    """The command's name and arguments. Raises InvalidMessage."""
    try:
        asked = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise InvalidMessage("not a line of JSON") from None
    if isinstance(asked, str):
        name: Any = asked
        args: Any = None
    elif isinstance(asked, dict) and len(asked) == 1:
        name, args = next(iter(asked.items()))
    else:
        raise InvalidMessage('a command is "Name" or {"Name": {...}}')
    if args is None:
        args = {}
    if not isinstance(args, dict):
        raise InvalidMessage("the arguments of a command are an object")
    if not name or len(name) > MAX_NAME_CHARS or not name.isascii() or not name.isalnum():
        raise InvalidMessage("not a command's name")
    return name, args


def encode_command(name: str, args: dict[str, Any] | None = None) -> bytes:
    return _line({name: args} if args else name)


def encode_reply(name: str, result: object) -> bytes:
    """None is said as "Ok"; a ping's answer stands bare."""
    if result is None:
        return _line("Ok")
    return _line(result if name == "Ping" else {name: result})


def encode_error(reason: str, code: str = "") -> bytes:
    """A code stands in brackets behind the reason, where it says more than that it failed."""
    return _line({"Error": reason if code in NO_CODES else f"{reason} [{code}]"})


def parse_reply(line: bytes, name: str) -> Any:
    """The result of a command. Raises ControlError for an error and for what is no answer."""
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("the daemon's answer makes no sense; is it another program?") from None
    if reply in ("Ok", {"Ok": None}):
        return None
    if reply in ("Pong", {"Pong": None}):
        return "Pong"
    if isinstance(reply, dict) and len(reply) == 1:
        if "Error" in reply:
            raise _error(str(reply["Error"]))
        if name in reply:
            return reply[name]
    raise ControlError(f"the daemon's answer to {name} makes no sense")


def _error(text: str) -> ControlError:
    found = re.fullmatch(r"(.*) \[([a-z][a-z0-9_-]*)\]", text, re.DOTALL)
    err = ControlError(found[1] if found else text)
    if found:
        err.code = found[2]
    return err


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
