"""The events under way to one relay on one connection, until its OK. Pure.

Every event that was taken gets exactly one answer by `on_ok(relay, event id, accepted, message)`:
the relay's, or `error: ...` when none came. A `duplicate:` is a success whatever else it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pylon.log import peer_text
from pylon.nostr import messages

OnOk = Callable[[str, str, bool, str], None]

ANSWER_SECS = 60.0              # a relay that says nothing for so long will not
AUTH_WAIT_SECS = 15.0           # refused with auth-required: how long to wait for a way in
_WANTS_AUTH = ("auth-required", "restricted")


@dataclass(eq=False, slots=True)
class Delivery:
    """One event on its way."""

    event_id: str
    event_json: str
    on_ok: list[OnOk]
    sent_at: float = 0.0                # monotonic
    round: int = 0                      # authentication rounds that were settled when it was sent
    waits_since: float | None = None    # for authentication; monotonic
    refused: str = field(default="")    # what the relay said then

    def finish(self, relay: str, accepted: bool, message: str) -> None:
        for on_ok in self.on_ok:
            on_ok(relay, self.event_id, accepted, message)

    @property
    def due_at(self) -> float:
        return self.sent_at + ANSWER_SECS if self.waits_since is None \
            else self.waits_since + AUTH_WAIT_SECS


class Deliveries:
    """Keyed by event id, in the order of sending."""

    def __init__(self, relay: str) -> None:
        self._relay = relay
        self._open: dict[str, Delivery] = {}
        self._waiting = 0               # for authentication

    def __len__(self) -> int:
        return len(self._open)

    def send(self, delivery: Delivery, mono: float, rounds: int) -> str | None:
        """The text to send; None when the same event is under way already."""
        known = self._open.get(delivery.event_id)
        if known is not None:
            known.on_ok += delivery.on_ok
            return None
        self._open[delivery.event_id] = delivery
        return self._text(delivery, mono, rounds)

    def _text(self, delivery: Delivery, mono: float, rounds: int) -> str:
        self._waiting -= delivery.waits_since is not None
        delivery.sent_at, delivery.round, delivery.waits_since = mono, rounds, None
        return messages.publish(delivery.event_json)

    def answered(self, ok: messages.Ok, mono: float, rounds: int, auth_pending: bool) -> str | None:
        """An OK came. A text when the event is to be sent again now (authenticated meanwhile)."""
        delivery = self._meant(ok)
        if delivery is None:
            return None
        prefix = messages.prefix(ok.message)
        if not ok.accepted and prefix in _WANTS_AUTH and not delivery.refused:
            if rounds > delivery.round:
                delivery.refused = ok.message
                return self._text(delivery, mono, rounds)
            if auth_pending or prefix == "auth-required":
                delivery.refused, delivery.waits_since = ok.message, mono
                self._waiting += 1
                return None
        self._finish(delivery, ok.accepted or prefix == "duplicate", peer_text(ok.message))
        return None

    def _meant(self, ok: messages.Ok) -> Delivery | None:
        """An OK without an id (nostr-relay, for what it cannot parse) can only be told from
        others when nothing else is under way."""
        if not ok.event_id and len(self._open) == 1:
            return next(iter(self._open.values()))
        return self._open.get(ok.event_id)

    def authenticated(self, mono: float, rounds: int) -> list[str]:
        """A round is settled: texts of what was refused for the lack of it."""
        return [self._text(delivery, mono, rounds) for delivery in self._open.values()
                if delivery.waits_since is not None]

    def due_at(self) -> float | None:
        if self._waiting:
            return min(delivery.due_at for delivery in self._open.values())
        first = next(iter(self._open.values()), None)       # the oldest, or near enough
        return None if first is None else first.due_at

    def expire(self, mono: float) -> None:
        """Answer for the relay where it does not."""
        due = self.due_at()
        if due is None or mono < due:
            return
        for delivery in [one for one in self._open.values() if one.due_at <= mono]:
            self._finish(delivery, False, peer_text(delivery.refused) if delivery.refused
                         else "error: the relay did not answer")

    def fail_all(self, message: str) -> None:
        for delivery in list(self._open.values()):
            self._finish(delivery, False, message)

    def _finish(self, delivery: Delivery, accepted: bool, message: str) -> None:
        del self._open[delivery.event_id]
        self._waiting -= delivery.waits_since is not None
        delivery.finish(self._relay, accepted, message)
