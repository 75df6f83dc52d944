"""A wallet service of NIP-47 over a real relay; behind it an account of a real ledger.

What it offers can be narrowed (`encryptions`, `methods`, `notifications`), and it sins on demand:
`sin` holds for calls of the method `only`. SINS lists them; `log` has every call that it saw.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pylon.config import from_values
from pylon.errors import InvalidMessage, WalletError
from pylon.nostr import nip47
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys, generate
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger

METHODS = ("get_info", "get_balance", "make_invoice", "pay_invoice", "lookup_invoice",
           "list_transactions", "make_hold_invoice", "settle_hold_invoice", "cancel_hold_invoice")
NOTIFICATIONS = ("payment_received", "payment_sent", "hold_invoice_accepted")
SINS = ("without_p", "silent", "silent_after", "stranger", "other_call", "other_type", "error",
        "error_after", "twice", "spoils", "no_json", "both", "not_for_us")
CONFIG = from_values({"relay": {"backoff_max_secs": 1}})


def make_pool(identities: Callable[[], list[Keys]]) -> Pool:
    return Pool(CONFIG, identities)


class Refusal(Exception):
    """An error of NIP-47: its code and a text."""


class NwcService:

    def __init__(self, ledger: Ledger, relays: list[str], methods: tuple[str, ...] = METHODS,
                 notifications: tuple[str, ...] = NOTIFICATIONS,
                 encryptions: tuple[str, ...] = ("nip44_v2", "nip04"), network: str = "regtest",
                 publishes_info: bool = True) -> None:
        self.ledger, self.network = ledger, network
        self.methods, self.notifications, self.encryptions = methods, notifications, encryptions
        self.keys, self.client = generate(), generate()
        self.relays = relays
        self.log: list[tuple[str, str]] = []            # (method, id of the call)
        self.encryption_seen = ""
        self.sin, self.only, self.error_code = "", "", nip47.OTHER
        self.spoil: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: result
        self.without_states = self.calls_all_incoming = False
        self.max_page = 20
        self._acted: set[str] = set()
        self._pool = make_pool(lambda: [self.keys])
        self._pool.subscribe(Subscription("calls", [
            {"kinds": [nip47.CALL], "#p": [self.keys.pubkey], "since": int(time.time()) - 60}],
            self._arrived))
        self._pool.listen(self._connected)
        self._publishes_info = publishes_info
        self._pool.start(relays)
        ledger.watch(self._changed)

    @property
    def uri(self) -> str:
        relays = "&".join(f"relay={relay}" for relay in self.relays)
        return (f"nostr+walletconnect://{self.keys.pubkey}?{relays}"
                f"&secret={self.client._secret.hex()}")

    def close(self) -> None:
        self._pool.stop()

    def tell_info(self) -> None:
        encryptions = self.encryptions if self.encryptions != ("nip04",) else ()
        self._send(nip47.build_info(self.keys, self.methods, self.notifications, encryptions,
                                    int(time.time())))

    def notify(self, type_: str, payment_hash: str, keys: Keys | None = None) -> None:
        encryption = "nip44" if "nip44_v2" in self.encryptions else "nip04"
        self._send(nip47.build_notification(keys or self.keys, self.client.pubkey, type_,
                                            {"payment_hash": payment_hash}, encryption,
                                            int(time.time())))

    # ---- on the relays' threads -----------------------------------------------------------------

    def _connected(self, url: str, connected: bool) -> None:
        if connected and self._publishes_info:
            threading.Thread(target=self.tell_info, name="nwc-info").start()

    def _arrived(self, relay: str, events: list[Event]) -> None:
        for event in events:
            if event.pubkey == self.client.pubkey and event.id not in self._acted:
                self._acted.add(event.id)       # one event is acted upon once
                threading.Thread(target=self._act, args=(event,), name="nwc-act").start()

    def _changed(self, payment_hash: str | None) -> None:
        state = self.ledger.lookup(payment_hash or "").state
        type_ = {"paid": "payment_received", "held": "hold_invoice_accepted"}.get(state, "")
        if type_ in self.notifications:
            self.notify(type_, payment_hash or "")

    def _send(self, event: Event) -> None:
        self._pool.publish(event.id, event.to_json(), None, lambda *answer: None)

    def _act(self, event: Event) -> None:
        try:
            call = nip47.parse_call(event, self.keys)
        except InvalidMessage:
            return
        self.log.append((call.method, event.id))
        self.encryption_seen = call.encryption
        expires_at = event.expiration()
        if expires_at is not None and expires_at <= time.time():
            return
        sin = self.sin if self.only in ("", call.method) else ""
        if sin in ("silent", "error"):
            answer: dict[str, Any] | Refusal = Refusal(self.error_code, "as you wish")
        else:
            answer = self._answer(call)
        if sin == "error_after":
            answer = Refusal(self.error_code, "or so it says")
        if not sin.startswith("silent"):
            self._respond(event, call, answer, sin)

    def _answer(self, call: nip47.Call) -> dict[str, Any] | Refusal:
        try:
            if call.method not in self.methods:
                raise Refusal(nip47.NOT_IMPLEMENTED, call.method)
            return getattr(self, call.method)(call.params)
        except Refusal as err:
            return err
        except WalletError as err:
            return Refusal(nip47.OTHER, str(err))

    def _respond(self, event: Event, call: nip47.Call, answer: Any, sin: str) -> None:
        keys, method, to = self.keys, call.method, event
        if sin == "stranger":
            keys = generate()
        elif sin == "other_call":
            to = self.client.sign(nip47.CALL, "", [["p", self.keys.pubkey]], int(time.time()))
        elif sin == "not_for_us":
            to = generate().sign(nip47.CALL, "", [["p", self.keys.pubkey]], int(time.time()))
        elif sin == "other_type":
            method = "get_budget"
        if sin in ("spoils", "both") and isinstance(answer, dict):
            answer = self.spoil(answer)
        for _ in range(2 if sin == "twice" else 1):
            if sin == "no_json":
                content = self.keys.nip44_encrypt(event.pubkey, "no json")
                response = self.keys.sign(nip47.RESPONSE, content, [
                    ["p", event.pubkey], ["e", event.id]], int(time.time()))
            elif isinstance(answer, Refusal):
                response = nip47.build_response(keys, to, method, None, call.encryption,
                                                int(time.time()), *answer.args)
            else:
                response = nip47.build_response(keys, to, method, answer, call.encryption,
                                                int(time.time()))
            if sin == "without_p":
                response = keys.sign(response.kind, response.content, response.all("e"),
                                     response.created_at)
            self._send(response)

    # ---- the methods ----------------------------------------------------------------------------

    def get_info(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"alias": "ledger", "pubkey": self.ledger.node, "network": self.network,
                "methods": list(self.methods), "notifications": list(self.notifications)}

    def get_balance(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"balance": self.ledger.balance()}

    def make_invoice(self, params: dict[str, Any]) -> dict[str, Any]:
        made = self.ledger.make_invoice(params["amount"], params.get("description", ""),
                                        params.get("expiry", 3600), "",
                                        params.get("payment_hash"))
        return self._incoming(made.payment_hash)

    make_hold_invoice = make_invoice

    def settle_hold_invoice(self, params: dict[str, Any]) -> dict[str, Any]:
        self.ledger.settle(params["preimage"])
        return {}

    def cancel_hold_invoice(self, params: dict[str, Any]) -> dict[str, Any]:
        self.ledger.cancel(params["payment_hash"])
        return {}

    def pay_invoice(self, params: dict[str, Any]) -> dict[str, Any]:
        invoice = bolt11.decode(params["invoice"])
        outcome = self.ledger.pay(params["invoice"], invoice.amount_msats or 0, 10**9)
        if outcome.state == "unknown":
            raise Refusal(nip47.PAYMENT_FAILED, "timeout")      # as some do while it is held
        if outcome.state != "paid":
            code = nip47.INSUFFICIENT_BALANCE if "balance" in outcome.reason \
                else nip47.PAYMENT_FAILED
            raise Refusal(code, outcome.reason)
        if "payment_sent" in self.notifications:
            self.notify("payment_sent", invoice.payment_hash)
        return {"preimage": outcome.preimage, "fees_paid": outcome.fee_msats}

    def lookup_invoice(self, params: dict[str, Any]) -> dict[str, Any]:
        payment_hash = params["payment_hash"]
        found = self._outgoing(payment_hash) or self._incoming(payment_hash)
        if not found:
            raise Refusal(nip47.NOT_FOUND, "not found")
        return found

    def list_transactions(self, params: dict[str, Any]) -> dict[str, Any]:
        found = [self._incoming(row["payment_hash"]) for row in self._rows("invoice")]
        found += [self._outgoing(row["payment_hash"]) for row in self._rows("payment")]
        found = [one for one in found if one and one["created_at"] >= params.get("from", 0)]
        if not params.get("unpaid"):
            found = [one for one in found if one["type"] == "outgoing" or one.get("settled_at")]
        found.sort(key=lambda one: -one["created_at"])
        start = params.get("offset", 0)
        return {"transactions": found[start:start + min(params["limit"], self.max_page)]}

    def _rows(self, table: str, payment_hash: str | None = None) -> list[Any]:
        with self.ledger._reading() as tx:
            rows = tx.execute(f"SELECT * FROM {table} WHERE account = ? ORDER BY rowid",
                              (self.ledger.node,)).fetchall()
        return [row for row in rows if payment_hash in (None, row["payment_hash"])]

    def _incoming(self, payment_hash: str) -> dict[str, Any]:
        for row in self._rows("invoice", payment_hash):
            expired = row["state"] == "open" and self.ledger._now() >= row["expires_at"]
            state = {"open": "pending", "held": "accepted", "paid": "settled",
                     "cancelled": "failed"}[row["state"]]
            return self._transaction(row, "incoming", "expired" if expired else state, 0)
        return {}

    def _outgoing(self, payment_hash: str) -> dict[str, Any]:
        for row in self._rows("payment", payment_hash):
            state = {"pending": "pending", "paid": "settled", "failed": "failed"}[row["state"]]
            kind = "incoming" if self.calls_all_incoming else "outgoing"
            return self._transaction(row, kind, state, row["fee_msats"])
        return {}

    def _transaction(self, row: Any, kind: str, state: str, fees: int) -> dict[str, Any]:
        one = {"type": kind, "state": state, "invoice": row["bolt11"],
               "description": row["description"], "payment_hash": row["payment_hash"],
               "amount": row["amount_msats"], "fees_paid": fees, "created_at": row["created_at"]}
        if state == "settled":
            one |= {"preimage": row["preimage"], "settled_at": row["settled_at"]}
        if kind == "incoming" and "expires_at" in row.keys():
            one["expires_at"] = row["expires_at"]
        if self.without_states:
            del one["state"]
        return one
