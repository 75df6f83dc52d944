"""pylon earnings: totals, groups and rows that equal the database."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest

from pylon.store import earnings
from pylon.store.database import Database
from tests.store import first_pylon
from tests.store.conftest import Filler


@pytest.fixture
def earned(home):
    """Twelve jobs of today, hour by hour backwards, and a tip of last month."""
    now = int(time.time())
    db = Database(home.database)
    fill = Filler(db)
    for number in range(12):
        job = fill.job(model=f"model-{number % 3}", customer_pubkey=f"{number % 2}" * 64)
        with db.transaction(durable=True) as tx:
            earnings.add(tx, f"earn-{number}", job.id, 1000 * (number + 1), "job",
                         fill.hash(number), now - number * 3600)
    with db.transaction(durable=True) as tx:
        earnings.add(tx, "tip", None, 2_500, "tip", None, now - 31 * 86_400)
    yield db
    db.close()


def show(pylon, *words):
    status, out, err = pylon("earnings", *words)
    assert status == 0, err
    return out


def test_before_anything_was_earned_there_are_zeros(pylon, home):
    assert show(pylon) == "nothing earned yet\n"
    assert json.loads(show(pylon, "--json", "--by", "day")) == {
        "summary": {"total_sats": 0, "total_msats": 0, "job_count": 0,
                    "by_source": {"job": 0, "tip": 0, "other": 0}, "today_msats": 0,
                    "week_msats": 0}, "recent": [], "groups": []}


def test_the_object_has_the_first_pylons_keys_and_equals_the_database(pylon, earned):
    found = json.loads(show(pylon, "--json"))
    summary = found["summary"]
    assert (summary["total_msats"], summary["total_sats"], summary["job_count"]) == (
        80_500, 80, 12)
    assert summary["by_source"] == {"job": 78_000, "tip": 2_500, "other": 0}
    assert [row["id"] for row in found["recent"]] == [f"earn-{n}" for n in range(10)]
    assert {"id", "job_id", "amount_msats", "source", "earned_at"} <= set(found["recent"][0])


def test_the_limit_and_the_time_are_honoured(pylon, earned):
    assert len(json.loads(show(pylon, "--json", "-l", "3"))["recent"]) == 3
    found = json.loads(show(pylon, "--json", "--since", "90m"))
    assert found["summary"]["total_msats"] == 3_000 and len(found["recent"]) == 2


@pytest.mark.parametrize("by, names", [("model", {"model-0", "model-1", "model-2", "-"}),
                                       ("customer", {"0" * 64, "1" * 64, "-"})])
def test_groups_make_up_the_total(pylon, earned, by, names):
    groups = json.loads(show(pylon, "--json", "--by", by))["groups"]
    assert {row["name"] for row in groups} == names
    assert sum(row["amount_msats"] for row in groups) == 80_500


def test_words_for_people(pylon, earned):
    out = show(pylon)
    for shown in ("80.5 sats from 12 jobs", "this week", "today", "tip 2.5 sats", "2h ago"):
        assert shown in out
    assert "MODEL" in show(pylon, "--by", "model")


def test_comma_separated_values(pylon, earned):
    rows = list(csv.DictReader(io.StringIO(show(pylon, "--csv", "-l", "100"))))
    assert len(rows) == 13 and sum(int(row["amount_msats"]) for row in rows) == 80_500
    groups = list(csv.DictReader(io.StringIO(show(pylon, "--csv", "--by", "day"))))
    assert sum(int(row["amount_msats"]) for row in groups) == 80_500


@pytest.mark.parametrize("words", [("-l", "-1"), ("-l", "many"), ("--since", "yesterday")])
def test_senseless_words_are_refused(pylon, earned, words):
    status, _, err = pylon("earnings", *words)
    assert status == 2 and err


def test_the_first_pylons_earnings_are_counted(pylon, home):
    first_pylon.create(home.database)
    assert json.loads(show(pylon, "--json"))["summary"]["total_msats"] == 5_000
    assert "5 sats" in show(pylon, "--by", "customer")
    assert "5 sats" in show(pylon, "--by", "model")
