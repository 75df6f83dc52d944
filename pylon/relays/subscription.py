"""What somebody wants to hear from relays, and how a filter is cut to what relays take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pylon.nostr.event import Event

Filter = dict[str, Any]

MAX_FILTER_KINDS = 20       # @nostr-relay refuses a filter with more, and no document says so
MAX_FILTER_VALUES = 250     # ids, authors, values of one tag
REMEMBERED_IDS = 16384


class VerifiedIds:
    """Ids of events that were verified and handed on, so that the copies of other relays are
    dropped unread. Never holds an id that was only claimed. Any thread; two generations."""

    def __init__(self, size: int = REMEMBERED_IDS) -> None:
        self._half = size // 2
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, event_id: str) -> bool:
        try:
            key = bytes.fromhex(event_id)
        except ValueError:
            return False
        return key in self._young or key in self._old

    def update(self, event_ids: Iterable[str]) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.update(map(bytes.fromhex, event_ids))


def everything(event: Event) -> bool:
    """The default of `Subscription.wanted`."""
    return True


@dataclass(eq=False, slots=True)
class Subscription:
    """Filters, and who is told. All callbacks run on a relay's thread and must not block.

    `wanted` sees events that are NOT verified; it may only say no. `on_events` gets (relay,
    events) with events verified, matching a filter, and new to this subscription (two relays that
    deliver at the same instant can still both be heard). `on_eose(relay)` also comes when a relay
    does not send EOSE in time. `relays` None means the node's own ones.
    """

    name: str
    filters: list[Filter]
    on_events: Callable[[str, list[Event]], None]
    wanted: Callable[[Event], bool] = everything
    on_eose: Callable[[str], None] | None = None
    on_closed: Callable[[str, str], None] | None = None
    relays: list[str] | None = None
    resume_overlap_secs: int | None = None      # None: ask for the same again after a reconnect
    verified: VerifiedIds = field(default_factory=VerifiedIds, repr=False)


def cut(filters: list[Filter], max_limit: int | None = None) -> list[Filter]:
    """The same question in filters that every relay takes."""
    pieces = [piece for one in filters for piece in _cut_one(one, list(one))]
    if max_limit:
        pieces = [{**piece, "limit": min(piece["limit"], max_limit)} if "limit" in piece else piece
                  for piece in pieces]
    return pieces


def _cut_one(one: Filter, keys: list[str]) -> Iterator[Filter]:
    for key in keys:
        size = MAX_FILTER_KINDS if key == "kinds" else MAX_FILTER_VALUES
        values = one[key]
        if isinstance(values, list) and len(values) > size:
            for start in range(0, len(values), size):
                yield from _cut_one({**one, key: values[start:start + size]}, keys)
            return
    yield one


def resumed(filters: list[Filter], since: int | None) -> list[Filter]:
    """The filters of a reconnect: nothing older than `since`, unless it was asked for anyway."""
    if since is None:
        return filters
    return [{**one, "since": max(since, one.get("since", 0))} for one in filters]
