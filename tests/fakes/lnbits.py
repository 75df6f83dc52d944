"""A stand-in for one LNbits server with one wallet, after the source of LNbits 1.6, on regtest.

The same tests run against it and against the real one. `without_external_id` is an older server,
which ignores what it does not know.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger
from tests.fakes.wallet_server import Call, WalletServer

ADMIN_KEY, INVOICE_KEY = "a" * 32, "1" * 32


class Lnbits(WalletServer):

    def __init__(self, ledger: Ledger) -> None:
        self.extras: dict[str, dict[str, Any]] = {}
        self.external_ids: dict[str, str] = {}
        self.without_external_id = False
        self.known_keys = [ADMIN_KEY, INVOICE_KEY]
        super().__init__(ledger)

    def may_listen(self, call: Call) -> bool:
        return call.path.startswith("/api/v1/ws/")      # anybody may; keys are the topics

    def changed(self, payment_hash: str | None) -> None:
        for record in self.records():
            if record["payment_hash"] == payment_hash and record["status"] == "success":
                self.push(json.dumps({"wallet_balance": self.ledger.balance() // 1000,
                                      "payment": record}))

    def answer(self, call: Call) -> tuple[int, Any]:
        key = call.headers.get("X-Api-Key")
        place = call.path.removeprefix("/api/v1/")
        if place.startswith("payments/") and place != "payments/fee-reserve":
            return self.payment(place.rpartition("/")[2], key in self.known_keys)
        if place == "payments/fee-reserve":
            amount = bolt11.decode(call.values["invoice"]).amount_msats or 0
            return 200, {"fee_reserve": max(2000, amount // 100)}
        if key not in self.known_keys:
            return 404, {"detail": "Wallet not found."}
        if place == "wallet":
            named = {"id": "0123"} if key == ADMIN_KEY else {}
            return 200, {"name": "stand-in", "balance": self.ledger.balance(), **named}
        if place == "payments" and call.method == "GET":
            return 200, self.list(call.values)
        if place == "payments" and call.values.get("out") is True:
            return self.pay(call.values) if key == ADMIN_KEY else (403, {"detail": "no"})
        return self.create(call.values) if place == "payments" else (404, {"detail": "Not Found"})

    def create(self, values: dict[str, Any]) -> tuple[int, Any]:
        made = self.ledger.make_invoice(int(values["amount"]) * 1000, values["memo"],
                                        values["expiry"], "")
        self.extras[made.payment_hash] = values.get("extra") or {}
        if values.get("external_id") and not self.without_external_id:
            self.external_ids[made.payment_hash] = values["external_id"]
        return 201, self._of(made.payment_hash, True)

    def pay(self, values: dict[str, Any]) -> tuple[int, Any]:
        invoice = bolt11.decode(values["bolt11"])
        before = self.ledger.lookup_payment(invoice.payment_hash)
        if before.state == "paid":
            return 520, {"detail": "Internal invoice already paid.", "status": "failed"}
        outcome = self.ledger.pay(values["bolt11"], invoice.amount_msats or 0, 0)
        if outcome.state != "paid":
            return 520, {"detail": outcome.reason, "status": "failed"}
        return 201, self._of(invoice.payment_hash, False)

    def payment(self, payment_hash: str, known: bool) -> tuple[int, Any]:
        record = self._of(payment_hash, False) or self._of(payment_hash, True)
        if record is None:
            return 404, {"detail": "Payment does not exist."}
        answer = {"paid": record["status"] == "success", "preimage": record["preimage"]}
        return 200, {**answer, "details": record} if known else answer

    def list(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        found = self.records()[::-1]
        for name in ("payment_hash", *(() if self.without_external_id else ("external_id",))):
            if name in values:
                found = [record for record in found if record[name] == values[name]]
        start = int(values.get("offset", 0))
        return found[start:start + int(values.get("limit", 10))]

    def _of(self, payment_hash: str, incoming: bool) -> dict[str, Any] | None:
        return next((record for record in self.records() if record["payment_hash"] == payment_hash
                     and (record["amount"] > 0) == incoming), None)

    def records(self) -> list[dict[str, Any]]:
        found = []
        with self.ledger._reading() as tx:
            for table in ("invoice", "payment"):
                found += [self._record(row, table == "invoice") for row in tx.execute(
                    f"SELECT * FROM {table} WHERE account = ? ORDER BY rowid",
                    (self.ledger.node,))]
        return sorted(found, key=lambda record: record["time"])

    def _record(self, row: Any, incoming: bool) -> dict[str, Any]:
        payment_hash, state = row["payment_hash"], row["state"]
        expired = incoming and state == "open" and self.ledger._now() >= row["expires_at"]
        status = "success" if state == "paid" else "failed" if expired or state in (
            "cancelled", "failed") else "pending"
        return {"checking_id": payment_hash, "payment_hash": payment_hash, "wallet_id": "0123",
                "amount": row["amount_msats"] * (1 if incoming else -1), "memo":
                row["description"], "fee": 0 if incoming else -row["fee_msats"],
                "bolt11": row["bolt11"], "status": status,
                "preimage": row["preimage"] if state == "paid" else None,
                "extra": self.extras.get(payment_hash, {}),
                "external_id": self.external_ids.get(payment_hash),
                "time": _iso(row["created_at"]),
                "updated_at": _iso(row["settled_at"] or row["created_at"])}


def _iso(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()
