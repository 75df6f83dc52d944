"""A payer on a real store and a scripted wallet, with clocks that only a test moves."""

from __future__ import annotations

from pylon.store import books, checks, payments
from pylon.store.database import Database
from pylon.store.spending import Uptime
from pylon.wallets.payer import Payer, Proposal
from pylon.wallets.reconciler import Reconciler
from tests.fakes.scripted_wallet import ScriptedWallet, foreign_invoice, hash_of

NOW = 1_800_000_000
AGENT = books.agent_account("npub1agent")


class Clock:
    """`step` sets the wall clock; `pass_by` is real time, for every clock."""

    def __init__(self) -> None:
        self.wall, self.secs, self.boot = NOW, 1000, "boot-1"

    def now(self) -> int:
        return self.wall

    def uptime(self) -> Uptime:
        return Uptime(self.boot, self.secs)

    def monotonic(self) -> float:
        return float(self.secs)

    def pass_by(self, secs: int) -> None:
        self.wall, self.secs = self.wall + secs, self.secs + secs

    def step(self, secs: int) -> None:
        self.wall += secs

    def reboot(self) -> None:
        self.boot, self.secs = self.boot + "+", 5


class Purse:
    """Store, wallet, payer and reconciler; `crash` makes all but the wallet anew."""

    def __init__(self, home) -> None:
        self.home = home
        self.clock = Clock()
        self.wallet = ScriptedWallet(clock=self.clock.now)
        self.decided: list = []
        self.db = Database(home.database)
        self.boot()

    def boot(self) -> None:
        self.payer = Payer(self.db, lambda: self.wallet, "regtest", self.clock)
        self.reconciler = Reconciler(self.payer, self.decided.append, self.clock.monotonic)
        self.reconciler.wait = lambda timeout_secs: True

    def crash(self) -> None:
        self.db.close()
        self.db = Database(self.home.database)
        self.boot()
        self.reconciler.step(self.clock.now())

    def fund(self, account=AGENT, msats=1_000_000) -> None:
        """Play money from the owner's wallet into an account of the books."""
        with self.db.transaction(durable=True) as tx:
            books.post(tx, "test-funds", f"{account}-{books.balance(self.db, account)}",
                       {books.EXTERNAL: -msats, account: msats}, self.clock.now())

    def proposal(self, number=1, amount_msats=10_000, **fields) -> Proposal:
        values = {"action_key": f"action-{number}", "account": AGENT, "purpose": "infer",
                  "bolt11": foreign_invoice(number, amount_msats, at=self.clock.now()), **fields}
        return Proposal(**values)

    def pay(self, number=1, **fields):
        return self.payer.pay(self.proposal(number, **fields))

    def reconcile(self, secs=0) -> None:
        self.clock.pass_by(secs)
        self.reconciler.step(self.clock.now())

    def row(self, number=1):
        return payments.by_hash(self.db, hash_of(number))

    def balance(self, account=AGENT) -> int:
        return books.balance(self.db, account)

    def whole(self) -> None:
        """The books agree with themselves, and no hash was paid twice."""
        assert checks.all_findings(self.db) == []
        assert sum(books.balances(self.db).values()) == 0
        assert all(times == 1 for times in self.wallet.paid().values())

    def close(self) -> None:
        self.db.close()
