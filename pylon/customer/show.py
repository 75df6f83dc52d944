"""An order and its providers as people and programs are shown them: plain dictionaries.

Reads only, from the daemon's store or, where no daemon runs, from the file itself.
"""

from __future__ import annotations

from typing import Any, cast

from pylon.customer.discover import Found
from pylon.errors import Refused
from pylon.nostr import nip19
from pylon.store import orders, payments, providers
from pylon.store.database import Database, ReadOnly
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing

MIN_PREFIX = 4
# The word of the first Pylon's `job list` for each state.
WORDS = {"new": "pend", "sent": "pend", "accepted": "proc", "paid": "proc", "completed": "done",
         "failed": "fail", "expired": "fail", "cancelled": "fail"}


def find(db: Database | ReadOnly, typed: str) -> str:
    """The full id of what a person typed, or the beginning of it. Raises Refused."""
    if len(typed) < MIN_PREFIX:
        raise Refused("unknown-order", f"{typed!r} is too short; give at least {MIN_PREFIX} "
                                       "characters of the order's id")
    found = orders.find(db, typed.lower())
    if not found:
        raise Refused("unknown-order", f"there is no order {typed[:64]}; see: pylon job list")
    if len(found) > 1:
        raise Refused("ambiguous", f"{typed} could be several orders; give more of it")
    return found[0]


def order(db: Database | ReadOnly, order_id: str) -> dict[str, Any]:
    """Everything about one order; keys are stable."""
    row = orders.get(db, order_id)
    if row is None:
        raise Refused("unknown-order", f"there is no order {order_id[:16]}")
    dealings = providers.of_order(db, order_id)
    return {**summary(row), "encrypted": bool(row.encryption), "policy": row.policy,
            "max_msats": row.max_msats, "bid_msats": row.bid_msats, "relays": row.relays,
            "params": row.details.get("params", {}), "account": row.account,
            "deadline_at": row.deadline_at, "result": row.result,
            "result_event_id": row.result_event_id, "payment": _payment(db, row),
            "providers": [_dealing(one) for one in dealings]}


def summary(row: OrderRow) -> dict[str, Any]:
    """One line of a list."""
    return {"id": row.id, "state": row.state.value, "kind": row.kind, "model": row.model,
            "prompt": row.prompt, "provider": _npub(row.provider or row.target),
            "created_at": row.created_at, "ended_at": row.ended_at, "code": row.code,
            "error": row.error_message}


def _payment(db: Database | ReadOnly, row: OrderRow) -> dict[str, Any] | None:
    paid = payments.by_action(cast(Database, db), row.id) if row.tries else None
    if paid is None:
        return None
    return {"state": paid.state.value, "amount_msats": paid.amount_msats,
            "fee_msats": paid.fee_msats, "payment_hash": paid.payment_hash,
            "reason": paid.reason}


def _dealing(one: Dealing) -> dict[str, Any]:
    return {"provider": _npub(one.provider), "asked_at": one.asked_at,
            "offered_at": one.offered_at, "quoted_at": one.quoted_at,
            "amount_msats": one.amount_msats, "bolt11": one.bolt11, "expires_at": one.expires_at,
            "paid_msats": one.paid_msats, "delivered_at": one.delivered_at, "code": one.code,
            "reason": one.reason}


def provider(found: Found) -> dict[str, Any]:
    """One provider: its claims, our history with it, and the score with its reasons."""
    said, lived = found.announcement, found.history
    return {"npub": _npub(found.pubkey), "pubkey": found.pubkey,
            "name": said.name if said else "", "about": said.about if said else "",
            "kinds": said.kinds if said else [], "models": said.models if said else [],
            "price_msats": found.price_msats(), "prices_msats": said.prices_msats if said else {},
            "network": said.network if said else "",
            "encryption": said.encryption if said else False,
            "alive": found.alive, "heartbeat_at": found.heartbeat_at,
            "announced_at": said.created_at if said else None,
            "history": {"asked": lived.asked, "quoted": lived.quoted, "paid": lived.paid,
                        "delivered": lived.delivered, "failed": lived.failed,
                        "undelivered": lived.undelivered, "lost_msats": lived.lost_msats,
                        "paid_msats": lived.paid_msats, "mean_secs": lived.mean_secs,
                        "last_at": lived.last_at},
            "score": found.score.points, "avoided": found.score.avoided,
            "reasons": [{"points": points, "text": text} for points, text in
                        found.score.reasons]}


def _npub(pubkey: str | None) -> str | None:
    return nip19.encode_npub(pubkey) if pubkey else None
