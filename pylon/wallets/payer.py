"""Paying: what is checked before the wallet is called, the one call, and what its answer means.

`Payer.pay` runs in the caller's thread and blocks as long as the wallet takes. The intent and its
money stand before the call (`store.payments`); a time-out or any unclear answer is UNKNOWN and
never FAILED. What stays open, by a crash or by a wallet that does not say, is the reconciler's.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pylon.errors import InvalidMessage, PylonError, Refused, WalletError
from pylon.failpoints import hit
from pylon.log import peer_text, short
from pylon.states import PaymentState
from pylon.store import books, invoices, payments, spending
from pylon.store.database import Database
from pylon.store.payments import Intent, PaymentRow
from pylon.store.spending import NO_LIMITS, Limits, Uptime
from pylon.units import MSATS_PER_SAT, format_sats
from pylon.wallets import bolt11, external
from pylon.wallets.bolt11 import Bolt11
from pylon.wallets.wallet import Outcome, Wallet, payable

log = logging.getLogger(__name__)

P = PaymentState
MIN_FEE_CAP_MSATS = 10 * MSATS_PER_SAT
FEE_CAP_PERCENT = 1
EXPIRY_MARGIN_SECS = 15             # an invoice that ends sooner would expire on its way
PREPARED_SECS = 120                 # how long a stored request to the wallet is good for

# Every code with which a payment is refused. Nothing was sent and nothing stays reserved.
REFUSALS = {
    "no-wallet": "No wallet is open.",
    "bad-invoice": "The text is not a BOLT 11 invoice, or its checksum or signature is wrong.",
    "wrong-network": "The invoice is of another Bitcoin network than the node.",
    "no-amount": "The invoice names no amount; such invoices are never paid.",
    "wrong-amount": "The invoice asks for another amount than was agreed.",
    "amount-too-small": "The invoice asks for less than one satoshi.",
    "amount-too-large": "The invoice asks for more than the caller allowed (bid, --max-sats).",
    "invoice-expired": "The invoice has expired, or would on its way.",
    "own-invoice": "The invoice is one of this node's own.",
    "wrong-hash": "The invoice has another payment hash than was announced.",
    "wrong-payee": "The invoice pays another node than was agreed.",
    "wrong-description": "The invoice does not commit to what was asked for.",
    "no-funds": "The account does not have the amount and the fee's cap.",
    "over-action-limit": "Amount and fee cap are above the limit for one payment.",
    "over-tick-limit": "The tick would spend more than its limit.",
    "over-day-limit": "The account would spend more than its limit for 24 hours.",
    "over-api-limit": "The HTTP endpoint would spend more than [api] daily_limit_sats in 24 hours.",
    "over-total-limit": "The account would spend more than its limit for its whole life.",
    "spending-frozen": "All spending is stopped: underfunded, restored, or by the owner.",
    "action-taken": "This action has paid, or is paying, another invoice.",
    "invoice-taken": "The invoice is paid, or being paid, by another action.",
    "clock-wrong": "The machine's clock is before this program was made.",
    "disk-low": "Too little disk is free to record a payment safely.",
    "bad-amount": "The amount of a transfer is not positive, or both accounts are one.",
    "not-owed": "Nothing open is owed under this id.",
    "refund-amount": "The invoice of a refund asks for another amount than is owed.",
    "not-unknown": "No payment of this hash is unknown, so there is nothing to resolve.",
    "bad-preimage": "The preimage does not belong to the payment's hash.",
    "too-early": "An unknown payment can be called failed only after 24 hours.",
}


class Clock:
    """The wall clock and the machine's uptime."""

    def now(self) -> int:
        return int(time.time())

    def uptime(self) -> Uptime:
        return Uptime.read()


@dataclass(frozen=True, slots=True)
class Proposal:
    """One payment that somebody wants; amounts in msats.

    `action_key` names the action for ever: it pays at most once. What stands in `expected_*` must
    be so in the invoice. `max_msats` bounds the amount without its fee; `max_fee_msats` replaces
    the usual cap of max(1 %, 10 sats).
    """

    action_key: str
    account: str
    purpose: str
    bolt11: str
    limits: Limits = NO_LIMITS
    scope: str | None = None
    counterparty: str | None = None
    max_msats: int | None = None
    max_fee_msats: int | None = None
    expected_msats: int | None = None
    expected_hash: str | None = None
    expected_payee: str | None = None
    expected_description_hash: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentResult:
    """How a payment stands: succeeded, failed, or still open (sent, unknown)."""

    state: PaymentState
    action_key: str
    payment_hash: str
    amount_msats: int
    fee_msats: int | None
    preimage: str | None
    reason: str | None

    @classmethod
    def of(cls, row: PaymentRow) -> "PaymentResult":
        return cls(row.state, row.action_key, row.payment_hash, row.amount_msats, row.fee_msats,
                   row.preimage, row.reason)

    @property
    def paid(self) -> bool:
        return self.state == P.SUCCEEDED

    @property
    def pending(self) -> bool:
        return self.state in payments.OPEN


class Payer:
    """Pays invoices, each at most once. Any thread may call."""

    def __init__(self, db: Database, wallet: Callable[[], Wallet | None], network: str,
                 clock: Clock | None = None, min_free_bytes: int = 0) -> None:
        self.db, self.wallet, self.network = db, wallet, network
        self.clock = clock or Clock()
        self._min_free_bytes = min_free_bytes
        self._calls: Counter[str] = Counter()       # hashes that a thread is busy with
        self._calls_lock = threading.Lock()
        self.on_called: Callable[[], None] = _nothing   # a call is over; the reconciler's bell

    def pay(self, proposal: Proposal) -> PaymentResult:
        """Check, reserve, call once, record. Raises Refused (see REFUSALS), StoreFull.

        The same action and invoice asked again get the standing result. An exception after the
        call leaves the payment to the reconciler.
        """
        hit("A1")
        row = payments.by_action(self.db, proposal.action_key)
        if row is not None and row.state != P.FAILED and row.bolt11 == proposal.bolt11.strip():
            return PaymentResult.of(row)
        wallet = self.wallet()
        if wallet is None:
            raise Refused("no-wallet", "no wallet is open")
        intent = self.check(proposal, wallet)
        with self._calling(intent.payment_hash):
            try:
                row = self._reserve(wallet, intent, proposal.limits)
            except Refused as err:
                row = self._standing(intent, err)
            else:
                row = self._carry_out(wallet, row)
        return PaymentResult.of(row)

    def check(self, proposal: Proposal, wallet: Wallet) -> Intent:
        """Everything that is checked without the store's books. Raises Refused."""
        amount = _agreed_amount(proposal)
        invoice = payable(proposal.bolt11.strip(), amount, self.network)
        self._check_terms(proposal, invoice, amount)
        if wallet.network != self.network:
            raise Refused("wrong-network", f"the wallet is on {wallet.network}")
        if invoices.by_hash(self.db, invoice.payment_hash) is not None:
            raise Refused("own-invoice", "the invoice is one of this node's own")
        self._check_disk()
        cap = fee_cap(amount) if proposal.max_fee_msats is None else proposal.max_fee_msats
        return Intent(proposal.action_key, proposal.account, proposal.purpose, wallet.name,
                      proposal.bolt11.strip(), invoice.payment_hash, amount, cap, invoice.payee,
                      proposal.scope, proposal.counterparty)

    def _check_terms(self, proposal: Proposal, invoice: Bolt11, amount: int) -> None:
        if amount < MSATS_PER_SAT:
            raise Refused("amount-too-small", f"{amount} msats are less than one satoshi")
        if proposal.max_msats is not None and amount > proposal.max_msats:
            raise Refused("amount-too-large", f"the invoice asks for {format_sats(amount)}; "
                          f"at most {format_sats(proposal.max_msats)} are allowed")
        if invoice.expires_at - EXPIRY_MARGIN_SECS <= self.clock.now():
            raise Refused("invoice-expired", "the invoice has expired, or is about to")
        for expected, found, code in (
                (proposal.expected_hash, invoice.payment_hash, "wrong-hash"),
                (proposal.expected_payee, invoice.payee, "wrong-payee"),
                (proposal.expected_description_hash, invoice.description_hash,
                 "wrong-description")):
            if expected is not None and expected != found:
                raise Refused(code, REFUSALS[code])

    def _check_disk(self) -> None:
        disk = os.statvfs(self.db.path.parent)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise Refused("disk-low", "too little disk is free to record a payment safely")

    # -- the steps --

    def _reserve(self, wallet: Wallet, intent: Intent, limits: Limits) -> PaymentRow:
        if books.OWNER in (intent.account, _fee_account(intent)):
            self._learn_owners_money(wallet, intent)
        return payments.reserve(self.db, intent, limits, self.clock.now(), self.clock.uptime())

    def _learn_owners_money(self, wallet: Wallet, intent: Intent) -> None:
        """What the owner put into the wallet is spendable although the books do not know it."""
        if spending.available(self.db, books.OWNER) >= intent.amount_msats + intent.fee_cap_msats:
            return
        try:
            external.absorb(self.db, wallet, self.clock.now())
        except WalletError as err:
            log.warning("wallet: its balance cannot be read: %s", err)

    def _standing(self, intent: Intent, refusal: Refused) -> PaymentRow:
        """The earlier row of the same action and invoice; else the refusal stands."""
        if refusal.code == "action-taken":
            row = payments.by_action(self.db, intent.action_key)
            if row is not None and row.payment_hash == intent.payment_hash:
                return row
        raise refusal

    def _carry_out(self, wallet: Wallet, row: PaymentRow) -> PaymentRow:
        try:
            hit("A2")
            until = self.clock.now() + PREPARED_SECS
            prepared = wallet.prepare_payment(row.bolt11, row.fee_cap_msats, until)
            row = payments.mark_sent(self.db, row.id, prepared, self.clock.now())
        except WalletError as err:
            return payments.fail(self.db, row.id, f"not sent: {err}", self.clock.now())
        except Exception:
            self._release_if_possible(row)
            raise
        hit("A3")
        outcome = self.ask(wallet, row)
        hit("A4")
        hit("A5")
        row = self.record(row, outcome)
        hit("A6")
        return row

    def ask(self, wallet: Wallet, row: PaymentRow) -> Outcome:
        """The one call that moves money; any error means that nobody knows."""
        try:
            return wallet.pay(row.bolt11, row.amount_msats, row.fee_cap_msats, row.prepared)
        except WalletError as err:
            return Outcome("unknown", reason=str(err))

    def record(self, row: PaymentRow, outcome: Outcome) -> PaymentRow:
        """Store what the wallet says. `missing` decides nothing here."""
        now, name = self.clock.now(), short(row.payment_hash)
        if outcome.state == "paid":
            done = payments.succeed(self.db, row.id, outcome.preimage, outcome.fee_msats, now)
            log.info("payment %s: paid %d msats, fee %s", name, row.amount_msats,
                     outcome.fee_msats)
            return done
        reason = peer_text(outcome.reason or "the wallet does not say")
        if outcome.state == "failed":
            log.info("payment %s: failed: %s", name, reason)
            return payments.fail(self.db, row.id, reason, now)
        if row.state == P.SENT:
            log.warning("payment %s: its outcome is not known yet: %s", name, reason)
        return payments.unknown(self.db, row.id, reason, now)

    def _release_if_possible(self, row: PaymentRow) -> None:
        """Nothing was sent; where the disk does not even take this, the reconciler will do it."""
        try:
            payments.fail(self.db, row.id, "interrupted before it was sent", self.clock.now())
        except PylonError as err:
            log.error("payment %s: stays reserved for now: %s", short(row.payment_hash), err)

    # -- what is being called right now --

    @contextmanager
    def _calling(self, payment_hash: str) -> Iterator[None]:
        with self._calls_lock:
            self._calls[payment_hash] += 1
        try:
            yield
        finally:
            with self._calls_lock:
                self._calls[payment_hash] -= 1
                last = not self._calls[payment_hash]
                if last:
                    del self._calls[payment_hash]
            if last:
                self.on_called()

    def busy_with(self, payment_hash: str) -> bool:
        """Whether a thread of this process is between reserving and recording it."""
        with self._calls_lock:
            return payment_hash in self._calls


def fee_cap(amount_msats: int) -> int:
    """What a payment's fee may be unless the caller says otherwise: max(1 %, 10 sats)."""
    return max(amount_msats * FEE_CAP_PERCENT // 100, MIN_FEE_CAP_MSATS)


def decoded(text: str) -> Bolt11:
    """An invoice of anybody's, read. Raises Refused."""
    try:
        return bolt11.decode(text.strip())
    except InvalidMessage as err:
        raise Refused("bad-invoice", f"this is no BOLT 11 invoice: {err}") from err


def _agreed_amount(proposal: Proposal) -> int:
    """The amount to pay: what was agreed, else what the invoice asks. Raises Refused."""
    if proposal.expected_msats is not None:
        return proposal.expected_msats
    from_invoice = decoded(proposal.bolt11).amount_msats
    if from_invoice is None:
        raise Refused("no-amount", "the invoice names no amount")
    return from_invoice


def _fee_account(intent: Intent) -> str:
    return books.OWNER if intent.purpose == payments.REFUND else intent.account


def _nothing() -> None:
    """The callback of a payer that nobody listens to."""
