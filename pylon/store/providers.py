"""Our own history with the providers: a dealing is all that passed between one order and one.

What a provider's score says is summed from these rows, never counted beside them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Iterable

from pylon.store import journal
from pylon.store.database import Database, ReadOnly

# Ends of a dealing that speak against the provider; others are nobody's fault.
FAULTS = ("provider-error", "not-delivered", "wrong-amount", "wrong-network", "bad-invoice",
          "no-amount", "not-encrypted", "unreadable", "empty-result", "silent")


@dataclass(frozen=True, slots=True)
class Dealing:
    """One order and one provider. `code` is set once the provider is out of the running."""

    order_id: str
    provider: str
    source: str                     # relay | internal
    asked_at: int                   # when it was asked, or first spoke up
    last_at: int                    # its last sign of life
    offered_at: int | None          # it said that it works on it, without a price
    quoted_at: int | None
    quote_event_id: str | None
    amount_msats: int | None        # 0 or None: free
    bolt11: str | None
    payment_hash: str | None
    expires_at: int | None
    paid_at: int | None
    paid_msats: int | None
    delivered_at: int | None
    result: str | None
    result_event_id: str | None
    ended_at: int | None
    code: str | None
    reason: str | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "Dealing":
        return cls(**{name: row[name] for name in row.keys()})

    @property
    def priced(self) -> bool:
        """It wants money: by an invoice, or (source `internal`) in the node's own books."""
        return bool(self.amount_msats)


@dataclass(frozen=True, slots=True)
class History:
    """What we have lived through with one provider."""

    pubkey: str
    asked: int = 0
    quoted: int = 0
    paid: int = 0
    delivered: int = 0
    failed: int = 0
    undelivered: int = 0            # took money and never delivered
    lost_msats: int = 0
    paid_msats: int = 0
    mean_secs: float | None = None  # from being asked (or paid) to the result
    last_at: int | None = None


def touch(tx: sqlite3.Connection, order_id: str, provider: str, now: int,
          **fields: Any) -> None:
    """Note a sign of life of a provider, with what it told."""
    columns = {"last_at": now, **fields}
    setters = ", ".join(f"{name} = ?" for name in columns)
    tx.execute("INSERT OR IGNORE INTO dealings(order_id, provider, asked_at, last_at) "
               "VALUES (?, ?, ?, ?)", (order_id, provider, now, now))
    tx.execute(f"UPDATE dealings SET {setters} WHERE order_id = ? AND provider = ?",
               (*columns.values(), order_id, provider))


def strike(tx: sqlite3.Connection, order_id: str, provider: str, code: str, reason: str,
           now: int) -> None:
    """The provider is out of the running for this order; the first reason stands."""
    touch(tx, order_id, provider, now)
    done = tx.execute("UPDATE dealings SET ended_at = ?, code = ?, reason = ? WHERE order_id = ? "
                      "AND provider = ? AND code IS NULL",
                      (now, code, reason, order_id, provider)).rowcount
    if done:
        journal.add(tx, "ProviderRefused", order_id, {"provider": provider, "code": code,
                                                      "reason": reason}, now)


def get(db: Database | ReadOnly, order_id: str, provider: str) -> Dealing | None:
    row = db.one("SELECT * FROM dealings WHERE order_id = ? AND provider = ?",
                 (order_id, provider))
    return Dealing.of(row) if row else None


def of_order(db: Database | ReadOnly, order_id: str) -> list[Dealing]:
    """Everybody who took part, in the order in which they spoke up."""
    return [Dealing.of(row) for row in db.query(
        "SELECT * FROM dealings WHERE order_id = ? ORDER BY asked_at, provider", (order_id,))]


def histories(db: Database | ReadOnly,
              pubkeys: Iterable[str] | None = None) -> dict[str, History]:
    """What we know of these providers (None: of all that we ever dealt with)."""
    where, params = "", tuple(FAULTS)
    if pubkeys is not None:
        wanted = tuple(pubkeys)
        where = f"WHERE d.provider IN ({','.join('?' * len(wanted))})"
        params += wanted
    rows = db.query(f"SELECT d.provider AS pubkey, {_SUMS.format('?' + ',?' * len(FAULTS[1:]))} "
                    "FROM dealings d JOIN orders o ON o.id = d.order_id "
                    f"{where} GROUP BY d.provider", params)
    return {row["pubkey"]: History(**{name: row[name] for name in row.keys()}) for row in rows}


# A delivery counts where its result was the one taken: nobody earns a name by shouting first.
_TAKEN = "(o.state = 'completed' AND o.provider = d.provider)"
_LOST = "(d.paid_at IS NOT NULL AND d.delivered_at IS NULL AND d.ended_at IS NOT NULL)"
_SUMS = (f"count(*) AS asked, count(d.quoted_at) AS quoted, count(d.paid_at) AS paid, "
         f"sum({_TAKEN}) AS delivered, coalesce(sum(d.code IN ({{}})), 0) AS failed, "
         f"sum({_LOST}) AS undelivered, "
         f"coalesce(sum(CASE WHEN {_LOST} THEN d.paid_msats END), 0) AS lost_msats, "
         f"coalesce(sum(d.paid_msats), 0) AS paid_msats, "
         # Held money is booked after the delivery: then the time runs from the asking.
         f"avg(CASE WHEN {_TAKEN} THEN d.delivered_at - CASE WHEN d.paid_at <= d.delivered_at "
         f"THEN d.paid_at ELSE d.asked_at END END) AS mean_secs, max(d.last_at) AS last_at")
