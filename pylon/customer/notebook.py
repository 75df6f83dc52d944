"""The notebook: every message of a provider becomes rows, or a refusal with its reason.

Runs in the thread of `Orders`, under its turn. Decides nothing: that is `choose`.
"""

from __future__ import annotations

import logging
from typing import Any

from pylon.customer import replies
from pylon.customer.live import Live
from pylon.customer.replies import Reply
from pylon.errors import Refused
from pylon.failpoints import hit
from pylon.log import short
from pylon.nostr.event import Event
from pylon.states import OPEN_ORDERS, OrderState
from pylon.store import journal, providers
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing

log = logging.getLogger(__name__)

BAD_RESULT = ("not-encrypted", "empty-result", "unreadable")


class Notebook:
    """`take` is the way in; True means that something is to be decided now."""

    def __init__(self, db: Database, network: str, own_pubkey: str | None) -> None:
        self._db, self._network, self._own_pubkey = db, network, own_pubkey

    def take(self, live: Live, order: OrderRow, event: Event, now: int) -> bool:
        """One verified event about an order."""
        if order.state in (OrderState.COMPLETED, OrderState.CANCELLED):
            return False
        try:
            reply = replies.read(event, order, live.asked, live.keys, now)
        except Refused as err:
            return self._complain(live, order, event.pubkey, err,
                                  event.kind != replies.FEEDBACK, now)
        known = providers.get(self._db, order.id, reply.provider)
        if order.state not in OPEN_ORDERS and (known is None or reply.what != replies.RESULT):
            return False
        if reply.what == replies.RESULT:
            return self._result(live, order, known, reply, now)
        if reply.what == replies.QUOTE:
            return self._quote(live, order, known, reply, now)
        if reply.what == replies.ERROR:
            return self._error(live, order, known, reply, now)
        return self._progress(live, order, known, reply, now)

    def _complain(self, live: Live, order: OrderRow, provider: str, err: Refused,
                  is_result: bool, now: int) -> bool:
        """A message that does not count. A bad result from whom it could have come is held
        against him."""
        if not live.may_complain(provider, err.code):
            return False
        log.info("order %s: message of %s refused: %s", short(order.id), short(provider), err)
        struck = is_result and err.code in BAD_RESULT
        with self._db.transaction(durable=False) as tx:
            if struck:
                providers.strike(tx, order.id, provider, err.code, str(err), now)
            else:
                journal.add(tx, "ReplyRefused", order.id, {
                    "provider": provider, "code": err.code, "reason": str(err)}, now)
        live.tell("refused", provider=provider, code=err.code, reason=str(err))
        return struck

    def _progress(self, live: Live, order: OrderRow, known: Dealing | None, reply: Reply,
                  now: int) -> bool:
        first = known is None or known.offered_at is None
        if reply.what == replies.INFO and known is None:
            return False
        fields = {"offered_at": now} if first and reply.what != replies.INFO else {}
        with self._db.transaction(durable=False) as tx:
            providers.touch(tx, order.id, reply.provider, now, **fields)
            if fields:
                journal.add(tx, "OfferReceived", order.id, {"provider": reply.provider}, now)
        if reply.what == replies.PARTIAL and self._is_speaker(live, order, reply.provider):
            live.tell("partial", provider=reply.provider,
                      text=live.shown(reply.provider, reply.content))
        elif fields or reply.what == replies.INFO:
            live.tell("processing", provider=reply.provider, info=reply.extra)
        return bool(fields)

    def _is_speaker(self, live: Live, order: OrderRow, provider: str) -> bool:
        """Whose partial answers are shown: the chosen one's, else who began first."""
        return provider == (order.provider or order.target or live.speaker or provider)

    def _quote(self, live: Live, order: OrderRow, known: Dealing | None, reply: Reply,
               now: int) -> bool:
        if known is not None and known.code:
            return False
        if known is not None and known.bolt11:
            if known.bolt11 == reply.bolt11:
                return False
            err = Refused("second-quote", "it had quoted already; the first quote stands")
            self._complain(live, order, reply.provider, err, False, now)
            return False
        try:
            fields = self._quote_fields(order, reply, now)
        except Refused as err:
            return self._strike(live, order, reply.provider, err, now)
        hit("B3")
        with self._db.transaction(durable=True) as tx:
            providers.touch(tx, order.id, reply.provider, now, **fields)
            journal.add(tx, "QuoteReceived", order.id, {
                "provider": reply.provider, "amount_msats": fields["amount_msats"],
                "payment_hash": fields["payment_hash"], "expires_at": fields["expires_at"]}, now)
        hit("B4")
        live.tell("quote", provider=reply.provider, amount_msats=fields["amount_msats"])
        return True

    def _quote_fields(self, order: OrderRow, reply: Reply, now: int) -> dict[str, Any]:
        invoice = replies.check_quote(reply, order, self._network, self._own_pubkey, now)
        return {"quoted_at": now, "quote_event_id": reply.event_id,
                "amount_msats": invoice.amount_msats, "bolt11": reply.bolt11,
                "payment_hash": invoice.payment_hash, "expires_at": invoice.expires_at}

    def _error(self, live: Live, order: OrderRow, known: Dealing | None, reply: Reply,
               now: int) -> bool:
        if known is not None and known.result is not None:
            return False
        said = reply.extra or "error"
        return self._strike(live, order, reply.provider, Refused("provider-error", said), now)

    def _strike(self, live: Live, order: OrderRow, provider: str, err: Refused,
                now: int) -> bool:
        with self._db.transaction(durable=False) as tx:
            providers.strike(tx, order.id, provider, err.code, str(err), now)
        live.tell("refused", provider=provider, code=err.code, reason=str(err))
        return True

    def _result(self, live: Live, order: OrderRow, known: Dealing | None, reply: Reply,
                now: int) -> bool:
        if known is not None and known.result is not None:
            return False
        fields: dict[str, Any] = {}
        if reply.bolt11 and reply.amount_msats and not (known and known.payment_hash):
            try:
                fields = self._quote_fields(order, reply, now)
            except Refused as err:
                return self._strike(live, order, reply.provider, err, now)
        hit("B8")
        with self._db.transaction(durable=True) as tx:
            providers.touch(tx, order.id, reply.provider, now, delivered_at=now,
                            result=reply.content, result_event_id=reply.event_id, **fields)
            journal.add(tx, "ResultReceived", order.id, {
                "provider": reply.provider, "event_id": reply.event_id,
                "chars": len(reply.content)}, now)
        hit("B9")
        return True
