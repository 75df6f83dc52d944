"""The embedded wallet: play money on regtest with real invoices, in one file that homes share.

Every home has an account of its own, named by its node key, which signs its `lnbcrt` invoices. A
payment is one transaction: money, preimage and both sides' records change together or not at all,
so SIGKILL at any instant loses nothing. The tables and what guards them are in `ledger_file`.

`watch` starts the thread `ledger`. It waits on the account's doorbell, which the other side of a
payment rings after its commit, and for the moment when held money goes back. `close` stops it.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Literal

from pylon.crypto import secp
from pylon.errors import InvalidMessage, Refused, WalletError
from pylon.units import MAX_MSATS
from pylon.wallets import bolt11, ledger_file
from pylon.wallets.doorbell import Doorbell, ring
from pylon.wallets.wallet import Invoice, Movement, OnChange, Outcome, Receipt, payable

NETWORK = "regtest"
HOLD_SECS = 600                     # held money goes back after this, unless it is taken
MAX_EXPIRY_SECS = 366 * 86400


class Ledger:
    """One account of a ledger file. `key` is its node key, 32 secret bytes."""

    name = "ledger"
    network = NETWORK
    whole_sats = False
    can_hold = True
    fee_cap: Literal["enforced", "advisory"] = "enforced"
    names_invoices = True
    pushes = True
    missing_final_secs = 0

    def __init__(self, path: Path, key: bytes, doorbell: Path, *, label: str = "",
                 fee_msats: int = 0, hold_secs: int = HOLD_SECS,
                 clock: Callable[[], float] = time.time) -> None:
        """Opens or makes the file. Raises ConfigError, WalletError, WalletUnreachable."""
        self.path = path
        self.node = secp.pubkey_compressed(key).hex()
        self.fee_msats = fee_msats          # of every payment that this account makes
        self._key = key
        self._hold_secs = hold_secs
        self._clock = clock
        self._doorbell_path = doorbell
        self._doorbell: Doorbell | None = None
        self._lock = threading.Lock()       # one transaction at a time on our connection
        self._seen_change = 0               # only the doorbell's thread
        with ledger_file.explained(path):
            self._db = ledger_file.connect(path)
        with self._writing() as tx:
            tx.execute("INSERT INTO account(node, label, doorbell) VALUES (?, ?, ?) "
                       "ON CONFLICT(node) DO UPDATE SET label = excluded.label, "
                       "doorbell = excluded.doorbell WHERE (label, doorbell) <> "
                       "(excluded.label, excluded.doorbell)", (self.node, label, str(doorbell)))

    # ---- receiving ------------------------------------------------------------------------------

    def balance(self) -> int:
        with self._reading() as tx:
            return _balance(tx, self.node)

    def fund(self, amount_msats: int, note: str = "play money") -> None:
        """Make money out of nothing. Raises WalletError."""
        if not 0 < amount_msats <= MAX_MSATS:
            raise WalletError(f"{amount_msats} msats is no amount to fund with")
        with self._writing() as tx:
            self._enter(tx, self.node, "fund", None, amount_msats, note)

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        """See Wallet. Asking again under the same name gives the same invoice, or WalletError."""
        with self._writing() as tx:
            made = self._named(tx, external_id)
            if made is None:
                made = self._insert_invoice(tx, amount_msats, description, expiry_secs,
                                            external_id, hold_hash)
            elif made.amount_msats != amount_msats or hold_hash not in (None, made.payment_hash):
                raise WalletError(f"an invoice named {external_id} exists and is another one")
        return made

    def _insert_invoice(self, tx: sqlite3.Connection, amount_msats: int, description: str,
                        expiry_secs: int, external_id: str, hold_hash: str | None) -> Invoice:
        if not 0 < expiry_secs <= MAX_EXPIRY_SECS:
            raise WalletError(f"{expiry_secs} s is no time for an invoice to live")
        preimage = None if hold_hash else secrets.token_bytes(32)
        payment_hash = hashlib.sha256(preimage).hexdigest() if preimage else str(hold_hash).lower()
        now = self._now()
        try:
            text = bolt11.encode(NETWORK, amount_msats, payment_hash, description, self._key,
                                 secrets.token_hex(32), now, expiry_secs)
        except InvalidMessage as err:
            raise WalletError(f"no invoice can be made: {err}") from err
        try:
            tx.execute("INSERT INTO invoice(payment_hash, account, bolt11, amount_msats, "
                       "description, preimage, external_id, hold, state, created_at, expires_at) "
                       "VALUES (?, ?, ?, ?, ?, ?, nullif(?, ''), ?, 'open', ?, ?)",
                       (payment_hash, self.node, text, amount_msats, description,
                        preimage.hex() if preimage else None, external_id,
                        hold_hash is not None, now, now + expiry_secs))
        except sqlite3.IntegrityError as err:
            raise WalletError(f"an invoice for hash {payment_hash[:8]} exists already") from err
        return Invoice(text, payment_hash, amount_msats, now + expiry_secs,
                       preimage.hex() if preimage else None)

    def find_invoice(self, external_id: str) -> Invoice | None:
        with self._reading() as tx:
            return self._named(tx, external_id)

    def _named(self, tx: sqlite3.Connection, external_id: str) -> Invoice | None:
        row = tx.execute("SELECT * FROM invoice WHERE account = ? AND external_id = ?",
                         (self.node, external_id)).fetchone()
        return row and Invoice(row["bolt11"], row["payment_hash"], row["amount_msats"],
                               row["expires_at"], row["preimage"])

    def lookup(self, payment_hash: str) -> Receipt:
        with self._reading() as tx:
            row = self._own_invoice(tx, payment_hash)
        if row is None:
            return Receipt("missing")
        if row["state"] == "open":
            return Receipt("expired" if self._now() >= row["expires_at"] else "open")
        if row["state"] == "paid":
            return Receipt("paid", row["amount_msats"], row["preimage"], row["settled_at"])
        if row["state"] == "held":
            return Receipt("held", row["amount_msats"], hold_expires_at=row["hold_expires_at"])
        return Receipt("cancelled")

    def settle(self, preimage: str) -> None:
        try:
            payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        except ValueError as err:
            raise WalletError("a preimage is 64 hex digits") from err
        with self._writing() as tx:
            row = self._own_invoice(tx, payment_hash)
            if row is not None and row["state"] == "paid":
                return
            if row is None or row["state"] != "held":
                raise WalletError(f"nothing is held for {payment_hash[:8]}: "
                                  f"it is {row['state'] if row else 'unknown'}")
            payer = self._take(tx, row, preimage.lower())
        ring(payer)

    def cancel(self, payment_hash: str) -> None:
        payer = None
        with self._writing() as tx:
            row = self._own_invoice(tx, payment_hash)
            if row is None or row["state"] == "paid":
                raise WalletError(f"cannot cancel {payment_hash[:8]}: "
                                  f"it is {row['state'] if row else 'unknown'}")
            if row["state"] == "held":
                payer = self._give_back(tx, row, "cancelled by the payee")
            elif row["state"] == "open":
                _set_invoice(tx, payment_hash, "cancelled")
        ring(payer)

    # ---- paying ---------------------------------------------------------------------------------

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        return None

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        try:
            payment_hash = payable(invoice, amount_msats, NETWORK).payment_hash
        except Refused as err:
            return Outcome("failed", reason=str(err))
        with self._writing() as tx:
            done = self._outcome_of(tx, payment_hash)
            if done.state != "missing":
                return done
            row = tx.execute("SELECT * FROM invoice WHERE payment_hash = ?",
                             (payment_hash,)).fetchone()
            why = self._why_not(tx, row, invoice.lower(), max_fee_msats)
            if why:
                return Outcome("failed", reason=why)
            payee = self._send(tx, row)
            outcome = self._outcome_of(tx, payment_hash)
        ring(payee)
        if self._doorbell is not None:
            self._doorbell.wake()       # it may be held: there is a new moment to wait for
        return outcome

    def _why_not(self, tx: sqlite3.Connection, row: sqlite3.Row | None, text: str,
                 max_fee_msats: int) -> str:
        if row is None or row["bolt11"] != text:
            return "no account of this ledger has made this invoice"
        if row["account"] == self.node:
            return "the invoice is our own"
        if row["state"] != "open":
            return f"the invoice is {row['state']} already"
        if self._now() >= row["expires_at"]:
            return "the invoice has expired"
        if self.fee_msats > max_fee_msats:
            return f"the fee of {self.fee_msats} msats is above the cap of {max_fee_msats}"
        if _balance(tx, self.node) < row["amount_msats"] + self.fee_msats:
            return "the balance is too low"
        return ""

    def _send(self, tx: sqlite3.Connection, row: sqlite3.Row) -> str:
        """Money leaves us, and arrives or is held. Returns the payee's doorbell."""
        now, payment_hash = self._now(), row["payment_hash"]
        tx.execute("INSERT INTO payment(payment_hash, account, payee, bolt11, amount_msats, "
                   "fee_msats, description, state, created_at) "
                   "VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
                   (payment_hash, self.node, row["account"], row["bolt11"], row["amount_msats"],
                    self.fee_msats, row["description"], now))
        self._enter(tx, self.node, "pay", payment_hash, -row["amount_msats"])
        self._enter(tx, self.node, "fee", payment_hash, -self.fee_msats)
        _set_invoice(tx, payment_hash, "held", hold_expires_at=now + self._hold_secs)
        if not row["hold"]:
            self._take(tx, row, row["preimage"])
        return _doorbell_of(tx, row["account"])

    def lookup_payment(self, payment_hash: str) -> Outcome:
        with self._reading() as tx:
            return self._outcome_of(tx, payment_hash)

    # ---- what moves held money ------------------------------------------------------------------

    def _take(self, tx: sqlite3.Connection, row: sqlite3.Row, preimage: str) -> str:
        """Held money becomes the payee's. Returns the payer's doorbell."""
        now, payment_hash = self._now(), row["payment_hash"]
        self._enter(tx, row["account"], "receive", payment_hash, row["amount_msats"])
        _set_invoice(tx, payment_hash, "paid", preimage=preimage, settled_at=now)
        tx.execute("UPDATE payment SET state = 'paid', preimage = ?, settled_at = ? "
                   "WHERE payment_hash = ?", (preimage, now, payment_hash))
        return _payer_doorbell(tx, payment_hash)

    def _give_back(self, tx: sqlite3.Connection, row: sqlite3.Row, reason: str) -> str:
        """Held money and its fee become the payer's again. Returns the payer's doorbell."""
        payment_hash = row["payment_hash"]
        payment = tx.execute("SELECT * FROM payment WHERE payment_hash = ?",
                             (payment_hash,)).fetchone()
        self._enter(tx, payment["account"], "return", payment_hash,
                    payment["amount_msats"] + payment["fee_msats"])
        _set_invoice(tx, payment_hash, "cancelled")
        tx.execute("UPDATE payment SET state = 'failed', reason = ?, settled_at = ? "
                   "WHERE payment_hash = ?", (reason, self._now(), payment_hash))
        return _payer_doorbell(tx, payment_hash)

    def _enter(self, tx: sqlite3.Connection, node: str, kind: str, payment_hash: str | None,
               delta_msats: int, note: str = "") -> None:
        if delta_msats:
            tx.execute("INSERT INTO entry(account, kind, payment_hash, delta_msats, note, at) "
                       "VALUES (?, ?, ?, ?, ?, ?)",
                       (node, kind, payment_hash, delta_msats, note, self._now()))

    # ---- looking --------------------------------------------------------------------------------

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        with self._reading() as tx:
            rows = tx.execute(ledger_file.HISTORY, {
                "node": self.node, "since": since,
                "limit": -1 if limit is None else limit}).fetchall()
        return [Movement(row["payment_hash"] or "", bool(row["incoming"]), row["amount_msats"],
                         row["fee_msats"], "paid" if row["state"] == "paid" else "pending",
                         row["at"], row["description"]) for row in rows]

    def watch(self, on_change: OnChange) -> None:
        with self._writing() as tx:         # what changed before is looked up anyway
            self._seen_change = tx.execute("SELECT coalesce(max(id), 0) FROM change").fetchone()[0]
            tx.execute("DELETE FROM change WHERE account = ? AND id < ?",
                       (self.node, self._seen_change))
        self._doorbell = Doorbell(self.name, self._doorbell_path,
                                  lambda: self._look_for_changes(on_change))

    def info(self) -> dict[str, Any]:
        return {"wallet": self.name, "network": NETWORK, "node": self.node,
                "file": str(self.path), "play_money": True}

    def close(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()
        with self._lock:
            self._db.close()

    # ---- transactions ---------------------------------------------------------------------------

    def _look_for_changes(self, on_change: OnChange) -> float | None:
        """Tell what changed on this account; returns the seconds until held money goes back."""
        with self._reading() as tx:
            rows = tx.execute("SELECT max(id) AS last, payment_hash FROM change "
                              "WHERE account = ? AND id > ? GROUP BY payment_hash ORDER BY last",
                              (self.node, self._seen_change)).fetchall()
            end = tx.execute("SELECT min(hold_expires_at) FROM invoice WHERE state = 'held'")
            hold_ends_at = end.fetchone()[0]
        for row in rows:
            self._seen_change = row["last"]
            on_change(row["payment_hash"])
        return None if hold_ends_at is None else max(0.05, hold_ends_at - self._clock())

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent look; held money whose time is over has gone back before it."""
        with self._lock, ledger_file.explained(self.path):
            due = self._db.execute("SELECT 1 FROM invoice WHERE state = 'held' AND "
                                   "hold_expires_at <= ?", (self._now(),)).fetchone()
        if due:
            with self._writing():
                pass
        with self._transaction("DEFERRED") as tx:
            yield tx

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One atomic change, after held money whose time is over went back."""
        with self._transaction("IMMEDIATE") as tx:
            bells = self._give_back_overdue(tx)
            yield tx
        for bell in bells:
            ring(bell)

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._lock, ledger_file.explained(self.path):
            self._db.execute(f"BEGIN {kind}")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _give_back_overdue(self, tx: sqlite3.Connection) -> list[str]:
        rows = tx.execute("SELECT * FROM invoice WHERE state = 'held' AND hold_expires_at <= ?",
                          (self._now(),)).fetchall()
        return [bell for row in rows for bell in (self._give_back(tx, row, "the hold ran out"),
                                                  _doorbell_of(tx, row["account"]))]

    def _own_invoice(self, tx: sqlite3.Connection, payment_hash: str) -> sqlite3.Row | None:
        return tx.execute("SELECT * FROM invoice WHERE payment_hash = ? AND account = ?",
                          (payment_hash, self.node)).fetchone()

    def _outcome_of(self, tx: sqlite3.Connection, payment_hash: str) -> Outcome:
        row = tx.execute("SELECT * FROM payment WHERE payment_hash = ? AND account = ?",
                         (payment_hash, self.node)).fetchone()
        if row is None:
            return Outcome("missing")
        if row["state"] == "pending":
            return Outcome("unknown", reason="the payee holds the money")
        if row["state"] == "failed":
            return Outcome("failed", reason=row["reason"])
        return Outcome("paid", row["preimage"], row["fee_msats"])

    def _now(self) -> int:
        return int(self._clock())


def _balance(tx: sqlite3.Connection, node: str) -> int:
    return tx.execute("SELECT balance_msats FROM account WHERE node = ?", (node,)).fetchone()[0]


def _doorbell_of(tx: sqlite3.Connection, node: str) -> str:
    return tx.execute("SELECT doorbell FROM account WHERE node = ?", (node,)).fetchone()[0]


def _payer_doorbell(tx: sqlite3.Connection, payment_hash: str) -> str:
    return tx.execute("SELECT doorbell FROM payment JOIN account ON node = account "
                      "WHERE payment_hash = ?", (payment_hash,)).fetchone()[0]


def _set_invoice(tx: sqlite3.Connection, payment_hash: str, state: str,
                 hold_expires_at: int | None = None, preimage: str | None = None,
                 settled_at: int | None = None) -> None:
    tx.execute("UPDATE invoice SET state = ?, preimage = coalesce(?, preimage), "
               "hold_expires_at = coalesce(?, hold_expires_at), settled_at = ? "
               "WHERE payment_hash = ?",
               (state, preimage, hold_expires_at, settled_at, payment_hash))
