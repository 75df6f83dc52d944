"""How far one connected relay is with the outbox: what it has under way, what it must get again.

Memory of the publisher's thread; the store holds the truth. A pass goes through the unsettled rows
in their order, from `behind` on; it is begun by a connect, a full queue or the end of a pause.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pylon.nostr import messages

RETRY_SECS = (2.0, 10.0, 60.0, 300.0, 1800.0)       # after a refusal that may pass, or silence
FINAL_RETRY_SECS = (600.0, 3600.0)      # where a relay means it, but nobody else took the event
HOLD_SECS = (5.0, 30.0, 120.0, 300.0)   # after `rate-limited:`
FINAL = frozenset({"invalid", "blocked", "pow", "mute"})
MAX_PAUSES = 1000


@dataclass(slots=True)
class Pause:
    """An event that this relay did not take."""

    row: int
    tries: int
    until: float                        # monotonic


@dataclass(slots=True)
class Feed:
    """One relay, as long as it is connected."""

    relay: str
    behind: int | None                  # a pass is due through the rows after this one
    under_way: dict[str, int] = field(default_factory=dict)     # event id -> row
    pauses: dict[str, Pause] = field(default_factory=dict)      # by event id, oldest first
    hold_until: float = 0.0             # monotonic; nothing is offered before
    holds: int = 0

    def offered(self, event_id: str, row: int) -> None:
        self.under_way[event_id] = row

    def must_go_back_to(self, row: int) -> None:
        """A row could not be offered now: a pass has to begin there."""
        self.behind = row - 1 if self.behind is None else min(self.behind, row - 1)

    def answered(self, event_id: str, accepted: bool, message: str, mono: float) -> None:
        """The relay's word on an event, or the lack of it."""
        row = self.under_way.pop(event_id, None)
        before = self.pauses.pop(event_id, None)
        if accepted:
            self.holds = 0
            return
        prefix = messages.prefix(message)
        if prefix == "rate-limited":
            self.hold_until = mono + HOLD_SECS[min(self.holds, len(HOLD_SECS) - 1)]
            self.holds += 1
        steps = FINAL_RETRY_SECS if prefix in FINAL else RETRY_SECS
        tries = before.tries if before else 0
        if row is not None:
            pause = steps[min(tries, len(steps) - 1)]
            self.pauses[event_id] = Pause(row, tries + 1, mono + pause)
        if len(self.pauses) > MAX_PAUSES:       # the row stays in the store; the next pass has it
            del self.pauses[next(iter(self.pauses))]

    def may_have(self, event_id: str, mono: float) -> bool:
        """Whether an event may be offered now."""
        if event_id in self.under_way:
            return False
        pause = self.pauses.get(event_id)
        return pause is None or pause.until <= mono

    def wake_pauses(self, mono: float) -> None:
        """Begin a pass where the pause of an event is over."""
        for pause in self.pauses.values():
            if pause.until <= mono:
                self.must_go_back_to(pause.row)

    def due_at(self, mono: float) -> float | None:
        """When something is to be done here again; monotonic."""
        times = [pause.until for pause in self.pauses.values() if pause.until > mono]
        if self.behind is not None:
            # A full queue empties with the answers, which ring; unless they are not ours.
            times.append(max(self.hold_until, mono + 1.0))
        return min(times, default=None)

    @property
    def busy(self) -> bool:
        """Something may still be taken in this moment."""
        return bool(self.under_way) or self.behind is not None
