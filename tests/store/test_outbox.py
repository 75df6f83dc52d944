"""The outbox: one quote and one result for each job, the same bytes each time."""

from __future__ import annotations

import sqlite3

import pytest

from pylon.states import JobStage
from pylon.store import jobs, outbox, seen
from pylon.store.database import Database
from tests.store.conftest import NOW, Filler

J = JobStage
ONE, TWO = "wss://one.example", "wss://two.example"


def event(fill, kind=6050, content="an answer", at=NOW):
    return fill.keys.sign(kind, content, [], at)


def put(db, made, purpose="result", ref="job", relays=(ONE,), expires_at=NOW + 100):
    with db.transaction(durable=True) as tx:
        outbox.add(tx, made, purpose, ref, relays, NOW, expires_at)
    return made


def done_job(db, fill):
    job = fill.job(stage=J.FREE)
    for stage in (J.RUNNING, J.DONE):
        with db.transaction(durable=True) as tx:
            jobs.advance(tx, job.id, stage, NOW)
    return job


def test_p2_a_second_result_of_one_job_is_refused(db, fill):
    put(db, event(fill))
    with pytest.raises(sqlite3.IntegrityError):
        put(db, event(fill, content="another answer"))
    assert len(outbox.newer(db, 0, NOW, 9)) == 1


def test_p2_what_is_sent_again_is_the_same_bytes_also_after_a_restart(home):
    db = Database(home.database)
    made = put(db, event(Filler(db)))
    before = outbox.newer(db, 0, NOW, 9)[0]["event_json"]
    db.close()
    db = Database(home.database)
    assert outbox.newer(db, 0, NOW, 9)[0]["event_json"] == before == made.to_json()
    db.close()


def test_the_first_ok_delivers_the_job_and_later_ones_do_not_again(db, fill):
    job = done_job(db, fill)
    made = put(db, event(fill), ref=job.id, relays=(ONE, TWO))
    assert outbox.ack(db, made.id, ONE, True, "", NOW + 1)
    assert fill.stage(job.id) == J.DELIVERED
    assert not outbox.ack(db, made.id, TWO, True, "duplicate:", NOW + 2)
    assert outbox.get(db, "result", job.id)["accepted_at"] == NOW + 1
    assert fill.journalled("ResultDelivered") == 1


def test_a16_a_refusal_then_an_ok_counts_and_the_reverse_changes_nothing(db, fill):
    job = done_job(db, fill)
    made = put(db, event(fill), ref=job.id)
    assert not outbox.ack(db, made.id, ONE, False, "rate-limited:", NOW)
    assert fill.stage(job.id) == J.DONE
    assert outbox.ack(db, made.id, ONE, True, "", NOW)
    assert not outbox.ack(db, made.id, ONE, False, "blocked:", NOW)
    assert fill.stage(job.id) == J.DELIVERED
    assert outbox.taken_by(db, made.id) == {ONE}


def test_a16_an_ok_for_a_foreign_id_changes_nothing(db, fill):
    assert not outbox.ack(db, "f" * 64, ONE, True, "", NOW)
    assert db.query("SELECT * FROM outbox_acks") == []


def test_what_has_expired_is_due_no_more(db, fill):
    put(db, event(fill))
    for find in (lambda now: outbox.newer(db, 0, now, 9),
                 lambda now: outbox.unsettled(db, ONE, 0, now, 9)):
        assert find(NOW + 99) and not find(NOW + 100)


def test_many_oks_are_recorded_together(db, fill):
    made = [put(db, event(fill, content=str(n)), ref=str(n)) for n in range(20)]
    first = outbox.ack_many(db, [(m.id, ONE, True, "") for m in made for _ in range(2)], NOW)
    assert first == {m.id for m in made}


def test_p11_an_id_has_its_effect_once_also_after_a_restart(home):
    db = Database(home.database)
    with db.transaction(durable=False) as tx:
        assert seen.add(tx, "ab" * 32, NOW)
        assert not seen.add(tx, "ab" * 32, NOW)
    db.close()
    db = Database(home.database)
    assert seen.known(db, "ab" * 32) and not seen.known(db, "cd" * 32)
    with db.transaction(durable=False) as tx:
        assert not seen.add(tx, "ab" * 32, NOW)
        assert seen.prune(tx, NOW) == 0 and seen.prune(tx, NOW + 1) == 1
    db.close()
