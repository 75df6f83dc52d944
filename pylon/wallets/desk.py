"""The owner's desk: every command about the wallet, the books and what is owed.

Plain functions `(desk, args) -> dict` by the name of their control command. The daemon serves them
on its socket, in a control thread; the command line calls them itself where no daemon runs and it
holds the home's lock. Amounts in `*_msats`; a failure is raised as a PylonError.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylon.errors import PylonError, Refused, UsageError
from pylon.states import PaymentState
from pylon.store import books, invoices, journal, owed, payments, spending
from pylon.store.database import Database
from pylon.store.invoices import InvoiceRow
from pylon.units import MAX_MSATS
from pylon.wallets import external
from pylon.wallets.audit import audit, describe
from pylon.wallets.ledger import Ledger
from pylon.wallets.payer import Payer, Proposal, decoded
from pylon.wallets.wallet import Movement, Wallet, checked_invoice

MAX_EXPIRY_SECS = 30 * 86400
MAX_ROWS = 1000
MAX_DESCRIPTION_BYTES = 600


@dataclass(slots=True)
class Desk:
    """What the commands work with. `on_invoice`: an invoice was made and must be watched."""

    db: Database
    payer: Payer
    network: str
    on_invoice: Callable[[], None]
    now: Callable[[], int] = lambda: int(time.time())

    def wallet(self) -> Wallet:
        """The open wallet. Raises Refused."""
        wallet = self.payer.wallet()
        if wallet is None:
            raise Refused("no-wallet", "no wallet is open; see: pylon wallet status")
        return wallet


Args = dict[str, Any]


def balance(desk: Desk, args: Args) -> dict[str, Any]:
    """What the wallet holds, and whose it is. Books the owner's own movements on the way."""
    wallet = desk.wallet()
    cover = external.absorb(desk.db, wallet, desk.now())
    accounts = books.balances(desk.db)
    return {"wallet": wallet.name, "network": wallet.network,
            "wallet_msats": cover.wallet_msats, "owner_msats": cover.owner_msats,
            "provider_msats": accounts.get(books.PROVIDER, 0),
            "agents_msats": {name[6:]: msats for name, msats in accounts.items()
                             if name.startswith("agent:")},
            "reserved_msats": accounts.get(books.RESERVED, 0),
            "owed_msats": accounts.get(books.OWED, 0),
            "fees_msats": accounts.get(books.FEES, 0),
            "underfunded": cover.underfunded}


def status(desk: Desk, args: Args) -> dict[str, Any]:
    """Whether the wallet answers, and what is unusual. Never raises for a silent wallet."""
    facts: dict[str, Any] = {"connected": False, "network": desk.network}
    try:
        wallet = desk.wallet()
        facts.update({"wallet": wallet.name, "network": wallet.network, **wallet.info(),
                      "balance_msats": wallet.balance(), "connected": True,
                      "holds": wallet.can_hold, "fee_cap": wallet.fee_cap,
                      "pushes": wallet.pushes})
    except PylonError as err:
        facts["trouble"] = str(err)
    facts["spending_stopped"] = spending.frozen(desk.db)
    facts["pending"] = [_payment(row) for row in payments.open_intents(desk.db)]
    facts["owed"] = len(owed.list_all(desk.db))
    return facts


def address(desk: Desk, args: Args) -> dict[str, Any]:
    """Where the wallet can be paid without an invoice of ours, as far as it says."""
    info = desk.wallet().info()
    return {"wallet": desk.wallet().name, "network": desk.network, "node": info.get("node"),
            "lud16": info.get("lud16")}


def invoice(desk: Desk, args: Args) -> dict[str, Any]:
    """An invoice of the owner's: `amount_msats`, `description`, `expiry_secs`, `key`."""
    wallet = desk.wallet()
    amount = _number(args, "amount_msats", 1, MAX_MSATS)
    expiry = _number(args, "expiry_secs", 30, MAX_EXPIRY_SECS, 3600)
    text = _text(args, "description", "Pylon")
    if len(text.encode()) > MAX_DESCRIPTION_BYTES:
        raise UsageError(f"a description has {MAX_DESCRIPTION_BYTES} bytes at most")
    if wallet.whole_sats and amount % 1000:
        raise UsageError(f"the {wallet.name} wallet makes invoices of whole sats only")
    made = wallet.make_invoice(amount, text, expiry, f"owner:{_key(args)}")
    read = checked_invoice(made.bolt11, amount, desk.network, made.payment_hash)
    row = InvoiceRow(f"inv_own_{made.payment_hash[:24]}", None, made.bolt11, made.payment_hash,
                     amount, "pending", False, books.OWNER, read.created_at, read.expires_at, None)
    if invoices.by_hash(desk.db, row.payment_hash) is None:
        invoices.add(desk.db, row, wallet.name, desk.now())
    desk.on_invoice()
    return {"bolt11": made.bolt11, "payment_hash": made.payment_hash, "amount_msats": amount,
            "expires_at": read.expires_at}


def pay(desk: Desk, args: Args) -> dict[str, Any]:
    """Pay `bolt11` from the owner's account: `max_msats`, `max_fee_msats`, `key`."""
    result = desk.payer.pay(Proposal(
        f"owner:{_key(args)}", books.OWNER, "owner", _text(args, "bolt11"),
        max_msats=_number(args, "max_msats", 0, MAX_MSATS) if "max_msats" in args else None,
        max_fee_msats=_number(args, "max_fee_msats", 0, MAX_MSATS)
        if "max_fee_msats" in args else None))
    return {"state": result.state.value, "payment_hash": result.payment_hash,
            "amount_msats": result.amount_msats, "fee_msats": result.fee_msats,
            "preimage": result.preimage, "reason": result.reason}


def history(desk: Desk, args: Args) -> dict[str, Any]:
    """The wallet's newest movements, with what Pylon knows of each."""
    limit = _number(args, "limit", 1, MAX_ROWS, 10)
    movements = desk.wallet().history(0, limit)[:limit]
    return {"movements": [_movement(desk.db, movement) for movement in movements]}


def _movement(db: Database, movement: Movement) -> dict[str, Any]:
    what, ref = "external", None
    paid = payments.by_hash(db, movement.payment_hash) if movement.payment_hash else None
    made = invoices.by_hash(db, movement.payment_hash) if movement.payment_hash else None
    if movement.incoming and made is not None:
        what, ref = ("job", made.job_id) if made.job_id else (made.account, None)
    elif not movement.incoming and paid is not None:
        what, ref = paid.purpose, paid.scope
    return {"at": movement.at, "incoming": movement.incoming,
            "amount_msats": movement.amount_msats, "fee_msats": movement.fee_msats,
            "state": movement.state, "payment_hash": movement.payment_hash, "for": what,
            "ref": ref, "description": movement.description}


def fund(desk: Desk, args: Args) -> dict[str, Any]:
    """Play money out of nothing; on the ledger only."""
    wallet = desk.wallet()
    if not isinstance(wallet, Ledger):
        raise Refused("not-play-money", f"only the ledger makes play money; the {wallet.name} "
                      "wallet is funded by paying one of its invoices: pylon wallet invoice SATS")
    amount = _number(args, "amount_msats", 1, MAX_MSATS)
    wallet.fund(amount)
    with desk.db.transaction(durable=False) as tx:
        journal.add(tx, "PlayMoney", "wallet", {"amount_msats": amount}, desk.now())
    return balance(desk, {})


def whoami(desk: Desk, args: Args) -> dict[str, Any]:
    """What the wallet says of itself."""
    wallet = desk.wallet()
    return {"wallet": wallet.name, "network": wallet.network, **wallet.info()}


def audit_now(desk: Desk, args: Args) -> dict[str, Any]:
    """The audit, as an object and as lines for people."""
    report = audit(desk.db, desk.payer.wallet(), desk.network, desk.now())
    return {**report.as_dict(), "text": list(describe(report))}


def resolve(desk: Desk, args: Args) -> dict[str, Any]:
    """End an unknown payment: `payment_hash`, and `preimage` where it was paid."""
    preimage = _text(args, "preimage", "")
    row = payments.resolve(desk.db, _unknown_hash(desk.db, _text(args, "payment_hash")),
                           bool(preimage), preimage.lower() or None,
                           _number(args, "fee_msats", 0, MAX_MSATS, 0), desk.now())
    return _payment(row)


def _unknown_hash(db: Database, prefix: str) -> str:
    hashes = [row.payment_hash for row in payments.open_intents(db)
              if row.state == PaymentState.UNKNOWN
              and row.payment_hash.startswith(prefix.lower())]
    if len(hashes) != 1:
        raise Refused("not-unknown", f"{len(hashes) or 'no'} unknown payments begin with "
                      f"{prefix[:64]!r}; see: pylon wallet status")
    return hashes[0]


def stop_spending(desk: Desk, args: Args) -> dict[str, Any]:
    """`{"on": true}` stops all spending, `false` takes back the owner's stop, and a restore's."""
    with desk.db.transaction(durable=True) as tx:
        if args.get("on", True):
            spending.freeze(tx, spending.BY_OWNER, desk.now())
        else:
            spending.thaw(tx, spending.BY_OWNER, desk.now())
            spending.thaw(tx, spending.RESTORED, desk.now())
    return {"spending_stopped": spending.frozen(desk.db)}


# ---- what is owed -------------------------------------------------------------------------------

def owed_list(desk: Desk, args: Args) -> dict[str, Any]:
    """What is owed, oldest first; `all`: also what was."""
    return {"owed": [owed_dict(row) for row in owed.list_all(desk.db, bool(args.get("all")))]}


def owed_pay(desk: Desk, args: Args) -> dict[str, Any]:
    """Settle `id` by paying the customer's invoice `bolt11`; the fee is the owner's."""
    row = owed.find(desk.db, _text(args, "id"))
    text = _text(args, "bolt11")
    owed.check_refund(row, decoded(text).amount_msats or 0)
    result = desk.payer.pay(Proposal(f"owed:{row.id}", books.OWED, payments.REFUND, text,
                                     scope=row.id, counterparty=row.customer_pubkey or None))
    return {"state": result.state.value, "reason": result.reason,
            "owed": owed_dict(owed.find(desk.db, row.id))}


def owed_waive(desk: Desk, args: Args) -> dict[str, Any]:
    """Settle `id` by agreement: the money is kept."""
    row = owed.waive(desk.db, owed.find(desk.db, _text(args, "id")).id, desk.now())
    return {"state": "waived", "owed": owed_dict(owed.find(desk.db, row.id))}


def owed_dict(row: owed.OwedRow) -> dict[str, Any]:
    """One row for --json."""
    return {name: getattr(row, name) for name in row.__slots__}


def _payment(row: payments.PaymentRow) -> dict[str, Any]:
    return {"payment_hash": row.payment_hash, "state": row.state.value, "purpose": row.purpose,
            "account": row.account, "amount_msats": row.amount_msats,
            "fee_cap_msats": row.fee_cap_msats, "fee_msats": row.fee_msats,
            "created_at": row.created_at, "reason": row.reason}


# ---- arguments ----------------------------------------------------------------------------------

def _number(args: Args, name: str, low: int, high: int, default: int | None = None) -> int:
    value = args.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}")
    return value


def _text(args: Args, name: str, default: str | None = None) -> str:
    value = args.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise UsageError(f"{name} must be given as a text")
    return value


def _key(args: Args) -> str:
    """What makes the command one: asked twice with the same key, it is done once."""
    return _text(args, "key", secrets.token_hex(16))[:64]


HANDLERS: dict[str, Callable[[Desk, Args], dict[str, Any]]] = {
    "WalletBalance": balance, "WalletStatus": status, "WalletAddress": address,
    "WalletInvoice": invoice, "WalletPay": pay, "WalletHistory": history, "WalletFund": fund,
    "WalletWhoami": whoami, "WalletAudit": audit_now, "WalletResolve": resolve,
    "WalletStopSpending": stop_spending,
    "OwedList": owed_list, "OwedPay": owed_pay, "OwedWaive": owed_waive,
}
ASKING = frozenset({"WalletBalance", "WalletStatus", "WalletAddress", "WalletHistory",
                    "WalletWhoami", "WalletAudit", "OwedList"})     # these change nothing
