"""The demo's customer: nostr-sdk signs, sends, receives and verifies. Imports nothing of ours.

A program of its own. Prints who it is, {"saw": "hello", "key"}; reads what to order, a line of
JSON on stdin: {"relay", "kind", "prompt", "max_tokens", "to" (a provider's key, or null)}; prints
a line for each thing that it sees: {"saw": "published"|"feedback"|"result", ...}. Ends when its
stdin does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import nostr_sdk as sdk

FEEDBACK = 7000


def say(saw: str, **facts: Any) -> None:
    print(json.dumps({"saw": saw, **facts}), flush=True)


def job(order: dict[str, Any], keys: sdk.Keys) -> sdk.Event:
    tags = [["i", order["prompt"], "text"], ["output", "text/plain"],
            ["param", "max_tokens", str(order["max_tokens"])], ["relays", order["relay"]]]
    if order["to"]:
        tags.append(["p", order["to"]])
    return sdk.EventBuilder(sdk.Kind(order["kind"]), "").tags(
        [sdk.Tag.parse(tag) for tag in tags]).finalize(keys)


def first(event: sdk.Event, name: str) -> list[str]:
    """The values of the first tag of this name."""
    return next((tag.to_vec()[1:] for tag in event.tags() if tag.to_vec()[0] == name), [])


def tell(event: sdk.Event) -> None:
    """What an event about our job says; the sender's signature was verified by nostr-sdk."""
    facts = {"by": event.author().to_hex(), "content": event.content(), "kind":
             event.kind().as_u16(), "amount": first(event, "amount")}
    if facts["kind"] == FEEDBACK:
        say("feedback", status=first(event, "status"), **facts)
    else:
        say("result", **facts)


async def main(order: dict[str, Any], keys: sdk.Keys) -> None:
    client = sdk.ClientBuilder().build()
    await client.add_relay(sdk.RelayUrl.parse(order["relay"]))
    await client.try_connect()
    event = job(order, keys)
    answers = sdk.Filter().kinds([sdk.Kind(order["kind"] + 1000), sdk.Kind(FEEDBACK)]).event(
        event.id())
    seen = client.notifications()
    await client.subscribe(sdk.ReqTarget.auto([answers]))
    await client.send_event(event)
    say("published", id=event.id().to_hex(), prompt=order["prompt"])
    while (notice := await seen.next()) is not None:
        if notice.is_new_event():
            tell(notice.event)


async def until_stdin_ends(order: dict[str, Any], keys: sdk.Keys) -> None:
    buying = asyncio.ensure_future(main(order, keys))
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await asyncio.wait([buying, ended], return_when=asyncio.FIRST_COMPLETED)
    if buying.done():
        sys.exit(f"{buying.exception()}")       # it only ends by failing


if __name__ == "__main__":
    mine = sdk.Keys.generate()
    say("hello", key=mine.public_key().to_hex())
    if line := sys.stdin.buffer.readline():
        asyncio.run(until_stdin_ends(json.loads(line), mine))
