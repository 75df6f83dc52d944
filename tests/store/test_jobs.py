"""Jobs: claimed exactly once, put back where they came from, found again after a crash."""

from __future__ import annotations

import threading

import pytest

from pylon.errors import IllegalTransition
from pylon.states import JobStage
from pylon.store import jobs, journal, meta
from pylon.store.database import Database
from tests.store.conftest import CUSTOMER, NOW, Filler

J = JobStage


def advance(db, job, *stages, **fields):
    for stage in stages:
        with db.transaction(durable=False) as tx:
            jobs.advance(tx, job.id, stage, NOW, **fields)


def paid(db, fill, created_at=NOW):
    job = fill.job(payment="invoice", created_at=created_at)
    advance(db, job, J.INVOICING, J.QUOTED, J.PAID)
    return job


@pytest.mark.parametrize("workers", [2, 8])
def test_each_job_is_claimed_exactly_once_by_any_number_of_threads(db, fill, workers):
    ids = {fill.job(stage=J.FREE).id for _ in range(200)}
    got, barrier = [], threading.Barrier(workers)

    def work(name):
        barrier.wait()
        while (job := jobs.claim(db, name, NOW)) is not None:
            got.append(job.id)
    threads = [threading.Thread(target=work, args=(f"boot-{n}",)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 200 and set(got) == ids


def test_money_goes_before_free_work_and_the_oldest_first(db, fill):
    free = fill.job(stage=J.FREE, created_at=NOW - 100)
    newer, older = paid(db, fill, NOW - 1), paid(db, fill, NOW - 50)
    assert [jobs.claim(db, "boot", NOW).id for _ in range(3)] == [older.id, newer.id, free.id]
    assert jobs.claim(db, "boot", NOW) is None


def test_a_claim_counts_the_attempt_and_names_the_boot(db, fill):
    fill.job(stage=J.FREE)
    job = jobs.claim(db, "boot-a", NOW)
    assert (job.stage, job.attempts) == (J.RUNNING, 1)
    assert jobs.interrupted(db, "boot-a") == []
    assert [row.id for row in jobs.interrupted(db, "boot-b")] == [job.id]


@pytest.mark.parametrize("payment, origin", [("none", J.FREE), ("invoice", J.PAID),
                                             ("hold", J.HELD)])
def test_an_interrupted_job_goes_back_where_it_came_from(db, fill, payment, origin):
    if origin == J.FREE:
        job = fill.job(stage=J.FREE)
    else:
        job = fill.job(payment=payment)
        advance(db, job, J.INVOICING, J.QUOTED, origin)
    running = jobs.claim(db, "boot", NOW)
    with db.transaction(durable=False) as tx:
        jobs.put_back(tx, running, "the daemon stopped", NOW, count_attempt=False)
    back = jobs.get(db, job.id)
    assert (back.stage, back.attempts) == (origin, 0)
    assert jobs.claim(db, "boot", NOW).id == job.id


def test_a_job_that_waits_out_a_backoff_is_not_claimed_before(db, fill):
    fill.job(stage=J.FREE)
    running = jobs.claim(db, "boot", NOW)
    with db.transaction(durable=False) as tx:
        jobs.put_back(tx, running, "the backend is busy", NOW, delay_secs=30)
    assert jobs.claim(db, "boot", NOW + 29) is None
    assert jobs.next_ready_at(db) == NOW + 30
    assert jobs.claim(db, "boot", NOW + 30).attempts == 2


def test_a_claim_survives_the_process_and_is_seen_by_the_next(home):
    db = Database(home.database)
    job = Filler(db).job(stage=J.FREE)
    jobs.claim(db, "boot-a", NOW)
    db.close()
    db = Database(home.database)
    assert [row.id for row in jobs.interrupted(db, "boot-b")] == [job.id]
    db.close()


def test_c36_ids_that_share_their_beginning_are_two_jobs(db, fill):
    one = fill.job(job_id="ab" * 8 + "0" * 48)
    two = fill.job(job_id="ab" * 8 + "1" * 48)
    assert jobs.find(db, "ab" * 8) == [one.id, two.id]
    assert jobs.get(db, two.id).id == two.id


def test_the_total_of_completed_jobs_follows_the_rows(db, fill):
    job = fill.job(stage=J.FREE)
    advance(db, job, J.RUNNING, J.DONE, J.DELIVERED)
    assert meta.total(db, "jobs_completed") == 1
    other = paid(db, fill)
    advance(db, other, J.RUNNING, J.DONE, J.OWED)
    assert meta.total(db, "jobs_completed") == 1


def test_a_refused_job_says_why_in_the_journal(db, fill):
    job = fill.job(stage=J.REJECTED, code="too-long", error_message="the prompt is too long")
    line = journal.story(db, job.id)[0]
    assert line["type"] == "JobRefused" and '"code":"too-long"' in line["data"]
    with pytest.raises(IllegalTransition):
        advance(db, job, J.RUNNING)


def test_open_jobs_are_counted_for_one_customer_and_for_all(db, fill):
    for _ in range(3):
        fill.job()
    fill.job(customer_pubkey="d" * 64)
    assert jobs.count(db, [J.RECEIVED]) == 4
    assert jobs.count(db, [J.RECEIVED], CUSTOMER) == 3
