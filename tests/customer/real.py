"""A real node that only buys, for black-box tests of the buying side."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pylon.control import client
from pylon.errors import ControlError
from tests.node import Node
from tests.waiting import wait_for

CONFIG = """
relays = ["{relay}"]
[customer]
quote_secs = 1
max_sats_per_job = 100
daily_limit_sats = 100000
[relay]
backoff_max_secs = 2
"""


class Buyer(Node):
    """A node that only buys."""

    def _command(self, *words):
        if words and words[0] == "start":
            words = (*words, "-m", "host")
        return super()._command(*words)

    def start(self, ready=True, **env):
        """The socket answers before every part is there: wait for the last one."""
        super().start(ready, **env)
        if ready:
            wait_for(self.serves, 20)
        return self

    def serves(self):
        try:
            return client.call(self.home, "JobList") and self.home.pid.exists()
        except ControlError:
            return False

    def buy(self, **asked):
        """Submit over the socket; the order's id."""
        return client.call(self.home, "JobSubmit", {
            "prompt": "What is the capital of France?", "auto_pay": True, "timeout_secs": 3,
            "first": True, **asked})["id"]

    def order(self, order_id):
        return client.call(self.home, "JobStatus", {"id": order_id})

    def end_of(self, order_id, timeout_secs=20):
        wait_for(lambda: self.order(order_id)["ended_at"], timeout_secs, "the order's end")
        return self.order(order_id)

    def balance(self):
        return client.call(self.home, "WalletBalance", timeout_secs=15)["wallet_msats"]

    def paid(self, order_id):
        """What left the wallet for this order."""
        payment = self.order(order_id)["payment"]
        return payment["amount_msats"] if payment and payment["state"] != "failed" else 0


@contextlib.contextmanager
def running(relay_url: str, sats: int = 100_000) -> Iterator[Buyer]:
    """A started buyer with money, in a place of its own."""
    place = Path(tempfile.mkdtemp(prefix="py", dir="/tmp"))
    node = Buyer(place, CONFIG.format(relay=relay_url)).init().start()
    try:
        client.call(node.home, "WalletFund", {"amount_msats": sats * 1000}, 15)
        yield node
        assert node.stop() == 0
    finally:
        node.stop()
        shutil.rmtree(place, ignore_errors=True)
