"""Back-off and buckets, with a clock that the test moves."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pylon.relays.pace import HEALTHY_SECS, Backoff, Bucket


class Longest(random.Random):
    """Draws the largest number there is."""

    def uniform(self, a, b):
        return b


def test_backoff_doubles_up_to_its_limit():
    backoff = Backoff(300, Longest())
    assert [backoff.failed(0) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_backoff_is_full_jitter():
    backoff, pauses = Backoff(300, random.Random(1)), []
    for _ in range(200):
        backoff.failures = 5
        pauses.append(backoff.failed(0))
    assert min(pauses) < 2 and max(pauses) > 30 and max(pauses) <= 32


def test_only_a_healthy_minute_brings_backoff_to_its_start():
    backoff = Backoff(300, Longest())
    for _ in range(5):
        backoff.failed(0)
    assert backoff.failed(HEALTHY_SECS - 1) == 32
    assert backoff.failed(HEALTHY_SECS) == 1


def test_misbehaviour_is_paid_with_a_longer_pause():
    assert Backoff(300, random.Random(1)).failed(0, penalty=True) > 60


def test_misbehaviour_counts_even_after_a_healthy_life():
    assert Backoff(300, random.Random(1)).failed(3600, penalty=True) > 60


def test_bucket_empties_and_refills():
    bucket = Bucket(rate=2, size=10, mono=0)
    assert all(bucket.spend(1, 0) for _ in range(10))
    assert bucket.empty_until(0) is None        # nothing left is not yet a debt
    assert not bucket.spend(4, 0)
    assert bucket.empty_until(0) == 2.0
    assert bucket.empty_until(2.0) is None


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=50))
def test_a_bucket_never_gives_more_than_its_rate_and_size(steps):
    """With every spender waiting as told, what is spent stays below rate x time + size + one."""
    bucket, mono, spent, largest = Bucket(rate=1, size=4, mono=0), 0.0, 0.0, 0.0
    for pause, cost in steps:
        mono += pause
        mono = max(mono, bucket.empty_until(mono) or mono)
        bucket.spend(cost, mono)
        spent, largest = spent + cost, max(largest, cost)
    assert spent <= mono * 1 + 4 + largest + 1e-6
