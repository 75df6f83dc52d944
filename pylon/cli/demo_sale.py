"""The sale of the demo: the stranger, who is a process of its own, and what it and its wallet see.

The stranger and the wallet talk from threads of their own into one queue; the main thread reads it.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from pylon.cli.demo_stage import Stage
from pylon.errors import PylonError
from pylon.units import format_sats
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger

KIND = 5050                         # text generation
START_SECS = 60                     # of a part, on a small machine
FEEDBACK = {"processing": "the node works on it", "success": "the node says that it is done"}

Tell = Callable[..., None]              # tell(step, text, **facts)


class Stranger:
    """The customer's process, and what it and its wallet have to tell, in order."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process = stage.start_program("stranger")
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # It ends with the process, which is the stage's to end.
        threading.Thread(target=self._read, args=(self._process.stdout,), name="stranger",
                         daemon=True).start()
        self.key: str = self.hear(time.monotonic() + START_SECS, "the stranger")["key"]

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._news.put(json.loads(line))

    def wallet_changed(self, payment_hash: str | None) -> None:
        self._news.put({"saw": "wallet"})

    def order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, until: float, what: str) -> dict[str, Any]:
        """The next piece of news. Raises PylonError after UNTIL (monotonic), Interrupted."""
        def news() -> dict[str, Any] | None:
            try:
                return self._news.get_nowait()
            except queue.Empty:
                return None
        return self._stage.wait_for(news, max(0.0, until - time.monotonic()), what)


class Sale:
    """One job as its customer sees it, from published to settled."""

    def __init__(self, stranger: Stranger, provider: str, purse: Ledger | None, tell: Tell,
                 facts: dict[str, Any]) -> None:
        self.stranger, self.provider, self.purse = stranger, provider, purse
        self.tell, self.facts = tell, facts     # `facts` gets job_id, amount_msats, answer
        self.payment_hash = ""
        self.settled = purse is None
        self.answered = False

    def go_through(self, secs: int) -> None:
        """Until the answer is there and paid for. Raises PylonError, Interrupted."""
        until = time.monotonic() + secs
        while not (self.answered and self.settled):
            news = self.stranger.hear(until, "the answer" if not self.answered else
                                      "the payment to be settled")
            if news.get("by", self.provider) != self.provider:
                continue                        # another provider, on a relay that is not ours
            getattr(self, "_" + news["saw"])(news)

    def _published(self, news: dict[str, Any]) -> None:
        self.facts["job_id"] = news["id"]
        self.tell("published", f"job {news['id'][:16]}, kind {KIND}: {news['prompt']}",
                  job_id=news["id"])

    def _feedback(self, news: dict[str, Any]) -> None:
        status, *extra = news["status"] or ["?"]
        if status == "payment-required":
            self._quoted(int(news["amount"][0]), news["amount"][1])
        elif status == "error":
            raise PylonError("the job was refused: " + " ".join(extra))
        elif status == "partial":
            self.tell("partial", news["content"] or " ".join(extra))
        else:
            self.tell(status, " ".join(extra) or FEEDBACK.get(status, "so says the node"))

    def _quoted(self, msats: int, invoice: str) -> None:
        if self.purse is None:
            raise PylonError("the node asks for money, and was to work for free")
        self.facts["amount_msats"] = msats
        self.tell("quoted", f"{format_sats(msats)}: {invoice[:28]}...", amount_msats=msats,
                  bolt11=invoice)
        outcome = self.purse.pay(invoice, msats, 0)
        if outcome.state == "failed":
            raise PylonError(f"the stranger's wallet did not pay: {outcome.reason}")
        balance = format_sats(self.purse.balance())
        self.tell("paid", f"by the stranger's wallet, which has {balance} left")
        self.payment_hash = bolt11.decode(invoice).payment_hash
        if outcome.state == "unknown":
            self.tell("held", "the money has left the stranger and is not the node's yet")
        self._wallet({})

    def _wallet(self, news: dict[str, Any]) -> None:
        """The stranger's wallet has rung."""
        if self.settled or not self.payment_hash or self.purse is None:
            return
        outcome = self.purse.lookup_payment(self.payment_hash)
        if outcome.state == "failed":
            raise PylonError(f"the money came back to the stranger: {outcome.reason}")
        if outcome.state == "paid":
            self.settled = True
            self.tell("settled", "the money is the node's; the preimage is the stranger's receipt",
                      preimage=outcome.preimage)

    def _result(self, news: dict[str, Any]) -> None:
        self.answered = True
        self.facts["answer"] = news["content"]
        self.tell("result", f"kind {news['kind']}, signed by the node, "
                            f"{len(news['content'])} characters")
