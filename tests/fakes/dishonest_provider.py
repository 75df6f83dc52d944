"""A little NIP-90 provider over a real relay that shares no Nostr code with Pylon, with sins.

nostr-sdk signs, encrypts and verifies; a raw socket talks; invoices are the ledger's. Without
sins it is honest: it quotes, waits for its money, delivers. Thread: one reader per provider,
woken too by its wallet. `log` is append-only: what it did, in order.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from pathlib import Path

import websocket
from nostr_sdk import (Event, EventBuilder, Keys, Kind, Nip44Version, PublicKey, Tag, Timestamp,
                       nip44_decrypt, nip44_encrypt)

from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger

SINS = frozenset((
    # about the price
    "quotes_twice", "quotes_huge", "foreign_author", "wrong_amount_in_tag", "wrong_network",
    "expired_invoice", "no_amount", "no_invoice", "bad_invoice", "wrong_request",
    "somebody_elses_quote", "one_sat_less_in_invoice",
    # about the work
    "garbage", "empty_result", "not_encrypted", "after_timeout", "to_somebody_else", "never",
    "error_after_payment", "foreign_result", "other_orders_result", "unsigned_result", "twice",
    # about the truth
    "lies_about_payment", "announces_what_it_has_not"))


class DishonestProvider:
    """`price_msats` 0 works for nothing; `late_secs` is how late `after_timeout` delivers."""

    def __init__(self, url: str, place: Path, name: str = "provider", price_msats: int = 2000,
                 sins: tuple[str, ...] = (), hold: bool = False, late_secs: float = 4.0,
                 answer: str = "Paris", partials: tuple[str, ...] = (),
                 only_by_name: bool = False) -> None:
        assert SINS.issuperset(sins), sins
        self.keys, self.stranger = Keys.generate(), Keys.generate()
        self.pubkey = self.keys.public_key().to_hex()
        self.npub = self.keys.public_key().to_bech32()
        self.price_msats, self.sins, self.hold = price_msats, set(sins), hold
        self.late_secs, self.answer, self.partials = late_secs, answer, partials
        self.only_by_name = only_by_name        # leaves alone what is asked of everybody
        self.log: list[tuple[str, str]] = []
        self.published: dict[str, tuple[bool, str]] = {}
        self.wallet = Ledger(place / "ledger.db", hashlib.sha256(name.encode()).digest(),
                             place / f"{name}.sock", label=name)
        self._waiting: dict[str, tuple[dict, str | None, float]] = {}   # by payment hash
        self._timers: list[threading.Timer] = []
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._socket = websocket.create_connection(url, timeout=10)
        self._socket.send(json.dumps(["REQ", "jobs", {"kinds": [5050], "limit": 0}]))
        self._send_lock = threading.Lock()
        self._threads = [threading.Thread(target=run, name=f"{name}-{run.__name__}", daemon=True)
                         for run in (self._read, self._serve)]
        for thread in self._threads:
            thread.start()
        self.wallet.watch(lambda payment_hash: self._work.put(("paid", payment_hash)))

    # -- hearing --

    def _read(self) -> None:
        self._socket.settimeout(None)
        try:
            while text := self._socket.recv():
                message = json.loads(text)
                if message[0] == "EVENT":
                    assert Event.from_json(json.dumps(message[2])).verify()
                    self._work.put(("job", message[2]))
                elif message[0] == "OK":
                    self.published[message[1]] = (message[2], message[3])
        except (OSError, websocket.WebSocketException):
            self._note("gone", "")

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            what, about = item
            if what == "job" and about["id"] not in [ref for kind, ref in self.log
                                                     if kind == "job"]:
                targets = [t[1] for t in about["tags"] if t[0] == "p"]
                if self.pubkey in targets or not (targets or self.only_by_name):
                    self._note("job", about["id"])
                    self._take(about)
            elif what == "paid":
                self._look_for_money()
            elif what == "late":
                self._deliver(about)

    def _note(self, what: str, ref: str) -> None:
        self.log.append((what, ref))

    def did(self, what: str) -> list[str]:
        return [ref for kind, ref in self.log if kind == what]

    # -- asking for money --

    def _take(self, job: dict) -> None:
        if not self.price_msats:
            self._feedback(job, "processing")
            self._work_on(job)
            return
        if "no_invoice" in self.sins:
            self._feedback(job, "payment-required", amount=[str(self.price_msats)])
            return
        msats = self.price_msats * (10_000 if "quotes_huge" in self.sins else 1)
        text = self._invoice(job, msats)
        tag = {"wrong_amount_in_tag": msats // 2, "one_sat_less_in_invoice": msats}
        said = next((tag[sin] for sin in tag if sin in self.sins), msats)
        self._quote(job, said, text)
        if "quotes_twice" in self.sins:
            self._quote(job, msats // 2, self._invoice(job, msats // 2))

    def _quote(self, job: dict, msats: int, text: str) -> None:
        about = dict(job)
        if "wrong_request" in self.sins:
            about["id"] = hashlib.sha256(job["id"].encode()).hexdigest()
        if "somebody_elses_quote" in self.sins:
            about["pubkey"] = self.stranger.public_key().to_hex()
        who = self.stranger if "foreign_author" in self.sins else self.keys
        self._feedback(about, "payment-required", amount=[str(msats), text], who=who)
        self._note("quoted", text)

    def _invoice(self, job: dict, msats: int) -> str:
        if "bad_invoice" in self.sins:
            text = self._made(msats)[0]
            return text[:-8] + ("qqqqqqqq" if text[-8:] != "qqqqqqqq" else "pppppppp")
        if self.sins & {"wrong_network", "expired_invoice", "no_amount",
                        "one_sat_less_in_invoice"}:
            return self._forged(msats)
        text, payment_hash, preimage = self._made(msats)
        self._waiting[payment_hash] = (job, preimage, time.time())
        return text

    def _made(self, msats: int) -> tuple[str, str, str | None]:
        preimage = hashlib.sha256(f"{time.time_ns()}".encode()).digest() if self.hold else None
        held = hashlib.sha256(preimage).hexdigest() if preimage else None
        made = self.wallet.make_invoice(msats, "a job", 600, "", held)
        return made.bolt11, made.payment_hash, preimage.hex() if preimage else None

    def _forged(self, msats: int) -> str:
        """An invoice that no ledger made, yet with a signature that holds."""
        key = hashlib.sha256(b"forger").digest()
        network = "mainnet" if "wrong_network" in self.sins else "regtest"
        amount = None if "no_amount" in self.sins else msats
        if "one_sat_less_in_invoice" in self.sins:
            amount = msats - 1000
        made_at = int(time.time()) - (4000 if "expired_invoice" in self.sins else 0)
        payment_hash = hashlib.sha256(str(time.time_ns()).encode()).hexdigest()
        return bolt11.encode(network, amount, payment_hash, "a job", key, "11" * 32, made_at, 3600)

    # -- working --

    def _look_for_money(self) -> None:
        for payment_hash, (job, preimage, _) in list(self._waiting.items()):
            state = self.wallet.lookup(payment_hash).state
            if state in ("paid", "held"):
                del self._waiting[payment_hash]
                self._note("paid", payment_hash)
                self._work_on(job)
                if preimage and self.did("delivered"):
                    self.wallet.settle(preimage)

    def _work_on(self, job: dict) -> None:
        for text in self.partials:
            self._feedback(job, "partial", content=text)
        if "never" in self.sins:
            return
        if "error_after_payment" in self.sins:
            self._feedback(job, "error", extra="backend: it broke")
            return
        if "lies_about_payment" in self.sins:
            self._feedback(job, "success", extra="you have paid, it is delivered")
            return
        if "after_timeout" in self.sins:
            timer = threading.Timer(self.late_secs, self._work.put, [("late", job)])
            timer.start()
            self._timers.append(timer)
            return
        self._deliver(job)

    def _deliver(self, job: dict) -> None:
        content = "" if "empty_result" in self.sins else self.answer
        secret = ["encrypted"] in job["tags"] and "not_encrypted" not in self.sins
        about, customer = job["id"], job["pubkey"]
        if "to_somebody_else" in self.sins:
            customer = self.stranger.public_key().to_hex()
        if "other_orders_result" in self.sins:
            about = hashlib.sha256(about.encode()).hexdigest()
        if secret:
            content = self._seal(job, content)
        if "garbage" in self.sins:
            secret, content = True, "AgGarbage" * 30
        tags = [["request", json.dumps(job)], ["e", about], ["p", customer]]
        tags += [["encrypted"]] if secret else []
        who = self.stranger if "foreign_result" in self.sins else self.keys
        self._publish(6050, content, tags, who, broken="unsigned_result" in self.sins)
        if "twice" in self.sins:
            self._publish(6050, content + " again", tags, who)
        self._note("delivered", job["id"])

    def _feedback(self, job: dict, status: str, extra: str = "", content: str = "",
                  amount: list[str] | None = None, who: Keys | None = None) -> None:
        tags = [["status", status, extra] if extra else ["status", status], ["e", job["id"]],
                ["p", job["pubkey"]]]
        tags += [["amount", *amount]] if amount else []
        if content and ["encrypted"] in job["tags"]:
            content, tags = self._seal(job, content), [*tags, ["encrypted"]]
        self._publish(7000, content, tags, who or self.keys)

    def _seal(self, job: dict, text: str) -> str:
        return nip44_encrypt(self.keys.secret_key(), PublicKey.parse(job["pubkey"]), text,
                             Nip44Version.V2)

    def read(self, job: dict) -> str:
        """The plain inputs of an encrypted job."""
        return nip44_decrypt(self.keys.secret_key(), PublicKey.parse(job["pubkey"]),
                             job["content"])

    # -- saying --

    def announce(self, price_msats: int | None = None) -> None:
        content = {"name": "D", "about": "", "encryptionSupported": True,
                   "amount": str(self.price_msats if price_msats is None else price_msats)}
        self._publish(31990, json.dumps(content), [["d", "x"], ["k", "5050"]], self.keys)
        self._publish(11998, "", [["d", "x"], ["expiration", str(int(time.time()) + 900)]],
                      self.keys)

    def _publish(self, kind: int, content: str, tags: list[list[str]], who: Keys,
                 broken: bool = False) -> None:
        event = json.loads(EventBuilder(Kind(kind), content).tags(
            [Tag.parse(tag) for tag in tags]).custom_created_at(
            Timestamp.from_secs(int(time.time()))).finalize(who).as_json())
        if broken:
            event["content"] += "!"
        with self._send_lock:
            try:
                self._socket.send(json.dumps(["EVENT", event]))
            except (OSError, websocket.WebSocketException):
                self._note("gone", "")

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._socket.close()
        self._work.put(None)
        for thread in self._threads:
            thread.join(5)
        self.wallet.close()
