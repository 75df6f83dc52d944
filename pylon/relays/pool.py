"""The pool: which relays there are, what they are asked, and who may send through them.

Holds one connection per relay: the node's own ones, and guests that strangers named, up to a
limit. Any thread may call; nothing here waits for a network. Owned by the daemon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pylon.errors import RelayError
from pylon.log import peer_text
from pylon.nostr.keys import Keys
from pylon.relays import link
from pylon.relays.address import check_stranger, normalise, parse_url
from pylon.relays.connection import Connection, Listeners
from pylon.relays.deliveries import OnOk
from pylon.relays.nip11 import Limits
from pylon.relays.state import RelayState, Settings
from pylon.relays.subscription import Subscription

log = logging.getLogger(__name__)

STOP_SECS = 5.0
LEAST_MESSAGE_BYTES = 16 * 1024     # a relay that claims to take less does not shrink our answers


def settings_of(config: Any) -> Settings:
    """The [relay] section as what a connection needs."""
    relay = config.relay
    return Settings(relay.connect_secs, relay.ping_secs, relay.backoff_max_secs,
                    relay.allow_private, relay.ca_file,
                    link.Limits(relay.frame_bytes, relay.message_bytes, relay.message_secs))


class Pool:
    """Relays by URL. `keys_for_auth` lists who authenticates (NIP-42), the node itself first;
    `on_state(url, connected)` runs on the relay's thread and must not block."""

    def __init__(self, config: Any, keys_for_auth: Callable[[], Sequence[Keys]],
                 on_state: Callable[[str, bool], None] = lambda url, connected: None) -> None:
        self.settings = settings_of(config)
        self.max_relays = config.relay.max_relays
        self._keys_for_auth = keys_for_auth
        self._on_state = [on_state]
        self._listeners = Listeners(self._tell_state, self._quiet, self._ended)
        self._lock = threading.Lock()           # guards the three below; never held in a callback
        self._connections: dict[str, Connection] = {}
        self._subs: dict[str, Subscription] = {}
        self._stopped = False
        self._calm = threading.Condition()      # notified when a connection has nothing under way

    def listen(self, on_state: Callable[[str, bool], None]) -> None:
        """Also tell this one when a relay connects or is lost; on the relay's thread."""
        self._on_state = [*self._on_state, on_state]

    def _tell_state(self, url: str, connected: bool) -> None:
        for on_state in self._on_state:
            on_state(url, connected)

    # -- relays ------------------------------------------------------------------------------------

    def start(self, urls: Iterable[str]) -> None:
        """Connect to the node's own relays. Returns at once. Raises RelayError for a bad URL."""
        self.reload(urls)

    def reload(self, urls: Iterable[str]) -> None:
        """These are the node's own relays from now on. Raises RelayError for a bad URL."""
        wanted = list(dict.fromkeys(normalise(url) for url in urls))
        with self._lock:
            gone = [one for one in self._connections.values()
                    if one.own and one.url not in wanted]
            gone += [one for one in self._connections.values()
                     if not one.own and one.url in wanted]
            for one in gone:
                del self._connections[one.url]
            new = [self._new(url, own=True) for url in wanted if url not in self._connections]
        for one in gone:
            one.stop()
        for one in new:
            one.start()

    def add_relay(self, url: str) -> bool:
        """Have a connection to a relay that a stranger named; False when that may not be.

        It may still turn out to have no public address; it goes away when it is not used.
        """
        try:
            target = parse_url(url)
            if not self.settings.allow_private:
                check_stranger(target)
        except RelayError:
            return False
        with self._lock:
            known = self._connections.get(target.url)
            if known is not None:
                return not known.stopping
            if self._stopped or len(self._connections) >= self.max_relays:
                return False
            guest = self._new(target.url, own=False)
        guest.start()
        return True

    def usable(self, urls: Iterable[str]) -> list[str]:
        """Of the relays that a stranger names, those that may be used; one spelling, no doubles.

        Nothing is looked up yet: a name can still lead to a private address, and is refused then.
        """
        found: dict[str, None] = {}
        for url in urls:
            try:
                target = parse_url(url)
                if target.url not in self._connections and not self.settings.allow_private:
                    check_stranger(target)
                found[target.url] = None
            except RelayError as err:
                log.debug("relay %s: not used: %s", peer_text(url), err)
        return list(found)

    def _new(self, url: str, own: bool) -> Connection:
        """Under the lock."""
        fresh = Connection(parse_url(url), self.settings, self._keys_for_auth, own,
                           self._listeners)
        self._connections[fresh.url] = fresh
        for sub in self._subs.values():
            if _concerns(sub, fresh):
                fresh.subscribe(sub)
        return fresh

    def _ended(self, connection: Connection) -> None:
        with self._lock:
            if self._connections.get(connection.url) is connection:
                del self._connections[connection.url]
        self._quiet()

    def identities_changed(self) -> None:
        """`keys_for_auth` has others to show: authenticate them, too."""
        for one in self._all():
            one.identities_changed()

    # -- listening ---------------------------------------------------------------------------------

    def subscribe(self, sub: Subscription) -> None:
        """Ask for something on all its relays, now and after every reconnect. One of the same
        name is replaced. Guests that it names are connected."""
        if sub.relays is not None:
            sub.relays = self.usable(sub.relays)
        with self._lock:
            self._subs[sub.name] = sub
            known = set(self._connections)
            for one in self._connections.values():
                if _concerns(sub, one):
                    one.subscribe(sub)
                else:
                    one.unsubscribe(sub.name)
        for url in sub.relays or ():
            if url not in known:
                self.add_relay(url)

    def unsubscribe(self, name: str) -> None:
        with self._lock:
            self._subs.pop(name, None)
            for one in self._connections.values():
                one.unsubscribe(name)

    # -- sending -----------------------------------------------------------------------------------

    def publish(self, event_id: str, event_json: str, urls: Iterable[str] | None,
                on_ok: OnOk) -> list[str]:
        """Offer an event to connected relays (None: the node's own); which of them took it.

        Never blocks. For each relay returned `on_ok(relay, event id, accepted, message)` comes
        exactly once, on that relay's thread; `error: ...` when the relay said nothing.
        """
        with self._lock:
            if urls is None:
                chosen = [one for one in self._connections.values() if one.own]
            else:
                found = dict.fromkeys(self._find(url) for url in urls)
                chosen = [one for one in found if one is not None]
        return [one.url for one in chosen if one.publish(event_id, event_json, on_ok)]

    def _find(self, url: str) -> Connection | None:
        """Under the lock; in any spelling."""
        known = self._connections.get(url)
        if known is not None:
            return known
        try:
            return self._connections.get(normalise(url))
        except RelayError:
            return None

    def flush(self, timeout_secs: float) -> bool:
        """Wait until the relays have answered for everything they took; False at the timeout."""
        with self._calm:
            return self._calm.wait_for(lambda: not any(one.queued for one in self._all()),
                                       timeout_secs)

    def _quiet(self) -> None:
        with self._calm:
            self._calm.notify_all()

    # -- facts -------------------------------------------------------------------------------------

    def own_urls(self) -> list[str]:
        return [one.url for one in self._all() if one.own]

    def connected(self) -> list[str]:
        """URLs of the relays that are connected now."""
        return [one.url for one in self._all() if one.connected]

    def states(self) -> list[RelayState]:
        return [one.state() for one in self._all()]

    def max_message_bytes(self, ceiling: int) -> int:
        """The longest EVENT message that all own relays take, at most `ceiling`."""
        said = (one.limits.max_message_length for one in self._all() if one.own)
        return min([ceiling, *(n for n in said if n is not None and n >= LEAST_MESSAGE_BYTES)])

    def limits(self) -> list[Limits]:
        """What the own relays say of their limits."""
        return [one.limits for one in self._all() if one.own]

    def _all(self) -> list[Connection]:
        with self._lock:
            return list(self._connections.values())

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, timeout_secs: float = STOP_SECS) -> None:
        """Say goodbye everywhere. A thread that hangs in a name lookup is left to itself."""
        with self._lock:
            self._stopped = True
            gone = list(self._connections.values())
        for one in gone:
            one.stop()
        until = time.monotonic() + timeout_secs
        for one in gone:
            if not one.join(max(0.0, until - time.monotonic())):
                log.warning("%s: did not end in time", one.name)


def _concerns(sub: Subscription, connection: Connection) -> bool:
    return connection.own if sub.relays is None else connection.url in sub.relays
