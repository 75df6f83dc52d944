"""Limits: what counts, in which window, whatever the clocks say."""

from __future__ import annotations

import pytest

from pylon.errors import Refused
from pylon.store import clock, payments, spending
from pylon.store.spending import Cap, Limits, Uptime
from tests.store.conftest import AGENT, NOW

DAY = 86400


def day(msats, **narrowed):
    return Limits(caps=(Cap("over-day-limit", msats, DAY, **narrowed),))


@pytest.fixture
def rich(fill):
    fill.fund(AGENT, 10_000_000)
    return fill


def refused(call, code):
    with pytest.raises(Refused) as raised:
        call()
    assert raised.value.code == code


def test_the_fee_cap_counts_for_one_payment(rich):
    refused(lambda: rich.reserve(1, Limits(action_msats=10_999)), "over-action-limit")
    rich.reserve(1, Limits(action_msats=11_000))


def test_a_window_counts_what_is_reserved_and_what_is_paid(rich, db):
    row = rich.sent(1)
    refused(lambda: rich.reserve(2, day(21_999)), "over-day-limit")
    payments.succeed(db, row.id, rich.preimage(1), 200, NOW)
    refused(lambda: rich.reserve(2, day(21_199)), "over-day-limit")
    rich.reserve(2, day(21_200))            # 10,200 are spent: the fee, no longer its cap


def test_what_failed_does_not_count(rich, db):
    payments.fail(db, rich.sent(1).id, "no route", NOW)
    rich.reserve(2, day(11_000))


def test_a_fee_beyond_its_cap_counts_up_to_the_cap(rich, db):
    payments.succeed(db, rich.sent(1).id, None, 5_000, NOW)
    assert spending.spent(db, AGENT, Cap("x", 0), NOW, Uptime("boot", 1000)) == 11_000


def test_a_window_rolls_with_real_seconds(rich):
    rich.reserve(1)
    late = Uptime("boot", 1000 + DAY - 1)
    refused(lambda: rich.reserve(2, day(11_000), uptime=late), "over-day-limit")
    rich.reserve(2, day(11_000), uptime=Uptime("boot", 1000 + DAY))


@pytest.mark.parametrize("step", [DAY, 30 * DAY, 50 * 365 * DAY, -3600, -DAY])
def test_h101_a_step_of_the_wall_clock_opens_no_window(rich, step):
    rich.reserve(1, now=NOW, uptime=Uptime("boot", 1000))
    refused(lambda: rich.reserve(2, day(11_000), now=NOW + step, uptime=Uptime("boot", 1060)),
            "over-day-limit")


@pytest.mark.parametrize("step", [DAY, 50 * 365 * DAY, -60 * DAY])
def test_h101_a_step_of_the_wall_clock_closes_no_window_for_ever(rich, step):
    rich.reserve(1, now=NOW + step, uptime=Uptime("boot", 1000))
    rich.reserve(2, day(11_000), now=NOW, uptime=Uptime("boot", 1000 + DAY))


@pytest.mark.parametrize("now", [0, NOW - 50 * 365 * DAY, clock.EARLIEST_AT - 1])
def test_h101_a_clock_before_this_program_buys_nothing(rich, now):
    refused(lambda: rich.reserve(1, now=now, uptime=Uptime("boot", 30)), "clock-wrong")


def test_a_clock_that_is_behind_after_a_reboot_opens_no_window_when_it_is_set_right(rich, db):
    rich.reserve(1, now=NOW, uptime=Uptime("boot", 1000))
    spending.keep_time(db, NOW - 40 * DAY, Uptime("next", 30))
    refused(lambda: rich.reserve(2, day(11_000), now=NOW + DAY, uptime=Uptime("next", 60)),
            "over-day-limit")


def test_a_payment_while_the_clock_was_behind_opens_no_window_after_a_reboot(rich):
    """What counts over a reboot is the latest time that was ever seen."""
    rich.reserve(1, now=NOW, uptime=Uptime("boot", 1000))
    rich.reserve(2, now=NOW - 40 * DAY, uptime=Uptime("boot", 1010))
    refused(lambda: rich.reserve(3, day(22_000), now=NOW + 60, uptime=Uptime("next", 30)),
            "over-day-limit")


def test_a_boot_a_day_later_is_a_day_later(rich):
    rich.reserve(1, now=NOW, uptime=Uptime("boot", 1000))
    rich.reserve(2, day(11_000), now=NOW + DAY, uptime=Uptime("next", 30))


def test_an_uptime_that_went_back_in_one_boot_starts_anew_and_opens_nothing(rich):
    rich.reserve(1, now=NOW, uptime=Uptime("unknown", 1000))
    refused(lambda: rich.reserve(2, day(11_000), now=NOW, uptime=Uptime("unknown", 5)),
            "over-day-limit")


def test_a_life_limit_has_no_window(rich):
    life = Limits(caps=(Cap("over-total-limit", 11_000, None),))
    rich.reserve(1)
    refused(lambda: rich.reserve(2, life, uptime=Uptime("boot", 1000 + 3650 * DAY)),
            "over-total-limit")


@pytest.mark.parametrize("narrowed, other", [
    ({"purposes": ("zap",)}, {"purpose": "infer"}),
    ({"scope": "tick-1"}, {"scope": "tick-2"}),
    ({"counterparty": "a" * 64}, {"counterparty": "b" * 64})])
def test_a_cap_counts_only_what_it_is_narrowed_to(rich, narrowed, other):
    mine = {"purpose": "zap", "scope": "tick-1", "counterparty": "a" * 64}
    limits = day(11_000, **narrowed)
    rich.reserve(1, limits, **mine)
    refused(lambda: rich.reserve(2, limits, **mine), "over-day-limit")
    rich.reserve(2, limits, **{**mine, **other})


def test_another_account_has_its_own_limits(rich):
    rich.fund("agent:npub1other", 100_000)
    rich.reserve(1, day(11_000))
    rich.reserve(2, day(11_000), account="agent:npub1other")


def test_what_must_stay_stays(fill):
    fill.fund(AGENT, 20_000)
    refused(lambda: fill.reserve(1, Limits(keep_msats=9_001)), "no-funds")
    fill.reserve(1, Limits(keep_msats=9_000))


def test_an_account_cannot_spend_more_than_it_has(fill):
    fill.fund(AGENT, 10_999)
    refused(lambda: fill.reserve(1), "no-funds")


def test_the_owner_spends_what_the_provider_earned_too(fill, db):
    fill.fund("provider", 11_000)
    assert spending.available(db, "owner") == 11_000
    fill.reserve(1, account="owner")
    assert spending.available(db, "owner") == 0


@pytest.mark.parametrize("reason", [spending.UNDERFUNDED, spending.RESTORED, spending.BY_OWNER])
def test_a_stop_refuses_and_its_end_allows(rich, db, reason):
    with db.transaction(durable=True) as tx:
        assert spending.freeze(tx, reason, NOW)
        assert not spending.freeze(tx, reason, NOW)
    refused(lambda: rich.reserve(1), "spending-frozen")
    assert spending.frozen(db) == [reason]
    with db.transaction(durable=True) as tx:
        assert spending.thaw(tx, reason, NOW)
        assert not spending.thaw(tx, reason, NOW)
    rich.reserve(1)
    assert rich.journalled("Alarm") == 1 and rich.journalled("SpendingResumed") == 1


def test_two_reasons_must_both_end(rich, db):
    with db.transaction(durable=True) as tx:
        spending.freeze(tx, spending.RESTORED, NOW)
        spending.freeze(tx, spending.UNDERFUNDED, NOW)
        spending.thaw(tx, spending.UNDERFUNDED, NOW)
    refused(lambda: rich.reserve(1), "spending-frozen")


def test_the_machine_tells_its_uptime_and_boot():
    first, second = Uptime.read(), Uptime.read()
    assert first.boot_id == second.boot_id and len(first.boot_id) > 6
    assert 0 < first.secs <= second.secs
