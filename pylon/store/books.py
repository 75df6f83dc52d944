"""The books: double entry over every millisatoshi that Pylon answers for.

A booking moves money between accounts and sums to zero; it is named by `(kind, ref)`, so doing it
twice is refused by the table. Accounts: `owner`, `provider` (a sub-account of the owner's),
`agent:<npub>`, `reserved` (in flight), `owed`, `fees`, and `external`, the world outside: its
balance is minus everything that the wallet should hold, plus what was paid in fees. Entries are
append-only by trigger; a balance is always a sum.
"""

from __future__ import annotations

import sqlite3

from pylon.store.database import Database, ReadOnly

OWNER, PROVIDER, RESERVED, OWED, FEES, EXTERNAL = (
    "owner", "provider", "reserved", "owed", "fees", "external")


def agent_account(npub: str) -> str:
    return f"agent:{npub}"


def post(tx: sqlite3.Connection, kind: str, ref: str, moves: dict[str, int], now: int) -> None:
    """Book one movement: account -> msats (signed), summing to zero.

    Raises ValueError on a sum that isn't zero, sqlite3.IntegrityError where it stands already.
    """
    if sum(moves.values()) != 0:
        raise ValueError(f"booking {kind} {ref} does not sum to zero: {moves}")
    tx.executemany("INSERT INTO entries(kind, ref, account, amount_msats, created_at) "
                   "VALUES (?, ?, ?, ?, ?)",
                   [(kind, ref, account, msats, now) for account, msats in moves.items() if msats])


def balance_in(tx: sqlite3.Connection, account: str) -> int:
    """One account's balance in msats, inside a transaction."""
    return tx.execute("SELECT coalesce(sum(amount_msats), 0) FROM entries WHERE account = ?",
                      (account,)).fetchone()[0]


def balance(db: Database | ReadOnly, account: str) -> int:
    """One account's balance in msats."""
    row = db.one("SELECT coalesce(sum(amount_msats), 0) AS n FROM entries WHERE account = ?",
                 (account,))
    return row["n"] if row else 0


def balances(db: Database | ReadOnly) -> dict[str, int]:
    """Every account that was ever touched, with its balance in msats; they sum to zero."""
    return {row["account"]: row["n"] for row in db.query(
        "SELECT account, sum(amount_msats) AS n FROM entries GROUP BY account ORDER BY account")}


def stands(tx: sqlite3.Connection, kind: str, ref: str) -> bool:
    """Whether a movement of this name was booked already."""
    return tx.execute("SELECT 1 FROM entries WHERE kind = ? AND ref = ? LIMIT 1",
                      (kind, ref)).fetchone() is not None


def moved(db: Database | ReadOnly, kind: str, account: str) -> dict[str, int]:
    """What every movement of one kind did to one account, by ref."""
    return {row["ref"]: row["amount_msats"] for row in db.query(
        "SELECT ref, amount_msats FROM entries WHERE kind = ? AND account = ?", (kind, account))}


def bookings(db: Database | ReadOnly,
             kinds: tuple[str, ...]) -> dict[tuple[str, str], dict[str, int]]:
    """Every movement of these kinds, by (kind, ref): what it did to each account."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for row in db.query("SELECT kind, ref, account, amount_msats FROM entries WHERE kind IN "
                        f"({','.join('?' * len(kinds))}) ORDER BY id", kinds):
        found.setdefault((row["kind"], row["ref"]), {})[row["account"]] = row["amount_msats"]
    return found


def lopsided(db: Database | ReadOnly) -> list[tuple[str, str, int]]:
    """Movements that do not sum to zero: kind, ref, msats too many. There are none."""
    return [(row["kind"], row["ref"], row["n"]) for row in db.query(
        "SELECT kind, ref, sum(amount_msats) AS n FROM entries GROUP BY kind, ref "
        "HAVING n <> 0 ORDER BY min(id)")]


def holdings(db: Database | ReadOnly) -> int:
    """What the wallet should hold in msats: everything that came in, less what left and fees."""
    row = db.one("SELECT coalesce(-sum(amount_msats), 0) AS n FROM entries "
                 "WHERE account IN ('external', 'fees')")
    return row["n"] if row else 0


def version(db: Database) -> int:
    """Grows with every booking; equal numbers mean that nothing was booked between."""
    row = db.one("SELECT coalesce(max(id), 0) AS n FROM entries")
    return row["n"] if row else 0
