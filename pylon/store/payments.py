"""Payments: the paying machine RESERVED -> SENT -> SUCCEEDED | FAILED | UNKNOWN.

An intent stands before the wallet is called, together with the money it may cost. One action key
and one payment hash have at most one row that did not fail; unique indexes decide it, so fifty
proposals at once pay once. Every step is one durable transaction with its booking:

    reserve     account -> reserved             amount and fee cap
    paid        reserved -> external, fees      what is left of the cap goes back
    release     reserved -> account             it failed, by the wallet's own record

The fee of a refund is the owner's. So is what a fee exceeds its cap by, with an alarm. UNKNOWN
keeps its reservation until the wallet's record, or the owner's word, decides. Trade inside the
node is a payment too (`wallet` is INTERNAL): reserved, then handed over by `settle_trade`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from typing import Any

from pylon.errors import Refused
from pylon.states import PaymentState
from pylon.store import books, journal, owed, spending
from pylon.store.clock import EARLIEST_AT
from pylon.store.database import Database
from pylon.store.spending import Limits, Uptime

P = PaymentState
OPEN = (P.RESERVED, P.SENT, P.UNKNOWN)
INTERNAL = "internal"
REFUND = "refund"                   # the purpose of paying what is owed; its scope is the owed id
OWNERS_WORD_SECS = 86400            # an unknown younger than this is left to the wallet


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be paid, checked already; amounts in msats.

    `purpose` is infer, order, zap, pay_invoice, refund or owner; `scope` the tick, order or owed
    id that it belongs to; `counterparty` the Nostr key behind it, where there is one.
    """

    action_key: str
    account: str
    purpose: str
    wallet: str
    bolt11: str
    payment_hash: str
    amount_msats: int
    fee_cap_msats: int
    payee: str | None = None
    scope: str | None = None
    counterparty: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One payment as stored; times in Unix seconds."""

    id: int
    action_key: str
    account: str
    purpose: str
    scope: str | None
    counterparty: str | None
    wallet: str
    bolt11: str
    payment_hash: str
    payee: str | None
    amount_msats: int
    fee_cap_msats: int
    state: PaymentState
    prepared: str | None
    created_at: int
    sent_at: int | None
    ended_at: int | None
    fee_msats: int | None
    preimage: str | None
    reason: str | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "PaymentRow":
        names = [name for name in cls.__slots__ if name != "state"]
        return cls(state=P(row["state"]), **{name: row[name] for name in names})

    @property
    def cost_msats(self) -> int:
        """What is reserved for it: the amount and its fee cap."""
        return self.amount_msats + self.fee_cap_msats

    @property
    def open(self) -> bool:
        return self.state in OPEN


# ---- the machine --------------------------------------------------------------------------------

def reserve(db: Database, intent: Intent, limits: Limits, now: int,
            uptime: Uptime | None = None) -> PaymentRow:
    """Decide and reserve in one transaction. Raises Refused, with a code, and changes nothing."""
    uptime = uptime or Uptime.read()
    if now < EARLIEST_AT:
        raise Refused("clock-wrong", "the machine's clock is before this program was made")
    with db.transaction(durable=True) as tx:
        _refuse_second(tx, intent)
        if intent.purpose == REFUND:
            owed.settling(tx, str(intent.scope), now)
        at = spending.clock_in(tx, now, uptime)
        _check_funds(tx, intent, limits, at)
        row = _insert(tx, intent, at, now)
        books.post(tx, "reserve", _ref(row), {
            **_shares(row, -row.amount_msats, -row.fee_cap_msats),
            books.RESERVED: row.cost_msats}, now)
        _tell(tx, "PaymentReserved", row, {"fee_cap_msats": row.fee_cap_msats,
                                           "account": row.account, "purpose": row.purpose}, now)
    return row


def mark_sent(db: Database, payment_id: int, prepared: str | None, now: int) -> PaymentRow:
    """RESERVED -> SENT, before the wallet is called; `prepared` is what alone may be resent."""
    with db.transaction(durable=True) as tx:
        row = _step(tx, payment_id, P.SENT, prepared=prepared, sent_at=now)
        _tell(tx, "PaymentSent", row, {}, now)
    return row


def succeed(db: Database, payment_id: int, preimage: str | None, fee_msats: int | None,
            now: int) -> PaymentRow:
    """-> SUCCEEDED, booked. A second call changes nothing. `fee_msats` None: not told."""
    with db.transaction(durable=True) as tx:
        return _succeed(tx, payment_id, preimage, fee_msats, now, {})


def fail(db: Database, payment_id: int, reason: str, now: int) -> PaymentRow:
    """-> FAILED, and the money is the account's again. A second call changes nothing."""
    with db.transaction(durable=True) as tx:
        return _fail(tx, payment_id, reason, now, {})


def release_unsent(db: Database, payment_id: int, now: int) -> PaymentRow:
    """RESERVED -> FAILED after an interruption; in any other state nothing changes."""
    with db.transaction(durable=True) as tx:
        row = _get(tx, payment_id)
        if row.state != P.RESERVED:
            return row
        return _fail(tx, payment_id, "interrupted before it was sent", now, {})


def unknown(db: Database, payment_id: int, reason: str, now: int) -> PaymentRow:
    """SENT -> UNKNOWN: the reservation stands. Decided ones stay as they are."""
    with db.transaction(durable=True) as tx:
        before = _get(tx, payment_id)
        if before.state != P.SENT:
            return before
        row = _step(tx, payment_id, P.UNKNOWN, reason=reason[:200])
        _tell(tx, "PaymentUnknown", row, {"reason": row.reason}, now)
    return row


def resolve(db: Database, payment_hash: str, paid: bool, preimage: str | None, fee_msats: int,
            now: int) -> PaymentRow:
    """UNKNOWN ends by the owner's word. Raises Refused.

    `paid` needs the preimage, which proves it; "it failed" is believed after a day only, because
    a payment that is still under way would be paid twice.
    """
    with db.transaction(durable=True) as tx:
        found = tx.execute("SELECT * FROM payments WHERE payment_hash = ? AND state = 'unknown'",
                           (payment_hash,)).fetchone()
        if found is None:
            raise Refused("not-unknown", f"no payment of {payment_hash[:16]} is unknown")
        row = PaymentRow.of(found)
        if paid:
            if not proves(preimage, payment_hash):
                raise Refused("bad-preimage", "this is not the preimage of that payment")
            return _succeed(tx, row.id, preimage, fee_msats, now, {"by": "owner"})
        age = now - (row.sent_at or row.created_at)
        if age < OWNERS_WORD_SECS:
            raise Refused("too-early", "it may still be under way; the owner's word counts after "
                          f"24 hours ({age // 3600} have passed)")
        return _fail(tx, row.id, "by the owner's word", now, {"by": "owner"})


def proves(preimage: str | None, payment_hash: str) -> bool:
    """Whether the preimage (hex) belongs to the hash."""
    try:
        return hashlib.sha256(bytes.fromhex(preimage or "")).hexdigest() == payment_hash
    except ValueError:
        return False


def settle_trade(tx: sqlite3.Connection, payment_id: int, target: str, now: int) -> PaymentRow:
    """A reserved trade inside the node is done: its amount becomes `target`'s, with no earnings.

    Runs in the caller's durable transaction, so that goods and money change hands together.
    """
    row = _get(tx, payment_id)
    if row.wallet != INTERNAL:
        raise ValueError(f"payment {payment_id} is not a trade inside the node")
    if row.state == P.SUCCEEDED:
        return row
    _step(tx, payment_id, P.SENT, sent_at=now)
    row = _step(tx, payment_id, P.SUCCEEDED, fee_msats=0, ended_at=now)
    books.post(tx, "trade", _ref(row), _merged([
        (books.RESERVED, -row.cost_msats), (target, row.amount_msats),
        *_shares(row, 0, row.fee_cap_msats).items()]), now)
    _tell(tx, "PaymentSucceeded", row, {"to": target}, now)
    return row


def transfer(db: Database, source: str, target: str, amount_msats: int, kind: str, ref: str,
             now: int) -> None:
    """Move money between accounts at once: `fund`, `withdraw`. Once for every (kind, ref).

    Raises Refused (`no-funds`, `bad-amount`).
    """
    if amount_msats <= 0 or source == target:
        raise Refused("bad-amount", f"{amount_msats} msats cannot go from {source} to {target}")
    with db.transaction(durable=True) as tx:
        if books.stands(tx, kind, ref):
            return
        there = spending.available_in(tx, source)
        if amount_msats > there:
            raise Refused("no-funds", f"{source} has {there} msats, not {amount_msats}")
        books.post(tx, kind, ref, {source: -amount_msats, target: amount_msats}, now)
        journal.add(tx, "MoneyMoved", ref, {"kind": kind, "from": source, "to": target,
                                            "amount_msats": amount_msats}, now)


# ---- looking ------------------------------------------------------------------------------------

def get(db: Database, payment_id: int) -> PaymentRow | None:
    return _one(db, "id = ?", payment_id)


def by_action(db: Database, action_key: str) -> PaymentRow | None:
    """The row of this action that did not fail, else the newest that did."""
    return _one(db, "action_key = ?", action_key)


def by_hash(db: Database, payment_hash: str) -> PaymentRow | None:
    """The row of this hash that did not fail, else the newest that did."""
    return _one(db, "payment_hash = ?", payment_hash)


def open_intents(db: Database) -> list[PaymentRow]:
    """Everything that is not decided, oldest first."""
    return [PaymentRow.of(row) for row in db.query(
        "SELECT * FROM payments WHERE state IN ('reserved', 'sent', 'unknown') ORDER BY id")]


def of_scope(db: Database, scope: str) -> list[PaymentRow]:
    """Every payment of one tick, order or owed id, oldest first."""
    return [PaymentRow.of(row) for row in db.query(
        "SELECT * FROM payments WHERE scope = ? ORDER BY id", (scope,))]


def latest(db: Database, limit: int) -> list[PaymentRow]:
    return [PaymentRow.of(row) for row in db.query(
        "SELECT * FROM payments ORDER BY id DESC LIMIT ?", (limit,))]


def _one(db: Database, where: str, value: str | int) -> PaymentRow | None:
    row = db.one(f"SELECT * FROM payments WHERE {where} "
                 "ORDER BY state = 'failed', id DESC LIMIT 1", (value,))
    return PaymentRow.of(row) if row else None


# ---- inside a transaction -----------------------------------------------------------------------

def _refuse_second(tx: sqlite3.Connection, intent: Intent) -> None:
    for column, value, code in (("action_key", intent.action_key, "action-taken"),
                                ("payment_hash", intent.payment_hash, "invoice-taken")):
        row = tx.execute(f"SELECT state FROM payments WHERE {column} = ? AND state <> 'failed'",
                         (value,)).fetchone()
        if row is not None:
            word = "paid" if row["state"] == P.SUCCEEDED else "being paid"
            what = "action" if column == "action_key" else "invoice"
            raise Refused(code, f"this {what} is {word} already")


def _check_funds(tx: sqlite3.Connection, intent: Intent, limits: Limits, at: int) -> None:
    """The account pays amount and fee; of a refund, the owner pays the fee."""
    fee = 0 if intent.purpose == REFUND else intent.fee_cap_msats
    spending.check(tx, intent.account, intent.purpose, intent.amount_msats + fee, limits, at,
                   intent.scope, intent.counterparty)
    if intent.fee_cap_msats > fee and spending.available_in(tx, books.OWNER) < intent.fee_cap_msats:
        raise Refused("no-funds", "the owner's account cannot pay the fee of this refund")


def _insert(tx: sqlite3.Connection, intent: Intent, counts_at: int, now: int) -> PaymentRow:
    return PaymentRow.of(tx.execute(
        "INSERT INTO payments(action_key, account, purpose, scope, counterparty, wallet, bolt11, "
        "payment_hash, payee, amount_msats, fee_cap_msats, state, counts_at, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?, ?) RETURNING *",
        (intent.action_key, intent.account, intent.purpose, intent.scope, intent.counterparty,
         intent.wallet, intent.bolt11, intent.payment_hash, intent.payee, intent.amount_msats,
         intent.fee_cap_msats, counts_at, now)).fetchone())


def _get(tx: sqlite3.Connection, payment_id: int) -> PaymentRow:
    return PaymentRow.of(tx.execute("SELECT * FROM payments WHERE id = ?",
                                    (payment_id,)).fetchone())


def _step(tx: sqlite3.Connection, payment_id: int, state: PaymentState,
          **columns: Any) -> PaymentRow:
    setters = "".join(f", {name} = ?" for name in columns)
    return PaymentRow.of(tx.execute(
        f"UPDATE payments SET state = ?{setters} WHERE id = ? RETURNING *",
        (state.value, *columns.values(), payment_id)).fetchone())


def _succeed(tx: sqlite3.Connection, payment_id: int, preimage: str | None, fee_msats: int | None,
             now: int, facts: dict[str, Any]) -> PaymentRow:
    before = _get(tx, payment_id)
    if before.state == P.SUCCEEDED:
        return before
    fee = fee_msats or 0
    row = _step(tx, payment_id, P.SUCCEEDED, preimage=preimage, fee_msats=fee, ended_at=now)
    back, over = max(0, row.fee_cap_msats - fee), max(0, fee - row.fee_cap_msats)
    books.post(tx, "paid", _ref(row), _merged([
        (books.RESERVED, -row.cost_msats), (books.EXTERNAL, row.amount_msats), (books.FEES, fee),
        *_shares(row, 0, back).items(), (books.OWNER, -over)]), now)
    _tell(tx, "PaymentSucceeded", row,
          {"fee_msats": fee_msats, "account": row.account, "purpose": row.purpose, **facts}, now)
    if over:
        _tell(tx, "Alarm", row, {"code": "fee-overrun", "fee_msats": fee,
                                 "fee_cap_msats": row.fee_cap_msats}, now)
    if row.purpose == REFUND:
        owed.refunded(tx, str(row.scope), row.amount_msats, now)
    return row


def _fail(tx: sqlite3.Connection, payment_id: int, reason: str, now: int,
          facts: dict[str, Any]) -> PaymentRow:
    before = _get(tx, payment_id)
    if before.state == P.FAILED:
        return before
    row = _step(tx, payment_id, P.FAILED, reason=reason[:200], ended_at=now)
    books.post(tx, "release", _ref(row), {
        books.RESERVED: -row.cost_msats,
        **_shares(row, row.amount_msats, row.fee_cap_msats)}, now)
    _tell(tx, "PaymentFailed", row, {"reason": row.reason, "account": row.account, **facts}, now)
    if row.purpose == REFUND:
        owed.reopen(tx, str(row.scope), now)
    return row


def _shares(row: PaymentRow, amount_msats: int, fee_msats: int) -> dict[str, int]:
    """Whose the amount is, and whose the fee."""
    fee_account = books.OWNER if row.purpose == REFUND else row.account
    return _merged([(row.account, amount_msats), (fee_account, fee_msats)])


def _merged(moves: list[tuple[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for account, msats in moves:
        merged[account] = merged.get(account, 0) + msats
    return merged


def _ref(row: PaymentRow) -> str:
    return f"payment-{row.id}"


def _tell(tx: sqlite3.Connection, type_: str, row: PaymentRow, facts: dict[str, Any],
          now: int) -> None:
    journal.add(tx, type_, row.payment_hash,
                {"action_key": row.action_key, "scope": row.scope,
                 "amount_msats": row.amount_msats, **facts}, now)
