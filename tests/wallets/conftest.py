"""Two wallets that can pay each other, of every kind, behind one small `Rig`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pylon.wallets.ledger import Ledger
from pylon.wallets.wallet import Wallet


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_800_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Rig:
    """`payer` has money and pays, `payee` makes invoices. `real`: the clock cannot be turned."""

    payee: Wallet
    payer: Wallet
    network: str
    expire: Callable[[], None]
    closers: list[Callable[[], None]] = field(default_factory=list)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledgers(openagents, clock):
    """`ledgers(name, **options)` opens the account `name` of one shared file."""
    opened = {}

    def open_account(name="a", **options):
        key = (name.encode() * 32)[:32]
        ledger = Ledger(openagents / "ledger.db", key, openagents / f"{name}.sock", label=name,
                        **{"clock": clock, **options})
        opened[len(opened)] = ledger
        return ledger
    yield open_account
    for ledger in opened.values():
        ledger.close()
