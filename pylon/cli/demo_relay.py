"""The demo's relay: nostr-sdk's LocalRelay, in memory. A program of its own, without our code.

Prints its URL when it accepts connections; ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import sys

import nostr_sdk as sdk

PLENTY = 100_000                    # its own limit is one note a second


async def main() -> None:
    relay = sdk.LocalRelayBuilder().addr("127.0.0.1").rate_limit(
        sdk.RateLimit(max_reqs=500, notes_per_minute=PLENTY)).build()
    await relay.run()
    print(await relay.url(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    relay.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
