"""Ending what was left open: by the wallet's own record, and by nothing else."""

from __future__ import annotations

import pytest

from pylon.errors import Refused, WalletError
from pylon.states import PaymentState
from pylon.store import books, checks, payments
from pylon.wallets.reconciler import ASK_LONGEST_SECS, Reconciler
from tests.fakes.scripted_wallet import ScriptedWallet, hash_of
from tests.store.test_payments import trade
from tests.waiting import wait_for
from tests.wallets.paying import AGENT

P = PaymentState


@pytest.mark.parametrize("manner", ["pays_and_times_out", "pays_and_says_no", "pays_and_lies"])
def test_e62_a_payment_that_went_through_after_all_is_found_by_its_hash(purse, manner):
    purse.wallet.manner = manner
    assert purse.pay(1).state == P.UNKNOWN
    purse.reconcile()
    assert purse.row().state == P.SUCCEEDED
    assert [row.payment_hash for row in purse.decided] == [hash_of(1)]
    assert purse.wallet.calls("pay") == 1
    purse.whole()


@pytest.mark.parametrize("late_secs", [1, 90, 3600, 7 * 86_400])
def test_e62_a_payment_that_is_late_is_waited_for(purse, late_secs):
    purse.wallet.missing_final_secs = 1 << 30
    purse.wallet.manner = "pays_later"
    purse.pay(1)
    purse.reconcile(late_secs)
    assert purse.row().state == P.UNKNOWN
    purse.wallet.arrive()
    purse.reconcile(3600)
    assert purse.row().state == P.SUCCEEDED
    purse.whole()


def test_e63_a_held_payment_stays_reserved_for_hours_and_ends_either_way(purse):
    purse.wallet.manner = "holds"
    purse.pay(1)
    purse.pay(2)
    for _ in range(6):
        purse.reconcile(3600)
        assert purse.row(1).state == P.UNKNOWN and purse.balance(books.RESERVED) == 40_000
    purse.wallet.arrive(hash_of(1))
    purse.wallet.refuse(hash_of(2))
    purse.reconcile(3600)
    assert (purse.row(1).state, purse.row(2).state) == (P.SUCCEEDED, P.FAILED)
    assert purse.balance() == 990_000
    purse.whole()


def test_e64_an_invoice_that_expired_on_its_way_is_still_unknown(purse):
    purse.wallet.manner = "holds"
    purse.pay(1)
    purse.reconcile(5 * 3600)
    assert purse.row().state == P.UNKNOWN
    assert purse.balance(books.RESERVED) == 20_000


def test_e65_what_a_crash_left_as_sent_is_looked_up_before_anything_is_paid_again(purse):
    sent_and_dead(purse)
    purse.crash()
    assert purse.row().state == P.SUCCEEDED
    with pytest.raises(Refused):
        purse.pay(1, action_key="again")
    assert purse.wallet.calls("pay") == 1
    purse.whole()


def sent_and_dead(purse, pays=True):
    """The process dies in the middle of the call."""
    class Death(BaseException):
        """SIGKILL, as far as this process can have it."""

    def pay(*args):
        if pays:
            ScriptedWallet.pay(purse.wallet, *args)
        raise Death
    purse.wallet.pay = pay
    with pytest.raises(Death):
        purse.pay(1)
    del purse.wallet.pay


def test_e65_what_a_crash_left_reserved_was_never_sent(purse):
    payments.reserve(purse.db, purse.payer.check(purse.proposal(1), purse.wallet),
                     purse.proposal(1).limits, purse.clock.now(), purse.clock.uptime())
    purse.crash()
    assert purse.row().state == P.FAILED
    assert purse.balance() == 1_000_000
    assert [row.state for row in purse.decided] == [P.FAILED]
    purse.whole()


def test_nothing_recorded_means_failed_only_when_it_is_final(purse):
    purse.wallet.manner = "loses_the_call"
    purse.pay(1)
    purse.reconcile()
    for _ in range(4):
        purse.reconcile(100)
        assert purse.row().state == P.UNKNOWN
    purse.reconcile(ASK_LONGEST_SECS)
    assert purse.row().state == P.FAILED
    assert purse.balance() == 1_000_000
    purse.whole()


def test_h101_a_step_of_the_wall_clock_makes_nothing_final(purse):
    purse.wallet.manner = "pays_later"
    purse.pay(1)
    purse.reconcile()
    purse.clock.step(30 * 86_400)
    purse.reconcile(60)
    assert purse.row().state == P.UNKNOWN
    purse.wallet.arrive()
    purse.reconcile(60)
    assert purse.row().state == P.SUCCEEDED
    purse.whole()


def test_after_a_restart_the_time_until_final_begins_anew(purse):
    """How long ago the dead process called is known from the wall clock only, which can lie."""
    purse.wallet.manner = "pays_later"
    purse.pay(1)
    purse.reconcile(599)
    purse.crash()
    purse.reconcile(590)
    assert purse.row().state == P.UNKNOWN


def test_a_stored_request_is_sent_again_once_while_it_is_good(purse):
    purse.wallet.prepares, purse.wallet.manner = True, "loses_the_call"
    purse.pay(1)
    purse.wallet.manner = "pays"
    purse.reconcile(10)
    assert purse.row().state == P.SUCCEEDED
    assert purse.wallet.calls("pay") == 2 and purse.wallet.paid()[hash_of(1)] == 1
    purse.whole()


def test_a_stored_request_that_is_old_is_not_sent_again(purse):
    purse.wallet.prepares, purse.wallet.manner = True, "loses_the_call"
    purse.pay(1)
    purse.wallet.manner = "pays"
    purse.reconcile(70)
    purse.reconcile(1000)
    assert purse.wallet.calls("pay") == 1
    assert purse.row().state == P.FAILED


def test_a_request_sent_again_without_an_answer_is_not_sent_a_third_time(purse):
    purse.wallet.prepares, purse.wallet.manner = True, "loses_the_call"
    purse.pay(1)
    for _ in range(20):
        purse.reconcile(2)
    assert purse.wallet.calls("pay") == 2
    assert purse.row().state == P.UNKNOWN


def test_a_wallet_without_an_answer_decides_nothing(purse):
    purse.wallet.manner = "pays_and_times_out"
    purse.pay(1)
    purse.wallet.answers = False
    for _ in range(20):
        purse.reconcile(3600)
    assert purse.row().state == P.UNKNOWN
    purse.wallet.answers = True
    purse.reconcile(3600)
    assert purse.row().state == P.SUCCEEDED


@pytest.mark.parametrize("error", [WalletError("HTTP 404"), WalletError("HTML instead of JSON")])
def test_an_error_of_a_lookup_decides_nothing(purse, error):
    purse.wallet.manner = "pays_and_times_out"
    purse.pay(1)

    def lookup_payment(payment_hash):
        raise error
    purse.wallet.lookup_payment = lookup_payment
    purse.reconcile(10_000)
    assert purse.row().state == P.UNKNOWN
    assert checks.all_findings(purse.db) == []


def test_another_wallets_payment_waits_for_its_wallet(purse):
    purse.wallet.manner = "pays_and_times_out"
    purse.pay(1)
    mine, purse.wallet = purse.wallet, ScriptedWallet()
    purse.wallet.name = "other"
    purse.reconcile(10_000)
    assert purse.row().state == P.UNKNOWN and purse.wallet.log == []
    purse.wallet = mine
    purse.reconcile(10_000)
    assert purse.row().state == P.SUCCEEDED


def test_it_asks_ever_more_rarely_and_at_once_when_pushed(purse):
    purse.wallet.manner = "holds"
    purse.pay(1)
    for _ in range(3600):
        purse.reconcile(1)
    assert 15 <= purse.wallet.calls("lookup") <= 25
    before = purse.wallet.calls("lookup")
    purse.reconciler.pushed(hash_of(1))
    purse.reconcile()
    assert purse.wallet.calls("lookup") == before + 1
    purse.reconciler.pushed(hash_of(9))
    purse.reconcile()
    assert purse.wallet.calls("lookup") == before + 1
    purse.reconciler.pushed(None)
    purse.reconcile()
    assert purse.wallet.calls("lookup") == before + 2


def test_trade_inside_the_node_is_left_to_those_who_trade(purse):
    row = payments.reserve(purse.db, trade(1), purse.proposal(1).limits, purse.clock.now(),
                           purse.clock.uptime())
    purse.crash()
    assert payments.get(purse.db, row.id).state == P.RESERVED


def test_a_payment_in_another_thread_is_left_alone(purse):
    """What a thread has reserved and is about to send must not be released under its feet."""
    prepare = purse.wallet.prepare_payment
    seen = []

    def slowly(*args):
        purse.reconcile(10_000)
        seen.append(purse.row().state)
        return prepare(*args)
    purse.wallet.prepare_payment = slowly
    assert purse.pay(1).paid
    assert seen == [P.RESERVED]
    purse.whole()


def test_what_the_owner_resolved_is_asked_about_no_more(purse):
    purse.wallet.manner = "holds"
    purse.pay(1)
    purse.clock.pass_by(86_400)
    payments.resolve(purse.db, hash_of(1), False, None, 0, purse.clock.now())
    purse.reconcile(1000)
    assert purse.wallet.calls("lookup") == 0
    assert purse.balance(AGENT) == 1_000_000


def test_as_a_role_it_sleeps_until_a_payment_is_left_open(purse, home):
    """Its thread looks once at the start, then only when the payer's call is over or it is
    pushed."""
    purse.wallet.manner = "holds"
    role = Reconciler(purse.payer, purse.decided.append)
    role.start()
    try:
        wait_for(lambda: role._resting, what="the reconciler to rest")
        purse.pay(1)
        wait_for(lambda: purse.wallet.calls("lookup") >= 1, what="a look after the call")
        purse.wallet.arrive()
        role.pushed(hash_of(1))
        wait_for(lambda: purse.decided, what="the push to be followed")
        assert purse.row().state == P.SUCCEEDED
    finally:
        role.stop()
        assert role.join(5)
