"""NIP-42: who we are, told to a relay that asks."""

from __future__ import annotations

from pylon.nostr.event import Event
from pylon.nostr.keys import Keys

KIND = 22242


def auth_event(keys: Keys, relay: str, challenge: str, now: int) -> Event:
    """The answer to a challenge; good for that one relay, so that it cannot be passed on."""
    return keys.sign(KIND, "", [["relay", relay], ["challenge", challenge]], now)
