"""The tables: the first Pylon's rows live on, and triggers refuse what no machine allows."""

from __future__ import annotations

import sqlite3

import pytest

from pylon.errors import IllegalTransition
from pylon.states import JOB_EDGES, JobStage, PAYMENT_EDGES, PUBLIC_STATUS, PaymentState
from pylon.store import books, checks, earnings, jobs, meta, payments, schema
from pylon.store.database import Database
from tests.store import first_pylon
from tests.store.conftest import NOW

J, P = JobStage, PaymentState


@pytest.fixture
def old(home):
    first_pylon.create(home.database)
    db = Database(home.database, home.backups)
    yield db
    db.close()


def test_a_first_pylon_database_keeps_its_rows(old):
    assert {row["id"]: row["status"] for row in old.query("SELECT id, status FROM jobs")} == {
        "job-done": "completed", "job-cancelled": "cancelled", "job-failed": "failed",
        "job-waiting": "failed", "job-running": "failed"}
    assert earnings.total(old) == 5000
    assert old.one("SELECT name FROM agents")["name"] == "scribe"
    assert old.one("SELECT cost_sats FROM tick_history")["cost_sats"] == 3
    assert old.one("SELECT balance_sats FROM neobank_wallets")["balance_sats"] == 5


def test_unfinished_jobs_of_the_first_pylon_say_why_they_ended(old):
    job = jobs.get(old, "job-running")
    assert job.stage == J.FAILED
    assert "earlier version" in job.error_message
    assert jobs.get(old, "job-done").stage == J.DELIVERED
    assert old.one("SELECT status FROM invoices WHERE id = 'inv2'")["status"] == "expired"


def test_totals_start_with_what_the_first_pylon_earned(old):
    assert meta.total(old, "earnings_msats") == 5000
    assert meta.total(old, "jobs_completed") == 1
    assert checks.all_findings(old) == []


def test_columns_of_the_first_pylon_are_all_there(old):
    assert {"id", "kind", "customer_pubkey", "status", "price_msats", "input_hash", "output_hash",
            "error_message", "started_at", "completed_at", "created_at"} <= columns(old, "jobs")
    assert {"id", "job_id", "bolt11", "amount_msats", "status", "paid_amount_msats", "created_at",
            "paid_at"} <= columns(old, "invoices")
    assert columns(old, "earnings") == {"id", "job_id", "amount_msats", "source", "payment_hash",
                                        "preimage", "earned_at"}


def columns(db, table):
    return {row["name"] for row in db.query(f"PRAGMA table_info({table})")}


@pytest.mark.parametrize("old_stage", list(J))
def test_triggers_refuse_every_other_edge_of_a_job(db, fill, old_stage):
    for new_stage in J:
        job = fill.job()
        force(db, "jobs_stage", "UPDATE jobs SET stage = ? WHERE id = ?", old_stage.value, job.id)
        allowed = new_stage in JOB_EDGES[old_stage] or new_stage == old_stage
        with db_allows(allowed):
            with db.transaction(durable=False) as tx:
                jobs.advance(tx, job.id, new_stage, NOW)
        assert fill.stage(job.id) == (new_stage if allowed else old_stage)
        if allowed:
            assert db.one("SELECT status FROM jobs WHERE id = ?",
                          (job.id,))["status"] == PUBLIC_STATUS[new_stage]


@pytest.mark.parametrize("old_state", list(P))
def test_triggers_refuse_every_other_edge_of_a_payment(db, fill, old_state):
    fill.fund("owner", 1_000_000)
    for number, new_state in enumerate(P):
        row = fill.reserve(number, account="owner")
        force(db, "payments_state", "UPDATE payments SET state = ? WHERE id = ?",
              old_state.value, row.id)
        allowed = new_state in PAYMENT_EDGES[old_state] or new_state == old_state
        with db_allows(allowed):
            with db.transaction(durable=False) as tx:
                tx.execute("UPDATE payments SET state = ? WHERE id = ?", (new_state.value, row.id))
        assert payments.get(db, row.id).state == (new_state if allowed else old_state)


def force(db, trigger, sql, *values):
    """Put a row into a state by going around its trigger."""
    body = db.one("SELECT sql FROM sqlite_master WHERE name = ?", (trigger,))["sql"]
    with db.transaction(durable=False) as tx:
        tx.execute(f"DROP TRIGGER {trigger}")
        tx.execute(sql, values)
        tx.execute(body)


def db_allows(allowed):
    return _Nothing() if allowed else pytest.raises(IllegalTransition)


class _Nothing:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return False


def test_a_payment_is_born_reserved(db):
    with pytest.raises(IllegalTransition):
        with db.transaction(durable=False) as tx:
            tx.execute("INSERT INTO payments(action_key, account, purpose, wallet, bolt11, "
                       "payment_hash, amount_msats, fee_cap_msats, state, counts_at, created_at) "
                       "VALUES ('a', 'owner', 'owner', 'fake', '', 'h', 1, 0, 'succeeded', 1, 1)")


@pytest.mark.parametrize("sql", [
    "UPDATE payments SET amount_msats = 1", "UPDATE payments SET payment_hash = 'x'",
    "UPDATE payments SET account = 'owner'", "UPDATE payments SET counts_at = 0",
    "UPDATE payments SET fee_cap_msats = 0", "DELETE FROM payments",
    "UPDATE entries SET amount_msats = 0", "DELETE FROM entries"])
def test_rows_of_money_stay_as_they_were_written(db, fill, sql):
    fill.fund("agent:npub1agent", 100_000)
    fill.reserve(1)
    with pytest.raises(IllegalTransition):
        with db.transaction(durable=False) as tx:
            tx.execute(sql)
    assert books.balance(db, books.RESERVED) == 11_000


def test_an_amount_of_nothing_is_no_payment(db, fill):
    fill.fund("agent:npub1agent", 100_000)
    with pytest.raises(sqlite3.IntegrityError):
        fill.reserve(1, amount_msats=0)
    assert books.balance(db, books.RESERVED) == 0


def test_the_edges_in_the_database_follow_the_program(home):
    """A newer version may know more steps; the copy in the file is renewed at each start."""
    db = Database(home.database)
    with db.transaction(durable=True) as tx:
        tx.execute("DELETE FROM edges WHERE old = 'quoted'")
    db.close()
    db = Database(home.database)
    assert {tuple(row) for row in db.query("SELECT machine, old, new FROM edges")} == set(
        schema.edge_rows())
    db.close()


def test_every_stage_has_a_public_word():
    assert set(PUBLIC_STATUS) == set(J)
    assert all(schema.public_status(stage.value) == word for stage, word in PUBLIC_STATUS.items())
