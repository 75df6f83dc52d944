"""Orders: what we asked of the market, for a person or an agent, and what became of it.

An order's id is the id of its first request event; an encrypted order that falls over to another
provider has one more event for each (`order_events`). Each change of state is one step of the
machine in `states`; triggers refuse every other.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from pylon.nostr.event import Event
from pylon.states import OPEN_ORDERS, OrderState
from pylon.store import journal, outbox, providers
from pylon.store.database import Database, ReadOnly

S = OrderState
ASK, CANCEL = "order", "order-cancel"       # purposes in the outbox; an ASK's ref is its event
_JSON = ("details", "targets", "relays")


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One order as stored; amounts in msats, times in Unix seconds."""

    id: str
    kind: int
    pubkey: str                     # whose key signed it
    account: str                    # whose money it may spend
    state: OrderState
    prompt: str | None              # None once the content's retention is over
    model: str | None
    details: dict[str, Any]         # max_tokens, params, output: what else was asked
    encryption: str                 # '' | nip04 | nip44
    target: str | None              # the only provider that may answer (the last event's `p`)
    targets: list[str]              # who is asked next should the target fail, best first
    relays: list[str]               # [] means the node's own
    policy: str                     # free | cheap | fast | trusted
    bid_msats: int | None
    max_msats: int                  # most that may be paid without asking again; 0: nothing
    first: bool                     # take the first good quote
    quote_secs: int
    timeout_secs: int
    quote_until: int
    deadline_at: int
    provider: str | None            # the provider chosen
    tries: int                      # quotes accepted; all but the last failed for certain
    result: str | None
    result_event_id: str | None
    code: str | None
    error_message: str | None
    created_at: int
    updated_at: int
    ended_at: int | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "OrderRow":
        columns = {name: row[name] for name in row.keys()}
        columns.update({name: json.loads(row[name]) for name in _JSON})
        columns.update(state=S(row["state"]), first=bool(row["first"]))
        return cls(**columns)

    @property
    def limit_msats(self) -> int:
        """The most that may be paid for it: what the owner allowed, and never above the bid."""
        return self.max_msats if self.bid_msats is None else min(self.max_msats, self.bid_msats)


def submit(db: Database, order: OrderRow, event: Event, now: int) -> None:
    """A new order and its signed event, stored before it is sent."""
    with db.transaction(durable=False) as tx:
        columns = {name: getattr(order, name) for name in OrderRow.__slots__}
        columns.update({name: json.dumps(columns[name]) for name in _JSON}, state=S.NEW.value)
        tx.execute(f"INSERT INTO orders({', '.join(columns)}) "
                   f"VALUES ({', '.join('?' * len(columns))})", tuple(columns.values()))
        journal.add(tx, "OrderSubmitted", order.id,
                    {"kind": order.kind, "model": order.model, "policy": order.policy,
                     "provider": order.target, "max_msats": order.max_msats,
                     "bid_msats": order.bid_msats, "encrypted": bool(order.encryption),
                     "account": order.account, "prompt_chars": len(order.prompt or "")}, now)
        _ask(tx, order, event, now)


def ask_next(db: Database, order: OrderRow, event: Event, now: int) -> None:
    """The target failed before anything was paid: ask the next one, with an event of its own."""
    target, *targets = order.targets
    with db.transaction(durable=False) as tx:
        update(tx, order.id, now, target=target, targets=json.dumps(targets))
        journal.add(tx, "OrderAskedNext", order.id, {"provider": target}, now)
        _ask(tx, order, event, now)


def _ask(tx: sqlite3.Connection, order: OrderRow, event: Event, now: int) -> None:
    target = event.first("p")
    tx.execute("INSERT INTO order_events VALUES (?, ?, ?, ?)", (event.id, order.id, target, now))
    if target is not None:
        providers.touch(tx, order.id, target, now)
    outbox.add(tx, event, ASK, event.id, order.relays, now, order.deadline_at)


def get(db: Database | ReadOnly, order_id: str) -> OrderRow | None:
    row = db.one("SELECT * FROM orders WHERE id = ?", (order_id,))
    return OrderRow.of(row) if row else None


def find(db: Database | ReadOnly, prefix: str, limit: int = 2) -> list[str]:
    """Ids that start with `prefix` (hex), for people who type the short form."""
    rows = db.query("SELECT id FROM orders WHERE id >= ? AND id < ? LIMIT ?",
                    (prefix, prefix + "g", limit))
    return [row["id"] for row in rows]


def latest(db: Database | ReadOnly, limit: int) -> list[OrderRow]:
    """The newest orders first."""
    return [OrderRow.of(row) for row in db.query(
        "SELECT * FROM orders ORDER BY created_at DESC, rowid DESC LIMIT ?", (limit,))]


def open_orders(db: Database) -> list[OrderRow]:
    """Orders that are still under way, oldest first."""
    marks = ",".join("?" * len(OPEN_ORDERS))
    return [OrderRow.of(row) for row in db.query(
        f"SELECT * FROM orders WHERE state IN ({marks}) ORDER BY created_at",
        tuple(s.value for s in OPEN_ORDERS))]


def count_open(db: Database) -> int:
    row = db.one("SELECT count(*) AS n FROM orders WHERE state IN "
                 "('new', 'sent', 'accepted', 'paid')")
    return row["n"] if row else 0


def served_by(db: Database) -> frozenset[str]:
    """Providers whose results we have taken."""
    return frozenset(row["provider"] for row in db.query(
        "SELECT DISTINCT provider FROM orders WHERE state = 'completed' LIMIT 1000"))


def undelivered(db: Database, since: int) -> list[OrderRow]:
    """Ended orders that were paid and never answered: a late result is still welcome."""
    return [OrderRow.of(row) for row in db.query(
        "SELECT o.* FROM orders o JOIN dealings d ON d.order_id = o.id WHERE o.state IN "
        "('failed', 'expired') AND d.paid_at IS NOT NULL AND d.delivered_at IS NULL "
        "AND o.ended_at >= ? ORDER BY o.created_at", (since,))]


def unnoted(db: Database) -> list[OrderRow]:
    """Completed orders whose payment ended after their result, which nobody wrote down yet."""
    return [OrderRow.of(row) for row in db.query(
        "SELECT o.* FROM orders o JOIN dealings d ON d.order_id = o.id AND d.provider = "
        "o.provider JOIN payments p ON p.action_key = o.id AND p.state = 'succeeded' "
        "WHERE o.state = 'completed' AND d.paid_at IS NULL")]


def asked(db: Database | ReadOnly, order_id: str) -> dict[str, str | None]:
    """The ids of the order's request events and whom each was for (None: everybody), the first
    one being the order's own id."""
    return {row["event_id"]: row["provider"] for row in db.query(
        "SELECT event_id, provider FROM order_events WHERE order_id = ? ORDER BY created_at, "
        "event_id <> order_id", (order_id,))}


def reached_a_relay(db: Database, order_id: str) -> bool:
    """Whether some relay has accepted an event of the order."""
    return db.one("SELECT 1 FROM order_events e JOIN outbox o ON o.event_id = e.event_id "
                  "WHERE e.order_id = ? AND o.accepted_at IS NOT NULL", (order_id,)) is not None


def update(tx: sqlite3.Connection, order_id: str, now: int, **fields: Any) -> None:
    """Set columns without a step of the machine."""
    columns = {"updated_at": now, **fields}
    setters = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE orders SET {setters} WHERE id = ?", (*columns.values(), order_id))


def advance(tx: sqlite3.Connection, order_id: str, state: OrderState, now: int,
            **fields: Any) -> None:
    """One step of the machine, with columns to set beside it. Raises IllegalTransition."""
    ended = now if state not in OPEN_ORDERS else None
    update(tx, order_id, now, state=state.value, ended_at=ended, **fields)


def accept(db: Database, order: OrderRow, dealing: providers.Dealing, why: str,
           now: int) -> None:
    """SENT -> ACCEPTED: this quote and no other will be paid; stands before the payment."""
    with db.transaction(durable=True) as tx:
        advance(tx, order.id, S.ACCEPTED, now, provider=dealing.provider, tries=order.tries + 1)
        journal.add(tx, "QuoteChosen", order.id,
                    {"provider": dealing.provider, "amount_msats": dealing.amount_msats,
                     "payment_hash": dealing.payment_hash, "why": why}, now)


def fall_back(db: Database, order: OrderRow, code: str, reason: str, now: int) -> None:
    """ACCEPTED -> SENT: nothing was paid, for certain; the provider is out, another may do."""
    with db.transaction(durable=True) as tx:
        advance(tx, order.id, S.SENT, now, provider=None)
        providers.strike(tx, order.id, str(order.provider), code, reason, now)
        journal.add(tx, "OrderPaymentFailed", order.id,
                    {"provider": order.provider, "code": code, "reason": reason}, now)


def paid(db: Database, order: OrderRow, amount_msats: int, fee_msats: int, now: int) -> None:
    """The wallet says that the order is paid: ACCEPTED -> PAID, or, where the result was
    quicker (hold invoices), only the amount beside it. A second call changes nothing."""
    with db.transaction(durable=True) as tx:
        done = tx.execute("UPDATE dealings SET paid_at = ?, paid_msats = ? WHERE order_id = ? "
                          "AND provider = ? AND paid_at IS NULL",
                          (now, amount_msats, order.id, order.provider)).rowcount
        if order.state == S.ACCEPTED:
            advance(tx, order.id, S.PAID, now)
        if done:
            journal.add(tx, "OrderPaid", order.id, {"provider": order.provider,
                                                    "amount_msats": amount_msats,
                                                    "fee_msats": fee_msats}, now)


def complete(db: Database, order: OrderRow, dealing: providers.Dealing, now: int) -> None:
    """The chosen provider's result becomes the order's; the results of others are forgotten,
    so that nobody gains a history by answering what nobody took from him."""
    with db.transaction(durable=True) as tx:
        advance(tx, order.id, S.COMPLETED, now, provider=dealing.provider, code=None,
                error_message=None, result=dealing.result,
                result_event_id=dealing.result_event_id)
        tx.execute("UPDATE dealings SET result = NULL WHERE order_id = ?", (order.id,))
        tx.execute("UPDATE dealings SET delivered_at = NULL WHERE order_id = ? AND "
                   "provider <> ?", (order.id, dealing.provider))
        tx.execute("UPDATE dealings SET ended_at = NULL, code = NULL, reason = NULL WHERE "
                   "order_id = ? AND provider = ?", (order.id, dealing.provider))
        journal.add(tx, "OrderCompleted", order.id,
                    {"provider": dealing.provider, "result_chars": len(dealing.result or ""),
                     "duration_secs": now - order.created_at}, now)


def end(db: Database, order: OrderRow, state: OrderState, code: str, reason: str,
        now: int) -> None:
    """FAILED or EXPIRED, with the reason; a provider that was paid for nothing is marked."""
    with db.transaction(durable=True) as tx:
        advance(tx, order.id, state, now, code=code, error_message=reason)
        if order.state == S.PAID:
            providers.strike(tx, order.id, str(order.provider), "not-delivered", reason, now)
        journal.add(tx, "OrderFailed" if state == S.FAILED else "OrderExpired", order.id,
                    {"code": code, "reason": reason, "provider": order.provider}, now)


def cancel(db: Database, order: OrderRow, event: Event | None, now: int) -> None:
    """NEW or SENT -> CANCELLED, and tell the providers (kind 5). Raises IllegalTransition."""
    with db.transaction(durable=False) as tx:
        advance(tx, order.id, S.CANCELLED, now, code="cancelled",
                error_message="cancelled by its owner")
        tx.execute("DELETE FROM outbox WHERE accepted_at IS NULL AND purpose = ? AND event_id IN "
                   "(SELECT event_id FROM order_events WHERE order_id = ?)", (ASK, order.id))
        if event is not None:
            outbox.add(tx, event, CANCEL, order.id, order.relays, now, order.deadline_at + 3600)
        journal.add(tx, "OrderCancelled", order.id, {}, now)


def prune(tx: sqlite3.Connection, before: int, content_before: int, limit: int) -> int:
    """Forget the words of orders that ended before `content_before`, and whole orders that
    ended before `before`, except those that money hangs on; at most `limit` of each. Returns
    how many were dropped."""
    tx.execute("UPDATE orders SET prompt = NULL, result = NULL WHERE id IN (SELECT id FROM orders "
               "WHERE ended_at < ? AND (prompt IS NOT NULL OR result IS NOT NULL) LIMIT ?)",
               (content_before, limit))
    return tx.execute("DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE ended_at < ? "
                      "AND tries = 0 AND id NOT IN (SELECT order_id FROM dealings WHERE paid_at "
                      "IS NOT NULL) LIMIT ?)", (before, limit)).rowcount
