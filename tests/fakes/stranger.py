"""A customer that shares no code with Pylon: nostr-sdk signs and verifies, a raw socket talks.

Thread: one reader per stranger. `log` is append-only: every distinct event of the relay that
concerns this stranger, in order of arrival, verified.
"""

from __future__ import annotations

import json
import threading
import time

import websocket
from nostr_sdk import (Event, EventBuilder, Keys, Kind, Nip44Version, PublicKey, Tag, Timestamp,
                       nip04_decrypt, nip04_encrypt, nip44_decrypt, nip44_encrypt)

from tests.waiting import wait_for


class Stranger:
    """One key on one relay."""

    def __init__(self, url: str, keys: Keys | None = None, guarded: bool = False) -> None:
        """`guarded`: the relay asks for NIP-42 AUTH at connect, and nothing goes before it."""
        self.url = url
        self.keys = keys or Keys.generate()
        self.pubkey = self.keys.public_key().to_hex()
        self.log: list[dict] = []
        self._ids: set[str] = set()
        self._oks: dict[str, tuple[bool, str]] = {}
        self._closing = False
        self.lost = False                   # the relay hung up
        self._proved = not guarded
        self._socket = websocket.create_connection(url, timeout=10)
        if not guarded:
            self._listen()
        self._reader = threading.Thread(target=self._read, name="stranger", daemon=True)
        self._reader.start()
        wait_for(lambda: self._proved, 10, "the relay's challenge")

    def _listen(self) -> None:
        self._socket.send(json.dumps(["REQ", "all", {"#p": [self.pubkey]}]))

    def _prove(self, challenge: str) -> None:
        """Answer a challenge (NIP-42). nostr-relay acknowledges none, so nothing waits for it."""
        proof = self.sign(22242, [["relay", self.url], ["challenge", challenge]])
        self._socket.send(json.dumps(["AUTH", proof]))
        self._listen()
        self._proved = True

    def _read(self) -> None:
        self._socket.settimeout(None)
        try:
            while True:
                text = self._socket.recv()
                if not text:
                    return
                self._take(json.loads(text))
        except (OSError, websocket.WebSocketException, ValueError):
            self.lost = not self._closing

    def _take(self, message: list) -> None:
        if message[0] == "AUTH":
            self._prove(message[1])
        if message[0] == "OK":
            self._oks[message[1]] = (message[2], message[3])
        if message[0] == "EVENT" and message[2]["id"] not in self._ids:
            assert Event.from_json(json.dumps(message[2])).verify(), "an event that does not verify"
            self._ids.add(message[2]["id"])
            self.log.append({**message[2], "seen_at": time.time()})

    def sign(self, kind: int, tags: list[list[str]], content: str = "",
             created_at: int | None = None) -> dict:
        builder = EventBuilder(Kind(kind), content).tags([Tag.parse(tag) for tag in tags])
        if created_at is not None:
            builder = builder.custom_created_at(Timestamp.from_secs(created_at))
        return json.loads(builder.finalize(self.keys).as_json())

    def publish(self, event: dict) -> tuple[bool, str]:
        """Send an event; the relay's answer."""
        self._socket.send(json.dumps(["EVENT", event]))
        wait_for(lambda: event["id"] in self._oks, 10, "the relay's OK")
        return self._oks[event["id"]]

    def refused(self, event: dict) -> str:
        """Send an event that is refused; why. (nostr-relay names no event when it refuses.)"""
        self._socket.send(json.dumps(["EVENT", event]))
        wait_for(lambda: {event["id"], ""} & self._oks.keys(), 10, "the relay's OK")
        accepted, message = self._oks.get(event["id"]) or self._oks[""]
        assert not accepted
        return message

    def job(self, prompt: str, kind: int = 5050, tags: list[list[str]] = (),
            created_at: int | None = None) -> str:
        """Send a job with one text input; its id."""
        event = self.sign(kind, [["i", prompt, "text"], *tags], "", created_at)
        accepted, message = self.publish(event)
        assert accepted, message
        return event["id"]

    def secret_job(self, prompt: str, provider: str, scheme: str) -> str:
        """Send an encrypted job (nip04 or nip44) to one provider; its id."""
        inner = json.dumps([["i", prompt, "text"]])
        to = PublicKey.parse(provider)
        secret = self.keys.secret_key()
        sealed = (nip04_encrypt(secret, to, inner) if scheme == "nip04"
                  else nip44_encrypt(secret, to, inner, Nip44Version.V2))
        event = self.sign(5050, [["p", provider], ["encrypted"]], sealed)
        accepted, message = self.publish(event)
        assert accepted, message
        return event["id"]

    def open(self, event: dict) -> str:
        """The plain content of an encrypted answer."""
        sender, secret = PublicKey.parse(event["pubkey"]), self.keys.secret_key()
        decrypt = nip04_decrypt if "?iv=" in event["content"] else nip44_decrypt
        return decrypt(secret, sender, event["content"])

    def about(self, job_id: str, kind: int | None = None, status: str | None = None) -> list[dict]:
        """What was answered to a job: results, or feedback of one status."""
        return [e for e in list(self.log)
                if any(t[:2] == ["e", job_id] for t in e["tags"])
                and (kind is None or e["kind"] == kind)
                and (status is None or any(t[:2] == ["status", status] for t in e["tags"]))]

    def results(self, job_id: str) -> list[dict]:
        return [e for e in self.about(job_id) if 6000 <= e["kind"] <= 6999]

    def result(self, job_id: str, timeout_secs: float = 60) -> dict:
        return wait_for(lambda: self.results(job_id), timeout_secs, "the result")[0]

    def invoice(self, job_id: str, timeout_secs: float = 20) -> str:
        """The bolt11 of the quote for a job."""
        quote = wait_for(lambda: self.about(job_id, 7000, "payment-required"), timeout_secs,
                         "the quote")[0]
        return tag(quote, "amount")[2]

    def close(self) -> None:
        self._closing = True
        self._socket.close()
        self._reader.join(5)


def tag(event: dict, name: str) -> list[str]:
    return next(t for t in event["tags"] if t[0] == name)
