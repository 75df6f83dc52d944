"""The wallet seen at one moment: what moved without us comes into the books."""

from __future__ import annotations

import pytest

from pylon.errors import WalletUnreachable
from pylon.store import books, journal, payments, spending
from pylon.wallets import external
from pylon.wallets.external import Auditor, CHECK_AGAIN_SECS, CHECK_SECS
from tests.fakes.scripted_wallet import hash_of
from tests.wallets.paying import AGENT


def absorb(purse):
    return external.absorb(purse.db, purse.wallet, purse.clock.now())


def test_the_owners_own_movements_are_external_journalled_and_no_error(purse):
    absorb(purse)
    purse.clock.pass_by(5)
    purse.wallet.receive(hash_of(50), 7_000)
    purse.wallet.spend_elsewhere(hash_of(51), 3_000)
    cover = absorb(purse)
    assert sorted(moved.signed_msats for moved in cover.booked) == [-3_000, 7_000]
    assert cover.wallet_msats == purse.wallet.funds_msats
    assert not cover.underfunded
    assert absorb(purse).booked == []
    assert [line["type"] for line in journal.story(purse.db, "wallet")] == [
        "ExternalMovement"] * 3
    purse.whole()


def test_a_wallet_that_was_emptied_stops_spending_until_it_is_filled(purse):
    absorb(purse)
    purse.wallet.funds_msats = 999_999
    assert absorb(purse).underfunded
    assert spending.frozen(purse.db) == ["underfunded"]
    purse.wallet.funds_msats = 1_000_000
    assert not absorb(purse).underfunded
    assert spending.frozen(purse.db) == []
    assert purse.balance(AGENT) == 1_000_000
    purse.whole()


def test_a_view_in_which_something_moved_is_taken_again(purse):
    """The balance changes between two looks: only a quiet view is booked."""
    absorb(purse)
    balances = iter([9_000_000, 8_000_000, 8_000_000, 8_000_000])
    purse.wallet.balance = lambda: next(balances, 8_000_000)
    assert absorb(purse).wallet_msats == 8_000_000
    assert sum(purse.db.query("SELECT sum(amount_msats) AS n FROM entries WHERE kind = 'external' "
                              "AND account = 'owner'")[0]) == 7_000_000


def test_a_wallet_that_never_stands_still_books_nothing(purse):
    moving = iter(range(1, 1000))
    purse.wallet.balance = lambda: 10_000_000 + next(moving)
    cover = absorb(purse)
    assert cover.booked == [] and not spending.frozen(purse.db)


def test_a_silent_wallet_changes_nothing(purse):
    purse.wallet.answers = False
    with pytest.raises(WalletUnreachable):
        absorb(purse)
    assert spending.frozen(purse.db) == []


@pytest.mark.parametrize("manner", ["holds", "pays_later", "pays_and_times_out"])
def test_a_payment_under_way_is_neither_external_nor_missing(purse, manner):
    absorb(purse)
    purse.wallet.manner = manner
    purse.pay(1)
    assert absorb(purse).booked == []
    purse.wallet.arrive()
    purse.reconcile(3600)
    assert absorb(purse).booked == []
    assert payments.open_intents(purse.db) == []
    purse.whole()


def test_the_auditor_looks_hourly_and_sooner_while_something_is_wrong(purse):
    auditor = Auditor(purse.db, lambda: purse.wallet)
    pauses = []
    auditor.wait = pauses.append
    auditor.step(purse.clock.now())
    purse.wallet.funds_msats = 5
    auditor.step(purse.clock.now())
    purse.wallet.answers = False
    auditor.step(purse.clock.now())
    without = Auditor(purse.db, lambda: None)
    without.wait = pauses.append
    without.step(purse.clock.now())
    assert pauses == [CHECK_SECS, *[CHECK_AGAIN_SECS] * 3]
    assert spending.frozen(purse.db) == ["underfunded"]
    assert books.lopsided(purse.db) == []
