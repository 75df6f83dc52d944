"""G4 for a job that is paid for: quoted, paid with the ledger, answered, booked.

It has no limit of its own in the list of goals: it is allowed what a free job is, for three
events instead of two, and the wallet's two calls.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger
from tests.bench import bench_jobs
from tests.bench.bench_jobs import NullNode
from tests.bench.customer import Customer
from tests.bench.goal import Result, percentile, ratio
from tests.parts.relays import LocalRelay

ROUNDS = 3
JOBS = 100
CONFIG = """
relays = ["{url}"]
min_price_msats = 2000
[provider]
max_concurrent_jobs = 4
max_queue = 1000
feedback = ["error"]
announce = false
[admission]
jobs_per_minute = 1000000
jobs_per_minute_total = 1000000
quotes_per_customer = 1000
max_open_quotes = 1000
[pricing]
escrow = "{escrow}"
"""


def run() -> list[Result]:
    results = []
    for escrow, what in (("off", "a paid job"), ("on", "a job with held money")):
        rounds = [one_round(escrow) for _ in range(ROUNDS)]
        took = [one["job"] for one in rounds]
        allowed = [2.0 * 3 * one["echo"] + one["wallet"] for one in rounds]
        results.append(Result(
            "G4", f"{what}, of 2 x three relay echoes and its wallet calls",
            ratio(took, allowed), 1.0, note=f"{statistics.median(took) * 1e3:.2f} ms"))
    return results


def one_round(escrow: str) -> dict[str, float]:
    directory = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
    with LocalRelay() as relay:
        made = bench_jobs.fresh_events(JOBS, kind=1)
        with Customer(relay.url, {"kinds": [1], "limit": 0}) as customer:
            echo = percentile(customer.one_by_one(made), 50)
        node = NullNode(directory, CONFIG.format(url=relay.url, escrow=escrow)).init().start()
        purse = Ledger(directory / "ledger.db", b"\x07" * 32, directory / "purse.sock")
        try:
            purse.fund(10**9)
            invoicing = percentile([make_invoice(purse, n) for n in range(JOBS)], 50)
            took, paying = paid_jobs(relay.url, purse)
        finally:
            purse.close()
            node.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return {"job": took, "echo": echo, "wallet": invoicing + paying}


def make_invoice(purse: Ledger, number: int) -> float:
    started = time.perf_counter()
    purse.make_invoice(2000, "measured", 600, f"bench-{number}")
    return time.perf_counter() - started


def paid_jobs(url: str, purse: Ledger) -> tuple[float, float]:
    """Medians of a job's whole way, and of the customer's payment in it."""
    took, paying = [], []
    with Customer(url, {"kinds": [7000, 6050], "limit": 0}) as customer:
        for event in bench_jobs.fresh_events(JOBS, kind=5050):
            started = time.perf_counter()
            customer.say(event)
            invoice = next(tag[2] for tag in customer.hear_event()["tags"] if tag[0] == "amount")
            before = time.perf_counter()
            outcome = purse.pay(invoice, bolt11.decode(invoice).amount_msats or 0, 0)
            paying.append(time.perf_counter() - before)
            assert outcome.state in ("paid", "unknown"), outcome        # unknown: it is held
            assert customer.hear_event()["kind"] == 6050
            took.append(time.perf_counter() - started)
            customer.drain()
    return percentile(took, 50), percentile(paying, 50)
