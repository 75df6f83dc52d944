"""The parameters of a customer's job: read strictly, clamped, and only the known ones.

Pure. What stands here is all that a customer can say to a backend; an unknown name never gets
there (some servers can be crashed, or made to load gigabytes, by one).
"""

from __future__ import annotations

import re
from typing import Any

from pylon.errors import Refused
from pylon.log import peer_text
from pylon.units import parse_count

MAX_STOPS = 4
MAX_STOP_CHARS = 64
MAX_SEED = 2**31 - 1

_DECIMAL = re.compile(r"(-?)([0-9]{1,4}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})", re.ASCII)
_FRACTIONS = {"temperature": (0.0, 2.0), "top_p": (0.01, 1.0), "frequency_penalty": (-2.0, 2.0)}
_COUNTS = {"top_k": (1, 1000), "seed": (0, MAX_SEED)}


def parse(params: dict[str, str], config: Any) -> dict[str, Any]:
    """Fields of a `Prompt`, `max_tokens` always among them. Raises Refused (`bad-param`)."""
    given = {name.strip().lower().replace("-", "_"): text for name, text in params.items()}
    found: dict[str, Any] = {"max_tokens": _max_tokens(given, config.provider)}
    for name, (low, high) in _FRACTIONS.items():
        if name in given:
            found[name] = min(high, max(low, _fraction(name, given[name])))
    for name, (least, most) in _COUNTS.items():
        if name in given:
            found[name] = min(most, max(least, _count(name, given[name])))
    if given.get("stop"):
        found["stop"] = _stops(given)
    return found


def _max_tokens(given: dict[str, str], provider: Any) -> int:
    if "max_tokens" not in given:
        return min(provider.default_max_tokens, provider.max_output_tokens)
    asked = _count("max_tokens", given["max_tokens"])
    if asked == 0:
        raise _bad("max_tokens", "0", "a whole number from 1")
    return min(asked, provider.max_output_tokens)


def _count(name: str, text: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise _bad(name, text, "a whole number in plain digits") from None


def _fraction(name: str, text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise _bad(name, text, "a decimal number like 0.7")
    return float(text)


def _stops(given: dict[str, str]) -> list[str]:
    """One text; lines would be ambiguous, so there is no way to give several."""
    text = given["stop"]
    if len(text) > MAX_STOP_CHARS:
        raise _bad("stop", text, f"at most {MAX_STOP_CHARS} characters")
    return [text]


def _bad(name: str, text: str, wish: str) -> Refused:
    return Refused("bad-param", f"the parameter `{name}` must be {wish}, not "
                   f"'{peer_text(text)[:40]}'")
