"""phoenixd over HTTP, with its WebSocket as the push. Amounts of invoices are whole satoshis.

Not exercised against the real service: written after its API document (0.8) and its source, and
tested on a stand-in that follows them. Two passwords: the full one pays, the limited one does the
rest, and where only the limited one is given nothing can be paid.

It takes no fee cap: its fee is 4 sats and 0.4 %, so an invoice for which that is above the cap is
refused here. `payinvoice` answers once the payment has ended; how it ended is looked up by hash.
"""

from __future__ import annotations

import base64
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pylon.errors import (ConfigError, InvalidMessage, Refused, WalletDenied, WalletError,
                          WalletMismatch)
from pylon.log import peer_text
from pylon.nostr import strictjson
from pylon.units import MSATS_PER_SAT, round_up_to_sats
from pylon.wallets import bolt11
from pylon.wallets.http import Answer, Api
from pylon.wallets.push import Push
from pylon.wallets.wallet import (Invoice, Movement, OnChange, Outcome, Receipt, checked_hash,
                                  checked_invoice, checked_msats, checked_preimage, payable)

PAY_SECS = 120
PAGE = 100
FEE_BASE_MSATS, FEE_PPM = 4000, 4000
MAX_DESCRIPTION_CHARS = 128
CHAINS = {"mainnet": "mainnet", "testnet": "testnet", "testnet3": "testnet", "testnet4": "testnet",
          "signet": "signet", "regtest": "regtest"}


class Password(AuthBase):
    """HTTP Basic with no user name; shows the password to nobody else."""

    def __init__(self, password: str) -> None:
        self._header = "Basic " + base64.b64encode(f":{password}".encode()).decode()

    @property
    def header(self) -> str:
        return f"Authorization: {self._header}"

    def __call__(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        call.headers["Authorization"] = self._header
        return call

    def __repr__(self) -> str:
        return "Password(hidden)"


class Phoenixd:
    """One phoenixd. `network` is what it is expected to be on."""

    name = "phoenixd"
    whole_sats = True
    can_hold = False
    fee_cap: Literal["enforced", "advisory"] = "advisory"
    names_invoices = True
    pushes = True
    missing_final_secs = 180

    def __init__(self, url: str, network: str, password: str = "", limited: str = "",
                 ca_file: str = "") -> None:
        """Raises ConfigError without any password."""
        if not password and not limited:
            raise ConfigError("wallet.phoenixd: set password_file, or limited_password_file for a "
                              "wallet that only receives")
        self.network = network
        self._api = Api(url, ca_file)
        self._ca_file = ca_file
        self._full = Password(password) if password else None
        self._reader = Password(limited or password)
        self._push: Push | None = None

    # ---- receiving ------------------------------------------------------------------------------

    def balance(self) -> int:
        answer = self._get("/getbalance").wanted(200).object()
        return checked_msats(answer.get("balanceSat"), "balance", MSATS_PER_SAT)

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        if hold_hash is not None:
            raise WalletError("phoenixd has no hold invoices")
        sats, rest = divmod(amount_msats, MSATS_PER_SAT)
        if rest or sats <= 0:
            raise WalletError("an invoice of phoenixd is of whole satoshis")
        form: dict[str, str | int] = {"description": description[:MAX_DESCRIPTION_CHARS],
                                      "amountSat": sats, "expirySeconds": expiry_secs}
        if external_id:
            form["externalId"] = external_id
        answer = self._api.post("/createinvoice", self._reader, form=form).wanted(200).object()
        if checked_msats(answer.get("amountSat"), "amount", MSATS_PER_SAT) != amount_msats:
            raise WalletMismatch("phoenixd made an invoice of another amount")
        return self._invoice(answer.get("serialized"), answer.get("paymentHash"), amount_msats)

    def _invoice(self, text: object, payment_hash: object, amount_msats: int) -> Invoice:
        read = checked_invoice(text, amount_msats, self.network, checked_hash(payment_hash))
        return Invoice(str(text), read.payment_hash, amount_msats, read.expires_at)

    def find_invoice(self, external_id: str) -> Invoice | None:
        if not external_id:
            return None
        answer = self._get("/payments/incoming", {"externalId": external_id, "all": "true",
                                                  "limit": PAGE}).wanted(200)
        found = [record for record in answer.objects() if record.get("externalId") == external_id]
        if not found:
            return None
        oldest = min(found, key=lambda record: _seconds(record.get("createdAt")))
        read = _decoded(oldest)
        if read is None or read.amount_msats is None:
            raise WalletMismatch("phoenixd has an invoice of this name that is none")
        return self._invoice(oldest.get("invoice"), oldest.get("paymentHash"), read.amount_msats)

    def lookup(self, payment_hash: str) -> Receipt:
        record = self._record("/payments/incoming/", payment_hash)
        if record is None:
            return Receipt("missing")
        if record.get("isPaid") is True:
            kept = checked_msats(record.get("fees"), "fee")
            return Receipt("paid", _paid_msats(record, kept),
                           _preimage_or_none(record, payment_hash),
                           _seconds(record.get("completedAt")), fee_msats=kept)
        return Receipt("expired" if record.get("isExpired") is True else "open")

    def settle(self, preimage: str) -> None:
        raise WalletError("phoenixd has no hold invoices")

    def cancel(self, payment_hash: str) -> None:
        raise WalletError("phoenixd cannot cancel an invoice")

    # ---- paying ---------------------------------------------------------------------------------

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        return None

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        try:
            payment_hash = payable(invoice, amount_msats, self.network).payment_hash
            password = self._paying(amount_msats, max_fee_msats)
        except Refused as err:
            return Outcome("failed", reason=str(err))
        before = self.lookup_payment(payment_hash)
        if before.state in ("paid", "unknown"):
            return before               # older versions would pay a hash again
        answer = self._api.post("/payinvoice", password, PAY_SECS, form={"invoice": invoice})
        after = self.lookup_payment(payment_hash)
        if after.state != "missing":
            return after
        reason = _refusal(answer)
        return Outcome("failed" if reason else "unknown",
                       reason=peer_text(reason or f"phoenixd answered HTTP {answer.status}"))

    def _paying(self, amount_msats: int, max_fee_msats: int) -> Password:
        fee_msats = FEE_BASE_MSATS + amount_msats * FEE_PPM // 1_000_000
        if fee_msats > max_fee_msats:
            raise Refused("fee-cap", f"phoenixd takes up to {fee_msats} msats as its fee, above "
                          f"the cap of {max_fee_msats}")
        if self._full is None:
            raise Refused("limited", "only the limited password of phoenixd is given: it cannot "
                          "pay")
        return self._full

    def lookup_payment(self, payment_hash: str) -> Outcome:
        record = self._record("/payments/outgoingbyhash/", payment_hash)
        if record is None:
            return Outcome("missing")
        if record.get("isPaid") is True:
            return Outcome("paid", checked_preimage(record.get("preimage"), payment_hash),
                           checked_msats(record.get("fees"), "fee"))
        if record.get("completedAt") is not None:
            return Outcome("failed", reason="phoenixd: the payment failed")
        return Outcome("unknown", reason="phoenixd: the payment is on its way")

    # ---- records --------------------------------------------------------------------------------

    def _record(self, path: str, payment_hash: str) -> dict[str, Any] | None:
        answer = self._get(path + checked_hash(payment_hash)).wanted(200, 204, 404)
        if answer.status == 404 and answer.text.strip() != "Not found":
            # "Unknown endpoint" is a phoenixd without this call, which proves nothing.
            raise WalletError("phoenixd does not know the call; version 0.5 or newer is needed")
        if answer.status != 200:
            return None
        record = answer.object()
        if record.get("paymentHash") != payment_hash:
            raise WalletMismatch("phoenixd answered with another payment")
        return record

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        found = [_incoming(record) for record in self._all("incoming", since)
                 if record.get("isPaid") is True]
        found += [_outgoing(record) for record in self._all("outgoing", since)]
        found = [movement for movement in found if movement.at >= since]
        return sorted(found, key=lambda movement: -movement.at)[:limit]

    def _all(self, direction: str, since: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"/payments/{direction}", {
                "from": since * 1000, "limit": PAGE, "offset": len(found)}).wanted(200).objects()
            found += page
            if len(page) < PAGE:
                return found

    def _get(self, path: str, params: dict[str, str | int] | None = None) -> Answer:
        return self._api.get(path, self._reader, params)

    # ---- the rest -------------------------------------------------------------------------------

    def watch(self, on_change: OnChange) -> None:
        parts = urlsplit(self._api.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        self._push = Push(self.name, f"{scheme}://{parts.netloc}{parts.path}/websocket",
                          [self._reader.header], self._ca_file, pushed_hash, on_change)

    def ask_network(self) -> str:
        chain = self._get("/getinfo").wanted(200).object().get("chain")
        network = CHAINS.get(str(chain).lower())
        if network is None:
            raise WalletMismatch(f"phoenixd is on the chain {peer_text(str(chain))}, which we do "
                                 "not know")
        return network

    def info(self) -> dict[str, Any]:
        answer = self._get("/getinfo").wanted(200).object()
        channels = answer.get("channels")
        return {"wallet": self.name, "network": self.network, "url": self._api.url,
                "node": peer_text(str(answer.get("nodeId", ""))),
                "version": peer_text(str(answer.get("version", ""))),
                "channels": len(channels) if isinstance(channels, list) else 0,
                "can_pay": self._can_pay(), "note": "not exercised against the real service"}

    def _can_pay(self) -> bool:
        """Whether the full password is one: paying nothing is a bad call, or a forbidden one."""
        if self._full is None:
            return False
        try:
            return self._api.post("/payinvoice", self._full, form={}).status == 400
        except WalletDenied:
            return False

    def close(self) -> None:
        if self._push is not None:
            self._push.close()
            self._push = None


def pushed_hash(text: str) -> str | None:
    """The payment hash that a message of the WebSocket names."""
    try:
        return checked_hash(strictjson.load(text)["paymentHash"])
    except (InvalidMessage, WalletMismatch, KeyError, TypeError):
        return None


def _refusal(answer: Answer) -> str:
    """The reason with which phoenixd itself says that nothing was paid; '' where it does not."""
    if answer.status == 400:
        return answer.text
    try:
        value = strictjson.load(answer.text) if answer.status == 200 else None
    except InvalidMessage:
        return ""
    reason = value.get("reason") if isinstance(value, dict) else None
    return reason if isinstance(reason, str) else ""


def _incoming(record: dict[str, Any]) -> Movement:
    kept = checked_msats(record.get("fees"), "fee")
    return Movement(checked_hash(record.get("paymentHash")), True, _paid_msats(record, kept), kept,
                    "paid", _seconds(record.get("completedAt")),
                    str(record.get("description") or ""))


def _outgoing(record: dict[str, Any]) -> Movement:
    """`sent` includes the fee and is cut to satoshis; the invoice says the amount exactly."""
    fee = checked_msats(record.get("fees"), "fee")
    read = _decoded(record)
    sent = checked_msats(record.get("sent"), "amount", MSATS_PER_SAT)
    amount = max(0, sent - fee) if read is None else read.amount_msats or 0
    payment_hash = record.get("paymentHash")
    return Movement("" if payment_hash is None else checked_hash(payment_hash), False, amount, fee,
                    "paid" if record.get("isPaid") is True else "pending",
                    _seconds(record.get("createdAt")),
                    (read.description if read else None) or str(record.get("subType") or ""))


def _paid_msats(record: dict[str, Any], kept_msats: int) -> int:
    """What the customer paid. `receivedSat` is without the fee and cut to satoshis, so the sum
    would be a fraction of a satoshi too low."""
    received = checked_msats(record.get("receivedSat"), "amount", MSATS_PER_SAT)
    return round_up_to_sats(received + kept_msats)


def _decoded(record: dict[str, Any]) -> bolt11.Bolt11 | None:
    try:
        return bolt11.decode(str(record.get("invoice")))
    except InvalidMessage:
        return None


def _preimage_or_none(record: dict[str, Any], payment_hash: str) -> str | None:
    """Money that came is money, also where its preimage is missing or wrong."""
    try:
        return checked_preimage(record.get("preimage"), payment_hash)
    except WalletMismatch:
        return None


def _seconds(milliseconds: Any) -> int:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int):
        return 0
    return milliseconds // 1000
