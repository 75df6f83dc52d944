"""Amounts and durations: integer millisatoshi inside, satoshi and words at the edges."""

from __future__ import annotations

import re

from pylon.errors import UsageError

MSATS_PER_SAT = 1000
MAX_MSATS = 21_000_000 * 100_000_000 * MSATS_PER_SAT   # every bitcoin there can be

_DIGITS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_AMOUNT = re.compile(r"([0-9]{1,18})\s*(sats?|msats?)?\Z", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9})\s*(s|m|h|d|w)?\Z", re.ASCII)
_SECS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_count(text: str) -> int:
    """A non-negative integer in plain ASCII digits; ValueError for anything else.

    int() would take '1_000', ' 7 ', and Arabic-Indic digits.
    """
    if not isinstance(text, str) or not _DIGITS.match(text):
        raise ValueError("not a plain number")
    return int(text)


def parse_sats(text: str) -> int:
    """'21', '21 sats' or '21000 msats' as msats. Raises UsageError."""
    match = _AMOUNT.match(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not an amount; write 21, 21sats or 21000msats")
    number, unit = int(match[1]), match[2] or "sats"
    msats = number if unit.startswith("msat") else number * MSATS_PER_SAT
    if msats > MAX_MSATS:
        raise UsageError(f"{text!r} is more than every bitcoin there is")
    return msats


def parse_duration(text: str) -> int:
    """'90', '90s', '15m', '6h', '2d' or '1w' as seconds. Raises UsageError."""
    match = _DURATION.match(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration; write 90s, 15m, 6h, 2d or 1w")
    return int(match[1]) * _SECS[match[2]]


def round_up_to_sats(msats: int) -> int:
    """The next whole satoshi, still in msats."""
    return -(-msats // MSATS_PER_SAT) * MSATS_PER_SAT


def format_sats(msats: int) -> str:
    """'1,234 sats', with up to three decimals where there are odd millisatoshi."""
    sign, msats = ("-", -msats) if msats < 0 else ("", msats)
    whole, rest = divmod(msats, MSATS_PER_SAT)
    text = f"{whole:,}" + (f".{rest:03d}".rstrip("0") if rest else "")
    return f"{sign}{text} sat" + ("" if msats == MSATS_PER_SAT else "s")


def format_duration(secs: float) -> str:
    """'42s', '3m 20s', '5h 2m', '4d 3h'."""
    secs = int(secs)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"),
                                          (60, "m", 1, "s")):
        if secs >= size:
            rest = secs % size // small
            return f"{secs // size}{name}" + (f" {rest}{small_name}" if rest else "")
    return f"{secs}s"
