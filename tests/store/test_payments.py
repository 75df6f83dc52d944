"""The paying machine: every step with its booking, each once."""

from __future__ import annotations

import threading

import pytest

from pylon.errors import IllegalTransition, Refused
from pylon.states import JobStage, PaymentState
from pylon.store import books, checks, invoices, jobs, owed, payments
from pylon.store.payments import Intent
from pylon.store.spending import Cap, Limits, NO_LIMITS, Uptime
from tests.store.conftest import AGENT, NOW

P = PaymentState
DAY = 86400


@pytest.fixture
def rich(fill):
    fill.fund(AGENT, 100_000)
    fill.fund("owner", 100_000)
    return fill


def refused(call, code):
    with pytest.raises(Refused) as raised:
        call()
    assert raised.value.code == code


def balances(db):
    return {name: n for name, n in books.balances(db).items() if n and name != "external"}


def test_a_reservation_takes_amount_and_fee_cap(rich, db):
    row = rich.reserve(1)
    assert row.state == P.RESERVED
    assert balances(db) == {AGENT: 89_000, "owner": 100_000, "reserved": 11_000}


def test_a_paid_one_books_amount_and_fee_and_gives_the_rest_back(rich, db):
    row = payments.succeed(db, rich.sent(1).id, rich.preimage(1), 300, NOW + 5)
    assert (row.state, row.fee_msats, row.ended_at) == (P.SUCCEEDED, 300, NOW + 5)
    assert balances(db) == {AGENT: 89_700, "owner": 100_000, "fees": 300}
    assert checks.all_findings(db) == []


def test_a_failed_one_gives_everything_back(rich, db):
    row = payments.fail(db, rich.sent(1).id, "no route", NOW)
    assert (row.state, row.reason) == (P.FAILED, "no route")
    assert balances(db) == {AGENT: 100_000, "owner": 100_000}
    assert checks.all_findings(db) == []


def test_e63_an_unknown_one_keeps_its_reservation(rich, db):
    row = payments.unknown(db, rich.sent(1).id, "time-out", NOW)
    assert row.state == P.UNKNOWN
    assert balances(db)["reserved"] == 11_000
    assert checks.all_findings(db) == []


@pytest.mark.parametrize("end, kept", [("succeed", 89_000), ("fail", 100_000)])
def test_e62_an_unknown_one_ends_once_whatever_is_said_again(rich, db, end, kept):
    row = payments.unknown(db, rich.sent(1).id, "time-out", NOW)
    for _ in range(3):
        if end == "succeed":
            payments.succeed(db, row.id, rich.preimage(1), 1000, NOW)
        else:
            payments.fail(db, row.id, "no route", NOW)
        payments.unknown(db, row.id, "late word", NOW)
    assert balances(db)[AGENT] == kept
    assert checks.all_findings(db) == []


def test_what_is_decided_is_not_decided_otherwise(rich, db):
    paid, failed = rich.sent(1), rich.sent(2)
    payments.succeed(db, paid.id, rich.preimage(1), 0, NOW)
    payments.fail(db, failed.id, "no", NOW)
    with pytest.raises(IllegalTransition):
        payments.fail(db, paid.id, "no", NOW)
    with pytest.raises(IllegalTransition):
        payments.succeed(db, failed.id, rich.preimage(2), 0, NOW)
    assert checks.all_findings(db) == []


def test_only_the_unsent_are_released(rich, db):
    assert payments.release_unsent(db, rich.reserve(1).id, NOW).state == P.FAILED
    assert payments.release_unsent(db, rich.sent(2).id, NOW).state == P.SENT
    row = payments.unknown(db, rich.sent(3).id, "?", NOW)
    assert payments.release_unsent(db, row.id, NOW).state == P.UNKNOWN


def test_e69_a_fee_above_its_cap_falls_on_the_owner_with_an_alarm(rich, db):
    payments.succeed(db, rich.sent(1).id, rich.preimage(1), 4_000, NOW)
    assert balances(db) == {AGENT: 89_000, "owner": 97_000, "fees": 4_000}
    assert rich.journalled("Alarm") == 1
    assert checks.all_findings(db) == []


def test_the_owners_own_overrun_is_booked_to_the_owner(rich, db):
    payments.succeed(db, rich.sent(1, account="owner").id, None, 4_000, NOW)
    assert balances(db) == {AGENT: 100_000, "owner": 86_000, "fees": 4_000}
    assert checks.all_findings(db) == []


def test_e73_one_hash_has_one_live_payment(rich):
    rich.reserve(1)
    refused(lambda: rich.reserve(1, action_key="other"), "invoice-taken")


def test_one_action_key_has_one_live_payment(rich):
    rich.reserve(1)
    refused(lambda: rich.reserve(2, action_key="action-1"), "action-taken")


@pytest.mark.parametrize("ended", ["paid", "unknown", "sent"])
def test_e73_neither_is_paid_again_afterwards(rich, db, ended):
    row = rich.sent(1)
    if ended == "paid":
        payments.succeed(db, row.id, rich.preimage(1), 0, NOW)
    elif ended == "unknown":
        payments.unknown(db, row.id, "?", NOW)
    refused(lambda: rich.reserve(1, action_key="again"), "invoice-taken")
    refused(lambda: rich.reserve(2, action_key="action-1"), "action-taken")


def test_what_failed_for_certain_may_be_tried_again(rich, db):
    payments.fail(db, rich.sent(1).id, "no route", NOW)
    row = rich.sent(1)
    payments.succeed(db, row.id, rich.preimage(1), 0, NOW)
    assert payments.by_hash(db, row.payment_hash).state == P.SUCCEEDED
    assert payments.by_action(db, "action-1").id == row.id
    assert checks.all_findings(db) == []


def test_e73_fifty_proposals_at_once_reserve_one(rich, db):
    codes, barrier = [], threading.Barrier(50)

    def propose(number):
        barrier.wait()
        try:
            rich.reserve(1, action_key=f"proposal-{number}")
            codes.append("ok")
        except Refused as err:
            codes.append(err.code)
    run_all([threading.Thread(target=propose, args=(n,)) for n in range(50)])
    assert sorted(codes) == ["invoice-taken"] * 49 + ["ok"]
    assert balances(db)["reserved"] == 11_000


def test_fifty_payments_at_once_keep_within_the_limit(rich, db):
    limits, codes, barrier = Limits(caps=(Cap("over-day-limit", 55_000),)), [], \
        threading.Barrier(50)

    def propose(number):
        barrier.wait()
        try:
            rich.reserve(number, limits)
            codes.append("ok")
        except Refused as err:
            codes.append(err.code)
    run_all([threading.Thread(target=propose, args=(n,)) for n in range(50)])
    assert codes.count("ok") == 5 and codes.count("over-day-limit") == 45
    assert balances(db)["reserved"] == 55_000


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_open_intents_are_those_that_are_not_decided(rich, db):
    rich.reserve(1)
    rich.sent(2)
    payments.unknown(db, rich.sent(3).id, "?", NOW)
    payments.fail(db, rich.sent(4).id, "no", NOW)
    payments.succeed(db, rich.sent(5).id, None, 0, NOW)
    assert [row.state for row in payments.open_intents(db)] == [P.RESERVED, P.SENT, P.UNKNOWN]
    assert len(payments.latest(db, 3)) == 3


def test_what_is_prepared_is_stored_before_it_is_sent(rich, db):
    row = payments.mark_sent(db, rich.reserve(1).id, '{"id": "request"}', NOW + 1)
    assert (row.prepared, row.sent_at) == ('{"id": "request"}', NOW + 1)
    assert payments.get(db, row.id) == row


# ---- the owner's word ---------------------------------------------------------------------------

@pytest.fixture
def lost(rich, db):
    return payments.unknown(db, rich.sent(1).id, "time-out", NOW)


def test_the_owner_may_call_it_failed_after_a_day(lost, db, fill):
    refused(lambda: payments.resolve(db, lost.payment_hash, False, None, 0, NOW + DAY - 1),
            "too-early")
    row = payments.resolve(db, lost.payment_hash, False, None, 0, NOW + DAY)
    assert row.state == P.FAILED
    assert balances(db)[AGENT] == 100_000
    assert '"by":"owner"' in last_words(db, lost)


def test_a_preimage_proves_it_at_once(lost, db, fill):
    for wrong in (None, "", "zz", "00" * 32):
        refused(lambda: payments.resolve(db, lost.payment_hash, True, wrong, 0, NOW),
                "bad-preimage")
    row = payments.resolve(db, lost.payment_hash, True, fill.preimage(1), 7, NOW)
    assert (row.state, row.fee_msats) == (P.SUCCEEDED, 7)
    assert checks.all_findings(db) == []


def test_only_an_unknown_one_needs_the_owners_word(rich, db):
    row = rich.sent(1)
    refused(lambda: payments.resolve(db, row.payment_hash, False, None, 0, NOW + 2 * DAY),
            "not-unknown")


def last_words(db, row):
    return db.query("SELECT data FROM journal WHERE subject = ? ORDER BY id",
                    (row.payment_hash,))[-1]["data"]


# ---- money inside the node ----------------------------------------------------------------------

def trade(number, **fields):
    return Intent(f"trade-{number}", AGENT, "infer", payments.INTERNAL, "", f"internal:{number}",
                  10_000, 0, **fields)


def test_trade_inside_the_node_moves_money_and_is_no_earning(rich, db):
    row = payments.reserve(db, trade(1), NO_LIMITS, NOW, Uptime("boot", 1))
    with db.transaction(durable=True) as tx:
        payments.settle_trade(tx, row.id, "provider", NOW)
        payments.settle_trade(tx, row.id, "provider", NOW)
    assert balances(db) == {AGENT: 90_000, "owner": 100_000, "provider": 10_000}
    assert db.one("SELECT count(*) AS n FROM earnings")["n"] == 0
    assert checks.all_findings(db) == []


def test_trade_that_came_to_nothing_gives_the_money_back(rich, db):
    row = payments.reserve(db, trade(1), NO_LIMITS, NOW, Uptime("boot", 1))
    payments.fail(db, row.id, "the job failed", NOW)
    assert balances(db)[AGENT] == 100_000
    assert checks.all_findings(db) == []


def test_trade_counts_in_the_limits_like_any_payment(rich, db):
    limits = Limits(caps=(Cap("over-day-limit", 15_000),))
    payments.reserve(db, trade(1), limits, NOW, Uptime("boot", 1))
    refused(lambda: payments.reserve(db, trade(2), limits, NOW, Uptime("boot", 1)),
            "over-day-limit")


def test_a_payment_to_the_world_is_no_trade(rich, db):
    row = rich.reserve(1)
    with pytest.raises(ValueError):
        with db.transaction(durable=True) as tx:
            payments.settle_trade(tx, row.id, "provider", NOW)


def test_a_transfer_happens_once_for_its_name(rich, db):
    for _ in range(3):
        payments.transfer(db, "owner", AGENT, 40_000, "fund", "f1", NOW)
    assert balances(db) == {AGENT: 140_000, "owner": 60_000}
    payments.transfer(db, AGENT, "owner", 140_000, "withdraw", "w1", NOW)
    assert balances(db) == {"owner": 200_000}


@pytest.mark.parametrize("amount, target, code", [
    (100_001, AGENT, "no-funds"), (0, AGENT, "bad-amount"), (-5, AGENT, "bad-amount"),
    (5, "owner", "bad-amount")])
def test_a_transfer_of_what_is_not_there_is_refused(rich, db, amount, target, code):
    refused(lambda: payments.transfer(db, "owner", target, amount, "fund", "f1", NOW), code)
    assert balances(db)["owner"] == 100_000


# ---- refunds ------------------------------------------------------------------------------------

@pytest.fixture
def debt(fill, db):
    """A job that was paid late and can't run: 21,000 msats are owed."""
    invoice = fill.quoted(7)
    invoices.expire(db, invoice, NOW + 700)
    invoices.settle(db, invoice, 21_000, False, NOW + 5000)
    return owed.list_all(db)[0]


def refund(fill, debt, **fields):
    return fill.reserve(8, account="owed", purpose=payments.REFUND, scope=debt.id,
                        amount_msats=21_000, **fields)


def test_a_refund_is_paid_from_what_is_owed_and_its_fee_by_the_owner(rich, db, debt):
    row = payments.mark_sent(db, refund(rich, debt).id, None, NOW)
    assert owed.list_all(db)[0].state == "settling"
    assert checks.all_findings(db) == []
    payments.succeed(db, row.id, rich.preimage(8), 400, NOW)
    assert owed.list_all(db) == [] and owed.list_all(db, ended=True)[0].state == "refunded"
    assert jobs.get(db, debt.job_id).stage == JobStage.REFUNDED
    assert balances(db) == {AGENT: 100_000, "owner": 99_600, "fees": 400}
    assert checks.all_findings(db) == []


def test_a_refund_that_failed_is_owed_again(rich, db, debt):
    row = payments.mark_sent(db, refund(rich, debt).id, None, NOW)
    payments.fail(db, row.id, "no route", NOW)
    assert owed.list_all(db)[0].state == "open"
    assert balances(db)["owed"] == 21_000
    assert checks.all_findings(db) == []
    refund(rich, debt)


def test_one_debt_has_one_refund_under_way(rich, db, debt):
    refund(rich, debt)
    refused(lambda: rich.reserve(9, account="owed", purpose=payments.REFUND, scope=debt.id,
                                 amount_msats=100), "not-owed")
    assert checks.all_findings(db) == []


def test_a_refunds_fee_needs_an_owner_who_can_pay_it(fill, db, debt):
    refused(lambda: refund(fill, debt), "no-funds")
    assert owed.list_all(db)[0].state == "open"
    assert checks.all_findings(db) == []
