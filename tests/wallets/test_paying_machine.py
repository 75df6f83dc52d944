"""Paying under everything at once: proposals, crashes, wallets that are late or lie, clock steps.

Real time is kept beside the clocks that the program sees. Whatever the order of events: an action
pays at most once, a hash is paid at most once, the limit holds in every real window of 24 hours,
the books sum to zero and agree with themselves, and nobody spends what is not theirs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pylon.errors import Refused
from pylon.home import Home
from pylon.states import PaymentState
from pylon.store import books, checks, payments
from pylon.store.spending import Cap, Limits
from pylon.wallets import payer
from tests.fakes.scripted_wallet import MANNERS, ScriptedWallet, foreign_invoice, hash_of
from tests.wallets.paying import AGENT, Purse

P = PaymentState
DAY = 86_400
FUNDS = 400_000
EXAMPLES = int(os.environ.get("PAYING_EXAMPLES", "40"))


class Death(BaseException):
    """SIGKILL at a point of the way."""


class Paying(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.place = Path(tempfile.mkdtemp(prefix="pm", dir="/tmp"))
        home = Home(self.place / "pylon")
        home.create()
        self.purse = Purse(home)
        self.purse.fund(AGENT, FUNDS)
        self.purse.reconciler.step(self.purse.clock.now())      # as a daemon does when it starts
        self.limit = 100_000
        self.real = 0                       # seconds that truly passed
        self.reserved: list[tuple[int, int]] = []   # (payment id, when in real time)
        self.late_since: dict[str, int] = {}

    def teardown(self):
        if hasattr(self, "purse"):
            self.purse.close()
            shutil.rmtree(self.place)

    # -- what happens --

    @rule(action=st.integers(1, 5), invoice=st.integers(1, 8),
          amount=st.sampled_from([1_000, 5_000, 20_000, 60_000, 200_000]),
          dies_at=st.sampled_from([None, None, None, "A2", "A3", "called", "A5", "A6"]),
          manner=st.sampled_from(MANNERS))
    def propose(self, action, invoice, amount, dies_at, manner):
        """Also the owner's approval, and a model that asks again and again: the same way."""
        self.purse.wallet.manner = manner
        known = {row.id for row in self.rows()}
        text = foreign_invoice(invoice, amount, at=self.purse.clock.now())
        proposal = self.purse.proposal(invoice, action_key=f"action-{action}", bolt11=text,
                                       limits=Limits(caps=(Cap("over-day-limit", self.limit),)))
        try:
            self.with_death(dies_at, lambda: self.purse.payer.pay(proposal))
        except Refused:
            assert {row.id for row in self.rows()} == known
        except Death:
            self.note_new(known)
            self.purse.crash()
        self.note_new(known)

    def note_new(self, known):
        for row in self.rows():
            if row.id not in known and row.id not in {id for id, _ in self.reserved}:
                self.reserved.append((row.id, self.real))
                assert self.spent_in_window() <= self.limit

    def with_death(self, point, act):
        hit, wallet = payer.hit, self.purse.wallet

        def deadly(name):
            if name == point:
                raise Death

        def pay(*args):
            try:
                return ScriptedWallet.pay(wallet, *args)
            finally:
                if point == "called":
                    raise Death
        payer.hit, wallet.pay = deadly, pay
        try:
            return act()
        finally:
            payer.hit = hit
            del wallet.pay

    @rule(answers=st.sampled_from([True, True, True, False]))
    def the_wallet_answers_or_not(self, answers):
        self.purse.wallet.answers = answers

    @rule()
    def late_money_moves(self):
        self.purse.wallet.arrive()

    @rule(invoice=st.integers(1, 8))
    def held_money_goes_back(self, invoice):
        if hash_of(invoice) in self.purse.wallet._late:
            self.purse.wallet.refuse(hash_of(invoice))

    @rule(secs=st.sampled_from([1, 1, 5, 60, 599, 3_600, DAY // 2, DAY]))
    def time_passes(self, secs):
        self.real += secs
        for late, (_, why) in list(self.purse.wallet._late.items()):
            if why == "late" and self.real - self.late_since.setdefault(late, self.real) > 300 \
                    or secs > 300:
                self.purse.wallet.arrive(late)  # what is not recorded by then never happens
        self.purse.reconcile(secs)

    @rule(step=st.sampled_from([-50 * 365 * DAY, -DAY, -3_600, 3_600, DAY, 30 * DAY]))
    def somebody_sets_the_clock(self, step):
        if self.purse.clock.wall + step > 0:
            self.purse.clock.step(step)

    @rule()
    def crash(self):
        self.purse.crash()

    @rule(off_secs=st.sampled_from([10, DAY // 2, DAY]), behind=st.sampled_from([0, 1, 365]))
    def the_machine_reboots(self, off_secs, behind):
        """Its clock is right then, or behind: a Pi has none of its own."""
        self.purse.wallet.arrive()
        self.real += off_secs
        self.purse.clock.reboot()
        self.purse.clock.wall = 1_800_000_000 + self.real - behind * DAY
        self.purse.crash()

    @rule(limit=st.sampled_from([30_000, 100_000, 250_000]))
    def the_owner_changes_the_limit(self, limit):
        self.limit = limit

    @precondition(lambda self: hasattr(self, "purse"))
    @rule(invoice=st.integers(1, 8))
    def the_owner_gives_his_word(self, invoice):
        """An honest owner: he looks into the wallet first."""
        row, wallet = self.purse.row(invoice), self.purse.wallet
        if row is None or row.state != P.UNKNOWN or row.payment_hash in wallet._late:
            return
        outcome = wallet.outcomes.get(row.payment_hash)
        paid = outcome is not None and outcome.state == "paid"
        try:
            payments.resolve(self.purse.db, row.payment_hash, paid,
                             outcome.preimage if outcome else None, 0, self.purse.clock.now())
        except Refused as err:
            assert err.code == "too-early"

    # -- what must be so --

    def rows(self):
        return [payments.PaymentRow.of(row) for row in self.purse.db.query(
            "SELECT * FROM payments ORDER BY id")]

    def spent_in_window(self):
        """What was reserved in the last 24 real hours and did not fail."""
        recent = {id for id, at in self.reserved if at > self.real - DAY}
        return sum(row.amount_msats + (row.fee_msats if row.state == P.SUCCEEDED
                                       else row.fee_cap_msats)
                   for row in self.rows() if row.id in recent and row.state != P.FAILED)

    @invariant()
    def no_hash_and_no_action_is_paid_twice(self):
        if not hasattr(self, "purse"):
            return
        paid = self.purse.wallet.paid()
        assert all(times == 1 for times in paid.values())
        live: dict[str, list] = {}
        for row in self.rows():
            if row.payment_hash in paid and row.state != P.FAILED:
                live.setdefault(row.action_key, []).append(row)
        assert all(len(rows) == 1 for rows in live.values())
        assert len(paid) == sum(len(rows) for rows in live.values())

    @invariant()
    def the_books_are_whole(self):
        if not hasattr(self, "purse"):
            return
        assert checks.all_findings(self.purse.db) == []
        assert sum(books.balances(self.purse.db).values()) == 0
        assert self.purse.balance() >= 0
        gone = sum(row.cost_msats for row in self.rows() if row.open) + sum(
            row.amount_msats + row.fee_msats for row in self.rows() if row.state == P.SUCCEEDED)
        assert self.purse.balance() == FUNDS - gone


Paying.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None,
                                    suppress_health_check=[HealthCheck.too_slow])
TestPaying = Paying.TestCase
