"""NIP-65 and NIP-17 relay lists: kind 10002 (where one reads and writes), 10050 (direct messages).

Lists of strangers are cut to what could be used; nothing here says that an address is public.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pylon.errors import InvalidMessage
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys

RELAY_LIST, DM_RELAYS = 10002, 10050
MAX_RELAYS = 32             # of one list; nobody needs more, and each one is a connection
MAX_URL_CHARS = 256


@dataclass(frozen=True, slots=True)
class RelayList:
    read: tuple[str, ...]
    write: tuple[str, ...]


def build_relay_list(keys: Keys, relays: Sequence[str], created_at: int) -> Event:
    """Kind 10002: every relay for both ways."""
    return keys.sign(RELAY_LIST, "", [["r", url] for url in relays], created_at)


def build_dm_relays(keys: Keys, relays: Sequence[str], created_at: int) -> Event:
    """Kind 10050: where direct messages are to be left."""
    return keys.sign(DM_RELAYS, "", [["relay", url] for url in relays], created_at)


def parse_relay_list(event: Event) -> RelayList:
    """Raises InvalidMessage for another kind."""
    if event.kind != RELAY_LIST:
        raise InvalidMessage("not a relay list")
    tags = [(tag[1], tag[2] if len(tag) > 2 else "") for tag in event.all("r") if len(tag) > 1]
    return RelayList(usable(url for url, use in tags if use != "write"),
                     usable(url for url, use in tags if use != "read"))


def parse_dm_relays(event: Event) -> tuple[str, ...]:
    """Raises InvalidMessage for another kind."""
    if event.kind != DM_RELAYS:
        raise InvalidMessage("not a list of relays for direct messages")
    return usable(tag[1] for tag in event.all("relay") if len(tag) > 1)


def usable(urls: Iterable[str]) -> tuple[str, ...]:
    """The first 32 different WebSocket URLs of printable ASCII."""
    found: dict[str, None] = {}
    for url in urls:
        url = url.strip()
        if (len(url) <= MAX_URL_CHARS and url.isascii() and url.isprintable() and " " not in url
                and url.lower().startswith(("ws://", "wss://"))):
            found.setdefault(url)
        if len(found) == MAX_RELAYS:
            break
    return tuple(found)
