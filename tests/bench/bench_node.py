"""G7 and G8: the whole daemon while nothing happens, and what is left of ten thousand jobs."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pylon.nostr import nip90
from pylon.nostr.keys import Keys
from tests.bench import bench_jobs, frames
from tests.bench.bench_jobs import NullNode
from tests.bench.bench_relays import cpu_ms, rss_kib, switches, urls_of
from tests.bench.customer import Customer
from tests.bench.goal import Result
from tests.fakes.logged_backend import LoggedBackend
from tests.node import Node
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

RELAYS, IDLE_RELAYS = 5, 10
IDLE_SECS = 60
JOBS, PER_RELAY = 10_000, 2_000     # LocalRelay stalls a connection at about 6,000 events
SETTLE_SECS = 3                     # what is written after the last answer
CONFIG = """
relays = {relays}
require_payment = false
[provider]
max_concurrent_jobs = 4
max_queue = 1000
[admission]
jobs_per_minute = 1000000
jobs_per_minute_total = 1000000
[backends.ollama]
url = "{backend}"
"""


def run() -> list[Result]:
    return [*memory(), *idle(), after_many_jobs()]


@contextmanager
def serving(relay: LocalRelay, relays: int) -> Iterator[Node]:
    """A daemon that has a wallet, a backend over HTTP and this many relays."""
    backend = LoggedBackend()
    directory = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
    config = CONFIG.format(relays=urls_of(relay, relays), backend=backend.url)
    node = Node(directory, config).init().start()
    try:
        yield node
    finally:
        node.stop()
        backend.close()
        shutil.rmtree(directory, ignore_errors=True)


def pid_of(node: Node) -> int:
    assert node.daemon is not None
    return node.daemon.pid


def memory() -> list[Result]:
    with LocalRelay() as relay, serving(relay, RELAYS) as node:
        ask(relay, node, encrypted=False)
        plain = rss_kib(pid_of(node)) / 1024
        ask(relay, node, encrypted=True)
        ciphers = rss_kib(pid_of(node)) / 1024
    what = f"resident memory, {RELAYS} relays, 4 workers, ledger, served a job"
    return [Result("G7", what, plain, 30, unit="MB"),
            Result("G7", "the same after an encrypted job", ciphers, 40, unit="MB")]


def ask(relay: LocalRelay, node: Node, encrypted: bool) -> None:
    """One job, from asking to its result."""
    customer, now = Keys(frames.secrets()[0]), int(time.time())
    provider = node.json("whoami")["pubkey"]
    job = nip90.build_request(customer, 5050, [("hello", "text")], {}, None, [], provider,
                              "nip44" if encrypted else "", "text/plain", now)
    with Customer(relay.url, {"kinds": [6050], "limit": 0}) as wire:
        wire.one_by_one([job])


def idle() -> list[Result]:
    with LocalRelay() as relay, serving(relay, IDLE_RELAYS) as node:
        ask(relay, node, encrypted=False)
        pause(SETTLE_SECS)
        pid = pid_of(node)
        switches_before, cpu_before = switches(pid), cpu_ms(pid)
        pause(IDLE_SECS)
        per_sec = (switches(pid) - switches_before) / IDLE_SECS
        cpu = (cpu_ms(pid) - cpu_before) * 20 / IDLE_SECS
    return [Result("G8", f"the whole daemon, context switches a second, {IDLE_RELAYS} relays",
                   per_sec, 1.0, unit="/s"),
            Result("G8", "its CPU in 20 s", cpu, 2.0, unit="ms")]


def pause(secs: float) -> None:
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started >= secs, secs + 5)


def after_many_jobs() -> Result:
    directory = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
    with LocalRelay() as relay:
        node = NullNode(directory, bench_jobs.CONFIG.format(url=relay.url)).init().start()
        try:
            serve(relay, 200)
            before = rss_kib(pid_of(node))
            for _ in range(JOBS // PER_RELAY):
                serve(relay, PER_RELAY)
                relay.stop()
                relay.start()
                wait_for(lambda: connected(node), 60)
            growth = 100 * (rss_kib(pid_of(node)) - before) / before
        finally:
            node.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return Result("G7", f"growth of that over {JOBS:,} jobs", growth, 15, unit="%",
                  note=f"from {before / 1024:.1f} MB")


def serve(relay: LocalRelay, count: int) -> None:
    with Customer(relay.url, {"kinds": [6050], "limit": 0}) as customer:
        customer.in_flight(bench_jobs.fresh_events(count, kind=5050))


def connected(node: Node) -> bool:
    return all(state["connected"] for state in node.json("status")["relay_states"])
