"""A wallet over Nostr Wallet Connect (NIP-47): Alby Hub, coinos, LNbits and many more.

What it can is in its info event: the encryption (NIP-44, or NIP-04 where that is all there is),
hold invoices, notifications, history. It takes no fee cap and no name for an invoice. To pay, the
signed call is made and stored first (`prepare_payment`), and only that event is ever sent: a
wallet acts on one event once, and not after its expiration. An error is not the end of a payment:
what the wallet says of the hash is.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

from pylon.errors import (InvalidMessage, Refused, WalletDenied, WalletError, WalletMismatch,
                          WalletUnreachable)
from pylon.log import peer_text
from pylon.nostr import event as events
from pylon.nostr import nip47, strictjson
from pylon.nostr.event import Event
from pylon.units import MSATS_PER_SAT
from pylon.wallets import bolt11
from pylon.wallets.nwc_line import Answered, Line, PoolFactory
from pylon.wallets.wallet import (Invoice, Movement, OnChange, Outcome, Receipt, checked_hash,
                                  checked_invoice, checked_msats, checked_preimage, payable)

log = logging.getLogger(__name__)

PAY_SECS = 60.0
PREPARED_SECS = 60                  # life of a call that nobody prepared
PAGE = 20                           # transactions per call: wallets give no more
MAX_PAGES = 500
LONGEST_INVOICE_SECS = 32 * 86400   # transactions are listed by the time they were made at
NETWORKS = {"mainnet": "mainnet", "bitcoin": "mainnet", "testnet": "testnet", "testnet3": "testnet",
            "testnet4": "testnet", "signet": "signet", "regtest": "regtest"}


class Nwc:
    """One connection to a wallet. `network` is what it is expected to be on."""

    name = "nwc"
    whole_sats = True
    fee_cap: Literal["enforced", "advisory"] = "advisory"
    names_invoices = False
    missing_final_secs = 300            # beyond the expiration of a prepared call

    def __init__(self, connection: nip47.Connection, network: str,
                 pool_factory: PoolFactory) -> None:
        self.network = network
        self._lud16 = peer_text(connection.lud16 or "")
        self.can_hold = False           # until the wallet says so; written by relays' threads
        self.pushes = False
        self._methods: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None
        self._line = Line(connection, pool_factory, self._told, self._noticed)

    def _told(self, info: nip47.Info) -> None:
        self._methods = info.methods
        self.can_hold = {"make_hold_invoice", "settle_hold_invoice",
                         "cancel_hold_invoice"} <= info.methods
        self.pushes = "payment_received" in info.notifications

    def _noticed(self, payment_hash: str | None) -> None:
        if self._on_change is not None:
            self._on_change(payment_hash)

    # ---- receiving ------------------------------------------------------------------------------

    def balance(self) -> int:
        return checked_msats(self._line.call("get_balance", {}).get("balance"), "balance")

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        if amount_msats <= 0 or amount_msats % MSATS_PER_SAT:
            raise WalletError("an invoice over NWC is of whole satoshis")
        params = {"amount": amount_msats, "description": description, "expiry": expiry_secs}
        if hold_hash is None:
            result = self._line.call("make_invoice", params)
        else:
            self._need("make_hold_invoice")
            result = self._line.call("make_hold_invoice", {**params, "payment_hash": hold_hash})
        text = result.get("invoice")
        read = checked_invoice(text, amount_msats, self.network,
                               hold_hash or result.get("payment_hash"))
        return Invoice(str(text), read.payment_hash, amount_msats, read.expires_at)

    def find_invoice(self, external_id: str) -> Invoice | None:
        return None

    def lookup(self, payment_hash: str) -> Receipt:
        record = self._record(payment_hash, "incoming")
        if record is None:
            return Receipt("missing")
        state = _state(record)
        if state == "settled":
            return Receipt("paid", checked_msats(record.get("amount")),
                           _preimage_or_none(record, payment_hash), _moment(record, "settled_at"))
        if state == "accepted":
            return Receipt("held", checked_msats(record.get("amount")))
        if state == "failed":
            return Receipt("cancelled")
        expires_at = _moment(record, "expires_at")
        over = state == "expired" or (expires_at is not None and time.time() >= expires_at)
        return Receipt("expired" if over else "open")

    def settle(self, preimage: str) -> None:
        self._need("settle_hold_invoice")
        self._line.call("settle_hold_invoice", {"preimage": preimage})

    def cancel(self, payment_hash: str) -> None:
        self._need("cancel_hold_invoice")
        self._line.call("cancel_hold_invoice", {"payment_hash": payment_hash})

    # ---- paying ---------------------------------------------------------------------------------

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        return self._line.build("pay_invoice", {"invoice": invoice}, expires_at).to_json()

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        try:
            payment_hash = payable(invoice, amount_msats, self.network).payment_hash
        except Refused as err:
            return Outcome("failed", reason=str(err))
        if prepared is None:
            expires_at = int(time.time()) + PREPARED_SECS
            prepared = self.prepare_payment(invoice, max_fee_msats, expires_at)
        call = self._prepared(str(prepared), invoice)
        expires_at = call.expiration() or 0
        left = expires_at - time.time()
        if left <= 0:
            return self.lookup_payment(payment_hash)
        try:
            result = self._line.send(call, "pay_invoice", min(PAY_SECS, left + 5),
                                     again=False)
        except (Answered, WalletDenied) as err:
            return self._after_error(payment_hash, err)
        except WalletUnreachable as err:
            return Outcome("unknown", reason=str(err))
        return Outcome("paid", checked_preimage(result.get("preimage"), payment_hash),
                       _fees(result))

    def _prepared(self, text: str, invoice: str) -> Event:
        """The stored call, if it is ours and pays this invoice. Raises WalletMismatch."""
        try:
            call = events.parse(strictjson.load(text))
            events.verify(call)
            if call.pubkey != self._line.keys.pubkey or call.kind != nip47.CALL:
                raise InvalidMessage("it is not a call of this connection")
            keys, wallet = self._line.keys, self._line.wallet_pubkey
            decrypt = keys.nip44_decrypt if call.first("encryption") else keys.nip04_decrypt
            value = strictjson.load(decrypt(wallet, call.content))
        except InvalidMessage as err:
            raise WalletMismatch(f"the prepared payment is unusable: {err}") from err
        if value != {"method": "pay_invoice", "params": {"invoice": invoice}}:
            raise WalletMismatch("the prepared payment is for another invoice")
        return call

    def _after_error(self, payment_hash: str, err: WalletError) -> Outcome:
        """The wallet refused or failed: its own record of the hash decides."""
        try:
            outcome = self.lookup_payment(payment_hash)
        except WalletError as second:
            return Outcome("unknown", reason=f"{err}; and then: {second}")
        if outcome.state != "missing":
            return outcome
        clear = isinstance(err, WalletDenied) or getattr(err, "reason", "") != nip47.OTHER
        return Outcome("failed" if clear else "unknown", reason=str(err))

    def lookup_payment(self, payment_hash: str) -> Outcome:
        record = self._record(payment_hash, "outgoing")
        if record is None:
            return Outcome("missing")
        state = _state(record)
        if state == "settled":
            preimage = record.get("preimage")
            return Outcome("paid", checked_preimage(preimage, payment_hash) if preimage else None,
                           _fees(record))
        if state == "failed":
            return Outcome("failed", reason="the wallet says that the payment failed")
        return Outcome("unknown", reason="the wallet says that the payment is under way")

    # ---- records --------------------------------------------------------------------------------

    def _record(self, payment_hash: str, direction: str) -> dict[str, Any] | None:
        """The wallet's own record of a hash, in one direction; None where it has none."""
        try:
            record = self._line.call("lookup_invoice", {"payment_hash": checked_hash(payment_hash)})
        except Answered as err:
            if err.reason != nip47.NOT_FOUND:
                raise
            return None
        if record.get("payment_hash") != payment_hash:
            raise WalletMismatch("the wallet answered with another payment")
        if record.get("type") in (None, direction):
            return record
        return self._other_side(payment_hash, direction, record)

    def _other_side(self, payment_hash: str, direction: str,
                    record: dict[str, Any]) -> dict[str, Any] | None:
        """The wallet has paid an invoice of its own, or says "incoming" of everything.

        Of a payment the latter must never become "there is none".
        """
        self._need("list_transactions")
        made_at = _moment(record, "created_at") or 0
        for other in self._transactions(made_at - 60):
            if other.get("payment_hash") == payment_hash and other.get("type") == direction:
                return other
        if direction == "incoming":
            return None
        raise WalletMismatch(f"the wallet calls the payment {payment_hash[:8]} "
                             f"{peer_text(str(record.get('type')))}")

    def _transactions(self, since: int) -> list[dict[str, Any]]:
        found: dict[tuple[object, object], dict[str, Any]] = {}
        for page in range(MAX_PAGES):
            result = self._line.call("list_transactions", {
                "from": max(0, since), "limit": PAGE, "offset": page * PAGE, "unpaid": False})
            listed = result.get("transactions")
            if not isinstance(listed, list) or not all(isinstance(t, dict) for t in listed):
                raise WalletMismatch("the wallet sent no list of transactions")
            found |= {(t.get("payment_hash"), t.get("type")): t for t in listed}
            if len(listed) < PAGE:
                break
        return list(found.values())

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        self._need("list_transactions")
        moved = [_movement(record) for record in self._transactions(since - LONGEST_INVOICE_SECS)
                 if _has_moved(record)]
        moved = [movement for movement in moved if movement.at >= since]
        return sorted(moved, key=lambda movement: -movement.at)[:limit]

    def _need(self, method: str) -> None:
        self._line.info()
        if method not in self._methods:
            raise WalletError(f"the wallet does not offer {method}")

    # ---- the rest -------------------------------------------------------------------------------

    def watch(self, on_change: OnChange) -> None:
        self._on_change = on_change
        if any(self._line.relays().values()):
            on_change(None)

    def ask_network(self) -> str:
        """What the wallet says, or else the network of an invoice made to see it."""
        self._line.info()
        said = self._line.call("get_info", {}).get("network") if "get_info" in self._methods else ""
        network = NETWORKS.get(str(said).lower())
        if network is not None:
            return network
        made = self._line.call("make_invoice", {
            "amount": MSATS_PER_SAT, "description": "Pylon looks at the network", "expiry": 60})
        try:
            return bolt11.decode(str(made.get("invoice"))).network
        except InvalidMessage as err:
            raise WalletMismatch(f"the wallet makes invoices that are none: {err}") from err

    def info(self) -> dict[str, Any]:
        offered = self._line.info()
        said = self._line.call("get_info", {}) if "get_info" in offered.methods else {}
        return {"wallet": self.name, "network": self.network, "service": self._line.wallet_pubkey,
                "name": peer_text(str(said.get("alias", ""))), "encryption": offered.encryption,
                "methods": sorted(peer_text(word) for word in offered.methods),
                "notifications": sorted(peer_text(word) for word in offered.notifications),
                "relays": self._line.relays(), "lud16": self._lud16,
                "can_pay": "pay_invoice" in offered.methods}

    def close(self) -> None:
        self._line.close()


def _state(record: dict[str, Any]) -> str:
    """settled, accepted, pending, expired or failed; older wallets say only settled_at."""
    state = record.get("state")
    if isinstance(state, str) and state:
        return state.lower()
    return "settled" if _moment(record, "settled_at") else "pending"


def _moment(record: dict[str, Any], name: str) -> int | None:
    value = record.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _fees(record: dict[str, Any]) -> int | None:
    fees = record.get("fees_paid")
    return None if fees is None else checked_msats(fees, "fee")


def _has_moved(record: dict[str, Any]) -> bool:
    return _state(record) == "settled" or (record.get("type") == "outgoing"
                                           and _state(record) in ("pending", "accepted"))


def _movement(record: dict[str, Any]) -> Movement:
    incoming = record.get("type") == "incoming"
    made_at = _moment(record, "created_at") or 0
    return Movement(checked_hash(record.get("payment_hash")), incoming,
                    checked_msats(record.get("amount")), _fees(record) or 0,
                    "paid" if _state(record) == "settled" else "pending",
                    (_moment(record, "settled_at") or made_at) if incoming else made_at,
                    str(record.get("description") or ""))


def _preimage_or_none(record: dict[str, Any], payment_hash: str) -> str | None:
    """Money that came is money, also where its preimage is missing or wrong."""
    try:
        return checked_preimage(record.get("preimage"), payment_hash)
    except WalletMismatch:
        return None
