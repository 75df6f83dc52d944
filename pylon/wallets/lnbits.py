"""LNbits over HTTP, with its WebSocket as the push. Amounts of invoices are whole satoshis.

Exercised against a real LNbits 1.6 (FakeWallet). What it says of one hash is the truth here: every
call to pay is followed by a look at that record. The server pays no more fee than its own reserve
for an invoice, which is asked for and held against the cap before anything is sent.
"""

from __future__ import annotations

import datetime
import itertools
import re
import time
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pylon.errors import (ConfigError, InvalidMessage, Refused, WalletDenied, WalletError,
                          WalletMismatch)
from pylon.log import peer_text, short
from pylon.nostr import strictjson
from pylon.units import MSATS_PER_SAT
from pylon.wallets import bolt11
from pylon.wallets.http import Answer, Api
from pylon.wallets.push import Push
from pylon.wallets.wallet import (Invoice, Movement, OnChange, Outcome, Receipt, checked_hash,
                                  checked_invoice, checked_msats, checked_preimage, payable)

PAY_SECS = 90                       # LNbits itself answers "pending" after some seconds
PAGE = 200                          # payments per call
MAX_PAGES_FOR_A_NAME = 5            # servers that do not know `external_id` are searched so far
LONGEST_INVOICE_SECS = 32 * 86400   # records are listed by the time they were made at
_KEY = re.compile(r"[0-9A-Za-z_-]{16,128}\Z", re.ASCII)
_PAYMENTS = "/api/v1/payments"
_UNKNOWN_KEY = "LNbits does not know our key; renew it with: pylon wallet connect"


class ApiKey(AuthBase):
    """Sends a key with a call and shows it to nobody else."""

    def __init__(self, key: str) -> None:
        if not _KEY.match(key):
            raise ConfigError("wallet.lnbits.key_file: what it holds is no key of LNbits")
        self.key = key

    def __call__(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        call.headers["X-Api-Key"] = self.key
        return call

    def __repr__(self) -> str:
        return "ApiKey(hidden)"


class Lnbits:
    """One wallet of an LNbits server. `network` is what it is expected to be on."""

    name = "lnbits"
    whole_sats = True
    can_hold = False
    fee_cap: Literal["enforced", "advisory"] = "enforced"
    names_invoices = True
    pushes = True
    missing_final_secs = 120

    def __init__(self, url: str, keys: str, network: str, ca_file: str = "") -> None:
        """`keys`: the admin key, and after it (if at all) the invoice key, which is then used
        for everything but paying. Raises ConfigError."""
        words = keys.split()
        if len(words) not in (1, 2):
            raise ConfigError("wallet.lnbits.key_file: it holds the admin key, and at most the "
                              "invoice key after it")
        self.network = network
        self._api = Api(url, ca_file)
        self._ca_file = ca_file
        self._admin, self._reader = ApiKey(words[0]), ApiKey(words[-1])
        self._push: Push | None = None

    # ---- receiving ------------------------------------------------------------------------------

    def balance(self) -> int:
        answer = self._get("/api/v1/wallet").wanted(200).object()
        return checked_msats(answer.get("balance"), "balance")

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        if hold_hash is not None:
            raise WalletError("hold invoices are not used with LNbits")
        sats, rest = divmod(amount_msats, MSATS_PER_SAT)
        if rest or sats <= 0:
            raise WalletError("an invoice of LNbits is of whole satoshis")
        answer = _known(self._api.post(_PAYMENTS, self._reader, json={
            "out": False, "amount": sats, "unit": "sat", "memo": description,
            "expiry": expiry_secs, "external_id": external_id or None,
            "extra": {"pylon_id": external_id} if external_id else {}}))
        return self._invoice(answer.wanted(200, 201).object(), amount_msats)

    def _invoice(self, record: dict[str, Any], amount_msats: int) -> Invoice:
        text = record.get("bolt11") or record.get("payment_request")
        read = checked_invoice(text, amount_msats, self.network,
                               checked_hash(record.get("payment_hash")))
        return Invoice(str(text), read.payment_hash, amount_msats, read.expires_at)

    def find_invoice(self, external_id: str) -> Invoice | None:
        found: list[dict[str, Any]] = []
        for page in range(MAX_PAGES_FOR_A_NAME if external_id else 0):
            records = self._page(page, external_id=external_id)
            found += [record for record in records if _is_named(record, external_id)]
            if len(records) < PAGE:
                break
        if not found:
            return None
        oldest = min(found, key=_made_at)
        return self._invoice(oldest, checked_msats(oldest.get("amount")))

    def lookup(self, payment_hash: str) -> Receipt:
        record = self._record(payment_hash, incoming=True)
        if record is None:
            return Receipt("missing")
        status = record.get("status")
        if status == "success":
            kept = abs(_integer(record.get("fee")))
            return Receipt("paid", checked_msats(record.get("amount")),
                           _preimage_or_none(record, payment_hash),
                           _settled_at(record), fee_msats=kept)
        if status in ("failed", "pending"):
            ended = status == "failed" or time.time() >= _expiry(record)
            return Receipt("expired" if ended else "open")
        raise WalletMismatch(f"LNbits says {peer_text(str(status))} of {short(payment_hash)}")

    def settle(self, preimage: str) -> None:
        raise WalletError("hold invoices are not used with LNbits")

    def cancel(self, payment_hash: str) -> None:
        raise WalletError("LNbits cannot cancel an invoice")

    # ---- paying ---------------------------------------------------------------------------------

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        return None

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        try:
            payment_hash = payable(invoice, amount_msats, self.network).payment_hash
        except Refused as err:
            return Outcome("failed", reason=str(err))
        reserve_msats = self._fee_reserve(invoice)
        if reserve_msats > max_fee_msats:
            before = self.lookup_payment(payment_hash)
            return before if before.state != "missing" else Outcome("failed", reason=(
                f"LNbits reserves {reserve_msats} msats for the fee, above {max_fee_msats}"))
        answer = self._api.post(_PAYMENTS, self._admin, PAY_SECS,
                                json={"out": True, "bolt11": invoice})
        outcome = self.lookup_payment(payment_hash)
        if outcome.state != "missing":
            return outcome
        if _says_failed(answer):
            return Outcome("failed", reason=peer_text(answer.detail()))
        return Outcome("unknown", reason=f"LNbits answered HTTP {answer.status}")

    def _fee_reserve(self, invoice: str) -> int:
        answer = self._get(f"{_PAYMENTS}/fee-reserve", {"invoice": invoice}).wanted(200).object()
        return checked_msats(answer.get("fee_reserve"), "fee")

    def lookup_payment(self, payment_hash: str) -> Outcome:
        record = self._record(payment_hash, incoming=False)
        if record is None:
            return Outcome("missing")
        status = record.get("status")
        if status == "success":
            preimage = record.get("preimage")
            return Outcome("paid", checked_preimage(preimage, payment_hash) if preimage else None,
                           abs(_integer(record.get("fee"))))
        if status == "failed":
            return Outcome("failed", reason="LNbits: the payment failed")
        return Outcome("unknown", reason="LNbits: the payment is pending")

    # ---- records --------------------------------------------------------------------------------

    def _record(self, payment_hash: str, incoming: bool) -> dict[str, Any] | None:
        """The wallet's own record of a hash, as one direction of it; None where it has none."""
        checked_hash(payment_hash)
        answer = self._get(f"{_PAYMENTS}/{payment_hash}").wanted(200, 404)
        if answer.status == 404:
            self.balance()              # a key that is not known gets 404 as well
            return None
        details = answer.object().get("details")
        if not isinstance(details, dict):
            # Asked with an unknown key, LNbits answers from other people's wallets.
            raise WalletDenied(_UNKNOWN_KEY)
        if _is_record(details, payment_hash, incoming):
            return details
        # One wallet has paid its own invoice: the call above shows one side only.
        return next((record for record in self._page(0, payment_hash=payment_hash)
                     if _is_record(record, payment_hash, incoming)), None)

    def _page(self, page: int, **filters: str) -> list[dict[str, Any]]:
        params: dict[str, str | int] = {"limit": PAGE, "offset": page * PAGE,
                                        "sortby": "time", "direction": "desc", **filters}
        return self._get(_PAYMENTS, params).wanted(200).objects()

    def _get(self, path: str, params: dict[str, str | int] | None = None) -> Answer:
        return _known(self._api.get(path, self._reader, params))

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        found: list[Movement] = []
        for page in itertools.count():
            records = self._page(page)
            found += [_movement(record) for record in records if _has_moved(record)]
            if len(records) < PAGE or _made_at(records[-1]) < since - LONGEST_INVOICE_SECS:
                break
        found = [movement for movement in found if movement.at >= since]
        return sorted(found, key=lambda movement: -movement.at)[:limit]

    # ---- the rest -------------------------------------------------------------------------------

    def watch(self, on_change: OnChange) -> None:
        parts = urlsplit(self._api.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        self._push = Push(self.name, f"{scheme}://{parts.netloc}{parts.path}/api/v1/ws/"
                          f"{self._reader.key}", [], self._ca_file, pushed_hash, on_change)

    def ask_network(self) -> str:
        """The network of its invoices: of one that it has, else of one that is made to see it."""
        for record in self._page(0):
            text = record.get("bolt11")
            try:
                return bolt11.decode(str(text)).network
            except InvalidMessage:
                continue
        answer = self._api.post(_PAYMENTS, self._reader, json={
            "out": False, "amount": 1, "memo": "Pylon looks at the network", "expiry": 60})
        record = answer.wanted(200, 201).object()
        try:
            return bolt11.decode(str(record.get("bolt11") or record.get("payment_request"))).network
        except InvalidMessage as err:
            raise WalletMismatch(f"LNbits makes invoices that are none: {err}") from err

    def info(self) -> dict[str, Any]:
        answer = _known(self._api.get("/api/v1/wallet", self._admin)).wanted(200).object()
        return {"wallet": self.name, "network": self.network, "url": self._api.url,
                "name": peer_text(str(answer.get("name", ""))),
                "can_pay": "id" in answer}      # which only an admin key is told

    def close(self) -> None:
        if self._push is not None:
            self._push.close()
            self._push = None


def _known(answer: Answer) -> Answer:
    """The answer, unless it means that the key is not known. Raises WalletDenied."""
    if answer.status == 404 and "wallet not found" in answer.detail().lower():
        raise WalletDenied(_UNKNOWN_KEY)
    return answer


def pushed_hash(text: str) -> str | None:
    """The payment hash that a message of the WebSocket names."""
    try:
        message = strictjson.load(text)
        return checked_hash(message["payment"]["payment_hash"])
    except (InvalidMessage, WalletMismatch, KeyError, TypeError):
        return None


def _is_record(record: dict[str, Any], payment_hash: str, incoming: bool) -> bool:
    amount = _integer(record.get("amount"))
    return record.get("payment_hash") == payment_hash and (amount > 0) == incoming


def _is_named(record: dict[str, Any], external_id: str) -> bool:
    extra = record.get("extra")
    named = record.get("external_id") or (extra.get("pylon_id") if isinstance(extra, dict) else "")
    return named == external_id and _integer(record.get("amount")) > 0


def _has_moved(record: dict[str, Any]) -> bool:
    outgoing = _integer(record.get("amount")) < 0
    return record.get("status") == "success" or (outgoing and record.get("status") == "pending")


def _movement(record: dict[str, Any]) -> Movement:
    amount = _integer(record.get("amount"))
    return Movement(checked_hash(record.get("payment_hash")), amount > 0,
                    checked_msats(abs(amount)), abs(_integer(record.get("fee"))),
                    "paid" if record.get("status") == "success" else "pending",
                    _settled_at(record) if amount > 0 else _made_at(record),
                    str(record.get("memo") or ""))


def _says_failed(answer: Answer) -> bool:
    """Whether LNbits itself, and not something in front of it, says that a payment failed."""
    try:
        value = strictjson.load(answer.text)
    except InvalidMessage:
        return False
    return isinstance(value, dict) and (value.get("status") == "failed" or
                                        400 <= answer.status < 500 and "detail" in value)


def _preimage_or_none(record: dict[str, Any], payment_hash: str) -> str | None:
    """Money that came is money, also where its preimage is missing or wrong."""
    try:
        return checked_preimage(record.get("preimage"), payment_hash)
    except WalletMismatch:
        return None


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WalletMismatch("LNbits sent an amount that is no whole number")
    return value


def _seconds(value: Any) -> int:
    """LNbits writes points in time as ISO 8601, older ones as Unix seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _made_at(record: dict[str, Any]) -> int:
    return _seconds(record.get("time"))


def _settled_at(record: dict[str, Any]) -> int:
    return _seconds(record.get("updated_at")) or _made_at(record)


def _expiry(record: dict[str, Any]) -> int:
    try:
        return bolt11.decode(str(record.get("bolt11"))).expires_at
    except InvalidMessage:
        return _seconds(record.get("expiry"))
