"""NIP-57 zaps: the order that goes to an LNURL server, and what a receipt is worth.

A receipt proves no payment: it is somebody's claim. `check_receipt` says only that the claim is
consistent and comes from the recipient's LNURL server; credit it when the own wallet shows
`payment_hash` as paid, and never twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pylon.errors import InvalidMessage
from pylon.nostr import event as events
from pylon.nostr import strictjson
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.units import parse_count

ZAP_ORDER, RECEIPT = 9734, 9735         # the NIP calls 9734 "zap request"


class Invoice(Protocol):
    """What a decoded BOLT 11 invoice must tell."""

    @property
    def amount_msats(self) -> int | None: ...
    @property
    def payment_hash(self) -> str: ...
    @property
    def description_hash(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Zap:
    receipt_id: str
    sender: str
    recipient: str
    amount_msats: int
    payment_hash: str
    event_id: str | None        # what was zapped; None for the profile
    comment: str


def build(keys: Keys, recipient: str, relays: Sequence[str], amount_msats: int, now: int,
          comment: str = "", event_id: str | None = None, event_kind: int | None = None,
          lnurl: str | None = None) -> Event:
    """Kind 9734: given to the LNURL callback as `nostr`, not published."""
    tags = [["relays", *relays], ["amount", str(amount_msats)], ["p", recipient]]
    if lnurl:
        tags.append(["lnurl", lnurl])
    if event_id:
        tags.append(["e", event_id])
    if event_kind is not None:
        tags.append(["k", str(event_kind)])
    return keys.sign(ZAP_ORDER, comment, tags, now)


def check_receipt(receipt: Event, recipient: str, server_pubkey: str,
                  decode: Callable[[str], Invoice], lnurl: str | None = None) -> Zap:
    """The zap in a verified receipt to `recipient`. Raises InvalidMessage.

    `server_pubkey` is `nostrPubkey` of the recipient's LNURL, `decode` reads BOLT 11. Stricter
    than appendix F, which leaves the description's hash and the inner signature to taste.
    """
    if receipt.kind != RECEIPT:
        raise InvalidMessage("not a zap receipt")
    if receipt.pubkey != server_pubkey:
        raise InvalidMessage("the receipt is not by the recipient's LNURL server")
    bolt11, description = receipt.first("bolt11"), receipt.first("description")
    if not bolt11 or not description:
        raise InvalidMessage("the receipt has no invoice or no description")
    order, invoice = _order(description, recipient, lnurl), decode(bolt11)
    if [tag[1:2] for tag in receipt.all("p")] != [[recipient]]:
        raise InvalidMessage("the receipt is not to this recipient alone")
    if receipt.first("e") != order.first("e"):
        raise InvalidMessage("the receipt is about another event")
    if invoice.description_hash != hashlib.sha256(description.encode()).hexdigest():
        raise InvalidMessage("the invoice was not made for this zap")
    amount_msats = _amount(order, invoice)
    return Zap(receipt.id, order.pubkey, recipient, amount_msats, invoice.payment_hash,
               order.first("e"), order.content)


def _order(description: str, recipient: str, lnurl: str | None) -> Event:
    """The 9734 in a receipt, verified."""
    order = events.parse(strictjson.load(description))
    if order.kind != ZAP_ORDER:
        raise InvalidMessage("the description is not a zap")
    events.verify(order)
    if [tag[1:2] for tag in order.all("p")] != [[recipient]]:
        raise InvalidMessage("the zap is not to this recipient alone")
    if order.pubkey == recipient:
        raise InvalidMessage("the recipient zapped itself")
    if lnurl is not None and order.first("lnurl") not in (None, lnurl):
        raise InvalidMessage("the zap is for another LNURL")
    return order


def _amount(order: Event, invoice: Invoice) -> int:
    try:
        wanted = parse_count(order.first("amount") or "")
    except ValueError:
        raise InvalidMessage("the zap names no amount") from None
    if not wanted or invoice.amount_msats != wanted:
        raise InvalidMessage("the invoice's amount is not the zap's")
    return wanted
