"""What memory holds about an order under way: who listens, whom it heard, when it is due.

Nothing here is needed after a restart: the store has the truth. Under the turn of `Orders`, but
for `may_speak`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pylon.nostr.keys import Keys

MAX_PROVIDERS = 50                  # strangers that one order listens to
MAX_FEEDBACK = 300                  # messages of one provider about one order
MAX_RESULTS = 5
MAX_COMPLAINTS = 20                 # refused messages that are written down

Update = dict[str, Any]
Listener = Callable[[Update], None]


@dataclass(eq=False, slots=True)
class Live:
    """One order under way."""

    order_id: str
    keys: Keys | None               # None: its agent is gone; encrypted answers stay unread
    asked: dict[str, str | None]    # our event ids, and whom each was for (None: everybody)
    clock: float                    # wall time minus steady time when it began: a step of the
    #                                 wall clock neither ends nor lengthens an order
    friends: frozenset[str] = frozenset()   # have delivered to us: heard in any crowd
    listeners: list[Listener] = field(default_factory=list)
    due_at: float | None = None     # steady
    ends_at: float | None = None    # steady: an ended order that is still listened to
    paying: bool = False            # a buyer has it; its outcome is waited for
    retry: bool = False             # a failure of ours came between: if it failed, once more
    asked_owner: bool = False
    heard: Counter[tuple[str, bool]] = field(default_factory=Counter)
    complaints: set[tuple[str, str]] = field(default_factory=set)
    speaker: str | None = None      # whose partial answer is shown
    text: str = ""                  # as far as it was shown

    def may_speak(self, provider: str, is_result: bool) -> bool:
        """Whether one more message of this provider is read; counts it. On relay threads: a count
        that is off by one harms nobody."""
        key = (provider, is_result)
        if key not in self.heard and len(self.heard) >= 2 * MAX_PROVIDERS \
                and provider not in self.friends and provider not in self.asked.values():
            return False
        self.heard[key] += 1
        return self.heard[key] <= (MAX_RESULTS if is_result else MAX_FEEDBACK)

    def may_complain(self, provider: str, code: str) -> bool:
        """Whether a refused message is worth a line; each (provider, code) once."""
        if (provider, code) in self.complaints or len(self.complaints) >= MAX_COMPLAINTS:
            return False
        self.complaints.add((provider, code))
        return True

    def shown(self, provider: str, content: str) -> str:
        """What is new in a partial answer: providers send the text so far, or only its next
        piece."""
        if self.speaker != provider:
            self.speaker, self.text = provider, ""
        new = content[len(self.text):] if content.startswith(self.text) else content
        self.text += new
        return new

    def tell(self, event: str, **facts: Any) -> None:
        """Tell every listener; they must not block."""
        for listener in list(self.listeners):
            listener({"event": event, "id": self.order_id, **facts})
