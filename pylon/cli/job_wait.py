"""Following an order to its end: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pylon.cli import terminal
from pylon.cli.terminal import printable
from pylon.control import client
from pylon.errors import EXIT_FAILED, EXIT_OK
from pylon.home import Home
from pylon.units import format_sats

FOLLOW_SECS = 3600                  # how long the daemon follows an order unless told
GRACE_SECS = 60.0                   # then it has surely said that the time is over


class Waiting:
    """One order that is waited for. `stream`: print the answer as it is made."""

    def __init__(self, home: Home, order_id: str, as_json: bool, stream: bool = False) -> None:
        self.home, self.json, self.order_id = home, as_json, order_id
        self.stream = stream and not as_json
        self.shown = ""                 # of the answer
        self.ended: str | None = None
        self.reason = ""

    def run(self, asked: dict[str, Any]) -> int:
        """`asked` goes with JobFollow. Raises NotRunning, ControlError."""
        patience = asked.get("timeout_secs", FOLLOW_SECS) + GRACE_SECS
        try:
            for update in client.stream(self.home, "JobFollow", {"id": self.order_id, **asked},
                                        patience):
                self.take(update)
        except KeyboardInterrupt:
            terminal.tell(f"\nnot waiting any more; the order goes on: pylon job result "
                          f"{self.order_id[:16]}")
            raise
        return self.leave()

    def take(self, update: dict[str, Any]) -> None:
        event = update["event"]
        if event == "partial":
            self.partial(update["text"])
        elif event == "state":
            self.ended = update["state"]
            self.reason = update["error"] or ""
        elif event in ("completed", "failed", "expired", "cancelled"):
            self.ended, self.reason = event, update.get("reason", "")
        elif event == "timeout":
            self.reason = "no result yet"
        elif event in _TALK and not self.json:
            terminal.tell(_TALK[event](update))

    def partial(self, text: str) -> None:
        if self.stream:
            self.shown += text
            sys.stdout.write(printable(text))
            sys.stdout.flush()

    def leave(self) -> int:
        order = client.call(self.home, "JobStatus", {"id": self.order_id})
        if self.json:
            terminal.print_json(order)
        elif order["state"] == "completed":
            self.answer(order["result"] or "")
            terminal.tell(_bill(order))
        else:
            if self.shown:
                terminal.say()
            terminal.tell(f"pylon: order {order['id'][:16]} {_WHY.get(order['state'], 'goes on')}"
                          f": {order['error'] or self.reason or 'no result yet'}"
                          + (f" [{order['code']}, pylon-troubleshooting(7)]" if order["code"]
                             else ""))
        return EXIT_OK if order["state"] == "completed" else EXIT_FAILED

    def answer(self, result: str) -> None:
        """What was not shown yet, or all of it where it came out differently."""
        if self.shown and result.startswith(self.shown):
            terminal.say(printable(result[len(self.shown):]))
        else:
            terminal.say(("\n" if self.shown else "") + printable(result))


_WHY = {"failed": "failed", "expired": "has expired", "cancelled": "was cancelled"}


def _provider(update: dict[str, Any]) -> str:
    return str(update.get("provider") or "?")[:8]


_TALK: dict[str, Callable[[dict[str, Any]], str]] = {
    "sent": lambda u: "sent: a relay has it",
    "processing": lambda u: f"{_provider(u)} works on it",
    "quote": lambda u: f"{_provider(u)} asks {format_sats(u['amount_msats'])}",
    "refused": lambda u: f"{_provider(u)} is out ({u['code']}): {printable(u['reason'])}",
    "asked-next": lambda u: f"asking {_provider(u)} next",
    "accepted": lambda u: f"chosen: {_provider(u)} for {format_sats(u['amount_msats'])} "
                          f"({u['why']})",
    "paid": lambda u: f"paid {format_sats(u['amount_msats'])}, fee "
                      f"{format_sats(u['fee_msats'] or 0)}",
    "payment-failed": lambda u: f"not paid: {printable(u['reason'])}",
    "payment-required": lambda u: f"{_provider(u)} wants {format_sats(u['amount_msats'])}: allow "
                                  f"it with: pylon job pay {u['id'][:16]}\n{u['bolt11']}",
}


def _bill(order: dict[str, Any]) -> str:
    paid = order["payment"]
    cost = "free"
    if paid is not None:
        cost = format_sats(paid["amount_msats"] + (paid["fee_msats"] or 0))
        cost += "" if paid["state"] == "succeeded" else " (held until it is delivered)"
    return f"done in {order['ended_at'] - order['created_at']} s by {order['provider']}: {cost}"
