"""The push of a wallet's server: a WebSocket that is kept open and says what changed.

The thread is a role named after the wallet. What comes is a hint and never the truth, so a lost
message costs time only; after every connect `on_change(None)` says that anything may have changed
meanwhile. `close` stops it.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable

from pylon.errors import RelayError, RelayMisbehaved
from pylon.log import Repeated
from pylon.relays import tls
from pylon.relays.address import parse_url
from pylon.relays.bell import READ, WRITE, Bell, Patience, milliseconds
from pylon.relays.link import Limits, Link
from pylon.relays.pace import Backoff
from pylon.relays.stream import open_stream
from pylon.role import Role
from pylon.wallets.wallet import OnChange

log = logging.getLogger(__name__)

CONNECT_SECS = 10
PING_SECS = 30
LONGEST_PAUSE_SECS = 300
JOIN_SECS = 5


class Push(Role):
    """`read(text)` returns the hash that a message names, or None."""

    def __init__(self, wallet: str, url: str, headers: list[str], ca_file: str,
                 read: Callable[[str], str | None], on_change: OnChange) -> None:
        """`url` is the WebSocket's, ws:// or wss://; it and the headers may hold a secret."""
        super().__init__(f"push:{wallet}")
        self._target = parse_url(url)
        self._headers = headers
        self._ca_file = ca_file
        self._read = read
        self._on_change = on_change
        self._doorbell = Bell()
        self._backoff = Backoff(LONGEST_PAUSE_SECS)
        self._broken = Repeated(log, logging.INFO)
        self.start()

    def wake(self) -> None:
        super().wake()
        self._doorbell.ring()

    def close(self) -> None:
        self.stop()
        self.join(JOIN_SECS)
        self._doorbell.close()

    def step(self, now: int) -> None:
        """One connection, from its start to its end, and the pause after it."""
        started = time.monotonic()
        try:
            self._converse()
        except RelayError as err:
            if self.stopping:
                return
            self._broken.failed("%s: no push, payments are still looked up: %s", self.name, err)
            lived = time.monotonic() - started
            self.wait(self._backoff.failed(lived, isinstance(err, RelayMisbehaved)))

    def _converse(self) -> None:
        patience = Patience(CONNECT_SECS, self._doorbell, lambda: self.stopping)
        context = tls.client_context(self._ca_file) if self._target.secure else None
        link = Link(open_stream(self._target, patience, context, public_only=False), Limits())
        try:
            link.shake_hands(self._target, self._headers)
            self._broken.over("%s: push works again", self.name)
            self._on_change(None)
            self._listen(link)
        finally:
            link.close()

    def _listen(self, link: Link) -> None:
        poll = select.poll()
        poll.register(self._doorbell.fileno(), READ)
        ping_at, heard_at = time.monotonic() + PING_SECS, time.monotonic()
        while not self.stopping:
            link.stream.flush()
            poll.register(link.stream.fileno(), WRITE | READ if link.stream.outbox else READ)
            due = min(ping_at, link.deadline() or ping_at)
            with self.resting():
                poll.poll(milliseconds(due - time.monotonic()))
            self._doorbell.clear()
            if link.stream.fill():
                heard_at = time.monotonic()
            self._take(link)
            if time.monotonic() >= ping_at:
                ping_at = self._ping(link, heard_at)

    def _take(self, link: Link) -> None:
        while True:
            link.check_deadline(time.monotonic())
            message = link.receive()
            if message is None:
                return
            if isinstance(message, str):
                self._on_change(self._read(message))

    def _ping(self, link: Link, heard_at: float) -> float:
        now = time.monotonic()
        if now - heard_at > 2 * PING_SECS:
            raise RelayError("the connection is silent")
        link.ping()
        return now + PING_SECS
