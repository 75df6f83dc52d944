"""What one relay is asked for, and how it took that: REQ, EOSE, CLOSED and asking again. Pure.

Lives as long as the relay's thread, over many connections, because it remembers until when this
relay was heard: after a reconnect it is asked only for what came since (minus an overlap).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pylon.log import peer_text
from pylon.nostr import filters, messages
from pylon.nostr.event import Event
from pylon.relays.nip11 import Limits
from pylon.relays.subscription import Filter, Subscription, cut, resumed

EOSE_SECS = 30.0                # a relay that sends no EOSE: what waits for it goes on
RETRY_FIRST_SECS = 5.0          # after CLOSED
RETRY_MAX_SECS = 300.0
SERVED_SECS = 60.0              # a subscription that lived so long was not refused, it ended
MAX_NAME_CHARS = 48             # of 64 that NIP-01 allows; the rest numbers the pieces
FILTERS_PER_REQ = 10
REMEMBERED_ENDS = 256
STRAGGLER_SECS = 10.0           # after asking anew, answers to the older question may still come
_WANTS_AUTH = ("auth-required", "restricted")


@dataclass(eq=False, slots=True)
class Track:
    """One subscription on one relay."""

    sub: Subscription
    matches: Callable[[Event], bool]        # whether the relay was asked for this event at all
    covered_until: int | None = None        # wall clock; everything up to here was heard
    open: set[str] = field(default_factory=set)         # wire ids that the relay serves
    unfinished: set[str] = field(default_factory=set)   # of these, those without EOSE
    asked_at: float = 0.0                   # monotonic
    round: int = 0                          # authentication rounds settled when it was asked
    live: bool = False                      # all EOSE are there, or were waited for long enough
    refusals: int = 0                       # CLOSED in a row
    retry_at: float | None = None           # monotonic


class Listening:
    """The tracks of one relay."""

    def __init__(self, relay: str, draw: random.Random | None = None) -> None:
        self.limits = Limits()
        self._relay = relay
        self._tracks: dict[str, Track] = {}
        self._by_wire_id: dict[str, Track] = {}
        self._ended: dict[str, None] = {}       # wire ids closed lately; stragglers are no offence
        self._draw = draw or random.Random()

    def __len__(self) -> int:
        return len(self._tracks)

    def find(self, wire_id: str) -> Track | None:
        return self._by_wire_id.get(wire_id)

    def was_open(self, wire_id: str) -> bool:
        """Whether the relay may still be sending for something that was closed lately."""
        return wire_id in self._ended

    # -- asking ------------------------------------------------------------------------------------

    def add(self, sub: Subscription) -> list[str]:
        """Remember a subscription; texts that end an older one of that name."""
        texts = self.remove(sub.name)
        self._tracks[sub.name] = Track(sub, filters.matcher(sub.filters))
        return texts

    def remove(self, name: str) -> list[str]:
        """Forget a subscription; texts that end it on the relay."""
        track = self._tracks.pop(name, None)
        return [] if track is None else self._end(track)

    def ask_all(self, now: int, mono: float, rounds: int) -> list[str]:
        """Texts that (re)open everything: on a new connection, and once authenticated."""
        return [text for track in self._tracks.values()
                for text in self._ask(track, now, mono, rounds)]

    def ask(self, name: str, now: int, mono: float, rounds: int) -> list[str]:
        track = self._tracks.get(name)
        return [] if track is None else self._ask(track, now, mono, rounds)

    def _ask(self, track: Track, now: int, mono: float, rounds: int) -> list[str]:
        questions = self._questions(track, now)
        texts = self._end(track, keep=set(questions))
        room = self.limits.max_subscriptions
        if room is not None and len(self._by_wire_id) + len(questions) > max(room, 1):
            track.retry_at = mono + RETRY_MAX_SECS
            return texts
        track.open, track.unfinished = set(questions), set(questions)
        track.asked_at, track.round, track.live, track.retry_at = mono, rounds, False, None
        self._by_wire_id.update((wire_id, track) for wire_id in questions)
        return texts + [messages.req(wire_id, asked) for wire_id, asked in questions.items()]

    def _questions(self, track: Track, now: int) -> dict[str, list[Filter]]:
        """Wire id -> filters, in pieces that this relay takes."""
        since = None
        if track.covered_until is not None and track.sub.resume_overlap_secs is not None:
            since = max(0, min(now, track.covered_until) - track.sub.resume_overlap_secs)
        pieces = cut(resumed(track.sub.filters, since), self.limits.max_limit)
        most = min(FILTERS_PER_REQ, self.limits.max_filters or FILTERS_PER_REQ)
        longest = min(MAX_NAME_CHARS, (self.limits.max_subid_length or 64) - 4)
        name = track.sub.name if len(track.sub.name) <= longest else \
            f"{track.sub.name[:max(1, longest - 5)]}.{id(track) % 99991}"
        return {f"{name}.{number}" if number else name: pieces[start:start + most]
                for number, start in enumerate(range(0, len(pieces), most))}

    def _end(self, track: Track, keep: Iterable[str] = ()) -> list[str]:
        """Forget the wire ids of a track; texts that close those not asked again at once."""
        gone = track.open - set(keep)
        for wire_id in track.open:
            self._by_wire_id.pop(wire_id, None)
            self._ended[wire_id] = None
        while len(self._ended) > REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]
        track.open, track.unfinished = set(), set()
        return [messages.close(wire_id) for wire_id in sorted(gone)]

    # -- answers -----------------------------------------------------------------------------------

    def eose(self, wire_id: str) -> bool:
        """The stored events of a piece are through. False when nothing by that id is open."""
        track = self._by_wire_id.get(wire_id)
        if track is None:
            return False
        track.unfinished.discard(wire_id)
        if not track.unfinished:
            self._becomes_live(track)
        return True

    def _becomes_live(self, track: Track) -> None:
        if track.live:
            return
        track.live = True
        if track.sub.on_eose is not None:
            track.sub.on_eose(self._relay)

    def closed(self, wire_id: str, message: str, now: int, mono: float, rounds: int,
               auth_pending: bool) -> list[str] | None:
        """The relay ended a piece. Texts to send, or None when nothing by that id is open."""
        track = self._by_wire_id.get(wire_id)
        if track is None:
            return None
        if messages.prefix(message) in _WANTS_AUTH:
            if rounds > track.round:            # authenticated after it was asked
                return self._ask(track, now, mono, rounds)
            if auth_pending:                    # `authenticated` asks again
                return self._end(track, keep={wire_id})
        texts = self._end(track, keep={wire_id})
        served = track.live and mono - track.asked_at > SERVED_SECS
        track.refusals = 1 if served else track.refusals + 1
        ceiling = min(RETRY_MAX_SECS, RETRY_FIRST_SECS * 2.0 ** min(track.refusals - 1, 10))
        track.retry_at = mono + self._draw.uniform(ceiling / 2, ceiling)
        if track.sub.on_closed is not None:
            track.sub.on_closed(self._relay, peer_text(message))
        return texts

    def authenticated(self, now: int, mono: float, rounds: int) -> list[str]:
        """A round is settled: some relays then serve more, so everything is asked again."""
        return self.ask_all(now, mono, rounds)

    def disconnected(self, heard_at: int | None) -> None:
        """The connection is gone; `heard_at` (wall clock) is when the relay was last heard and
        all of it was handled. None when something of it may be lost."""
        for track in self._tracks.values():
            if track.open and not track.unfinished and heard_at is not None:
                track.covered_until = heard_at
            self._end(track)
            track.live, track.retry_at, track.refusals = False, None, 0

    # -- time --------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        times = [due for track in self._tracks.values() if (due := _due_at(track)) is not None]
        return min(times, default=None)

    def step(self, now: int, mono: float, rounds: int) -> list[str]:
        """Wait no longer for EOSE; ask again where it is time. Texts to send."""
        texts: list[str] = []
        for track in list(self._tracks.values()):
            due = _due_at(track)
            if due is None or due > mono:
                continue
            if track.retry_at is not None:
                texts += self._ask(track, now, mono, rounds)
            else:
                self._becomes_live(track)
        return texts


def _due_at(track: Track) -> float | None:
    if track.retry_at is not None:
        return track.retry_at
    return track.asked_at + EOSE_SECS if track.open and not track.live else None
