"""A small relay for `pylon relay`: NIP-01 and NIP-11 on 127.0.0.1, in memory, for a few clients.

A toy: no storage, no limits per client but those that keep it alive, no TLS. Whoever wants a relay
for others takes a real one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socketserver
import struct
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from pylon.errors import InvalidMessage
from pylon.nostr import event as events
from pylon.nostr import filters, strictjson
from pylon.nostr.event import Event

MAX_CLIENTS = 32
MAX_EVENTS = 2000
MAX_SUBSCRIPTIONS = 32              # of one client
MAX_MESSAGE = 256 * 1024
MAX_HEAD = 8 * 1024
IDLE_SECS = 120                     # clients of ours ping more often
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ABOUT = {"name": "pylon relay", "description": "a toy: it keeps nothing", "software": "pylon",
         "supported_nips": [1, 11], "limitation": {
             "max_message_length": MAX_MESSAGE, "max_subscriptions": MAX_SUBSCRIPTIONS}}


class ToyRelay(socketserver.ThreadingTCPServer):
    """Listens at once; `serve_forever` serves. Raises OSError where the port is taken."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = MAX_CLIENTS

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Client)
        self.url = f"ws://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()            # of the two below
        self.clients: set[Client] = set()
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def accept(self, event: Event) -> tuple[bool, list[Client]]:
        """Keep an event as its kind says: (new?, whom it may concern)."""
        with self.lock:
            if any(one.id == event.id for one in self.events):
                return False, []
            place = _place(event)
            older = [one for one in self.events if place and _place(one) == place]
            if any((one.created_at, event.id) > (event.created_at, one.id) for one in older):
                return False, []
            for one in older:
                self.events.remove(one)
            if not 20000 <= event.kind < 30000:
                self.events.append(event)
            return True, list(self.clients)

    def stored(self, wanted: list[dict[str, Any]]) -> list[Event]:
        """What matches, newest first, each filter up to its limit."""
        with self.lock:
            newest = sorted(self.events, key=lambda one: (-one.created_at, one.id))
        found: dict[str, Event] = {}
        for one in wanted:
            matching = [event for event in newest if filters.matches(one, event)]
            found.update((event.id, event) for event in matching[:one.get("limit", MAX_EVENTS)])
        return list(found.values())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that said nonsense, is no concern of the others."""


def _place(event: Event) -> tuple[object, ...] | None:
    """What an event replaces the older one of; None for kinds that are kept side by side."""
    if event.kind in (0, 3) or 10000 <= event.kind < 20000:
        return event.pubkey, event.kind
    if 30000 <= event.kind < 40000:
        return event.pubkey, event.kind, event.first("d") or ""
    return None


class Client(socketserver.StreamRequestHandler):
    """One connection, in a thread of its own; other clients' threads send to it too."""

    server: ToyRelay
    timeout = IDLE_SECS
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.subs: dict[str, list[dict[str, Any]]] = {}
        self.sending = threading.Lock()
        if not self._shake_hands():
            return
        with self.server.lock:
            if len(self.server.clients) >= MAX_CLIENTS:
                return
            self.server.clients.add(self)
        try:
            for text in self._messages():
                self._hear(text)
        except (OSError, EOFError):
            pass                                # it went away
        finally:
            with self.server.lock:
                self.server.clients.discard(self)

    def _shake_hands(self) -> bool:
        """Become a WebSocket, or answer with NIP-11's document and be done."""
        head = self.rfile.readline(MAX_HEAD)
        fields: dict[str, str] = {}
        while head.strip() and len(fields) < 64:
            name, _, value = self.rfile.readline(MAX_HEAD).decode("latin-1").partition(":")
            if not name.strip():
                break
            fields[name.strip().lower()] = value.strip()
        key = fields.get("sec-websocket-key")
        if key is None:
            body = json.dumps(ABOUT).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/nostr+json\r\n"
                             b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return False
        token = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                          f"Upgrade\r\nSec-WebSocket-Accept: {token}\r\n\r\n").encode())
        return True

    def _messages(self) -> Iterator[str]:
        whole = b""
        while True:
            final, opcode, data = self._frame()
            if opcode == CLOSE:
                self._send(CLOSE, data[:2])
                return
            if opcode == PING:
                self._send(PONG, data)
            elif opcode != PONG:
                whole += data
                if len(whole) > MAX_MESSAGE:
                    return
                if final:
                    yield whole.decode("utf-8", "replace")
                    whole = b""

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._exactly(2)
        length = second & 0x7f
        if length == 126:
            length = struct.unpack("!H", self._exactly(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._exactly(8))[0]
        if length > MAX_MESSAGE or not second & 0x80:
            raise EOFError                      # too long, or not masked: no client of Nostr
        mask = self._exactly(4) * (length // 4 + 1)
        data = int.from_bytes(self._exactly(length), "big") ^ int.from_bytes(mask[:length], "big")
        return bool(first & 0x80), first & 0x0f, data.to_bytes(length, "big")

    def _exactly(self, count: int) -> bytes:
        data = self.rfile.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _send(self, opcode: int, data: bytes) -> None:
        if len(data) < 126:
            head = struct.pack("!BB", 0x80 | opcode, len(data))
        elif len(data) < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, len(data))
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, len(data))
        with self.sending:
            self.wfile.write(head + data)

    def say(self, *message: object) -> None:
        """A message to this client. Raises OSError where it is gone."""
        self._send(TEXT, json.dumps(message, ensure_ascii=False,
                                    separators=(",", ":")).encode("utf-8", "replace"))

    def _hear(self, text: str) -> None:
        try:
            match strictjson.load(text):
                case ["EVENT", dict(event)]:
                    self._publish(event)
                case ["REQ", str(name), *wanted] if wanted and 0 < len(name) <= 64:
                    self._subscribe(name, wanted)
                case ["CLOSE", str(name)]:
                    self.subs.pop(name, None)
                case _:
                    self.say("NOTICE", "error: this is no message of NIP-01")
        except (InvalidMessage, TypeError, ValueError) as err:
            self.say("NOTICE", f"error: {err}"[:200])

    def _publish(self, said: dict[str, Any]) -> None:
        id_ = said.get("id") if isinstance(said.get("id"), str) else ""
        try:
            event = events.parse(said)
            events.verify(event)
        except InvalidMessage as err:
            self.say("OK", id_, False, f"invalid: {err}"[:200])
            return
        new, clients = self.server.accept(event)
        self.say("OK", event.id, True, "" if new else "duplicate: it is here, or a newer one")
        for client in clients:
            for name, wanted in list(client.subs.items()):
                if filters.matches_any(wanted, event):
                    _try(client, name, event)

    def _subscribe(self, name: str, wanted: list[dict[str, Any]]) -> None:
        if len(self.subs) >= MAX_SUBSCRIPTIONS and name not in self.subs:
            self.say("CLOSED", name, "error: too many subscriptions")
            return
        if not all(_is_filter(one) for one in wanted):
            self.say("CLOSED", name, "error: this is no filter of NIP-01")
            return
        self.subs[name] = wanted                # first: nothing may fall between the two
        for event in self.server.stored(wanted):
            self.say("EVENT", name, event.to_dict())
        self.say("EOSE", name)


def _is_filter(one: object) -> bool:
    """Whether comparing events with it cannot go wrong."""
    return isinstance(one, dict) and all(
        type(value) is int and value >= 0 if name in ("since", "until", "limit") else
        isinstance(value, list) and all(isinstance(item, (str, int)) for item in value)
        for name, value in one.items())


def _try(client: Client, name: str, event: Event) -> None:
    try:
        client.say("EVENT", name, event.to_dict())
    except OSError:
        pass                                    # its own thread finds out
