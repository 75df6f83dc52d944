"""Filters (NIP-01): does an event match?"""

from __future__ import annotations

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
