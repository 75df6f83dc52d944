"""A wallet in memory that pays in the manner it is told to, and keeps a log that only grows.

Manners of `pay`: `pays`; `fails`; `holds` (the payee decides later: `end`); `pays_and_times_out`,
`pays_and_says_no` and `pays_and_lies` (the money moves, the answer is an error); `pays_later` (an
error now, the money moves at `arrive`, and until then there is no record); `loses_the_call`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from pylon.crypto import secp
from pylon.errors import WalletError, WalletMismatch, WalletUnreachable
from pylon.wallets import bolt11
from pylon.wallets.wallet import Invoice, Movement, OnChange, Outcome, Receipt

PAYEE = b"\x21" * 32
PAYEE_NODE = secp.pubkey_compressed(PAYEE).hex()
MANNERS = ("pays", "fails", "holds", "pays_and_times_out", "pays_and_says_no", "pays_and_lies",
           "pays_later", "loses_the_call")


def preimage_of(number: int) -> str:
    return hashlib.sha256(f"scripted {number}".encode()).hexdigest()


def hash_of(number: int) -> str:
    return hashlib.sha256(bytes.fromhex(preimage_of(number))).hexdigest()


def foreign_invoice(number: int, amount_msats: int | None = 10_000, network: str = "regtest",
                    description: str | None = "for a test", at: int | None = None,
                    expiry_secs: int = 3600, **fields: Any) -> str:
    """Somebody else's invoice number so and so."""
    return bolt11.encode(network, amount_msats, hash_of(number), description, PAYEE,
                         hashlib.sha256(b"secret").hexdigest(),
                         int(time.time()) if at is None else at, expiry_secs, **fields)


class ScriptedWallet:
    name = "scripted"
    whole_sats = False
    can_hold = True
    fee_cap: Literal["enforced", "advisory"] = "advisory"
    names_invoices = True
    pushes = True

    def __init__(self, funds_msats: int = 10_000_000, network: str = "regtest",
                 clock: Callable[[], int] = lambda: int(time.time())) -> None:
        self.network = network
        self.missing_final_secs = 600
        self.funds_msats = funds_msats
        self.fee_msats = 0
        self.manner = "pays"
        self.answers = True             # False: every other call raises WalletUnreachable
        self.prepares = False           # like NWC: a payment has a request that is stored
        self.log: list[tuple[str, str]] = []
        self.moves: list[Movement] = []
        self.outcomes: dict[str, Outcome] = {}
        self.receipts: dict[str, Receipt] = {}
        self.made: dict[str, Invoice] = {}
        self.on_change: OnChange = lambda payment_hash: None
        self._late: dict[str, tuple[int, str]] = {}
        self._clock = clock
        self._lock = threading.RLock()

    # -- the wallet's interface --

    def balance(self) -> int:
        self._answer()
        return self.funds_msats

    def make_invoice(self, amount_msats: int, description: str, expiry_secs: int,
                     external_id: str, hold_hash: str | None = None) -> Invoice:
        self._answer()
        with self._lock:
            number = 10_000 + len(self.made)
            text = bolt11.encode(self.network, amount_msats, hold_hash or hash_of(number),
                                 description, b"\x22" * 32, hashlib.sha256(b"s").hexdigest(),
                                 self._clock(), expiry_secs)
            invoice = Invoice(text, hold_hash or hash_of(number), amount_msats,
                              self._clock() + expiry_secs)
            return self.made.setdefault(external_id or str(number), invoice)

    def find_invoice(self, external_id: str) -> Invoice | None:
        self._answer()
        return self.made.get(external_id)

    def lookup(self, payment_hash: str) -> Receipt:
        self._answer()
        return self.receipts.get(payment_hash, Receipt("open"))

    def prepare_payment(self, invoice: str, max_fee_msats: int, expires_at: int) -> str | None:
        self._answer()
        return f"request for {bolt11.decode(invoice).payment_hash}" if self.prepares else None

    def pay(self, invoice: str, amount_msats: int, max_fee_msats: int,
            prepared: str | None = None) -> Outcome:
        payment_hash = bolt11.decode(invoice).payment_hash
        with self._lock:
            self.log.append(("pay", payment_hash))
            if payment_hash in self.outcomes:
                return self.outcomes[payment_hash]
            return self._in_manner(payment_hash, amount_msats)

    def _in_manner(self, payment_hash: str, amount_msats: int) -> Outcome:
        if self.manner == "fails":
            self.outcomes[payment_hash] = Outcome("failed", reason="no route")
            return self.outcomes[payment_hash]
        if self.manner == "holds":
            self.outcomes[payment_hash] = Outcome("unknown", reason="held")
            self._late[payment_hash] = (amount_msats, "held")
            return self.outcomes[payment_hash]
        if self.manner == "loses_the_call":
            raise WalletUnreachable("the connection was refused")
        if self.manner == "pays_later":
            self._late[payment_hash] = (amount_msats, "late")
            raise WalletUnreachable("no answer in time")
        self._move(payment_hash, amount_msats)
        if self.manner == "pays_and_times_out":
            raise WalletUnreachable("no answer in time")
        if self.manner == "pays_and_says_no":
            raise WalletError("HTTP 500")
        if self.manner == "pays_and_lies":
            raise WalletMismatch("a preimage of another hash")
        return self.outcomes[payment_hash]

    def _move(self, payment_hash: str, amount_msats: int) -> None:
        self.log.append(("paid", payment_hash))
        self.funds_msats -= amount_msats + self.fee_msats
        preimages = {hash_of(number): preimage_of(number) for number in range(200)}
        self.outcomes[payment_hash] = Outcome("paid", preimages.get(payment_hash), self.fee_msats)
        self.moves.append(Movement(payment_hash, False, amount_msats, self.fee_msats, "paid",
                                   self._clock(), "for a test"))

    def lookup_payment(self, payment_hash: str) -> Outcome:
        self._answer()
        with self._lock:
            self.log.append(("lookup", payment_hash))
            return self.outcomes.get(payment_hash, Outcome("missing"))

    def settle(self, preimage: str) -> None:
        self._answer()

    def cancel(self, payment_hash: str) -> None:
        self._answer()

    def history(self, since: int = 0, limit: int | None = None) -> list[Movement]:
        self._answer()
        with self._lock:
            moves = [move for move in self.moves if move.at >= since][::-1]
            return moves if limit is None else moves[:limit]

    def watch(self, on_change: OnChange) -> None:
        self.on_change = on_change

    def info(self) -> dict[str, Any]:
        return {"wallet": self.name, "node": "02" + "ab" * 32, "lud16": "node@pay.example"}

    def close(self) -> None:
        """Nothing is held."""

    # -- what the test does to it --

    def _answer(self) -> None:
        if not self.answers:
            raise WalletUnreachable("the wallet does not answer")

    def arrive(self, payment_hash: str | None = None) -> None:
        """What was late or held is paid now."""
        with self._lock:
            for late in [payment_hash] if payment_hash else list(self._late):
                amount_msats, _ = self._late.pop(late)
                self._move(late, amount_msats)

    def refuse(self, payment_hash: str) -> None:
        """What was held goes back, what was late never comes; the record says so."""
        with self._lock:
            self._late.pop(payment_hash)
            self.outcomes[payment_hash] = Outcome("failed", reason="given back")

    def receive(self, payment_hash: str, amount_msats: int, fee_msats: int = 0,
                at: int | None = None) -> None:
        """Money comes in for this hash ('': on no invoice)."""
        self.funds_msats += amount_msats - fee_msats
        self.receipts[payment_hash] = Receipt("paid", amount_msats, settled_at=self._clock())
        self.moves.append(Movement(payment_hash, True, amount_msats, fee_msats, "paid",
                                   self._clock() if at is None else at, "for a test"))

    def spend_elsewhere(self, payment_hash: str, amount_msats: int) -> None:
        """The owner pays from another program."""
        self.funds_msats -= amount_msats
        self.moves.append(Movement(payment_hash, False, amount_msats, 0, "paid", self._clock(),
                                   "the owner's"))

    def paid(self) -> Counter[str]:
        """How often each hash was really paid."""
        return Counter(payment_hash for what, payment_hash in self.log if what == "paid")

    def calls(self, what: str) -> int:
        return sum(call == what for call, _ in self.log)
