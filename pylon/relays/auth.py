"""NIP-42 on one connection: the latest challenge, signed for every identity, not too often. Pure.

Times are monotonic (`mono`) and wall clock (`now`). A round is one answer to a challenge with all
identities. It is settled when the relay has answered every one of them, or after a moment: some
relays accept and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pylon.log import peer_text
from pylon.nostr import messages, nip42
from pylon.nostr.keys import Keys

SIGN_EVERY_SECS = 10.0          # a relay that sends challenges without end costs one signature
SETTLE_SECS = 2.0
MAX_CHALLENGE_CHARS = 1024
MAX_IDENTITIES = 64


class Authentication:
    """Says what to send and when; `rounds` counts the settled ones."""

    def __init__(self, relay: str, identities: Callable[[], Sequence[Keys]]) -> None:
        self.rounds = 0
        self.refusal = ""                       # of the last round; "" when somebody was let in
        self._relay = relay
        self._identities = identities
        self._challenge: str | None = None
        self._wanted = False                    # a challenge is there that was not answered
        self._signed_at: float | None = None    # monotonic, of the last round
        self._open: set[str] = set()            # ids of AUTH events that the relay has not judged
        self._let_in = 0

    @property
    def state(self) -> str:
        """For people: '', 'asked', 'ok' or 'refused'."""
        if self._wanted or self._open:
            return "asked"
        return "" if not self.rounds else "refused" if self.refusal else "ok"

    @property
    def pending(self) -> bool:
        """A round is under way or about to be."""
        return self._wanted or bool(self._open)

    def challenged(self, challenge: str) -> bool:
        """A challenge came; the latest counts. False when it is not one to be signed."""
        if not challenge or len(challenge) > MAX_CHALLENGE_CHARS:
            return False
        self._challenge, self._wanted = challenge, True
        return True

    def again(self) -> None:
        """The identities have changed: answer the known challenge once more."""
        self._wanted = self._challenge is not None

    def due_at(self) -> float | None:
        """When `step` has something to do; monotonic, -inf for at once."""
        if self._open and self._signed_at is not None:
            return self._signed_at + SETTLE_SECS
        if self._wanted:
            return float("-inf") if self._signed_at is None else self._signed_at + SIGN_EVERY_SECS
        return None

    def step(self, now: int, mono: float) -> list[str]:
        """Texts to send now."""
        due = self.due_at()
        if due is None or mono < due:
            return []
        if self._open:
            self._open.clear()                  # silence: taken as consent until something fails
            self._settle("")
            return []
        return self._sign(now, mono)

    def _sign(self, now: int, mono: float) -> list[str]:
        assert self._challenge is not None
        self._wanted, self._signed_at, self._let_in = False, mono, 0
        # The first identity is the node's own. It goes last: a relay that keeps one pubkey per
        # connection keeps the last.
        keys = list(self._identities())[:MAX_IDENTITIES][::-1]
        events = [nip42.auth_event(one, self._relay, self._challenge, now) for one in keys]
        self._open = {event.id for event in events}
        if not events:
            self._settle("no identity to authenticate with")
        return [messages.auth(event.to_json()) for event in events]

    def answered(self, ok: messages.Ok) -> bool:
        """An OK came; False when it is not about an AUTH event of ours."""
        if ok.event_id not in self._open:
            return False
        self._open.discard(ok.event_id)
        self._let_in += ok.accepted
        if not self._open:
            self._settle("" if self._let_in else peer_text(ok.message) or "refused")
        return True

    def _settle(self, refusal: str) -> None:
        self.rounds += 1
        self.refusal = refusal
