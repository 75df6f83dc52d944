"""The file of the embedded ledger: its tables, how it is opened, and what its errors mean.

Several processes write it at once, so it has a rollback journal (no WAL), synchronous=EXTRA and
BEGIN IMMEDIATE. Triggers keep the history append-only, move every balance with its entries, refuse
a negative one, refuse illegal steps, and note in `change` whom to tell.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pylon.errors import ConfigError, WalletError, WalletUnreachable

VERSION = 1
BUSY_SECS = 20                      # how long another home's transaction is waited for

SCHEMA = """
CREATE TABLE IF NOT EXISTS account(
    node TEXT PRIMARY KEY,                      -- the node key, compressed, hex
    label TEXT NOT NULL, doorbell TEXT NOT NULL,
    balance_msats INTEGER NOT NULL DEFAULT 0 CHECK (balance_msats >= 0)) STRICT;
CREATE TABLE IF NOT EXISTS entry(
    id INTEGER PRIMARY KEY, account TEXT NOT NULL REFERENCES account(node),
    kind TEXT NOT NULL CHECK (kind IN ('fund', 'pay', 'fee', 'receive', 'return')),
    payment_hash TEXT, delta_msats INTEGER NOT NULL, note TEXT NOT NULL, at INTEGER NOT NULL,
    UNIQUE (account, kind, payment_hash)) STRICT;
CREATE INDEX IF NOT EXISTS entry_of ON entry(account, id);
CREATE TABLE IF NOT EXISTS invoice(
    payment_hash TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account(node),
    bolt11 TEXT NOT NULL UNIQUE, amount_msats INTEGER NOT NULL CHECK (amount_msats > 0),
    description TEXT NOT NULL, preimage TEXT, external_id TEXT, hold INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'held', 'paid', 'cancelled')),
    created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    hold_expires_at INTEGER, settled_at INTEGER, UNIQUE (account, external_id)) STRICT;
CREATE INDEX IF NOT EXISTS invoice_held ON invoice(hold_expires_at) WHERE state = 'held';
CREATE TABLE IF NOT EXISTS payment(
    payment_hash TEXT PRIMARY KEY REFERENCES invoice(payment_hash),
    account TEXT NOT NULL REFERENCES account(node), payee TEXT NOT NULL, bolt11 TEXT NOT NULL,
    amount_msats INTEGER NOT NULL, fee_msats INTEGER NOT NULL, description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'paid', 'failed')),
    preimage TEXT, reason TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL, settled_at INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS change(
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, payment_hash TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS change_of ON change(account, id);

CREATE TRIGGER IF NOT EXISTS entry_moves_balance AFTER INSERT ON entry BEGIN
    UPDATE account SET balance_msats = balance_msats + new.delta_msats WHERE node = new.account;
END;
CREATE TRIGGER IF NOT EXISTS entry_stays BEFORE UPDATE ON entry BEGIN
    SELECT raise(ABORT, 'the ledger is append-only');
END;
CREATE TRIGGER IF NOT EXISTS entry_stays_too BEFORE DELETE ON entry BEGIN
    SELECT raise(ABORT, 'the ledger is append-only');
END;
CREATE TRIGGER IF NOT EXISTS invoice_stays BEFORE DELETE ON invoice BEGIN
    SELECT raise(ABORT, 'the ledger is append-only');
END;
CREATE TRIGGER IF NOT EXISTS payment_stays BEFORE DELETE ON payment BEGIN
    SELECT raise(ABORT, 'the ledger is append-only');
END;
CREATE TRIGGER IF NOT EXISTS invoice_steps BEFORE UPDATE OF state ON invoice
WHEN NOT (old.state = 'open' AND new.state IN ('held', 'cancelled')
          OR old.state = 'held' AND new.state IN ('paid', 'cancelled')) BEGIN
    SELECT raise(ABORT, 'illegal step of an invoice');
END;
CREATE TRIGGER IF NOT EXISTS payment_steps BEFORE UPDATE OF state ON payment
WHEN NOT (old.state = 'pending' AND new.state IN ('paid', 'failed')) BEGIN
    SELECT raise(ABORT, 'illegal step of a payment');
END;
CREATE TRIGGER IF NOT EXISTS invoice_changed AFTER UPDATE OF state ON invoice BEGIN
    INSERT INTO change(account, payment_hash) VALUES (new.account, new.payment_hash);
END;
CREATE TRIGGER IF NOT EXISTS payment_changed AFTER UPDATE OF state ON payment BEGIN
    INSERT INTO change(account, payment_hash) VALUES (new.account, new.payment_hash);
END;
"""

# What moved on one account, newest first: a payment that failed moved nothing.
HISTORY = """
SELECT e.payment_hash, e.delta_msats > 0 AS incoming, abs(e.delta_msats) AS amount_msats,
       coalesce(p.fee_msats, 0) AS fee_msats, coalesce(p.state, 'paid') AS state, e.at,
       coalesce(p.description, i.description, e.note) AS description
  FROM entry e
  LEFT JOIN payment p ON e.kind = 'pay' AND p.payment_hash = e.payment_hash
  LEFT JOIN invoice i ON e.kind = 'receive' AND i.payment_hash = e.payment_hash
 WHERE e.account = :node AND e.at >= :since AND e.kind IN ('fund', 'receive', 'pay')
   AND coalesce(p.state, 'paid') <> 'failed'
 ORDER BY e.id DESC LIMIT :limit
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the ledger, or make it, 0600. Raises ConfigError, and what `explained` turns into."""
    _make_private(path)
    db = sqlite3.connect(path, timeout=BUSY_SECS, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("PRAGMA synchronous=EXTRA")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA trusted_schema=OFF")
        _make_tables(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        info = path.lstat()
    except OSError as err:
        raise ConfigError(f"cannot open the ledger {path}: {err.strerror}") from err
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"the ledger {path} is not yours alone; mend it with: "
                          f"chown {os.geteuid()} '{path}' && chmod 0600 '{path}'")


def _make_tables(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise ConfigError(f"the ledger {path} was written by a newer Pylon; install that one")
        if version < VERSION:
            for statement in _statements():
                db.execute(statement)
            db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _statements() -> Iterator[str]:
    pending = ""
    for line in SCHEMA.strip().splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into WalletError (damaged, closed) and WalletUnreachable (the rest)."""
    try:
        yield
    except sqlite3.ProgrammingError as err:
        raise WalletError(f"the ledger {path} is closed") from err
    except sqlite3.DatabaseError as err:
        if any(word in str(err) for word in ("malformed", "not a database")):
            raise WalletError(f"the ledger {path} is damaged: {err}") from err
        raise WalletUnreachable(f"the ledger {path} cannot be used: {err}") from err
