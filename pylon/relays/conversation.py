"""What is said over one relay, message by message: the order of the checks, and who is told.

Pure: texts come in by `take`, texts to send gather in `texts`, time is passed in. Used by the
relay's thread only. Every message is checked in the order of cost: duplicate of a verified id,
form, subscription, filter, `wanted`, signature.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pylon.errors import InvalidMessage, RelayMisbehaved
from pylon.log import peer_text
from pylon.nostr import event as events
from pylon.nostr import messages
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.relays.auth import Authentication
from pylon.relays.deliveries import Deliveries, Delivery
from pylon.relays.listening import STRAGGLER_SECS, Listening, Track
from pylon.relays.nip11 import Limits
from pylon.relays.pace import Bucket
from pylon.relays.subscription import Subscription

log = logging.getLogger(__name__)

MAX_BATCH_EVENTS = 64
MAX_STRIKES = 20                # messages that a sound relay does not send...
STRIKES_PER_SEC = 0.1           # ...and how fast they are forgiven
_EVENT_START = '["EVENT","'


class Conversation:
    """Lives as long as the relay's thread; `opened` and `broken` mark the connections."""

    def __init__(self, relay: str, identities: Callable[[], Sequence[Keys]], mono: float) -> None:
        self.relay = relay
        self.limits = Limits()
        self.texts: list[str] = []              # to be sent, in this order
        self.events = self.duplicates = self.oddities = 0       # since the start, for status
        self.auth = Authentication(relay, identities)
        self.listening = Listening(relay)
        self.deliveries = Deliveries(relay)
        self._identities = identities
        self._is_open = False
        self._rounds = 0                        # authentication rounds that were acted upon
        self._strikes = Bucket(STRIKES_PER_SEC, MAX_STRIKES, mono)
        self._batch: dict[Track, dict[str, Event]] = {}
        self._new_id = ""                       # of the present frame, where it was found to be new

    # -- connections -------------------------------------------------------------------------------

    def opened(self, limits: Limits, now: int, mono: float) -> None:
        """A connection stands: ask for everything."""
        self.limits = self.listening.limits = limits
        self.auth = Authentication(self.relay, self._identities)
        self._rounds, self._is_open = 0, True
        self.texts = self.listening.ask_all(now, mono, 0)

    def broken(self, heard_at: int | None, message: str) -> None:
        """The connection is gone. `heard_at`: see Listening.disconnected."""
        self._is_open = False
        self.texts = []
        self._batch.clear()
        self.listening.disconnected(heard_at)
        self.deliveries.fail_all(message)

    # -- what our side wants -----------------------------------------------------------------------

    def subscribe(self, sub: Subscription, now: int, mono: float) -> None:
        self.texts += self.listening.add(sub)
        if self._is_open:
            self.texts += self.listening.ask(sub.name, now, mono, self.auth.rounds)

    def unsubscribe(self, name: str) -> None:
        self.texts += self.listening.remove(name)

    def deliver(self, delivery: Delivery, mono: float) -> None:
        """Send an event; its `on_ok` are called in any case, now or later."""
        refusal = self.limits.refusal(delivery.event_id, delivery.event_json) if self._is_open \
            else "error: the connection was lost"
        if refusal is not None:
            delivery.finish(self.relay, False, refusal)
            return
        text = self.deliveries.send(delivery, mono, self.auth.rounds)
        if text is not None:
            self.texts.append(text)

    # -- time --------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When `step` is needed next; monotonic."""
        times = [self.auth.due_at(), self.deliveries.due_at(), self.listening.due_at()]
        return min((due for due in times if due is not None), default=None)

    def step(self, now: int, mono: float) -> None:
        self.texts += self.auth.step(now, mono)
        self._after_authentication(now, mono)
        self.texts += self.listening.step(now, mono, self.auth.rounds)
        self.deliveries.expire(mono)

    def _after_authentication(self, now: int, mono: float) -> None:
        rounds = self.auth.rounds
        if rounds == self._rounds:
            return
        self._rounds = rounds
        if self.auth.refusal:
            log.warning("relay %s: does not let us in: %s", self.relay, self.auth.refusal)
        self.texts += self.listening.authenticated(now, mono, rounds)
        self.texts += self.deliveries.authenticated(mono, rounds)

    # -- what the relay says -----------------------------------------------------------------------

    def take(self, message: str | bytes, now: int, mono: float) -> None:
        """One message. Raises RelayMisbehaved when there was too much nonsense."""
        if isinstance(message, bytes):
            self.strike("a message that is not text", mono)
        elif self._is_known(message):
            self.duplicates += 1
        else:
            try:
                self._handle(messages.parse(message), now, mono)
            except InvalidMessage as err:
                self.strike(str(err), mono)

    def _is_known(self, text: str) -> bool:
        """Whether a frame carries an event whose id was verified before for this subscription.

        Looks at the raw text, because most frames of a second relay are copies. A forged copy of
        a known id is dropped with them; an id that is only claimed is never known.
        """
        self._new_id = ""
        if not text.startswith(_EVENT_START):
            return False
        start = len(_EVENT_START)
        end = text.find('"', start)
        track = self.listening.find(text[start:end])
        at = text.find('"id":"', end)
        if track is None or at < 0:
            return False
        self._new_id = text[at + 6:at + 70]
        return self._new_id in track.sub.verified

    def _handle(self, message: messages.Message, now: int, mono: float) -> None:
        if isinstance(message, messages.RelayEvent):
            self._handle_event(message, mono)
        elif isinstance(message, messages.Ok):
            self._handle_ok(message, now, mono)
        elif isinstance(message, messages.Eose):
            self.hand_on()                      # on_eose comes after the events before it
            if not self.listening.eose(message.sub_id):
                self._odd("EOSE for nothing that is open")
        elif isinstance(message, messages.Closed):
            self._handle_closed(message, now, mono)
        elif isinstance(message, messages.Auth):
            if not self.auth.challenged(message.challenge):
                self.strike("a challenge that nobody would sign", mono)
        else:
            log.debug("relay %s: notice: %s", self.relay, peer_text(message.message))

    def _handle_ok(self, message: messages.Ok, now: int, mono: float) -> None:
        if self.auth.answered(message):
            self._after_authentication(now, mono)
            return
        text = self.deliveries.answered(message, mono, self.auth.rounds, self.auth.pending)
        if text is not None:
            self.texts.append(text)

    def _handle_closed(self, message: messages.Closed, now: int, mono: float) -> None:
        self.hand_on()
        texts = self.listening.closed(message.sub_id, message.message, now, mono,
                                      self.auth.rounds, self.auth.pending)
        if texts is None:
            self._odd("CLOSED for nothing that is open")
            return
        log.debug("relay %s: closed %s: %s", self.relay, peer_text(message.sub_id),
                  peer_text(message.message))
        self.texts += texts

    def _handle_event(self, message: messages.RelayEvent, mono: float) -> None:
        track, event = self.listening.find(message.sub_id), message.event
        if track is None:
            if not self.listening.was_open(message.sub_id):
                self.strike("an event for a subscription that is not open", mono)
            return
        if not track.matches(event):
            if mono - track.asked_at > STRAGGLER_SECS:
                self.strike("an event that was not asked for", mono)
            return
        batch = self._batch.setdefault(track, {})
        if event.id in batch or (event.id != self._new_id and event.id in track.sub.verified):
            self.duplicates += 1
        elif track.sub.wanted(event):
            events.verify(event)                # raises InvalidMessage, which is a strike
            batch[event.id] = event
            if len(batch) >= MAX_BATCH_EVENTS:
                self.hand_on()

    def hand_on(self) -> None:
        """Give the verified events to their subscribers; the ids are remembered after that, so
        that what a handler lost by an error is heard again."""
        if not self._batch:
            return
        batches, self._batch = self._batch, {}
        for track, batch in batches.items():
            if batch:
                track.sub.on_events(self.relay, list(batch.values()))
                self.events += len(batch)
                track.sub.verified.update(batch)

    # -- misbehaviour ------------------------------------------------------------------------------

    def _odd(self, what: str) -> None:
        self.oddities += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("relay %s: %s", self.relay, peer_text(what))

    def strike(self, what: str, mono: float) -> None:
        """Something that a sound relay does not send. Too many in too short a time end it."""
        self._odd(what)
        if not self._strikes.spend(1, mono):
            raise RelayMisbehaved(f"too much that makes no sense; last: {what}", 1008)
