"""NIP-89: what a provider offers (kind 31990), that it lives (kind 11998), that it has gone.

Everything in somebody else's announcement is a claim: fields are read where they make sense and
cut to size, and only an event that is no announcement at all raises InvalidMessage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pylon.errors import InvalidMessage
from pylon.nostr import strictjson
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.nostr.nip65 import usable
from pylon.units import parse_count

KIND, HEARTBEAT, DELETION = 31990, 11998, 5
HANDLER = "compute_provider"        # as the first Pylon's agents look for it
PARAMS = ("model", "max_tokens", "temperature", "top_p", "top_k")
_MAX_NAME_CHARS, _MAX_ABOUT_CHARS, _MAX_ITEMS = 100, 1000, 100


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is on offer; `prices_msats` is the least price by model."""

    d: str
    name: str
    about: str
    kinds: list[int]
    models: list[str] = field(default_factory=list)
    prices_msats: dict[str, int] = field(default_factory=dict)
    network: str = ""
    relays: list[str] = field(default_factory=list)
    lud16: str = ""
    encryption: bool = True             # encrypted jobs are taken
    price_msats: int | None = None      # the least price of all; None where none is told
    pubkey: str = ""                    # "" in one that is yet to be built
    created_at: int = 0


def build(keys: Keys, facts: Announcement, created_at: int) -> Event:
    """The announcement; one of the same `d` takes its place."""
    least = min(facts.prices_msats.values(), default=facts.price_msats)
    tags = [["d", facts.d], *(["k", str(kind)] for kind in facts.kinds), ["handler", HANDLER]]
    tags += [["model", model] for model in facts.models[:_MAX_ITEMS]]
    tags += [["relay", url] for url in facts.relays]
    if facts.network:
        tags.append(["network", facts.network])
    if least is not None:
        tags.append(["price", str(least), "per-request", "msats"])
    if facts.encryption:
        tags.append(["encryption", "nip44 nip04"])
    tags.append(["alt", "A provider of text generation: NIP-90 jobs, paid over Lightning"])
    content = json.dumps(_content(facts, least), ensure_ascii=False, separators=(",", ":"))
    return keys.sign(KIND, content, tags, created_at)


def parse(event: Event) -> Announcement:
    """Raises InvalidMessage for what is no announcement."""
    if event.kind != KIND or event.first("d") is None:
        raise InvalidMessage("not an announcement")
    content = strictjson.load(event.content) if event.content.strip() else {}
    if type(content) is not dict:
        raise InvalidMessage("the announcement's content is not an object")
    models = [tag[1][:_MAX_NAME_CHARS] for tag in event.all("model") if len(tag) > 1]
    return Announcement(
        d=event.first("d") or "", name=_text(content.get("name"), _MAX_NAME_CHARS),
        about=_text(content.get("about") or content.get("description"), _MAX_ABOUT_CHARS),
        kinds=_kinds(event), models=models[:_MAX_ITEMS],
        prices_msats=_prices(content.get("pricesMsats")),
        network=event.first("network") or "",
        relays=list(usable(tag[1] for tag in event.all("relay") if len(tag) > 1)),
        lud16=_text(content.get("lud16"), _MAX_NAME_CHARS),
        encryption=(content.get("encryptionSupported") is True
                    or content.get("supportsEncryption") is True),
        price_msats=_price(event, content), pubkey=event.pubkey, created_at=event.created_at)


def heartbeat(keys: Keys, d: str, now: int, expires_at: int) -> Event:
    """Still here. One per key whatever its `d`: the kind is plainly replaceable."""
    return keys.sign(HEARTBEAT, "", [["d", d], ["expiration", str(expires_at)]], now)


def withdraw(keys: Keys, d: str, now: int) -> Event:
    """Takes the announcement back (NIP-09)."""
    return keys.sign(DELETION, "", [["a", f"{KIND}:{keys.pubkey}:{d}"], ["k", str(KIND)]], now)


def _content(facts: Announcement, least: int | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": facts.name, "about": facts.about,
        # Both spellings are in use.
        "encryptionSupported": facts.encryption, "supportsEncryption": facts.encryption,
        "acceptsNutZaps": False,
        "nip90Params": {name: {"required": False, "values": facts.models if name == "model"
                               else []} for name in PARAMS},
        "pricesMsats": facts.prices_msats,
    }
    if least is not None:
        content["amount"] = str(least) if least else "free"
    if facts.lud16:
        content["lud16"] = facts.lud16
    return content


def _kinds(event: Event) -> list[int]:
    kinds = []
    for tag in event.all("k")[:_MAX_ITEMS]:
        try:
            kinds.append(parse_count(tag[1]))
        except (ValueError, IndexError):
            continue
    return kinds


def _price(event: Event, content: dict[str, Any]) -> int | None:
    """The first Pylon's `price` tag, else the content's `amount`; msats in both."""
    amount = content.get("amount")
    if amount == "free":
        return 0
    for claim in (event.first("price"), amount):
        price = _count(claim)
        if price is not None:
            return price
    return None


def _prices(value: object) -> dict[str, int]:
    if type(value) is not dict:
        return {}
    priced = {str(name)[:_MAX_NAME_CHARS]: _count(price)
              for name, price in list(value.items())[:_MAX_ITEMS]}
    return {name: price for name, price in priced.items() if price is not None}


def _count(value: object) -> int | None:
    try:
        return parse_count(str(value)) if type(value) in (str, int) else None
    except ValueError:
        return None


def _text(value: object, most: int) -> str:
    return value[:most].encode(errors="replace").decode() if type(value) is str else ""
