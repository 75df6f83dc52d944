"""The customer of the measurements: one connection to publish, one to listen, no waiting between.

The two are separate because the relay leaves Nagle's algorithm on: answers to a publisher would
wait for the kernel's delayed ACK and show up as the customer's own 40 ms.
"""

from __future__ import annotations

import json
import socket
import time

import websocket

from pylon.nostr.event import Event

IN_FLIGHT = 200
TIMEOUT_SECS = 20


class Wire:
    """A WebSocket whose ACKs go out at once."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(
            url, timeout=TIMEOUT_SECS, skip_utf8_validation=True,
            sockopt=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),))

    def send(self, text: str) -> None:
        self._socket.send(text)
        self._hurry()

    def receive(self) -> list:
        text = self._socket.recv()
        self._hurry()
        return json.loads(text)

    def _hurry(self) -> None:
        assert self._socket.sock is not None
        self._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def close(self) -> None:
        self._socket.close()


class Customer:
    """Publishes events on `mouth`, hears on `ear` what answers them."""

    def __init__(self, url: str, filters: dict) -> None:
        self.mouth, self.ear = Wire(url), Wire(url)
        self.ear.send(json.dumps(["REQ", "answers", filters]))
        while self.ear.receive()[0] != "EOSE":
            continue

    def close(self) -> None:
        self.mouth.close()
        self.ear.close()

    def __enter__(self) -> "Customer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, event: Event) -> None:
        self.mouth.send(f'["EVENT",{event.to_json()}]')

    def hear(self) -> str:
        """The id that the next heard event answers: its own (an echo), or of its `e` tag."""
        event = self.hear_event()
        return next((tag[1] for tag in event["tags"] if tag[0] == "e"), event["id"])

    def hear_event(self) -> dict:
        while True:
            message = self.ear.receive()
            if message[0] == "EVENT":
                return message[2]

    def drain(self) -> None:
        """Read the OK of one published event."""
        message = self.mouth.receive()
        if message[0] != "OK" or not message[2]:
            raise AssertionError(f"the relay says {message}")

    def one_by_one(self, events: list[Event]) -> list[float]:
        """Seconds from saying each event to hearing its answer."""
        took = []
        for event in events:
            started = time.perf_counter()
            self.say(event)
            if self.hear() != event.id:
                raise AssertionError("an answer to something else")
            took.append(time.perf_counter() - started)
            self.drain()
        return took

    def in_flight(self, events: list[Event], window: int = IN_FLIGHT) -> float:
        """Answers a second, with `window` events under way at any moment."""
        waiting: set[str] = set()
        coming = iter(events)

        def more() -> None:
            event = next(coming, None)
            if event is not None:
                waiting.add(event.id)
                self.say(event)

        started = time.perf_counter()
        for _ in range(window):
            more()
        while waiting:
            waiting.discard(self.hear())
            more()
        took = time.perf_counter() - started
        for _ in events:
            self.drain()
        return len(events) / took
