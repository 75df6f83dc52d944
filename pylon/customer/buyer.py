"""Buyers: the threads that call the payer for accepted orders, which may take a wallet's time.

Threads: buyer-1, buyer-2. They wait on their doorbell, share one queue, and are started and
stopped by `Orders`. What they know dies with them: an order in ACCEPTED is handed over again
after a restart, under the same action key.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pylon.errors import Refused
from pylon.failpoints import hit
from pylon.log import short
from pylon.role import Role
from pylon.store.orders import OrderRow
from pylon.store.providers import Dealing
from pylon.store.spending import NO_LIMITS, Limits
from pylon.wallets.payer import Payer, Proposal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which an order may spend its account's money."""

    purpose: str = "order"          # order, or infer for an agent's
    scope: str | None = None        # a tick; None: the order itself
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Errand:
    """One payment to make, and how the order hears of it: `done(refusal, finished)`; the rest
    is in the store. Not finished: a failure of ours came between."""

    order: OrderRow
    dealing: Dealing
    terms: Terms
    done: Callable[[Refused | None, bool], None]


class Buyer(Role):
    """Pays one errand after another."""

    def __init__(self, name: str, errands: deque[Errand], payer: Payer) -> None:
        super().__init__(name)
        self._errands, self._payer = errands, payer

    def step(self, now: int) -> None:
        try:
            errand = self._errands.popleft()
        except IndexError:
            self.wait(None)
            return
        try:
            pay(self._payer, errand)
            hit("B6")
        except Refused as err:
            log.info("order %s: not paid: %s", short(errand.order.id), err)
            errand.done(err, True)
        except BaseException:
            errand.done(None, False)
            raise
        else:
            errand.done(None, True)


def pay(payer: Payer, errand: Errand) -> None:
    """The one payment of an order: here and nowhere else its money moves. Raises Refused,
    StoreFull."""
    order, dealing, terms = errand.order, errand.dealing, errand.terms
    payer.pay(Proposal(
        action_key=order.id, account=order.account, purpose=terms.purpose,
        bolt11=dealing.bolt11 or "", limits=terms.limits, scope=terms.scope or order.id,
        counterparty=dealing.provider, max_msats=order.limit_msats,
        expected_msats=dealing.amount_msats, expected_hash=dealing.payment_hash))
