"""A pool that is connected and has nothing to do, to be weighed: `python -m tests.bench.idle_pool
CA_FILE URL...` prints `ready N` when all N relays are connected; ends when its stdin does."""

from __future__ import annotations

import sys

from pylon import config
from pylon.nostr import keys
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from tests.waiting import wait_for


def main(ca_file: str, urls: list[str]) -> None:
    node = keys.generate()
    pool = Pool(config.from_values({"relay": {"ca_file": ca_file}}), lambda: [node])
    pool.subscribe(Subscription("jobs", [{"kinds": [5050]}], lambda relay, events: None))
    pool.start(urls)
    wait_for(lambda: len(pool.connected()) == len(urls), 60)
    print(f"ready {len(urls)}", flush=True)
    sys.stdin.buffer.read()
    pool.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
