"""The machine's clock against what the store knows: a machine without a battery boots in the past.

A node whose clock is wrong signs and quotes nothing (and the payer pays nothing). The kernel's
word that the clock is set by the network outweighs the store: one wrong clock in the future must
not close a node for ever.
"""

from __future__ import annotations

import ctypes

from pylon.store.database import Database

EARLIEST_AT = 1_790_000_000         # 2026-09-21: before this program was made
SLACK_SECS = 300
_NEWEST = "SELECT max(at) AS at FROM (SELECT at FROM journal ORDER BY id DESC LIMIT 1)"
_TIME_ERROR = 5                     # adjtimex(2): the clock is not synchronised


def newest_at(db: Database) -> int:
    """When the last thing was written down, in Unix seconds; 0 in a new home."""
    return db.query(_NEWEST)[0]["at"] or 0


def trouble(now: int, newest: int) -> str | None:
    """What is wrong with a clock that says `now`, `newest` being the last time stored."""
    if now < EARLIEST_AT:
        return "the machine's clock is before this program was made; set it: timedatectl set-ntp on"
    if now < newest - SLACK_SECS and not synchronised():
        return (f"the machine's clock is {newest - now} s before what this node wrote down last; "
                "set it: timedatectl set-ntp on")
    return None


def synchronised() -> bool:
    """Whether the kernel says that the network keeps the clock right (adjtimex(2))."""
    try:
        return ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) in range(_TIME_ERROR)
    except (OSError, AttributeError):
        return False
