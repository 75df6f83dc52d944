"""The clock against what was written down."""

import time

import pytest

from pylon.store import clock, journal

NOW = 1_800_000_000


@pytest.mark.parametrize("now, newest, wrong", [
    (0, 0, "before this program"), (clock.EARLIEST_AT - 1, 0, "before this program"),
    (NOW - 301, NOW, "301 s before what this node wrote down"), (NOW - 300, NOW, None),
    (NOW, 0, None), (NOW + 86400, NOW, None)])
def test_h101_what_is_wrong_with_a_clock(now, newest, wrong, monkeypatch):
    monkeypatch.setattr(clock, "synchronised", lambda: False)
    found = clock.trouble(now, newest)
    assert (found is None) if wrong is None else (wrong in found and "timedatectl" in found)


def test_h101_one_wrong_clock_in_the_future_does_not_close_the_node_for_ever(monkeypatch):
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    assert clock.trouble(NOW, NOW + 50 * 365 * 86400) is None


def test_the_newest_time_is_the_last_line_of_the_journal(db):
    assert clock.newest_at(db) == 0
    with db.transaction(durable=False) as tx:
        journal.add(tx, "DaemonStarted", "", {}, NOW + 9)
        journal.add(tx, "DaemonStopped", "", {}, NOW)
    assert clock.newest_at(db) == NOW


def test_the_kernel_is_asked():
    assert clock.synchronised() in (True, False)
    assert clock.trouble(int(time.time()), 0) is None
