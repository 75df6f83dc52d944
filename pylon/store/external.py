"""What moved in the wallet without Pylon: booked, so that the books say what is there.

The owner's own movements are `external`, against the owner's account. What no movement explains
(an opening balance, a payment on the chain) is the rest, booked the same way. Then the wallet
covers agents, customers and payments under way exactly where the owner's accounts are not below
zero; below, spending stops, in the same transaction, until they are covered again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from pylon.store import books, journal, meta, owed, spending
from pylon.store.database import Database

OVERLAP_SECS = 86400                # a payment under way is listed where it began
_OPENED, _SEEN_UNTIL = "external_opened_at", "external_seen_at"


@dataclass(frozen=True, slots=True)
class Moved:
    """One finished movement of the wallet's history. `number` counts those of the same hash."""

    payment_hash: str               # '' where no Lightning payment was behind it
    incoming: bool
    amount_msats: int
    fee_msats: int
    at: int
    number: int

    @property
    def ref(self) -> str:
        """The name under which it is booked."""
        name = self.payment_hash or f"{self.at}.{self.amount_msats}"
        again = f"#{self.number}" if self.number > 1 else ""
        return f"{'in' if self.incoming else 'out'}:{name}{again}"

    @property
    def signed_msats(self) -> int:
        """Positive into the wallet."""
        return self.amount_msats if self.incoming else -self.amount_msats


@dataclass(frozen=True, slots=True)
class Cover:
    """How the wallet stands to the books, in msats."""

    wallet_msats: int
    needed_msats: int               # agents, owed, and payments under way
    owner_msats: int                # what is left for the owner; below zero: underfunded
    booked: list[Moved]             # the external movements that were new

    @property
    def underfunded(self) -> bool:
        return self.owner_msats < 0


def opened_at(db: Database) -> int | None:
    """When the wallet was looked at first; what moved before is in the opening balance."""
    value = meta.get(db, _OPENED)
    return int(value) if value else None


def since(db: Database) -> int:
    """From where on the wallet's history is still news."""
    return max(0, opened_at(db) or 0, int(meta.get(db, _SEEN_UNTIL) or 0) - OVERLAP_SECS)


def booked(db: Database) -> dict[str, int]:
    """Every external booking: its ref, and msats into the wallet (negative: out of it)."""
    return {ref: -msats for ref, msats in books.moved(db, "external", books.EXTERNAL).items()}


def absorb(db: Database, wallet: str, balance_msats: int, moved: list[Moved], version: int,
           now: int) -> Cover | None:
    """Book what is new in `moved` (oldest first), then the rest; freeze or thaw spending.

    None, and nothing changes, where the books are not at `version` any more.
    """
    with db.transaction(durable=True) as tx:
        if _version(tx) != version:
            return None
        booked: list[Moved] = []
        opened = tx.execute("SELECT value FROM meta WHERE key = ?", (_OPENED,)).fetchone()
        if opened is None:
            meta.put(tx, _OPENED, str(now))
        else:
            booked += [one for one in moved
                       if one.at >= int(opened["value"]) and _book_movement(tx, one, now)]
        rest = _rest(tx, balance_msats, moved)
        if rest:
            ref = f"{'opening' if opened is None else 'unlisted'}:{wallet}:{_version(tx)}"
            _book(tx, ref, rest, 0, now)
            booked.append(Moved("", rest > 0, abs(rest), 0, now, 1))
        meta.put(tx, _SEEN_UNTIL, str(now))
        cover = _cover(tx, balance_msats, booked)
        change = spending.freeze if cover.underfunded else spending.thaw
        change(tx, spending.UNDERFUNDED, now)
        return cover


def cover(db: Database, balance_msats: int) -> Cover:
    """How it looks, with nothing booked."""
    with db.transaction(durable=False) as tx:
        return _cover(tx, balance_msats, [])


def _book_movement(tx: sqlite3.Connection, moved: Moved, now: int) -> bool:
    """True where it was the owner's and new."""
    ours = _whose(tx, moved)
    if ours is not None:
        if moved.incoming and moved.number > 1:
            owed.add_second(tx, moved.payment_hash, ours["job_id"], ours["customer_pubkey"],
                            moved.amount_msats, moved.number, now)
        return False
    if books.stands(tx, "external", moved.ref):
        return False
    _book(tx, moved.ref, moved.signed_msats, moved.fee_msats, now)
    return True


def _whose(tx: sqlite3.Connection, moved: Moved) -> sqlite3.Row | None:
    """The row of ours that a movement belongs to; None for the owner's own."""
    if not moved.incoming:
        return tx.execute("SELECT id FROM payments WHERE payment_hash = ?",
                          (moved.payment_hash,)).fetchone()
    return tx.execute("SELECT i.job_id, coalesce(j.customer_pubkey, '') AS customer_pubkey "
                      "FROM invoices i LEFT JOIN jobs j ON j.id = i.job_id "
                      "WHERE i.payment_hash = ?", (moved.payment_hash,)).fetchone()


def _rest(tx: sqlite3.Connection, balance_msats: int, moved: list[Moved]) -> int:
    """The difference that nothing explains, beyond what is under way either way."""
    difference = balance_msats - _holdings(tx)
    highest = sum(one.amount_msats for one in moved
                  if one.incoming and _not_booked_yet(tx, one.payment_hash))
    if difference > highest:
        return difference - highest
    return min(0, difference - highest + _under_way(tx))


def _not_booked_yet(tx: sqlite3.Connection, payment_hash: str) -> bool:
    """Money for an invoice of ours that the watch has not booked at this moment."""
    return tx.execute("SELECT 1 FROM invoices WHERE payment_hash = ? AND status <> 'paid'",
                      (payment_hash,)).fetchone() is not None


def _under_way(tx: sqlite3.Connection) -> int:
    """What the wallet may have let go already, or not yet."""
    return int(tx.execute("SELECT coalesce(sum(amount_msats + fee_cap_msats), 0) FROM payments "
                          "WHERE state IN ('sent', 'unknown')").fetchone()[0])


def _version(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()[0])


def _holdings(tx: sqlite3.Connection) -> int:
    return -books.balance_in(tx, books.EXTERNAL) - books.balance_in(tx, books.FEES)


def _book(tx: sqlite3.Connection, ref: str, amount_msats: int, fee_msats: int, now: int) -> None:
    """Into the wallet (positive) or out of it, for the owner."""
    books.post(tx, "external", ref, {books.EXTERNAL: -amount_msats, books.FEES: fee_msats,
                                     books.OWNER: amount_msats - fee_msats}, now)
    journal.add(tx, "ExternalMovement", "wallet",
                {"ref": ref, "amount_msats": amount_msats, "fee_msats": fee_msats}, now)


def _cover(tx: sqlite3.Connection, wallet_msats: int, booked: list[Moved]) -> Cover:
    owner = spending.available_in(tx, books.OWNER)
    return Cover(wallet_msats, _holdings(tx) - owner, owner, booked)
