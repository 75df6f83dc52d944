"""Earnings as they are shown: they equal the database, reversals included."""

from __future__ import annotations

import pytest

from pylon.states import JobStage
from pylon.store import earnings, invoices, jobs, meta
from pylon.store.database import ReadOnly
from tests.store.conftest import NOW

DAY = 86400
MONDAY = 1_799_625_600              # 2027-01-11 00:00 UTC


@pytest.fixture
def earned(db, fill):
    """Five jobs: 1000, 2000, ... msats, one day apart, the newest at NOW."""
    for number in range(1, 6):
        job = fill.job(model=f"model-{number % 2}")
        with db.transaction(durable=True) as tx:
            earnings.add(tx, f"earn-{number}", job.id, number * 1000, "job", fill.hash(number),
                         NOW - (5 - number) * DAY)
    with db.transaction(durable=True) as tx:
        earnings.add(tx, "tip-1", None, 500, "tip", None, NOW - 10 * DAY)
    return db


def test_a_summary_is_what_the_rows_make(earned):
    found = earnings.summary(earned, NOW)
    assert found["total_msats"] == 15_500 == meta.total(earned, "earnings_msats")
    assert found["total_sats"] == 15
    assert found["job_count"] == 5
    assert found["by_source"] == {"job": 15_000, "tip": 500, "other": 0}
    assert found["today_msats"] == 5000


def test_a_summary_since_leaves_out_what_is_older(earned):
    found = earnings.summary(earned, NOW, since=NOW - DAY)
    assert (found["total_msats"], found["job_count"]) == (9000, 2)


def test_recent_rows_come_newest_first(earned):
    assert [row["id"] for row in earnings.recent(earned, 2)] == ["earn-5", "earn-4"]


def test_groups_add_up_to_the_total(earned):
    for by in ("day", "model", "customer"):
        rows = earnings.grouped(earned, by)
        assert sum(row["amount_msats"] for row in rows) == 15_500
    assert [row["name"] for row in earnings.grouped(earned, "model")] == ["model-1", "model-0",
                                                                          "-"]
    assert earnings.grouped(earned, "day")[0]["jobs"] == 1


def test_weeks_begin_on_monday_utc():
    for offset in (0, 1, 3 * DAY, 7 * DAY - 1):
        assert earnings.start_of_week(MONDAY + offset) == MONDAY
    assert earnings.start_of_week(MONDAY - 1) == MONDAY - 7 * DAY
    assert earnings.start_of_day(MONDAY + 5000) == MONDAY


def test_a_job_whose_money_is_owed_earned_nothing(db, fill):
    invoice = fill.quoted(1)
    invoices.settle(db, invoice, 21_000, True, NOW)
    assert earnings.job_count(db) == 1
    with db.transaction(durable=True) as tx:
        job = jobs.get(db, invoice.job_id)
        invoices.owe(tx, job, 21_000, "failed", NOW)
    assert jobs.get(db, invoice.job_id).stage == JobStage.OWED
    assert earnings.total(db) == 0 == meta.total(db, "earnings_msats")
    assert earnings.job_count(db) == 0


def test_a_reader_of_another_process_gets_the_same(earned, home):
    reader = ReadOnly(home.database)
    assert earnings.summary(reader, NOW) == earnings.summary(earned, NOW)
    reader.close()
