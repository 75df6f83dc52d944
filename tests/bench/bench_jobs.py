"""G4, G5 and G12: a job's way through the node, beside what the relay alone can do.

LocalRelay stalls a publisher's connection at about 6,000 events, so every round has a relay and
a node of its own and stays below that.
"""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from tests.bench import frames
from tests.bench.customer import Customer
from tests.bench.goal import Result, percentile, ratio
from tests.node import Node
from tests.parts.relays import LocalRelay

ROUNDS = 3
ONE_BY_ONE = 200
WARM_UP = 50
TOGETHER = 1500
PINGS = 200
SERIAL = itertools.count()
CONFIG = """
relays = ["{url}"]
require_payment = false
enable_payments = false
[provider]
max_concurrent_jobs = 4
max_queue = 1000
feedback = ["processing", "error"]
announce = false
[admission]
jobs_per_minute = 1000000
jobs_per_minute_total = 1000000
"""


class NullNode(Node):
    """A node whose backend takes no time."""

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tests.bench.null_node", "--home", str(self.home.root),
                *words]


def run() -> list[Result]:
    rounds = [one_round() for _ in range(ROUNDS)]

    def all_of(name: str) -> list[float]:
        return [one[name] for one in rounds]

    p50, p99 = (statistics.median(all_of(name)) * 1e3 for name in ("job_p50", "job_p99"))
    jobs, echoes = (statistics.median(all_of(name)) for name in ("jobs", "echoes"))
    return [
        Result("G4", "a job's round trip, of two relay echoes",
               ratio(all_of("job_p50"), all_of("two_echoes")), 2.0,
               note=f"{p50:.2f} ms; echo {statistics.median(all_of('two_echoes')) * 500:.2f} ms"),
        Result("G4", "the same, 99th percentile", p99, 4.0, unit="ms"),
        Result("G5", "200 jobs in flight: 3 x jobs/s, of the relay's own events/s",
               3 * ratio(all_of("jobs"), all_of("echoes")), 0.80, at_least=True,
               note=f"{jobs:,.0f} jobs/s; relay alone {echoes:,.0f} events/s"),
        Result("G12", "the control socket under that load, 99th percentile",
               statistics.median(all_of("ping_p99")) * 1e3, 10.0, unit="ms"),
        Result("G12", "the same, median, of the idle node's",
               ratio(all_of("ping_p50"), all_of("idle_p50")), 5.0,
               note=f"idle {statistics.median(all_of('idle_p50')) * 1e3:.2f} ms")]


def one_round() -> dict[str, float]:
    directory = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
    with LocalRelay() as relay:
        figures = echo_round(relay.url)
    with LocalRelay() as relay:
        node = NullNode(directory, CONFIG.format(url=relay.url)).init().start()
        try:
            figures.update(job_round(relay.url, node))
        except BaseException:
            print(node.tail(), file=sys.stderr)
            raise
        finally:
            node.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return figures


def echo_round(url: str) -> dict[str, float]:
    """The relay alone: one publishes, the other hears."""
    made = fresh_events(WARM_UP + ONE_BY_ONE + TOGETHER, kind=1)
    with Customer(url, {"kinds": [1], "limit": 0}) as customer:
        customer.one_by_one(made[:WARM_UP])
        took = customer.one_by_one(made[WARM_UP:WARM_UP + ONE_BY_ONE])
        echoes = customer.in_flight(made[WARM_UP + ONE_BY_ONE:])
    return {"two_echoes": 2 * percentile(took, 50), "echoes": echoes}


def job_round(url: str, node: Node) -> dict[str, float]:
    made = fresh_events(WARM_UP + ONE_BY_ONE + TOGETHER, kind=5050)
    idle = pings(node, PINGS)
    with Customer(url, {"kinds": [6050], "limit": 0}) as customer:
        customer.one_by_one(made[:WARM_UP])
        took = customer.one_by_one(made[WARM_UP:WARM_UP + ONE_BY_ONE])
        over = threading.Event()
        busy: list[float] = []
        pinger = threading.Thread(target=lambda: busy.extend(pings(node, 10**9, over)))
        pinger.start()
        try:
            jobs = customer.in_flight(made[WARM_UP + ONE_BY_ONE:])
        finally:
            over.set()
            pinger.join()
    return {"job_p50": percentile(took, 50), "job_p99": percentile(took, 99), "jobs": jobs,
            "idle_p50": percentile(idle, 50), "ping_p50": percentile(busy, 50),
            "ping_p99": percentile(busy, 99)}


def fresh_events(count: int, kind: int) -> list[Event]:
    """Events that no call before made, in the same second neither: a relay echoes none twice."""
    now = int(time.time())
    authors = [Keys(key) for key in frames.secrets()]
    return [authors[n % len(authors)].sign(
        kind, "", [["i", f"What is {next(SERIAL)} times two?", "text"],
                   ["output", "text/plain"]], now) for n in range(count)]


def pings(node: Node, count: int, over: threading.Event | None = None) -> list[float]:
    """Seconds of each `"Ping"` on the control socket, a connection for each."""
    took = []
    for _ in range(count):
        started = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(node.home.socket))
            control.sendall(b'"Ping"\n')
            if json.loads(control.recv(4096)) != "Pong":
                raise AssertionError("no Pong")
        took.append(time.perf_counter() - started)
        if over is not None and over.wait(0.005):
            break
    return took
