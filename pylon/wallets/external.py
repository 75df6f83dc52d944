"""Looking at the wallet so that its balance, its history and the books mean the same moment.

`absorb` brings what moved without us into the books (`store.external`). The role `auditor` does
it at the start, every hour, and every minute while the wallet covers too little or is silent.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pylon.errors import PylonError
from pylon.log import Repeated
from pylon.role import Role
from pylon.store import books, external, spending
from pylon.store.database import Database
from pylon.store.external import Cover, Moved
from pylon.store.spending import Uptime
from pylon.units import format_sats
from pylon.wallets.wallet import Movement, Wallet

log = logging.getLogger(__name__)

LOOK_TRIES = 5
CHECK_SECS, CHECK_AGAIN_SECS = 3600, 60


@dataclass(frozen=True, slots=True)
class View:
    """The wallet at one moment, and the books' version at it; `quiet` unless something moved."""

    balance_msats: int
    movements: list[Movement]       # oldest first
    version: int
    quiet: bool


def look(db: Database, wallet: Wallet, since: int) -> View:
    """Balance and history from `since` on. Raises WalletError."""
    for attempt in range(LOOK_TRIES):
        version, balance = books.version(db), wallet.balance()
        movements = wallet.history(since)[::-1]
        quiet = (wallet.balance(), books.version(db)) == (balance, version)
        if quiet or attempt == LOOK_TRIES - 1:
            break
    return View(balance, movements, version, quiet)


def absorb(db: Database, wallet: Wallet, now: int) -> Cover:
    """Book what moved without us; stop spending where the wallet covers too little.

    Raises WalletError where the wallet does not answer; then nothing changes.
    """
    for _ in range(LOOK_TRIES):
        view = look(db, wallet, external.since(db))
        cover = take(db, wallet.name, view, now)
        if cover is not None:
            return cover
    return external.cover(db, view.balance_msats)       # it never stood still


def take(db: Database, wallet: str, view: View, now: int) -> Cover | None:
    """Book what a view shows; None where the books went on meanwhile."""
    if not view.quiet:
        return None
    return external.absorb(db, wallet, view.balance_msats, finished(view.movements), view.version,
                           now)


def finished(movements: list[Movement]) -> list[Moved]:
    """What really moved, oldest first, movements of one hash numbered."""
    times = Counter[tuple[bool, str, int, int]]()
    moved = []
    for movement in movements:
        if movement.state != "paid":
            continue
        at, amount = (0, 0) if movement.payment_hash else (movement.at, movement.amount_msats)
        key = (movement.incoming, movement.payment_hash, at, amount)
        times[key] += 1
        moved.append(Moved(movement.payment_hash, movement.incoming, movement.amount_msats,
                           movement.fee_msats, movement.at, times[key]))
    return moved


class Auditor(Role):
    """Keeps the books in step with the wallet. Thread: auditor; woken by the clock only."""

    def __init__(self, db: Database, wallet: Callable[[], Wallet | None]) -> None:
        super().__init__("auditor")
        self._db, self._wallet = db, wallet
        self._trouble = Repeated(log, logging.WARNING)

    def step(self, now: int) -> None:
        spending.keep_time(self._db, now, Uptime.read())
        self.wait(CHECK_SECS if self._covered(now) else CHECK_AGAIN_SECS)

    def _covered(self, now: int) -> bool:
        wallet = self._wallet()
        if wallet is None:
            return False
        try:
            cover = absorb(self._db, wallet, now)
        except PylonError as err:
            self._trouble.failed("audit: the wallet cannot be read: %s", err)
            return False
        self._trouble.over("audit: the wallet can be read again")
        if cover.underfunded:
            log.error("audit: the wallet has %s less than belongs to agents and customers; "
                      "spending is stopped", format_sats(-cover.owner_msats))
        return not cover.underfunded
