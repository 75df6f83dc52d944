"""A program that pays one invoice from an agent's account over a real ledger, and says how.

`python -m tests.wallets.pay_once HOME BOLT11 [ACTION]`. Tests kill it at the points of its way.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pylon.home import Home
from pylon.store.database import Database
from pylon.wallets.ledger import Ledger
from pylon.wallets.payer import Payer, Proposal
from tests.wallets.paying import AGENT

KEY = b"\x31" * 32


def open_ledger(home: Home, key: bytes = KEY) -> Ledger:
    return Ledger(home.root.parent / "ledger.db", key, home.root / f"{key[0]:x}.sock")


def proposal(text: str, action_key: str = "action-1") -> Proposal:
    return Proposal(action_key, AGENT, "infer", text)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    ledger = open_ledger(home)
    payer = Payer(Database(home.database), lambda: ledger, "regtest")
    print("ready", flush=True)
    print(payer.pay(proposal(*sys.argv[2:])).state, flush=True)


if __name__ == "__main__":
    main()
