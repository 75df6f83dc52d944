"""What moves in the wallet without Pylon: brought into the books, so that they say what is there.

The owner's own payments in the same wallet are booked `external` against the owner's account, and
journalled; an invoice of ours that was paid twice is owed. What the history does not list (an
opening balance, a payment on the chain) is the difference that remains, booked the same way. Then
the wallet covers agents, customers and payments under way exactly where the owner's accounts are
not below zero; below, spending stops until they are covered again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pylon.errors import PylonError
from pylon.log import Repeated
from pylon.role import Role
from pylon.store import books, journal, meta, owed, spending
from pylon.store.database import Database
from pylon.units import format_sats
from pylon.wallets.wallet import Movement, Wallet

log = logging.getLogger(__name__)

LOOK_TRIES = 5                      # to see wallet and books while neither changes
OVERLAP_SECS = 86400                # a payment under way is listed where it began
CHECK_SECS, CHECK_AGAIN_SECS = 3600, 60     # when covered, and when not
_OPENED, _SEEN_UNTIL = "external_opened_at", "external_seen_at"


@dataclass(frozen=True, slots=True)
class View:
    """The wallet at one moment, and the books' version at it; `quiet` unless something moved."""

    balance_msats: int
    movements: list[Movement]       # oldest first
    version: int
    quiet: bool


@dataclass(frozen=True, slots=True)
class Cover:
    """How the wallet stands to the books after `absorb`."""

    wallet_msats: int
    needed_msats: int               # agents, owed, and payments under way
    owner_msats: int                # what is left for the owner; below zero: underfunded
    booked: list[dict[str, object]]     # the external movements that were new

    @property
    def underfunded(self) -> bool:
        return self.owner_msats < 0


def look(db: Database, wallet: Wallet, since: int) -> View:
    """Balance and history, read so that both and the books mean the same moment."""
    for attempt in range(LOOK_TRIES):
        version, balance = books.version(db), wallet.balance()
        movements = wallet.history(since)[::-1]
        quiet = (wallet.balance(), books.version(db)) == (balance, version)
        if quiet or attempt == LOOK_TRIES - 1:
            break
    return View(balance, movements, version, quiet)


def absorb(db: Database, wallet: Wallet, now: int) -> Cover:
    """Book what moved without us; stop spending where the wallet covers too little.

    Raises WalletError where the wallet does not answer; then nothing changes.
    """
    for _ in range(LOOK_TRIES):
        view = look(db, wallet, _since(db))
        cover = _absorb(db, wallet.name, view, now)
        if cover is not None:
            return cover
    with db.transaction(durable=False) as tx:       # it never stood still: say how it looks
        return _cover(tx, view.balance_msats, [])


def _since(db: Database) -> int:
    opened = int(meta.get(db, _OPENED) or 0)
    seen = int(meta.get(db, _SEEN_UNTIL) or 0)
    return max(0, opened, seen - OVERLAP_SECS)


def _absorb(db: Database, wallet: str, view: View, now: int) -> Cover | None:
    with db.transaction(durable=True) as tx:
        if not view.quiet or _version(tx) != view.version:
            return None
        booked: list[dict[str, object]] = []
        opening = tx.execute("SELECT 1 FROM meta WHERE key = ?", (_OPENED,)).fetchone() is None
        if opening:
            meta.put(tx, _OPENED, str(now))
        else:
            for ref, movement in _named(view.movements):
                _book_movement(tx, ref, movement, booked, now)
        _book_rest(tx, wallet, view, booked, opening, now)
        meta.put(tx, _SEEN_UNTIL, str(now))
        cover = _cover(tx, view.balance_msats, booked)
        if cover.underfunded:
            spending.freeze(tx, spending.UNDERFUNDED, now)
        else:
            spending.thaw(tx, spending.UNDERFUNDED, now)
        return cover


def _version(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()[0])


def _named(movements: list[Movement]) -> list[tuple[str, Movement]]:
    """Every finished movement with the name under which it is booked; oldest first."""
    found, times = [], Counter[str]()
    for movement in movements:
        if movement.state != "paid":
            continue
        way = "in" if movement.incoming else "out"
        name = movement.payment_hash or f"{movement.at}.{movement.amount_msats}"
        times[f"{way}:{name}"] += 1
        number = times[f"{way}:{name}"]
        found.append((f"{way}:{name}" + (f"#{number}" if number > 1 else ""), movement))
    return found


def _book_movement(tx: sqlite3.Connection, ref: str, movement: Movement,
                   booked: list[dict[str, object]], now: int) -> None:
    ours = _whose(tx, movement)
    if ours is not None:
        again = ref.partition("#")[2]
        if movement.incoming and again:
            owed.add_second(tx, movement.payment_hash, ours["job_id"], ours["customer_pubkey"],
                            movement.amount_msats, int(again), now)
        return
    if books.stands(tx, "external", ref):
        return
    sign = 1 if movement.incoming else -1
    _book(tx, ref, sign * movement.amount_msats, movement.fee_msats, now)
    booked.append({"ref": ref, "amount_msats": sign * movement.amount_msats,
                   "fee_msats": movement.fee_msats, "at": movement.at, "listed": True})


def _whose(tx: sqlite3.Connection, movement: Movement) -> sqlite3.Row | None:
    """The row of ours that a movement belongs to; None for the owner's own."""
    if not movement.incoming:
        return tx.execute("SELECT id FROM payments WHERE payment_hash = ?",
                          (movement.payment_hash,)).fetchone()
    return tx.execute("SELECT i.job_id, coalesce(j.customer_pubkey, '') AS customer_pubkey "
                      "FROM invoices i LEFT JOIN jobs j ON j.id = i.job_id "
                      "WHERE i.payment_hash = ?", (movement.payment_hash,)).fetchone()


def _book_rest(tx: sqlite3.Connection, wallet: str, view: View, booked: list[dict[str, object]],
               opening: bool, now: int) -> None:
    """The difference that no movement explains, beyond what is under way either way."""
    difference = view.balance_msats - _holdings(tx)
    highest = sum(m.amount_msats for _, m in _named(view.movements)
                  if m.incoming and _not_booked_yet(tx, m.payment_hash))
    lowest = highest - _under_way(tx)
    rest = difference - highest if difference > highest else min(0, difference - lowest)
    if rest == 0:
        return
    ref = f"{'opening' if opening else 'unlisted'}:{wallet}:{_version(tx)}"
    _book(tx, ref, rest, 0, now)
    booked.append({"ref": ref, "amount_msats": rest, "fee_msats": 0, "at": now, "listed": False})


def _not_booked_yet(tx: sqlite3.Connection, payment_hash: str) -> bool:
    """Money for an invoice of ours that the watch has not booked at this moment."""
    return tx.execute("SELECT 1 FROM invoices WHERE payment_hash = ? AND status <> 'paid'",
                      (payment_hash,)).fetchone() is not None


def _under_way(tx: sqlite3.Connection) -> int:
    """What the wallet may have let go already, or not yet."""
    return int(tx.execute("SELECT coalesce(sum(amount_msats + fee_cap_msats), 0) FROM payments "
                          "WHERE state IN ('sent', 'unknown')").fetchone()[0])


def _holdings(tx: sqlite3.Connection) -> int:
    return -books.balance_in(tx, books.EXTERNAL) - books.balance_in(tx, books.FEES)


def _book(tx: sqlite3.Connection, ref: str, amount_msats: int, fee_msats: int, now: int) -> None:
    """Into the wallet (positive) or out of it, for the owner."""
    books.post(tx, "external", ref, {books.EXTERNAL: -amount_msats, books.FEES: fee_msats,
                                     books.OWNER: amount_msats - fee_msats}, now)
    journal.add(tx, "ExternalMovement", "wallet",
                {"ref": ref, "amount_msats": amount_msats, "fee_msats": fee_msats}, now)


def _cover(tx: sqlite3.Connection, wallet_msats: int, booked: list[dict[str, object]]) -> Cover:
    owner = spending.available_in(tx, books.OWNER)
    return Cover(wallet_msats, _holdings(tx) - owner, owner, booked)


class Auditor(Role):
    """Keeps the books in step with the wallet. Thread: auditor; woken by nobody but the clock.

    Looks at the start, every hour, and every minute while the wallet covers too little or does
    not answer.
    """

    def __init__(self, db: Database, wallet: Callable[[], Wallet | None]) -> None:
        super().__init__("auditor")
        self._db, self._wallet = db, wallet
        self._trouble = Repeated(log, logging.WARNING)

    def step(self, now: int) -> None:
        self.wait(CHECK_SECS if self._covered(now) else CHECK_AGAIN_SECS)

    def _covered(self, now: int) -> bool:
        wallet = self._wallet()
        if wallet is None:
            return False
        try:
            cover = absorb(self._db, wallet, now)
        except PylonError as err:
            self._trouble.failed("audit: the wallet cannot be read: %s", err)
            return False
        self._trouble.over("audit: the wallet can be read again")
        if cover.underfunded:
            log.error("audit: the wallet has %s less than belongs to agents and customers; "
                      "spending is stopped", format_sats(-cover.owner_msats))
        return not cover.underfunded
