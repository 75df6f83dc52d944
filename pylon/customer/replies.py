"""What providers send about an order: read, and held against what was asked. Pure.

Nothing here trusts an author: an event counts only when it names our event, comes from whom we
asked (or from anybody, where we asked everybody), is for us, and is encrypted where we asked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pylon.errors import InvalidMessage, Refused
from pylon.log import peer_text
from pylon.nostr import nip90
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.store.orders import OrderRow
from pylon.units import MSATS_PER_SAT, format_sats
from pylon.wallets.bolt11 import Bolt11
from pylon.wallets.payer import decoded
from pylon.wallets.wallet import payable

FEEDBACK = 7000
MIN_LIFE_SECS = 30                  # of an invoice that is still worth looking at
MAX_RESULT_BYTES = 65_536

QUOTE, OFFER, PARTIAL, ERROR, RESULT, INFO = "quote", "offer", "partial", "error", "result", "info"


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of one provider. `what`: quote (wants money), offer (works without a price),
    partial, error, result, info (anything else)."""

    provider: str
    event_id: str
    order_event_id: str
    what: str
    extra: str = ""                 # for people: cut and escaped
    content: str = ""
    amount_msats: int | None = None
    bolt11: str | None = None


def order_event(event: Event, asked: Mapping[str, str | None]) -> str | None:
    """Which of our events this one is about; `asked`: their ids and whom each was for."""
    return next((tag[1] for tag in event.tags if tag[0] == "e" and len(tag) > 1
                 and tag[1] in asked), None)


def read(event: Event, order: OrderRow, asked: dict[str, str | None], keys: Keys | None,
         now: int) -> Reply:
    """The message in a verified event. Raises Refused with a code."""
    about = order_event(event, asked)
    if about is None:
        raise Refused("other-order", "it is about another order")
    if event.kind not in (FEEDBACK, order.kind + 1000):
        raise Refused("bad-kind", f"kind {event.kind} does not answer kind {order.kind}")
    target = asked[about]
    if target is not None and event.pubkey != target:
        raise Refused("foreign-author", "it is not by the provider that was asked")
    ours = event.all("p")
    if ours and not any(len(tag) > 1 and tag[1] == order.pubkey for tag in ours):
        raise Refused("not-for-us", "it is addressed to somebody else")
    ends_at = event.expiration()
    if ends_at is not None and ends_at <= now and event.kind == FEEDBACK:
        raise Refused("expired", "it has expired")
    secret = bool(event.all("encrypted"))
    if secret and keys is None:
        raise Refused("no-keys", "the keys to read it are not there")
    try:
        if event.kind == FEEDBACK:
            return _feedback(event, about, order, keys, secret)
        return _result(event, about, order, keys, secret)
    except InvalidMessage as err:
        raise Refused("unreadable", f"it cannot be read: {err}") from err


def _feedback(event: Event, about: str, order: OrderRow, keys: Keys | None,
              secret: bool) -> Reply:
    found = nip90.parse_feedback(event, keys)      # type: ignore[arg-type]
    status = found.status
    content = found.content
    if status == "payment-required":
        what = QUOTE
    elif status == "error":
        what = ERROR
    elif status == "partial" or (status == "processing" and content):
        # An answer in clear to a secret question is not shown as if all were well.
        what = PARTIAL if secret or not order.encryption else OFFER
    elif status == "processing":
        what = OFFER
    else:
        what = INFO
    return Reply(event.pubkey, event.id, about, what, peer_text(found.extra or status), content,
                 found.amount_msats, found.bolt11 and found.bolt11.strip())


def _result(event: Event, about: str, order: OrderRow, keys: Keys | None, secret: bool) -> Reply:
    if order.encryption and not secret:
        raise Refused("not-encrypted", "the result came in clear, and was asked for encrypted")
    found = nip90.parse_result(event, keys)        # type: ignore[arg-type]
    if not found.content.strip():
        raise Refused("empty-result", "the result is empty")
    if len(found.content.encode()) > MAX_RESULT_BYTES:
        raise Refused("unreadable", "the result is too large")
    return Reply(event.pubkey, event.id, about, RESULT, "", found.content, found.amount_msats,
                 found.bolt11 and found.bolt11.strip())


def check_quote(reply: Reply, order: OrderRow, network: str, own_pubkey: str | None,
                now: int) -> Bolt11:
    """The invoice of a quote that may be paid. Raises Refused: `own-node`, `no-invoice`,
    `bad-invoice`, `wrong-network`, `no-amount`, `wrong-amount`, `invoice-expired`,
    `amount-too-small`, `amount-too-large` (the words of `wallets.payer`)."""
    if reply.provider in (own_pubkey, order.pubkey):
        raise Refused("own-node", "it is this node's own provider")
    if not reply.bolt11:
        raise Refused("no-invoice", "a price without an invoice")
    invoice = decoded(reply.bolt11)
    said = invoice.amount_msats if reply.amount_msats is None else reply.amount_msats
    payable(reply.bolt11, said or 0, network)
    if invoice.expires_at <= now + MIN_LIFE_SECS:
        raise Refused("invoice-expired", "its invoice has expired")
    if said is None or said < MSATS_PER_SAT:
        raise Refused("amount-too-small", "its invoice asks for less than one satoshi")
    limit = order.limit_msats if order.max_msats else order.bid_msats
    if limit is not None and said > limit:
        raise Refused("amount-too-large", f"it wants {format_sats(said)}, the limit is "
                                          f"{format_sats(limit)}")
    return invoice
