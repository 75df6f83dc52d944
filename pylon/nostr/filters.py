"""Filters (NIP-01): does an event match?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pylon.nostr.event import Event


def matches(filter: dict[str, Any], event: Event) -> bool:
    """Whether every condition of one filter holds. `limit` and `search` are the relay's affair."""
    return all(_holds(name, wanted, event) for name, wanted in filter.items())


def matches_any(filters: list[dict[str, Any]], event: Event) -> bool:
    """Whether one of the filters of a subscription matches."""
    return any(matches(filter, event) for filter in filters)


def _holds(name: str, wanted: Any, event: Event) -> bool:
    if name == "ids":
        return event.id in wanted
    if name == "authors":
        return event.pubkey in wanted
    if name == "kinds":
        return event.kind in wanted
    if name == "since":
        return event.created_at >= wanted
    if name == "until":
        return event.created_at <= wanted
    if len(name) == 2 and name[0] == "#":
        return any(tag[0] == name[1] and len(tag) > 1 and tag[1] in wanted for tag in event.tags)
    return True


def matcher(filters: list[dict[str, Any]]) -> Callable[[Event], bool]:
    """`matches_any` for one list of filters and many events: a lookup per condition, whatever the
    length of its list."""
    rules = [_rule(filter) for filter in filters]

    def matches_one(event: Event) -> bool:
        for kinds, others in rules:
            if kinds is not None and event.kind not in kinds:
                continue
            if not others or all(_holds(name, wanted, event) for name, wanted in others):
                return True
        return False
    return matches_one


def _rule(filter: dict[str, Any]) -> tuple[frozenset[int] | None, list[tuple[str, Any]]]:
    """Kinds apart, since nearly every filter has them; lists as sets."""
    kinds = frozenset(filter["kinds"]) if "kinds" in filter else None
    return kinds, [(name, frozenset(wanted) if isinstance(wanted, list) else wanted)
                   for name, wanted in filter.items() if name not in ("kinds", "limit")]
