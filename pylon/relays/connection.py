"""The role of one relay: its thread connects, listens, sends, and comes back when it is lost.

Runs in the thread relay:<host>; started and stopped by the pool. It alone touches its socket. It
sleeps in poll() on the socket and on its bell; whoever wants something from it puts a message into
its inbox and rings. What costs this thread more than its share of the processor is paid by this
relay alone: it is not read for a while, and TCP slows it down.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pylon.errors import RelayError, RelayMisbehaved
from pylon.log import Repeated, peer_text
from pylon.nostr.keys import Keys
from pylon.relays import link, nip11
from pylon.relays.address import RelayUrl
from pylon.relays.bell import READ, WRITE, Bell, Patience, milliseconds
from pylon.relays.caller import Caller
from pylon.relays.conversation import Conversation
from pylon.relays.deliveries import Delivery, OnOk
from pylon.relays.pace import HEALTHY_SECS, Backoff, Bucket
from pylon.relays.state import RelayState, Settings
from pylon.relays.subscription import Subscription
from pylon.role import Role

log = logging.getLogger(__name__)

MAX_QUEUED = 1000                   # events that one relay may still have to take or answer
MAX_QUEUED_BYTES = 4 * 1024 * 1024
CPU_SHARE = 0.3                     # of one processor, that one relay may use for long...
CPU_BURST_SECS = 10.0               # ...and what it may use at once, for a backlog
UNSENT_BYTES = 128 * 1024           # with more than this unsent, the inbox waits
PINGS_PER_READ = 64                 # more in one piece are a flood
IDLE_SECS = 60.0                    # a guest is closed after so long without a purpose
GUEST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom a connection tells about itself; all are called on its thread."""

    on_state: Callable[[str, bool], None]       # url, connected
    on_quiet: Callable[[], None]                # nothing is under way any more
    on_end: Callable[[Connection], None]


class Connection(Role):
    """One relay. `own` is False for a guest: a relay that a stranger named, and that goes away
    when nothing is left to do there."""

    max_step_secs = 120.0

    def __init__(self, target: RelayUrl, settings: Settings,
                 identities: Callable[[], Sequence[Keys]], own: bool,
                 listeners: Listeners) -> None:
        super().__init__(f"relay:{target.name}")
        self.target = target
        self.url = target.url
        self.own = own
        self.settings = settings
        self._identities = identities
        self._listeners = listeners
        # Shared between threads; _lock guards the inbox's growth, the link's coming and going,
        # and what is counted.
        self._inbox: deque[Delivery | Subscription | str | None] = deque()
        self._doorbell = Bell()
        self._lock = threading.Lock()
        self._queued = 0
        self._queued_bytes = 0
        # From here on, written by the relay's thread only.
        mono = time.monotonic()
        self._link: link.Link | None = None
        self._talk = Conversation(self.url, self._own_identities, mono)
        self._caller = Caller(target, settings, own)
        self._backoff = Backoff(settings.backoff_max_secs)
        self._connect_at = mono             # monotonic, as are all below but the two wall clocks
        self._connected_at = mono
        self._heard_at = mono               # last byte
        self._pinged_at: float | None = None
        self._used_at = mono                # since then a guest is idle
        self._heard_wall: int | None = None
        self._changed_wall = int(time.time())
        self._cpu = Bucket(CPU_SHARE, CPU_BURST_SECS, mono)
        self._latency_ms: float | None = None
        self._last_error = ""
        self._bytes_before = (0, 0)         # received and sent, by earlier links
        self._failures = Repeated(log, logging.WARNING if own else logging.DEBUG)

    # -- any thread --------------------------------------------------------------------------------

    def wake(self) -> None:
        super().wake()
        self._doorbell.ring()

    def publish(self, event_id: str, event_json: str, on_ok: OnOk) -> bool:
        """Take an event for sending; False when not connected or when too much waits already."""
        size = len(event_json)

        def done(relay: str, of: str, accepted: bool, message: str) -> None:
            self._done(size)
            on_ok(relay, of, accepted, message)

        with self._lock:
            if self._link is None or self.stopping or self._queued >= MAX_QUEUED \
                    or self._queued_bytes + size > MAX_QUEUED_BYTES:
                return False
            self._queued += 1
            self._queued_bytes += size
            self._inbox.append(Delivery(event_id, event_json, [done]))
        self._doorbell.ring()
        return True

    def _done(self, size: int) -> None:
        with self._lock:
            self._queued -= 1
            self._queued_bytes -= size
            quiet = not self._queued
        if quiet:
            self._listeners.on_quiet()

    def subscribe(self, sub: Subscription) -> None:
        self._inbox.append(sub)
        self._doorbell.ring()

    def unsubscribe(self, name: str) -> None:
        self._inbox.append(name)
        self._doorbell.ring()

    def identities_changed(self) -> None:
        self._inbox.append(None)
        self._doorbell.ring()

    @property
    def queued(self) -> int:
        return self._queued

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def limits(self) -> nip11.Limits:
        return self._caller.facts.limits

    def state(self) -> RelayState:
        """A snapshot; the numbers are of about the same moment."""
        open_link, talk, facts = self._link, self._talk, self._caller.facts
        received, sent = self._bytes_before
        if open_link is not None:
            received += open_link.stream.received_bytes
            sent += open_link.stream.sent_bytes
        return RelayState(
            self.url, self.own, open_link is not None, self._changed_wall, self._latency_ms,
            talk.auth.state if open_link is not None else "", self._last_error, talk.events,
            talk.duplicates, talk.oddities, received, sent, self._queued, len(talk.listening),
            peer_text(f"{facts.software} {facts.version}".strip()))

    # -- the role ----------------------------------------------------------------------------------

    def step(self, now: int) -> None:
        """Connect, or one round of: send what waits, sleep, read what came."""
        mono = time.monotonic()
        try:
            self._take_inbox(now, mono)
            if self._link is not None:
                self._serve(self._link, now, mono)
            elif mono >= self._connect_at:
                self._connect(now)
            else:
                with self.resting():
                    self._doorbell.wait(self._connect_at - mono)
        except RelayError as err:
            self._lost(err)
        except BaseException:
            # A handler failed, and what this relay delivered may be lost: after the reconnect it
            # is asked for again. The wrapper logs and pauses.
            self._heard_wall = None
            self._lost(RelayError("an error of our own while handling a message"))
            raise

    def leave(self) -> None:
        """The role ends: say goodbye, answer for what is still under way."""
        if self._link is not None:
            self._link.say_goodbye()
            self._drop_link("error: the connection was closed")
        while self._inbox:
            self._take_inbox(int(time.time()), time.monotonic())
        self._doorbell.close()
        self._listeners.on_end(self)

    def _own_identities(self) -> Sequence[Keys]:
        """A guest learns only the node's own pubkey, not those of its agents."""
        found = self._identities()
        return found if self.own else found[:1]

    def _take_inbox(self, now: int, mono: float) -> None:
        """In order, and only as much as the relay can be sent soon."""
        self._doorbell.clear()
        unsent = 0 if self._link is None else len(self._link.stream.outbox)
        while self._inbox and unsent < UNSENT_BYTES:
            message = self._inbox.popleft()
            self._used_at = mono
            if isinstance(message, Delivery):
                self._talk.deliver(message, mono)
                unsent += len(message.event_json)
            elif isinstance(message, Subscription):
                self._talk.subscribe(message, now, mono)
            elif isinstance(message, str):
                self._talk.unsubscribe(message)
            else:
                self._talk.auth.again()

    # -- connecting --------------------------------------------------------------------------------

    def _connect(self, now: int) -> None:
        fresh, self._latency_ms = self._caller.call(self._patience)
        self._opened(fresh, now)

    def _patience(self, secs: float) -> Patience:
        return Patience(secs, self._doorbell, lambda: self.stopping)

    def _opened(self, fresh: link.Link, now: int) -> None:
        mono = time.monotonic()
        self._heard_at = self._used_at = self._connected_at = mono
        self._pinged_at = None
        self._heard_wall = self._changed_wall = now
        with self._lock:
            self._link = fresh
        self._talk.opened(self._caller.facts.limits, now, mono)
        log.log(logging.DEBUG if self._failures.count > 1 else logging.INFO,
                "relay %s: connected in %d ms", self.url, self._latency_ms)
        self._listeners.on_state(self.url, True)
        self._take_messages(fresh)          # some came in the same bytes as the handshake's end

    def _lost(self, err: RelayError) -> None:
        """Connecting failed or the connection broke: pause, and try again."""
        lived = 0.0
        if self._link is not None:
            lived = time.monotonic() - self._connected_at
            if isinstance(err, RelayMisbehaved):
                self._link.say_goodbye(err.close_code)
            self._drop_link("error: the connection was lost")
        self._last_error = peer_text(err)
        pause = self._backoff.failed(lived, isinstance(err, RelayMisbehaved))
        self._connect_at = time.monotonic() + pause
        if self.stopping:
            return
        self._failures.failed("relay %s: %s", self.url, self._last_error)
        if not self.own and self._backoff.failures >= GUEST_TRIES:
            self.stop()

    def _drop_link(self, message: str) -> None:
        with self._lock:
            gone, self._link = self._link, None
        if gone is None:
            return
        received, sent = self._bytes_before
        self._bytes_before = (received + gone.stream.received_bytes, sent + gone.stream.sent_bytes)
        gone.close()
        self._changed_wall = int(time.time())
        self._talk.broken(self._heard_wall, message)
        self._listeners.on_state(self.url, False)

    # -- serving -----------------------------------------------------------------------------------

    def _serve(self, open_link: link.Link, now: int, mono: float) -> None:
        open_link.check_deadline(mono)
        self._check_pulse(open_link, mono)
        self._talk.step(now, mono)
        self._send(open_link)
        if self._is_idle_guest(mono):
            self.stop()
            return
        if self._inbox and not open_link.stream.outbox:
            return                          # there is room for more
        throttled_until = self._cpu.empty_until(mono)
        if self._sleep(open_link, throttled_until):
            self._read(open_link)

    def _send(self, open_link: link.Link) -> None:
        texts, self._talk.texts = self._talk.texts, []
        for text in texts:
            open_link.send(text)
        open_link.stream.flush()

    def _sleep(self, open_link: link.Link, throttled_until: float | None) -> bool:
        """Until something is to be done; True when there is something to read."""
        stream = open_link.stream
        poll = select.poll()
        poll.register(self._doorbell.fileno(), READ)
        mask = (READ if throttled_until is None else 0) | (WRITE if stream.outbox else 0)
        if mask:
            poll.register(stream.fileno(), mask)
        due = [self._pulse_due_at(), open_link.deadline(), self._talk.due_at(), throttled_until,
               None if self.own else self._used_at + IDLE_SECS]
        until = min(one for one in due if one is not None)
        with self.resting():
            ready = dict(poll.poll(milliseconds(until - time.monotonic())))
        return throttled_until is None and bool(ready.get(stream.fileno(), 0) & ~WRITE)

    def _read(self, open_link: link.Link) -> None:
        before = time.thread_time()
        if open_link.stream.fill():
            self._heard_at = time.monotonic()
        self._take_messages(open_link)
        self._cpu.spend(time.thread_time() - before, time.monotonic())

    def _take_messages(self, open_link: link.Link) -> None:
        """All that are whole."""
        now, mono = int(time.time()), time.monotonic()
        pings = open_link.pings
        while (message := open_link.receive()) is not None:
            self._talk.take(message, now, mono)
        self._talk.hand_on()
        if open_link.pings - pings > PINGS_PER_READ:
            self._talk.strike("a flood of pings", mono)
        open_link.check_deadline(mono)
        self._heard_wall = now

    # -- pulse -------------------------------------------------------------------------------------

    def _pulse_due_at(self) -> float:
        """A ping after one and a half times ping_secs of silence, and half of it for the answer:
        a dead link is noticed after two, and an idle one wakes us seldom."""
        if self._pinged_at is not None:
            return self._pinged_at + self.settings.ping_secs / 2
        return self._heard_at + self.settings.ping_secs * 1.5

    def _check_pulse(self, open_link: link.Link, mono: float) -> None:
        if self._pinged_at is not None and self._heard_at >= self._pinged_at:
            if open_link.pong_at is not None and open_link.pong_at >= self._pinged_at:
                self._latency_ms = (open_link.pong_at - self._pinged_at) * 1000
            self._pinged_at = None
        if self._failures.count and mono - self._connected_at >= HEALTHY_SECS:
            self._failures.over("relay %s: it works again", self.url)
        if mono < self._pulse_due_at():
            return
        if self._pinged_at is not None:
            raise RelayError(f"silent for {mono - self._heard_at:.0f} s, also after a ping")
        open_link.ping()
        self._pinged_at = mono

    def _is_idle_guest(self, mono: float) -> bool:
        return not self.own and mono - self._used_at >= IDLE_SECS and not self._queued \
            and not len(self._talk.listening)
