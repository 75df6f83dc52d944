"""Waking a thread out of poll(), without a lost ring."""

import threading
import time

import pytest

from pylon.errors import RelayError
from pylon.relays.bell import READ, Bell, Patience
from tests.waiting import wait_for


@pytest.fixture
def bell():
    bell = Bell()
    yield bell
    bell.close()


def test_a_ring_before_the_wait_is_not_lost(bell):
    bell.ring()
    bell.ring()
    started = time.monotonic()
    bell.wait(5)
    assert time.monotonic() - started < 1
    bell.wait(0)                    # it was one ring


def test_a_timeout_without_a_ring(bell):
    started = time.monotonic()
    bell.wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_no_ring_is_lost_between_threads(bell):
    inbox, seen = [], []

    def listen():
        while len(seen) < 3000:
            bell.wait(5)
            while inbox:
                seen.append(inbox.pop())

    thread = threading.Thread(target=listen)
    thread.start()
    for number in range(3000):
        inbox.append(number)
        bell.ring()
    wait_for(lambda: not thread.is_alive())
    assert len(seen) == 3000


def test_ringing_a_closed_bell_touches_no_other_file(tmp_path):
    bell = Bell()
    number = bell.fileno()
    bell.close()
    with open(tmp_path / "database", "wb", buffering=0) as file:
        assert file.fileno() == number          # the descriptor is used again
        bell.ring()
        bell.clear()
        bell.close()
        assert file.tell() == 0


def test_patience_ends_and_can_be_stopped(bell):
    with _open() as quiet:
        with pytest.raises(RelayError, match="no answer within 0.05 s"):
            Patience(0.05).wait(quiet, READ)
        with pytest.raises(RelayError, match="stopped"):
            Patience(5, bell, lambda: True).wait(quiet, READ)


def test_a_ring_does_not_end_patience_by_itself(bell):
    with _open() as quiet:
        bell.ring()
        with pytest.raises(RelayError, match="no answer"):
            Patience(0.05, bell).wait(quiet, READ)


class _open:
    """Something that never becomes readable."""

    def __enter__(self):
        self._bell = Bell()
        return self._bell

    def __exit__(self, *_):
        self._bell.close()
