"""Frames between relay and client (NIP-01, NIP-42), parsed and built.

`parse` checks a frame as strictly as an event's fields can be without a hash; the event inside
is *not verified*. A frame that is none of these raises InvalidMessage: it costs only itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylon.errors import InvalidMessage
from pylon.nostr import event as events
from pylon.nostr import strictjson
from pylon.nostr.event import Event

MAX_SUB_ID_CHARS = 64
MAX_TEXT_CHARS = 1000           # of NOTICE, OK and CLOSED; a relay may write a megabyte
MAX_CHALLENGE_CHARS = 1000

PREFIXES = ("duplicate", "pow", "blocked", "rate-limited", "invalid", "restricted", "mute",
            "error", "auth-required")


@dataclass(slots=True)                  # not frozen: that doubles the time to make one
class RelayEvent:
    sub_id: str
    event: Event                # not verified


@dataclass(frozen=True, slots=True)
class Ok:
    event_id: str
    accepted: bool
    message: str


@dataclass(frozen=True, slots=True)
class Eose:
    sub_id: str


@dataclass(frozen=True, slots=True)
class Closed:
    sub_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Notice:
    message: str


@dataclass(frozen=True, slots=True)
class Auth:
    challenge: str


Message = RelayEvent | Ok | Eose | Closed | Notice | Auth


def parse(text: str) -> Message:
    """A relay's frame. Raises InvalidMessage."""
    frame = strictjson.load(text)
    if type(frame) is not list or not frame or type(frame[0]) is not str:
        raise InvalidMessage("a frame is a list that begins with a word")
    if frame[0] == "EVENT" and len(frame) == 3:         # nearly all of them
        return RelayEvent(_sub_id(frame[1]), events.parse(frame[2]))
    reader = _READERS.get(frame[0])
    if reader is None:
        raise InvalidMessage(f"unknown or misshapen frame {frame[0][:20]!r}")
    return reader(frame[1:])


def prefix(message: str) -> str:
    """The machine-readable prefix of an OK or CLOSED text, '' without a known one."""
    word, colon, _ = message.partition(":")
    return word if colon and word in PREFIXES else ""


def req(sub_id: str, filters: list[dict[str, Any]]) -> str:
    return _dump(["REQ", sub_id, *filters])


def close(sub_id: str) -> str:
    return _dump(["CLOSE", sub_id])


def publish(event_json: str) -> str:
    """An event as it was stored, byte for byte."""
    return f'["EVENT",{event_json}]'


def auth(event_json: str) -> str:
    return f'["AUTH",{event_json}]'


def _read_ok(rest: list[Any]) -> Ok:
    # nostr-relay names no event, "", when it could not read the one that it was sent.
    if (len(rest) not in (2, 3) or not (rest[0] == "" or events.is_hex(rest[0]))
            or type(rest[1]) is not bool):
        raise InvalidMessage("misshapen OK")
    return Ok(rest[0], rest[1], _text(rest[2]) if len(rest) == 3 else "")


def _read_eose(rest: list[Any]) -> Eose:
    if len(rest) != 1:
        raise InvalidMessage("misshapen EOSE")
    return Eose(_sub_id(rest[0]))


def _read_closed(rest: list[Any]) -> Closed:
    if len(rest) not in (1, 2):
        raise InvalidMessage("misshapen CLOSED")
    return Closed(_sub_id(rest[0]), _text(rest[1]) if len(rest) == 2 else "")


def _read_notice(rest: list[Any]) -> Notice:
    if len(rest) != 1:
        raise InvalidMessage("misshapen NOTICE")
    return Notice(_text(rest[0]))


def _read_auth(rest: list[Any]) -> Auth:
    if len(rest) != 1 or type(rest[0]) is not str or not 0 < len(rest[0]) <= MAX_CHALLENGE_CHARS:
        raise InvalidMessage("misshapen AUTH")
    _check_text(rest[0])
    return Auth(rest[0])


_READERS: dict[str, Callable[[list[Any]], Message]] = {
    "OK": _read_ok, "EOSE": _read_eose, "CLOSED": _read_closed, "NOTICE": _read_notice,
    "AUTH": _read_auth}


def _sub_id(value: object) -> str:
    if type(value) is not str or not 0 < len(value) <= MAX_SUB_ID_CHARS:
        raise InvalidMessage("misshapen subscription id")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise InvalidMessage("a text is not a string")
    return value[:MAX_TEXT_CHARS].encode(errors="replace").decode()     # no lone surrogates


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessage("the text has a lone surrogate") from None


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
