"""NIP-17 direct messages: kind 14 inside gift wraps.

Deliver a wrap only to the recipient's kind 10050 relays; without that list, don't send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pylon.errors import InvalidMessage
from pylon.nostr import nip59
from pylon.nostr.event import Event, is_hex
from pylon.nostr.keys import Keys
from pylon.nostr.nip59 import Rumor

KIND = 14
MAX_RECIPIENTS = 10


@dataclass(frozen=True, slots=True)
class DirectMessage:
    id: str
    sender: str
    recipients: tuple[str, ...]
    text: str = field(repr=False)
    subject: str
    reply_to: str | None
    created_at: int


def build(keys: Keys, recipients: Sequence[str], text: str, now: int, subject: str = "",
          reply_to: str | None = None) -> list[tuple[str, Event]]:
    """(pubkey, wrap) for every recipient, and for ourselves as the copy that we keep."""
    tags = [["p", pubkey] for pubkey in recipients]
    if reply_to:
        tags.append(["e", reply_to, "", "reply"])
    if subject:
        tags.append(["subject", subject])
    inner = nip59.rumor(keys.pubkey, KIND, text, tags, now)
    everybody = dict.fromkeys([*recipients, keys.pubkey])
    return [(pubkey, nip59.wrap(keys, pubkey, inner, now)) for pubkey in everybody]


def parse(rumor: Rumor) -> DirectMessage:
    """Raises InvalidMessage for another kind, or for a crowd."""
    if rumor.kind != KIND:
        raise InvalidMessage("not a direct message")
    recipients = [tag[1] for tag in rumor.tags if tag[0] == "p" and len(tag) > 1]
    if not 0 < len(recipients) <= MAX_RECIPIENTS or not all(map(is_hex, recipients)):
        raise InvalidMessage("a direct message goes to 1 to 10 people")
    return DirectMessage(rumor.id, rumor.pubkey, tuple(recipients), rumor.content,
                         _first(rumor, "subject") or "", _first(rumor, "e"), rumor.created_at)


def _first(rumor: Rumor, name: str) -> str | None:
    return next((tag[1] for tag in rumor.tags if tag[0] == name and len(tag) > 1), None)
