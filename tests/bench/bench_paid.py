"""G4 for a job that is paid for: quoted, paid with the ledger, answered, booked.

It has no limit of its own in the list of goals: it is allowed what a free job is, for three
events instead of two, and the wallet's two calls. Beside it, turn by turn on the same node: a free
job (of a trusted customer), a relay echo, and an invoice made and never used.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger
from tests.bench import bench_jobs
from tests.bench.bench_jobs import NullNode
from tests.bench.customer import Customer
from tests.bench.goal import Result, percentile, ratio, seconds
from tests.parts.relays import LocalRelay

ROUNDS = 3
JOBS = 100
WARM_UP = 10
FRIEND = Keys(b"\x09" * 32)
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
trusted = ["{trusted}"]
[pricing]
escrow = "{escrow}"
"""


def run() -> list[Result]:
    results = []
    for escrow, what in (("off", "a paid job"), ("on", "a job with held money")):
        rounds = [one_round(escrow) for _ in range(ROUNDS)]
        took = [one["paid"] for one in rounds]
        wallet = [one["invoice"] + one["payment"] for one in rounds]
        results.append(Result(
            "G4", f"{what}, of 2 x three relay echoes and its wallet calls",
            ratio(took, [6.0 * one["echo"] + calls for one, calls in zip(rounds, wallet)]), 1.0,
            note=f"{middle(took)}; wallet {middle(wallet)}"))
        results.append(Result(
            "G4", f"{what}, of two free ones and its wallet calls",
            ratio(took, [2.0 * one["free"] + calls for one, calls in zip(rounds, wallet)]), 1.0,
            note=f"free {middle([one['free'] for one in rounds])}"))
    return results


def middle(values: list[float]) -> str:
    return f"{statistics.median(values) * 1e3:.2f} ms"


def one_round(escrow: str) -> dict[str, float]:
    """The medians of a round, by name."""
    directory = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
    with LocalRelay() as relay:
        node = NullNode(directory, CONFIG.format(url=relay.url, escrow=escrow,
                                                 trusted=FRIEND.npub)).init().start()
        purse = Ledger(directory / "ledger.db", b"\x07" * 32, directory / "purse.sock")
        try:
            purse.fund(10**9)
            with Customer(relay.url, {"kinds": [1, 7000, 6050], "limit": 0}) as customer:
                turns(customer, purse, WARM_UP)
                took = turns(customer, purse, JOBS)
        finally:
            purse.close()
            node.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return {name: percentile(values, 50) for name, values in took.items()}


def turns(customer: Customer, purse: Ledger, count: int) -> dict[str, list[float]]:
    """Seconds of each thing, one after the other in every turn."""
    took: dict[str, list[float]] = {
        "echo": [], "free": [], "paid": [], "payment": [], "invoice": []}
    echoes = bench_jobs.fresh_events(count, kind=1)
    for number, event in enumerate(bench_jobs.fresh_events(count, kind=5050)):
        took["echo"] += customer.one_by_one([echoes[number]])
        took["free"] += customer.one_by_one([free_job(event)])
        payment, whole = paid_job(customer, purse, event)
        took["payment"].append(payment)
        took["paid"].append(whole)
        took["invoice"].append(seconds(
            lambda: purse.make_invoice(2000, "measured", 600, event.id)))
    return took


def free_job(event: Event) -> Event:
    """The same job, of the customer who need not pay."""
    return FRIEND.sign(event.kind, event.content, event.tags, event.created_at)


def paid_job(customer: Customer, purse: Ledger, event: Event) -> tuple[float, float]:
    """Seconds of the customer's payment, and of all from the request to the result."""
    started = time.perf_counter()
    customer.say(event)
    invoice = next(tag[2] for tag in customer.hear_event()["tags"] if tag[0] == "amount")
    before = time.perf_counter()
    outcome = purse.pay(invoice, bolt11.decode(invoice).amount_msats or 0, 0)
    payment = time.perf_counter() - before
    assert outcome.state in ("paid", "unknown"), outcome        # unknown: it is held
    assert customer.hear_event()["kind"] == 6050
    whole = time.perf_counter() - started
    customer.drain()
    return payment, whole
