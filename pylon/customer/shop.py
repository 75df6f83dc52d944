"""The shop: every command about orders and providers, as the control socket serves them.

Plain functions `(shop, args) -> dict` by the name of their command, and one stream. They run in
control threads. A person's orders are signed with the node's identity and paid from the account
`owner`; the limits of [customer] hold for them.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pylon.config import Config
from pylon.customer import show
from pylon.customer.buyer import Terms
from pylon.customer.discover import LOOK_SECS, Directory
from pylon.customer.draft import MAX_TIMEOUT_SECS, Draft
from pylon.customer.order import Orders
from pylon.errors import Refused, UsageError
from pylon.nostr import nip19
from pylon.nostr.keys import Keys
from pylon.states import OPEN_ORDERS
from pylon.store import books, orders
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.spending import Cap, Limits
from pylon.units import MAX_MSATS, MSATS_PER_SAT, format_sats

ENDS = ("completed", "failed", "expired", "cancelled", "ended")
MAX_ROWS = 1000
API = "api"                         # the scope and purpose of what the HTTP endpoint buys
KEEP_ALIVE_SECS = 15.0              # how often a silent stream asks whether its reader is there

Args = dict[str, Any]


@dataclass(slots=True)
class Shop:
    """What the commands work with."""

    db: Database
    orders: Orders
    directory: Directory
    keys: Keys
    config: Callable[[], Config]    # the present one: a reload brings another


def owner_terms(config: Config, order: OrderRow) -> Terms:
    """Under which the owner's orders are paid: so much in 24 hours, and no more. What the HTTP
    endpoint buys has a limit of its own and counts for the common one, too."""
    ours = config.customer.daily_limit_sats * MSATS_PER_SAT
    caps = [Cap("over-day-limit", ours, purposes=("order", API))]
    if order.details.get("scope") != API:
        return Terms("order", None, Limits(caps=tuple(caps)))
    caps.append(Cap("over-api-limit", config.api.daily_limit_sats * MSATS_PER_SAT,
                    purposes=(API,)))
    return Terms(API, None, Limits(caps=tuple(caps)))


# ---- asking -------------------------------------------------------------------------------------

def status(shop: Shop, args: Args) -> dict[str, Any]:
    return show.order(shop.db, show.find(shop.db, _text(args, "id")))


def listing(shop: Shop, args: Args) -> dict[str, Any]:
    limit = _number(args, "limit", 1, MAX_ROWS, 10)
    return {"orders": [show.summary(row) for row in orders.latest(shop.db, limit)]}


def who(shop: Shop, args: Args) -> dict[str, Any]:
    """Providers of `kind`, best first; `all`: also those without a sign of life."""
    kind = _number(args, "kind", 5000, 5999, 5050)
    shop.directory.look([kind], LOOK_SECS)
    found = shop.directory.found(kind, bool(args.get("all", False)))
    return {"kind": kind, "providers": [show.provider(one) for one in found]}


# ---- acting -------------------------------------------------------------------------------------

def submit(shop: Shop, args: Args) -> dict[str, Any]:
    """A person's order; see `Draft`. With `auto_pay` it pays up to `max_msats` by itself. With
    `scope` "api" it is one of the HTTP endpoint's, under its limits."""
    scope = API if args.get("scope") == API else None
    order_id = shop.orders.submit(_draft(shop, args), shop.keys, books.OWNER, scope)
    return show.order(shop.db, order_id)


def pay(shop: Shop, args: Args) -> dict[str, Any]:
    """Allow an order to pay up to `max_msats`."""
    order_id = show.find(shop.db, _text(args, "id"))
    shop.orders.authorise(order_id, _limit(shop, args))
    return show.order(shop.db, order_id)


def cancel(shop: Shop, args: Args) -> dict[str, Any]:
    order_id = show.find(shop.db, _text(args, "id"))
    shop.orders.cancel(order_id)
    return show.order(shop.db, order_id)


def follow(shop: Shop, args: Args) -> Iterator[dict[str, Any] | None]:
    """First the order as it stands (`event` is `state`), then everything that happens to it,
    until it ends or `timeout_secs` are over (`event` is `timeout`).

    With `fetch_secs` relays are asked again for the result of an order that ended without one.
    """
    order_id = show.find(shop.db, _text(args, "id"))
    until = time.monotonic() + _number(args, "timeout_secs", 0, MAX_TIMEOUT_SECS, 3600)
    fetch_secs = _number(args, "fetch_secs", 0, 3600, 0)
    heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    order = shop.orders.follow(order_id, heard.put, fetch_secs)
    try:
        yield {"event": "state", **show.order(shop.db, order_id)}
        if order.state not in OPEN_ORDERS and not (fetch_secs and order.result is None
                                                   and order.code != "cancelled"):
            return
        yield from _updates(heard, until)
    finally:
        shop.orders.unfollow(order_id, heard.put)


def _updates(heard: "queue.SimpleQueue[dict[str, Any]]",
             until: float) -> Iterator[dict[str, Any] | None]:
    while True:
        left = until - time.monotonic()
        try:
            update = heard.get(timeout=max(0.0, min(left, KEEP_ALIVE_SECS)))
        except queue.Empty:
            if left <= KEEP_ALIVE_SECS:
                yield {"event": "timeout"}
                return
            yield None
            continue
        yield update
        if update["event"] in ENDS:
            return


# ---- arguments ----------------------------------------------------------------------------------

def _draft(shop: Shop, args: Args) -> Draft:
    ours = shop.config().customer
    params = args.get("params", {})
    relays = args.get("relays", [])
    if not isinstance(params, dict) or not all(isinstance(v, str) for v in params.values()):
        raise UsageError("params must be an object of texts")
    if not isinstance(relays, list) or not all(isinstance(url, str) for url in relays):
        raise UsageError("relays must be a list of addresses")
    provider = args.get("provider")
    return Draft(
        prompt=_text(args, "prompt"), kind=_number(args, "kind", 5000, 5999, 5050),
        model=_maybe_text(args, "model"),
        max_tokens=_number(args, "max_tokens", 1, 1_000_000) if "max_tokens" in args else None,
        params=params, output=_maybe_text(args, "output"),
        bid_msats=_number(args, "bid_msats", 0, MAX_MSATS) if "bid_msats" in args else None,
        max_msats=_limit(shop, args) if args.get("auto_pay") else 0, relays=relays,
        provider=nip19.decode_pubkey(str(provider)) if provider else None,
        encrypt=bool(args.get("encrypt", False)), first=bool(args.get("first", False)),
        policy=_text(args, "policy", ours.policy),
        quote_secs=_number(args, "quote_secs", 0, 3600, ours.quote_secs),
        timeout_secs=_number(args, "timeout_secs", 1, MAX_TIMEOUT_SECS, ours.timeout_secs))


def _limit(shop: Shop, args: Args) -> int:
    """What one order may cost: never above the configuration's word."""
    config = shop.config()
    if args.get("scope") == API:
        return config.api.max_sats_per_call * MSATS_PER_SAT
    most = config.customer.max_sats_per_job * MSATS_PER_SAT
    asked = _number(args, "max_msats", 1, MAX_MSATS, most)
    if asked > most:
        raise Refused("amount-too-large", f"{format_sats(asked)} for one order is above "
                      f"[customer] max_sats_per_job ({format_sats(most)})")
    return asked


def _number(args: Args, name: str, low: int, high: int, default: int | None = None) -> int:
    value = args.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}")
    return value


def _text(args: Args, name: str, default: str | None = None) -> str:
    value = args.get(name, default)
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text")
    return value


def _maybe_text(args: Args, name: str) -> str | None:
    return None if args.get(name) in (None, "") else _text(args, name)


HANDLERS: dict[str, Callable[[Shop, Args], dict[str, Any]]] = {
    "JobSubmit": submit, "JobStatus": status, "JobList": listing, "JobPay": pay,
    "JobCancel": cancel, "Providers": who}
STREAMS: dict[str, Callable[[Shop, Args], Iterator[dict[str, Any] | None]]] = {
    "JobFollow": follow}
ASKING = frozenset({"JobStatus", "JobList", "Providers", "JobFollow"})
