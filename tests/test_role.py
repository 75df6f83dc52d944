"""The thread wrapper: rings are never lost, failures never end a role, stops are prompt."""

import logging
import threading
import time

import pytest

from pylon import role as role_module
from pylon.role import Role


class Counter(Role):
    def __init__(self, rest=None):
        super().__init__("counter")
        self.steps = 0
        self.left = False
        self.rest = rest

    def step(self, now):
        self.steps += 1
        self.wait(self.rest)

    def leave(self):
        self.left = True


@pytest.fixture
def started():
    roles = []

    def start(role):
        role.start()
        roles.append(role)
        return role
    yield start
    for role in roles:
        role.stop()
        assert role.join(5)


def test_a_test_calls_step_without_a_thread():
    counter = Counter(rest=0)
    counter.step(now=1000)
    assert counter.steps == 1 and not counter.alive


def test_an_idle_role_takes_no_steps(started, wait_for):
    counter = started(Counter())
    wait_for(lambda: counter.steps == 1)
    assert counter.join(0.2) is False and counter.steps == 1


def test_a_ring_makes_one_step(started, wait_for):
    counter = started(Counter())
    for expected in (2, 3, 4):
        wait_for(lambda: counter._resting)
        counter.wake()
        wait_for(lambda: counter.steps == expected)


def test_a_ring_before_the_wait_is_not_lost():
    counter = Counter(rest=30)
    counter.wake()
    begun = time.monotonic()
    counter.step(now=1)
    assert time.monotonic() - begun < 5


def test_rings_of_many_threads_are_never_lost(started, wait_for):
    """A ring that falls between the look at the queue and the wait must still be heard."""
    items, done = [], []

    class Taker(Role):
        def step(self, now):
            while items:
                done.append(items.pop())
            self.wait(None)

    taker = started(Taker("taker"))

    def give(start):
        for number in range(start, start + 500):
            items.append(number)
            taker.wake()
    givers = [threading.Thread(target=give, args=(n * 500,)) for n in range(4)]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
    wait_for(lambda: len(done) == 2000)


def test_wait_says_whether_somebody_rang():
    counter = Counter()
    assert counter.wait(0.01) is False
    counter.wake()
    assert counter.wait(0.01) is True
    assert counter.wait(0.01) is False


def test_stop_ends_a_wait_at_once_and_leave_runs_in_the_thread(started, wait_for):
    counter = started(Counter())
    wait_for(lambda: counter._resting)
    counter.stop()
    assert counter.join(2) and counter.left and counter.stopping


def test_a_failing_step_is_logged_and_tried_again(started, wait_for, caplog, monkeypatch):
    monkeypatch.setattr(role_module, "BACKOFF_FIRST_SECS", 0.01)

    class Failing(Role):
        count = 0

        def step(self, now):
            self.count += 1
            if self.count < 4:
                raise ValueError("broken")
            self.wait(None)

    caplog.set_level(logging.INFO)
    failing = started(Failing("failing"))
    wait_for(lambda: failing._resting and failing.count == 4)
    failing.wake()
    wait_for(lambda: failing.count == 5)
    text = caplog.text
    assert text.count("unexpected failure") == 1 and "works again" in text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError, RecursionError])
def test_nothing_ends_a_role_silently(started, wait_for, monkeypatch, caplog, error):
    monkeypatch.setattr(role_module, "BACKOFF_FIRST_SECS", 0.01)

    class Dying(Role):
        count = 0

        def step(self, now):
            self.count += 1
            if self.count == 1:
                raise error
            self.wait(None)

    dying = started(Dying("dying"))
    wait_for(lambda: dying.count == 2)
    assert dying.alive and "dying" in caplog.text


def test_a_role_in_back_off_stops_at_once(started, wait_for):
    class Failing(Role):
        def step(self, now):
            raise ValueError("for ever")

    failing = started(Failing("failing"))
    wait_for(lambda: failing._resting)
    begun = time.monotonic()
    failing.stop()
    assert failing.join(2) and time.monotonic() - begun < 1


def test_a_ring_during_back_off_is_kept_but_does_not_shorten_it(started, wait_for, monkeypatch):
    monkeypatch.setattr(role_module, "BACKOFF_FIRST_SECS", 0.2)
    times = []

    class Failing(Role):
        def step(self, now):
            times.append(time.monotonic())
            if len(times) < 2:
                raise ValueError("once")
            assert self.wait(None)

    failing = started(Failing("failing"))
    wait_for(lambda: failing._resting)
    failing.wake()
    wait_for(lambda: len(times) >= 3)
    assert times[1] - times[0] > 0.15


def test_the_watchdog_sees_a_stuck_step_but_not_a_resting_role(started, wait_for):
    hold = threading.Event()

    class Stuck(Role):
        max_step_secs = 0.05

        def step(self, now):
            hold.wait(5)
            self.wait(None)

    stuck = started(Stuck("stuck"))
    wait_for(lambda: stuck.stuck_secs() > 0)
    hold.set()
    wait_for(lambda: stuck._resting)
    assert stuck.stuck_secs() == 0


def test_a_role_that_never_ran_is_joined_at_once():
    assert Counter().join(0)
