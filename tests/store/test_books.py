"""The books: every movement sums to zero, stands once, and a balance is a sum."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from pylon.store import books
from pylon.store.database import Database
from tests.store.conftest import NOW


def post(db, kind, ref, moves):
    with db.transaction(durable=True) as tx:
        books.post(tx, kind, ref, moves, NOW)


def test_a_movement_changes_both_accounts(db):
    post(db, "received", "h1", {"external": -5, "owner": 5})
    assert books.balances(db) == {"external": -5, "owner": 5}
    assert books.balance(db, "owner") == 5
    assert books.balance(db, "nobody") == 0


def test_a_movement_that_does_not_sum_to_zero_is_refused(db):
    with pytest.raises(ValueError):
        post(db, "received", "h1", {"external": -5, "owner": 6})
    assert books.balances(db) == {}


def test_the_same_movement_twice_is_refused_by_the_table(db):
    post(db, "received", "h1", {"external": -5, "owner": 5})
    with pytest.raises(sqlite3.IntegrityError):
        post(db, "received", "h1", {"external": -5, "owner": 5})
    assert books.balance(db, "owner") == 5


def test_a_movement_stands_under_its_kind_and_ref(db):
    post(db, "received", "h1", {"external": -5, "owner": 5})
    with db.transaction(durable=False) as tx:
        assert books.stands(tx, "received", "h1")
        assert not books.stands(tx, "received", "h2")
        assert not books.stands(tx, "paid", "h1")
    assert books.moved(db, "received", "owner") == {"h1": 5}
    assert books.bookings(db, ("received",)) == {("received", "h1"): {"external": -5, "owner": 5}}


def test_holdings_are_what_came_less_what_left_and_fees(db):
    post(db, "received", "h1", {"external": -100, "owner": 100})
    post(db, "paid", "h2", {"owner": -33, "external": 30, "fees": 3})
    assert books.holdings(db) == 67


def test_the_version_grows_with_every_booking(db):
    before = books.version(db)
    post(db, "received", "h1", {"external": -5, "owner": 5})
    assert books.version(db) > before


ACCOUNTS = ("owner", "provider", "agent:a", "reserved", "owed", "fees", "external")


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS),
                                st.integers(-10**14, 10**14), st.integers(0, 12)), max_size=30))
def test_whatever_is_posted_the_books_sum_to_zero_and_a_balance_is_its_sum(moves):
    with tempfile.TemporaryDirectory() as place:
        db = Database(Path(place) / "pylon.db")
        try:
            move_and_compare(db, moves)
        finally:
            db.close()


def move_and_compare(db, moves):
    model: dict[str, int] = {}
    done = set()
    for source, target, msats, number in moves:
        if source == target or number in done:
            continue
        post(db, "move", str(number), {source: -msats, target: msats})
        done.add(number)
        model[source] = model.get(source, 0) - msats
        model[target] = model.get(target, 0) + msats
    assert {name: n for name, n in books.balances(db).items() if n} == {
        name: n for name, n in model.items() if n}
    assert sum(books.balances(db).values()) == 0
    assert books.lopsided(db) == []
