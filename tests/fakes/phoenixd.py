"""A stand-in for phoenixd that follows its API document and its source (version 0.9), on regtest.

`liquidity_fee_msats` is taken out of what arrives; `without_lookup` is an older phoenixd that has
no such call.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger
from tests.fakes.wallet_server import Call, WalletServer

FULL, LIMITED = "full-" + "f" * 59, "limited-" + "l" * 56


class Phoenixd(WalletServer):

    def __init__(self, ledger: Ledger) -> None:
        self.external_ids: dict[str, str] = {}
        self.liquidity_fee_msats = 0
        self.without_lookup = False
        self.chain = "regtest"
        super().__init__(ledger)

    def may_listen(self, call: Call) -> bool:
        return call.path == "/websocket" and call.basic_password() in (FULL, LIMITED)

    def changed(self, payment_hash: str | None) -> None:
        receipt = self.ledger.lookup(payment_hash or "")
        if receipt.state == "paid":
            self.push(json.dumps({
                "type": "payment_received", "timestamp": int(time.time() * 1000),
                "amountSat": receipt.received_msats // 1000, "paymentHash": payment_hash,
                **self._named(payment_hash or "")}))

    def answer(self, call: Call) -> tuple[int, Any]:
        password = call.basic_password()
        if password not in (FULL, LIMITED):
            return 401, "Invalid authentication (use basic auth with the http password set in " \
                        "phoenix.conf)"
        name, _, payment_hash = call.path.strip("/").rpartition("/")
        if call.path == "/payinvoice":
            return self.payinvoice(call.values) if password == FULL else (401, "Invalid")
        if name == "payments/incoming":
            return self._one(self.incoming(payment_hash))
        if name == "payments/outgoingbyhash" and not self.without_lookup:
            return self._one(self.outgoing(payment_hash))
        method = {"getinfo": self.getinfo, "getbalance": self.getbalance,
                  "createinvoice": self.createinvoice, "payments/incoming": self.list_incoming,
                  "payments/outgoing": self.list_outgoing}.get(call.path.strip("/"))
        return method(call.values) if method else (404, "Unknown endpoint (check api doc)")

    def _one(self, record: dict[str, Any] | None) -> tuple[int, Any]:
        return (404, "Not found") if record is None else (200, record)

    def getinfo(self, values: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"nodeId": self.ledger.node, "channels": [{"state": "Normal"}],
                     "chain": self.chain, "blockHeight": 1, "version": "0.9.1-stand-in"}

    def getbalance(self, values: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"balanceSat": self.ledger.balance() // 1000, "feeCreditSat": 0}

    def createinvoice(self, values: dict[str, Any]) -> tuple[int, Any]:
        if len(values["description"]) > 128:
            return 400, "Request parameter description is too long (max 128 characters)"
        sats = int(values["amountSat"])
        made = self.ledger.make_invoice(sats * 1000, values["description"],
                                        int(values.get("expirySeconds", 3600)), "")
        if "externalId" in values:
            self.external_ids[made.payment_hash] = values["externalId"]
        return 200, {"amountSat": sats, "paymentHash": made.payment_hash,
                     "serialized": made.bolt11}

    def payinvoice(self, values: dict[str, Any]) -> tuple[int, Any]:
        if "invoice" not in values:
            return 400, "Request parameter invoice is missing"
        invoice = bolt11.decode(values["invoice"])
        amount = invoice.amount_msats or 0
        self.ledger.fee_msats = 4000 + amount * 4 // 1000
        outcome = self.ledger.pay(values["invoice"], amount, self.ledger.fee_msats)
        if outcome.state != "paid":
            return 200, {"paymentHash": invoice.payment_hash, "reason": outcome.reason}
        return 200, {"recipientAmountSat": amount // 1000, "paymentId": "0-0-0",
                     "routingFeeSat": (outcome.fee_msats or 0) // 1000,
                     "paymentHash": invoice.payment_hash, "paymentPreimage": outcome.preimage}

    def list_incoming(self, values: dict[str, Any]) -> tuple[int, Any]:
        found = [self.incoming(row["payment_hash"]) or {} for row in self._rows("invoice")]
        if values.get("all") != "true":
            found = [record for record in found if record["isPaid"]]
        if "externalId" in values:
            found = [r for r in found if r.get("externalId") == values["externalId"]]
        return 200, self._page(found, values)

    def list_outgoing(self, values: dict[str, Any]) -> tuple[int, Any]:
        found = [self.outgoing(row["payment_hash"]) or {} for row in self._rows("payment")]
        found = [r for r in found if r["isPaid"] or "completedAt" not in r]
        return 200, self._page(found, values)

    def _page(self, found: list[dict[str, Any]], values: dict[str, Any]) -> list[dict[str, Any]]:
        start = int(values.get("offset", 0))
        found = [r for r in found if r["createdAt"] >= int(values.get("from", 0))
                 or r.get("completedAt", 0) >= int(values.get("from", 0))]
        return found[::-1][start:start + int(values.get("limit", 20))]

    def _rows(self, table: str) -> list[Any]:
        with self.ledger._reading() as tx:
            return tx.execute(f"SELECT * FROM {table} WHERE account = ? ORDER BY rowid",
                              (self.ledger.node,)).fetchall()

    def _row(self, table: str, payment_hash: str) -> Any:
        return next((r for r in self._rows(table) if r["payment_hash"] == payment_hash), None)

    def _named(self, payment_hash: str) -> dict[str, str]:
        name = self.external_ids.get(payment_hash)
        return {} if name is None else {"externalId": name}

    def incoming(self, payment_hash: str) -> dict[str, Any] | None:
        row = self._row("invoice", payment_hash)
        if row is None:
            return None
        paid = row["state"] == "paid"
        kept = self.liquidity_fee_msats if paid else 0
        return {"type": "incoming_payment", "subType": "lightning", "paymentHash": payment_hash,
                "preimage": row["preimage"], "description": row["description"],
                "invoice": row["bolt11"], "isPaid": paid, **self._named(payment_hash),
                "isExpired": not paid and self.ledger._now() >= row["expires_at"],
                "requestedSat": row["amount_msats"] // 1000,
                "receivedSat": (row["amount_msats"] - kept) // 1000 if paid else 0,
                "fees": kept, "expiresAt": row["expires_at"] * 1000,
                **({"completedAt": row["settled_at"] * 1000} if paid else {}),
                "createdAt": row["created_at"] * 1000}

    def outgoing(self, payment_hash: str) -> dict[str, Any] | None:
        row = self._row("payment", payment_hash)
        if row is None:
            return None
        ended = {} if row["settled_at"] is None else {"completedAt": row["settled_at"] * 1000}
        proof = {} if row["preimage"] is None else {"preimage": row["preimage"]}
        return {"type": "outgoing_payment", "subType": "lightning", "paymentId": "0-0-0",
                "paymentHash": payment_hash, "isPaid": row["state"] == "paid",
                "sent": (row["amount_msats"] + row["fee_msats"]) // 1000,
                "fees": row["fee_msats"], "invoice": row["bolt11"], **ended, **proof,
                "createdAt": row["created_at"] * 1000}
