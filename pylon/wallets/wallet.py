"""What every wallet can do, and the few words in which it answers.

Types and checks, no I/O. The rules that all wallets keep:

- Amounts are msats. Points in time are Unix seconds. Hashes, preimages and keys are lower-case hex.
- An answer is checked before it is returned: its units, that its hash and amount are those that
  were asked for, that sha256(preimage) is the hash. What contradicts raises WalletMismatch.
- `pay` returns `failed` only where nothing was sent or the wallet's own record of the hash says
  so. Whatever else happens is `unknown`, returned or as any WalletError that `pay` raises:
  `lookup_payment` decides, and nothing else does.
- `lookup_payment` answers `missing` where the wallet has no record of the hash. That means
  "never happened" only once `missing_final_secs` have passed since `pay` was last called: before,
  the call may still be on its way to the wallet.
- Any thread may call any method. No method holds a lock of ours while it waits for the network.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pylon.errors import InvalidMessage, Refused, WalletMismatch
from pylon.units import MAX_MSATS
from pylon.wallets import bolt11

ReceiptState = Literal["open", "held", "paid", "expired", "cancelled", "missing"]
OutcomeState = Literal["paid", "failed", "unknown", "missing"]
MovementState = Literal["paid", "pending"]
OnChange = Callable[[str | None], None]

_HEX = frozenset(string.hexdigits.lower())


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice of ours. The preimage is known only where the wallet tells it in advance."""

    bolt11: str
    payment_hash: str
    amount_msats: int
    expires_at: int
    preimage: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the wallet says of an invoice of ours; `received_msats` is 0 until it is paid or held.

    `received_msats` is what the customer paid, and `fee_msats` what the wallet kept of it (a
    liquidity fee). `hold_expires_at`: when held money goes back by itself.
    """

    state: ReceiptState
    received_msats: int = 0
    preimage: str | None = None
    settled_at: int | None = None
    hold_expires_at: int | None = None
    fee_msats: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a payment of ours; `reason` is for the owner and the log."""

    state: OutcomeState
    preimage: str | None = None
    fee_msats: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Movement:
    """One line of the wallet's history: money that moved, or (`pending`) is on its way.

    `payment_hash` is '' where no Lightning payment was behind it.
    """

    payment_hash: str
    incoming: bool
    amount_msats: int
    fee_msats: int
    state: MovementState
    at: int
    description: str


class Wallet(Protocol):
    """The interface. Every method but `close` may raise WalletUnreachable, WalletDenied (our
    credentials), WalletMismatch (a contradiction) or WalletError (any other no)."""

    name: str                       # ledger | nwc | lnbits | phoenixd
    network: str                    # mainnet | testnet | signet | regtest
    whole_sats: bool                # invoices are of whole satoshis only
    can_hold: bool                  # hold invoices: make, settle, cancel
    fee_cap: Literal["enforced", "advisory"]
    names_invoices: bool            # find_invoice finds what make_invoice named
    pushes: bool                    # watch() tells of changes by itself
    missing_final_secs: int         # see the module's docstring

    def balance(self) -> int:
        """What can be spent, in msats."""

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        """A new invoice, checked against what was asked. `external_id` is remembered where
        `names_invoices`; '' names nothing. With `hold_hash` the money is only held until
        `settle` or `cancel`."""

    def find_invoice(self, external_id: str) -> Invoice | None:
        """The oldest invoice that was made under this name."""

    def lookup(self, payment_hash: str) -> Receipt:
        """What the wallet says of an invoice of ours, now."""

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        """Pay a BOLT 11 invoice, or learn how an earlier call for its hash ended. `amount_msats`
        is what the caller checked; an invoice of another amount or network is not paid."""

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        """What must be stored before `pay` and handed to it each time; None where nothing is."""

    def lookup_payment(self, payment_hash: str) -> Outcome:
        """What became of a payment of ours, by the wallet's own record."""

    def settle(self, preimage: str) -> None:
        """Take held money. Doing it twice is no error."""

    def cancel(self, payment_hash: str) -> None:
        """Send held money back, or close an unpaid invoice. Doing it twice is no error."""

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        """What moved since then, newest first; with `limit` only the newest ones."""

    def watch(self, on_change: OnChange) -> None:
        """Start the push, once. `on_change` gets the hash that changed, or None for "something
        did", in a thread of the wallet's: a hint, never the truth. It must not block."""

    def info(self) -> dict[str, Any]:
        """What a person wants to know of it; never a secret."""

    def close(self) -> None:
        """Stop the push and let go. Doing it twice is no error."""


def payable(text: str, amount_msats: int, network: str) -> bolt11.Bolt11:
    """The decoded invoice, if it is what the caller wants to pay. Raises Refused: every wallet
    asks here before it calls anybody."""
    try:
        invoice = bolt11.decode(text)
    except InvalidMessage as err:
        raise Refused("bad-invoice", f"this is no BOLT 11 invoice: {err}") from err
    if invoice.network != network:
        raise Refused("wrong-network", f"the invoice is of {invoice.network}, not of {network}")
    if invoice.amount_msats is None:
        raise Refused("no-amount", "the invoice names no amount")
    if invoice.amount_msats != amount_msats:
        raise Refused("wrong-amount",
                      f"the invoice asks {invoice.amount_msats} msats, not {amount_msats}")
    return invoice


def checked_invoice(text: object, amount_msats: int, network: str,
                    payment_hash: str | None = None) -> bolt11.Bolt11:
    """The decoded invoice that a wallet made for us, if it is what we asked for.

    Raises WalletMismatch.
    """
    if not isinstance(text, str):
        raise WalletMismatch("the wallet sent no invoice")
    try:
        invoice = payable(text, amount_msats, network)
    except Refused as err:
        raise WalletMismatch(f"the wallet made an invoice that we did not ask for: {err}") from err
    if payment_hash is not None and invoice.payment_hash != payment_hash:
        raise WalletMismatch("the wallet made an invoice for another hash")
    return invoice


def checked_hash(value: object, what: str = "payment hash") -> str:
    """`value` if it is 32 bytes of lower-case hex. Raises WalletMismatch."""
    if not isinstance(value, str) or len(value) != 64 or not _HEX.issuperset(value):
        raise WalletMismatch(f"the wallet sent no {what}")
    return value


def checked_preimage(value: object, payment_hash: str) -> str:
    """`value` if it is the preimage of the hash. Raises WalletMismatch."""
    preimage = checked_hash(value, "preimage")
    if hashlib.sha256(bytes.fromhex(preimage)).hexdigest() != payment_hash:
        raise WalletMismatch(f"the wallet sent a preimage that is not of {payment_hash[:8]}")
    return preimage


def checked_msats(value: object, what: str = "amount", msats_each: int = 1) -> int:
    """`value`, a non-negative whole number of units of `msats_each`, in msats.

    Raises WalletMismatch for floats, texts, negative numbers and more than there can be.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise WalletMismatch(f"the wallet sent an {what} that is no amount")
    if value * msats_each > MAX_MSATS:
        raise WalletMismatch(f"the wallet sent an {what} above every bitcoin there is")
    return value * msats_each
