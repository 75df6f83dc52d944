"""The owner's own movements: booked once, and what is missing stops spending."""

from __future__ import annotations

import pytest

from pylon.store import books, checks, external, invoices, owed, payments, spending
from pylon.store.external import Moved
from tests.store.conftest import AGENT, NOW


def absorb(db, balance, *moved, version=None, now=NOW):
    return external.absorb(db, "fake", balance, list(moved),
                           books.version(db) if version is None else version, now)


def incoming(number, msats, at=NOW + 1, times=1, fee=0):
    return Moved(f"{number:064x}", True, msats, fee, at, times)


def outgoing(number, msats, at=NOW + 1, fee=0):
    return Moved(f"{number:064x}", False, msats, fee, at, 1)


def test_the_first_look_books_an_opening_balance_for_the_owner(db):
    cover = absorb(db, 50_000, incoming(1, 99_000, at=NOW - 500))
    assert (cover.owner_msats, cover.needed_msats, cover.underfunded) == (50_000, 0, False)
    assert books.balance(db, "owner") == 50_000
    assert external.opened_at(db) == NOW


def test_later_movements_are_booked_once_by_their_hash(db):
    absorb(db, 50_000)
    moves = [incoming(1, 7_000), outgoing(2, 3_000, fee=10)]
    for _ in range(3):
        assert absorb(db, 53_990, *moves).owner_msats == 53_990
    assert books.balance(db, books.FEES) == 10
    assert sorted(external.booked(db).values()) == [-3_000, 7_000, 50_000]
    assert checks.all_findings(db) == []


def test_what_no_movement_explains_is_booked_as_the_rest(db):
    absorb(db, 50_000)
    cover = absorb(db, 47_000)
    assert cover.owner_msats == 47_000
    assert [(m.incoming, m.amount_msats) for m in cover.booked] == [(False, 3_000)]
    assert absorb(db, 47_000).booked == []


def test_books_that_went_on_meanwhile_change_nothing(db, fill):
    version = books.version(db)
    fill.fund("owner", 5)
    assert absorb(db, 50_000, version=version) is None
    assert external.opened_at(db) is None


def test_a_wallet_that_covers_less_stops_spending_until_it_covers_again(db, fill):
    absorb(db, 50_000)
    payments.transfer(db, "owner", AGENT, 40_000, "fund", "f", NOW)
    assert not absorb(db, 40_000).underfunded
    cover = absorb(db, 39_999)
    assert cover.underfunded and cover.owner_msats == -1 and cover.needed_msats == 40_000
    assert spending.frozen(db) == [spending.UNDERFUNDED]
    assert not absorb(db, 40_000).underfunded
    assert spending.frozen(db) == []


@pytest.mark.parametrize("deducted", [0, 11_000, 10_000])
def test_a_payment_under_way_may_have_left_the_wallet_or_not(db, fill, deducted):
    absorb(db, 50_000)
    payments.transfer(db, "owner", AGENT, 50_000, "fund", "f", NOW)
    fill.sent(1)
    cover = absorb(db, 50_000 - deducted)
    assert cover.booked == [] and not cover.underfunded


def test_money_that_is_being_booked_is_no_external_movement(db, fill):
    absorb(db, 50_000)
    invoice = fill.quoted(1)
    moved = Moved(invoice.payment_hash, True, 21_000, 0, NOW + 1, 1)
    assert absorb(db, 71_000, moved).booked == []
    assert books.balance(db, "owner") == 50_000


def test_movements_of_our_own_hashes_are_not_booked_again(db, fill):
    absorb(db, 50_000)
    payments.transfer(db, "owner", AGENT, 20_000, "fund", "f", NOW)
    row = payments.succeed(db, fill.sent(1).id, fill.preimage(1), 5, NOW)
    moved = Moved(row.payment_hash, False, 10_000, 5, NOW + 1, 1)
    assert absorb(db, 39_995, moved).booked == []


def test_d50_the_same_invoice_paid_again_is_owed(db, fill):
    absorb(db, 50_000)
    invoice = fill.quoted(1)
    invoices.settle(db, invoice, 21_000, True, NOW)
    moves = [Moved(invoice.payment_hash, True, 21_000, 0, NOW + n, n) for n in (1, 2)]
    for _ in range(2):
        assert absorb(db, 92_000, *moves).booked == []
    assert [(row.amount_msats, row.reason) for row in owed.list_all(db)] == [(21_000, "paid-twice")]
    assert checks.all_findings(db) == []


def test_movements_without_a_hash_are_told_apart_by_time_amount_and_number(db):
    absorb(db, 0)
    moves = [Moved("", True, 5_000, 0, NOW + 1, 1), Moved("", True, 5_000, 0, NOW + 1, 2)]
    assert len(absorb(db, 10_000, *moves).booked) == 2
    assert absorb(db, 10_000, *moves).booked == []
    assert books.balance(db, "owner") == 10_000
