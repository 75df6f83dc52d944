"""Orders as a person is shown them, from the daemon or from the store itself."""

from __future__ import annotations

import time
from typing import Any

from pylon.cli import terminal
from pylon.cli.terminal import printable
from pylon.control import client
from pylon.errors import NotRunning, PylonError
from pylon.home import Home
from pylon.units import format_sats

MARKS = {"new": "[pend]", "sent": "[pend]", "accepted": "[proc]", "paid": "[proc]",
         "completed": "[done]", "failed": "[fail]", "expired": "[fail]", "cancelled": "[fail]"}


def ask(home: Home, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """What only looks: from the daemon, else from the store itself."""
    try:
        return dict(client.call(home, name, args))
    except NotRunning:
        return _look(home, name, args)


def _look(home: Home, name: str, args: dict[str, Any]) -> dict[str, Any]:
    from pylon.customer import show             # late: a daemon mostly answers without all this
    from pylon.store import orders              # late: as above
    from pylon.store.database import ReadOnly   # late: as above
    if not home.database.exists():
        raise PylonError(f"{home.database} does not exist: this node has ordered nothing yet")
    db = ReadOnly(home.database)
    try:
        if name == "JobList":
            return {"orders": [show.summary(row) for row in orders.latest(db, args["limit"])]}
        return show.order(db, show.find(db, args["id"]))
    finally:
        db.close()


def show(order: dict[str, Any]) -> None:
    say = terminal.say
    say(f"order      {order['id']}")
    say(f"state      {order['state']}" + (f" ({order['code']}: {printable(order['error'])})"
                                          if order["code"] else ""))
    say(f"kind       {order['kind']}" + (f", model {order['model']}" if order["model"] else "")
        + (", encrypted" if order["encrypted"] else ""))
    say(f"submitted  {when(order['created_at'])}")
    say(f"prompt     {head(order['prompt'])}")
    if order["payment"]:
        say(f"payment    {format_sats(order['payment']['amount_msats'])}, "
            f"{order['payment']['state']}")
    for one in order["providers"]:
        say(f"provider   {one['provider']}  {_deal(one)}")
    if order["result"] is not None:
        say(f"result     {len(order['result'])} characters: pylon job result {order['id'][:16]}")


def _deal(one: dict[str, Any]) -> str:
    facts = []
    if one["amount_msats"]:
        facts.append(f"asked {format_sats(one['amount_msats'])}")
    elif one["offered_at"]:
        facts.append("works without a price")
    if one["paid_msats"]:
        facts.append("was paid")
    if one["delivered_at"]:
        facts.append("delivered")
    if one["code"]:
        facts.append(f"out: {printable(one['reason'] or one['code'])}")
    return ", ".join(facts) or "has not answered"


def line(order: dict[str, Any]) -> str:
    """One line of a list, in the first Pylon's form."""
    return (f"{MARKS[order['state']]} {when(order['created_at'])}  {order['id'][:16]}  "
            f"{head(order['prompt'], 30)}")


def when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def head(text: str | None, most: int = 60) -> str:
    """The beginning of a text in one line, cut between characters."""
    line = " ".join((text or "(forgotten)").split())
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return line if len(line) <= most else line[:most - 1] + "…"
