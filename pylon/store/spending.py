"""Spending: what an account may spend, decided inside the transaction that reserves it.

A limit counts what was paid and what is still on its way, with the fee or the fee's cap. Windows
roll in real seconds: `counts_at` runs with the machine's uptime, so setting the clock neither
reopens a window nor closes it for ever. A node that may not spend has reasons,
words that are stored; each is taken away by whoever set it.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pylon.errors import Refused
from pylon.store import books, journal, meta
from pylon.store.clock import EARLIEST_AT
from pylon.store.database import Database
from pylon.units import format_sats

DAY_SECS = 86400

UNDERFUNDED, RESTORED, BY_OWNER = "underfunded", "restored", "owner"
_WHY = {UNDERFUNDED: "the wallet holds less than what belongs to agents and customers; see: "
                     "pylon wallet audit",
        RESTORED: "this home was restored from a backup; check it with: pylon wallet audit",
        BY_OWNER: "the owner stopped all spending"}

_FROZEN, _CLOCK = "spending_frozen", "spending_clock"

# What one payment counts for: nothing once it failed, the fee instead of its cap once it is paid.
_COST = ("CASE state WHEN 'failed' THEN 0 WHEN 'succeeded' "
         "THEN amount_msats + min(coalesce(fee_msats, 0), fee_cap_msats) "
         "ELSE amount_msats + fee_cap_msats END")


class Uptime(NamedTuple):
    """Seconds since the machine booted, suspended time included, and which boot that was."""

    boot_id: str
    secs: int

    @classmethod
    def read(cls) -> "Uptime":
        return cls(_boot_id(), int(time.clock_gettime(time.CLOCK_BOOTTIME)))


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `msats` in `window_secs` (None: for ever), of one account.

    Narrowed to purposes, to one scope (a tick, an order), or to one counterparty where given.
    `code` is the refusal's code.
    """

    code: str
    msats: int
    window_secs: int | None = DAY_SECS
    purposes: tuple[str, ...] = ()
    scope: str | None = None
    counterparty: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one payment: its own size, the caps, and what must stay in the account."""

    action_msats: int | None = None
    caps: tuple[Cap, ...] = ()
    keep_msats: int = 0


NO_LIMITS = Limits()


def check(tx: sqlite3.Connection, account: str, purpose: str, cost_msats: int, limits: Limits,
          counts_at: int, scope: str | None = None, counterparty: str | None = None) -> None:
    """Raise Refused unless the account may spend `cost_msats` (fee cap included) now."""
    reasons = frozen_in(tx)
    if reasons:
        raise Refused("spending-frozen", "spending is stopped: " + "; ".join(
            _WHY.get(reason, reason) for reason in reasons))
    if limits.action_msats is not None and cost_msats > limits.action_msats:
        raise Refused("over-action-limit", f"{format_sats(cost_msats)} with its fee is above the "
                      f"limit of {format_sats(limits.action_msats)} for one payment")
    for cap in limits.caps:
        if not _applies(cap, purpose, scope, counterparty):
            continue
        spent = spent_in(tx, account, cap, counts_at)
        if spent + cost_msats > cap.msats:
            raise Refused(cap.code, f"{format_sats(spent)} of {format_sats(cap.msats)} are spent "
                          f"or reserved; {format_sats(cost_msats)} more would be too much")
    there = available_in(tx, account)
    if cost_msats > there - limits.keep_msats:
        kept = f", {format_sats(limits.keep_msats)} must stay" if limits.keep_msats else ""
        raise Refused("no-funds", f"{format_sats(cost_msats)} with its fee is more than the "
                      f"account has ({format_sats(there)}{kept})")


def _applies(cap: Cap, purpose: str, scope: str | None, counterparty: str | None) -> bool:
    return ((not cap.purposes or purpose in cap.purposes)
            and cap.scope in (None, scope) and cap.counterparty in (None, counterparty))


def spent_in(tx: sqlite3.Connection, account: str, cap: Cap, counts_at: int) -> int:
    """Msats that count against a cap at spending time `counts_at`."""
    sql, params = _spent(account, cap, counts_at)
    return int(tx.execute(sql, params).fetchone()[0])


def spent(db: Database, account: str, cap: Cap, now: int, uptime: Uptime | None = None) -> int:
    """Msats that count against a cap now."""
    uptime = uptime or Uptime.read()
    with db.transaction(durable=False) as tx:
        return spent_in(tx, account, cap, clock_in(tx, now, uptime))


def _spent(account: str, cap: Cap, counts_at: int) -> tuple[str, tuple[str | int, ...]]:
    sql = f"SELECT coalesce(sum({_COST}), 0) FROM payments WHERE account = ?"
    params: list[str | int] = [account]
    if cap.window_secs is not None:
        sql += " AND counts_at > ?"
        params.append(counts_at - cap.window_secs)
    if cap.purposes:
        sql += f" AND purpose IN ({','.join('?' * len(cap.purposes))})"
        params += cap.purposes
    for column, value in (("scope", cap.scope), ("counterparty", cap.counterparty)):
        if value is not None:
            sql += f" AND {column} = ?"
            params.append(value)
    return sql, tuple(params)


def available_in(tx: sqlite3.Connection, account: str) -> int:
    """What an account can spend; the owner's includes what the provider earned."""
    there = books.balance_in(tx, account)
    return there + books.balance_in(tx, books.PROVIDER) if account == books.OWNER else there


def available(db: Database, account: str) -> int:
    there = books.balance(db, account)
    return there + books.balance(db, books.PROVIDER) if account == books.OWNER else there


# ---- the clock of the windows -------------------------------------------------------------------

def keep_time(db: Database, now: int, uptime: Uptime) -> None:
    """Note the time: at the start of a boot, and now and then. In a transaction of its own: a
    refusal that rolls back must not leave it to a later, perhaps wrong, wall clock."""
    with db.transaction(durable=False) as tx:
        clock_in(tx, now, uptime)


def clock_in(tx: sqlite3.Connection, now: int, uptime: Uptime) -> int:
    """The spending time: real seconds, which neither jump nor go back.

    Within one boot it runs with the uptime. Over a reboot it goes on by what the wall clock shows
    beyond the latest time that it ever showed: a clock that was set back, or that is behind
    because the machine has none of its own, adds nothing.
    """
    row = tx.execute("SELECT value FROM meta WHERE key = ?", (_CLOCK,)).fetchone()
    if row is None:
        at = latest = max(now, EARLIEST_AT)
    else:
        boot_id, *numbers = row["value"].split()
        at, secs, latest = map(int, numbers)
        same_boot = boot_id == uptime.boot_id and uptime.secs >= secs
        at += uptime.secs - secs if same_boot else max(0, now - latest)
    at = max(at, tx.execute("SELECT coalesce(max(counts_at), 0) FROM payments").fetchone()[0])
    meta.put(tx, _CLOCK, f"{uptime.boot_id} {at} {uptime.secs} {max(latest, now)}")
    return at


# ---- stopping -----------------------------------------------------------------------------------

def frozen_in(tx: sqlite3.Connection) -> list[str]:
    row = tx.execute("SELECT value FROM meta WHERE key = ?", (_FROZEN,)).fetchone()
    return row["value"].split() if row else []


def frozen(db: Database) -> list[str]:
    """Why nothing may be spent, in words; empty when it may."""
    return (meta.get(db, _FROZEN) or "").split()


def freeze(tx: sqlite3.Connection, reason: str, now: int) -> bool:
    """Stop spending for this reason (one word); False where it stood already."""
    reasons = frozen_in(tx)
    if reason in reasons:
        return False
    meta.put(tx, _FROZEN, " ".join([*reasons, reason]))
    journal.add(tx, "Alarm", "wallet", {"code": "spending-frozen", "reason": reason}, now)
    return True


def thaw(tx: sqlite3.Connection, reason: str, now: int) -> bool:
    """Take one reason away; False where it did not stand."""
    reasons = frozen_in(tx)
    if reason not in reasons:
        return False
    meta.put(tx, _FROZEN, " ".join(word for word in reasons if word != reason))
    journal.add(tx, "SpendingResumed", "wallet", {"reason": reason}, now)
    return True
