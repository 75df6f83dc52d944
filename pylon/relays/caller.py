"""How a connection to one relay is made: its description first, then the WebSocket.

Runs on the relay's thread, under its patience. A relay that a stranger named is reached only at a
public address.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable

from pylon.errors import ConfigError, RelayError
from pylon.relays import nip11, tls
from pylon.relays.address import RelayUrl, check_stranger
from pylon.relays.bell import Patience
from pylon.relays.link import Link
from pylon.relays.state import Settings
from pylon.relays.stream import open_stream

log = logging.getLogger(__name__)

FACTS_SECS = 86400.0                # how long a NIP-11 document is believed
FACTS_RETRY_SECS = 3600.0

MakePatience = Callable[[float], Patience]


class Caller:
    """Calls one relay, as often as needed, and knows what it says of itself."""

    def __init__(self, target: RelayUrl, settings: Settings, own: bool) -> None:
        self.facts = nip11.Document()
        self._target = target
        self._settings = settings
        self._public_only = not own and not settings.allow_private
        self._facts_until = time.monotonic()

    def call(self, patience: MakePatience) -> tuple[Link, float]:
        """An open link, and how many milliseconds the handshakes took. Raises RelayError."""
        if self._public_only:
            check_stranger(self._target)
        context = self._context()
        if time.monotonic() >= self._facts_until:
            self._learn_facts(patience, context)
        started = time.monotonic()
        stream = open_stream(self._target, patience(self._settings.connect_secs), context,
                             self._public_only)
        fresh = Link(stream, self._settings.limits)
        try:
            fresh.shake_hands(self._target)
        except BaseException:
            fresh.close()
            raise
        return fresh, (time.monotonic() - started) * 1000

    def _context(self) -> ssl.SSLContext | None:
        try:
            return tls.client_context(self._settings.ca_file) if self._target.secure else None
        except ConfigError as err:
            raise RelayError(str(err)) from err

    def _learn_facts(self, patience: MakePatience, context: ssl.SSLContext | None) -> None:
        """Once a day; a relay without a description is asked again after an hour."""
        mono = time.monotonic()
        secs = min(nip11.FETCH_SECS, self._settings.connect_secs)
        try:
            self.facts = nip11.fetch(self._target.url, patience(secs), context, self._public_only)
            self._facts_until = mono + FACTS_SECS
        except RelayError as err:
            self._facts_until = mono + FACTS_RETRY_SECS
            log.debug("relay %s: no description: %s", self._target.url, err)
