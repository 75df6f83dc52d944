"""A draft: what a customer wants, checked before anything is stored or sent. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from pylon.errors import Refused, UsageError
from pylon.nostr import nip90
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.options import check_relay_url
from pylon.store.orders import OrderRow
from pylon.states import OrderState
from pylon.units import MAX_MSATS

POLICIES = ("free", "cheap", "fast", "trusted")
MAX_PROMPT_BYTES = 20_480           # in any alphabet it fits an event, and a control line
MAX_EVENT_BYTES = 60_000            # relays take 64 KiB
MAX_RELAYS, MAX_PARAMS = 16, 32
MAX_TIMEOUT_SECS = 7 * 86400
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Draft:
    """Everything that can be said about an order before it exists. Amounts in msats."""

    prompt: str
    kind: int = 5050
    model: str | None = None
    max_tokens: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    output: str | None = None       # a media type
    bid_msats: int | None = None    # published: providers see it
    max_msats: int = 0              # most to pay without asking again; 0: pay nothing by itself
    relays: list[str] = field(default_factory=list)     # [] means the node's own
    provider: str | None = None     # hex: this one and no other
    encrypt: bool = False
    first: bool = False
    policy: str = "cheap"
    quote_secs: int = 5
    timeout_secs: int = 120


def check(draft: Draft) -> None:
    """Raises Refused (with a code) or UsageError."""
    _check_prompt(draft.prompt)
    if not 5000 <= draft.kind <= 5999:
        raise Refused("bad-kind", f"kind {draft.kind} is no job: NIP-90 has 5000 to 5999")
    if draft.policy not in POLICIES:
        raise UsageError(f"{draft.policy!r} is no policy; it is one of {', '.join(POLICIES)}")
    for name, amount in (("bid", draft.bid_msats), ("limit", draft.max_msats)):
        if amount is not None and not 0 <= amount <= MAX_MSATS:
            raise UsageError(f"the {name} of {amount} msats is no amount")
    if not 1 <= draft.timeout_secs <= MAX_TIMEOUT_SECS:
        raise UsageError("the timeout must be from 1 second to 7 days")
    if draft.max_tokens is not None and not 1 <= draft.max_tokens <= 1_000_000:
        raise UsageError("max-tokens must be from 1 to 1000000")
    _check_params(draft)
    if len(draft.relays) > MAX_RELAYS:
        raise UsageError(f"at most {MAX_RELAYS} relays for one order")
    for url in draft.relays:
        wrong = check_relay_url(url)
        if wrong:
            raise UsageError(f"relay {url[:80]!r} {wrong}")


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise Refused("empty-prompt", "the prompt is empty")
    if "\0" in prompt:
        raise Refused("not-text", "the prompt holds a NUL character: it is no text")
    try:
        size = len(prompt.encode("utf-8"))
    except UnicodeEncodeError:
        raise Refused("not-text", "the prompt is not valid Unicode") from None
    if size > MAX_PROMPT_BYTES:
        raise Refused("prompt-too-long", f"the prompt has {size} bytes; at most "
                                         f"{MAX_PROMPT_BYTES} fit into one job")


def _check_params(draft: Draft) -> None:
    if len(draft.params) > MAX_PARAMS:
        raise UsageError(f"at most {MAX_PARAMS} parameters for one order")
    for name, value in {**draft.params, "model": draft.model or "-"}.items():
        if not _KEY.match(name):
            raise UsageError(f"{name[:64]!r} is no parameter's name")
        if not value.isprintable() or not 0 < len(value) <= 1024:
            raise UsageError(f"the value of {name} must be 1 to 1024 printable characters")


def params_of(draft: Draft) -> dict[str, str]:
    """The `param` tags of the event."""
    found = dict(draft.params)
    if draft.model:
        found["model"] = draft.model
    if draft.max_tokens is not None:
        found["max_tokens"] = str(draft.max_tokens)
    return found


def to_order(draft: Draft, keys: Keys, account: str, scope: str | None, targets: list[str],
             listen_on: list[str], now: int) -> tuple[OrderRow, Event]:
    """The row to be stored and the event to be sent. Raises Refused.

    `targets`: who is asked, one after the other; empty asks everybody. `listen_on`: where answers
    are expected, told to the providers.
    """
    details: dict[str, Any] = {"params": params_of(draft), "output": draft.output,
                               "listen_on": listen_on, "scope": scope}
    order = OrderRow(
        id="", kind=draft.kind, pubkey=keys.pubkey, account=account, state=OrderState.NEW,
        prompt=draft.prompt, model=draft.model, details=details,
        encryption="nip44" if draft.encrypt else "", target=targets[0] if targets else None,
        targets=targets[1:], relays=list(draft.relays), policy=draft.policy,
        bid_msats=draft.bid_msats, max_msats=draft.max_msats, first=draft.first,
        quote_secs=draft.quote_secs, timeout_secs=draft.timeout_secs,
        quote_until=now + draft.quote_secs, deadline_at=now + draft.timeout_secs,
        provider=None, tries=0, result=None, result_event_id=None, code=None, error_message=None,
        created_at=now, updated_at=now, ended_at=None)
    return with_event(order, keys, order.target, now)


def with_event(order: OrderRow, keys: Keys, target: str | None,
               now: int) -> tuple[OrderRow, Event]:
    """The order's event for one target (or everybody), and the row with its id where it had
    none. Raises Refused."""
    event = nip90.build_request(
        keys, order.kind, [(order.prompt or "", "text", None, None)], order.details["params"],
        order.bid_msats, order.details["listen_on"], target, order.encryption,
        order.details["output"], now, [["expiration", str(order.deadline_at)]])
    size = len(event.to_json().encode())
    if size > MAX_EVENT_BYTES:
        raise Refused("prompt-too-long", f"the job's event would have {size} bytes; relays take "
                                         f"{MAX_EVENT_BYTES}")
    if order.id:
        return order, event
    return replace(order, id=event.id), event
