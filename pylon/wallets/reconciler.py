"""The reconciler: ends open payments by the wallet's own record of their hash, and nothing else.

Thread: reconciler. Woken by the wallet's pushes and after every call of the payer's; asks again by
itself, each time later. Resumes from the stored states after a crash; memory holds only timers.
Made, started and stopped by the daemon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pylon.errors import WalletError
from pylon.log import Repeated, short
from pylon.role import Role
from pylon.states import PaymentState
from pylon.store import payments, spending
from pylon.store.payments import PaymentRow
from pylon.wallets.payer import PREPARED_SECS, Payer
from pylon.wallets.wallet import Outcome, Wallet

log = logging.getLogger(__name__)

P = PaymentState
ASK_FIRST_SECS, ASK_LONGEST_SECS = 1.0, 300.0


class Reconciler(Role):
    """Ends open payments by the wallet's own record. Thread: reconciler."""

    def __init__(self, payer: Payer, on_decided: Callable[[PaymentRow], None] | None = None,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__("reconciler")
        self._payer, self._db = payer, payer.db
        self._on_decided = on_decided or _nothing_with
        self._monotonic = monotonic
        self._timers: dict[int, _Timer] = {}            # by payment id; this role's thread only
        self._knows_time = False                        # this boot's time was noted
        self._hints: set[str | None] = set()            # guarded by _hints_lock
        self._hints_lock = threading.Lock()
        self._trouble = Repeated(log, logging.WARNING)
        payer.on_called = self.wake

    def pushed(self, payment_hash: str | None) -> None:
        """The wallet says that something changed (None: it does not say what). Any thread."""
        with self._hints_lock:
            self._hints.add(payment_hash)
        self.wake()

    def recover(self, now: int) -> list[PaymentRow]:
        """What a crash left: RESERVED was never sent, SENT may have been. Needs no wallet.

        Returns the payments that failed by it. Called before anybody pays, and by each step for
        what a full disk or a bug interrupted while running.
        """
        if not self._knows_time:
            spending.keep_time(self._db, now, self._payer.clock.uptime())
            self._knows_time = True
        failed = []
        for row in self._open():
            if row.state == P.RESERVED:
                failed.append(payments.release_unsent(self._db, row.id, now))
            elif row.state == P.SENT:
                payments.unknown(self._db, row.id, "interrupted while it was sent", now)
        return [row for row in failed if row.state == P.FAILED]

    def step(self, now: int) -> None:
        self.look(now)
        self.wait(self._due_in())

    def look(self, now: int) -> None:
        """Ask about everything that is due; without waiting."""
        for row in self.recover(now):
            self._on_decided(row)
        with self._hints_lock:
            hints, self._hints = self._hints, set()
        rows = self._open()
        self._timers = {row.id: self._timers.get(row.id) or _Timer(self._monotonic())
                        for row in rows}
        for row in rows:
            if self.stopping:
                return
            if self._timers[row.id].due(self._monotonic()) or {row.payment_hash, None} & hints:
                self._look(row)

    def _open(self) -> list[PaymentRow]:
        """Open payments of the wallet's that nobody is calling about at this moment."""
        return [row for row in payments.open_intents(self._db)
                if row.wallet != payments.INTERNAL
                and not self._payer.busy_with(row.payment_hash)]

    def _look(self, row: PaymentRow) -> None:
        timer = self._timers[row.id]
        timer.again(self._monotonic())
        wallet = self._payer.wallet()
        if wallet is None or wallet.name != row.wallet:
            self._trouble.failed("payment %s: its wallet (%s) is not open", short(row.payment_hash),
                                 row.wallet)
            return
        try:
            outcome = self._outcome(wallet, row, timer)
        except WalletError as err:
            self._trouble.failed("payment %s: cannot be looked up: %s", short(row.payment_hash),
                                 err)
            return
        self._trouble.over("payments can be looked up again")
        done = self._payer.record(row, outcome)
        if not done.open:
            del self._timers[row.id]
            self._on_decided(done)

    def _outcome(self, wallet: Wallet, row: PaymentRow, timer: "_Timer") -> Outcome:
        """What the wallet's record says; nothing recorded means failed only once it is final."""
        outcome = wallet.lookup_payment(row.payment_hash)
        if outcome.state != "missing":
            return outcome
        if row.prepared and not timer.sent_again and self._may_send_again(row):
            try:
                return self._payer.ask(wallet, row)     # the very same request, never a second
            finally:
                timer.called_again(self._monotonic())
        alive_secs = PREPARED_SECS if row.prepared else 0       # a stored request may still act
        if timer.age(self._monotonic()) >= alive_secs + wallet.missing_final_secs:
            return Outcome("failed", reason="the wallet has no record of it")
        return Outcome("unknown", reason="the wallet has no record of it yet")

    def _may_send_again(self, row: PaymentRow) -> bool:
        sent_at = row.sent_at or 0
        return sent_at <= self._payer.clock.now() < sent_at + PREPARED_SECS // 2

    def _due_in(self) -> float | None:
        """Until the next payment is due; without any, until somebody rings."""
        if not self._timers:
            return None
        return max(0.0, min(timer.due_at for timer in self._timers.values()) - self._monotonic())


class _Timer:
    """When one open payment is asked about again; all in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.called_at = now            # the wallet was last called before this moment
        self.due_at = now
        self.interval = ASK_FIRST_SECS
        self.sent_again = False

    def due(self, now: float) -> bool:
        return now >= self.due_at

    def again(self, now: float) -> None:
        self.due_at = now + self.interval
        self.interval = min(self.interval * 2, ASK_LONGEST_SECS)

    def called_again(self, now: float) -> None:
        self.sent_again, self.called_at = True, now

    def age(self, now: float) -> float:
        return now - self.called_at


def _nothing_with(row: PaymentRow) -> None:
    """The callback of a reconciler that nobody listens to."""
