"""Relays, pools and ears for the tests of relays. Times are short; nothing sleeps."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pylon.nostr import keys
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

NODE = keys.generate()
BOUND_SECS = 2.0            # the promise: what a bad relay may delay others


def settings(**changes):
    """A configuration with nothing but [relay] in it, and with short times."""
    relay = {"connect_secs": 2, "ping_secs": 30, "frame_bytes": 262144, "message_bytes": 524288,
             "message_secs": 2, "max_relays": 32, "allow_private": True, "ca_file": "",
             "backoff_max_secs": 1}
    return SimpleNamespace(relay=SimpleNamespace(**{**relay, **changes}))


class Ear:
    """A subscription, and all that it heard."""

    def __init__(self, name="ear", filters=None, **more):
        self.events, self.eose, self.closed = [], [], []
        self.sub = Subscription(
            name, filters or [{"kinds": [5050]}], self._hear, on_eose=self.eose.append,
            on_closed=lambda relay, message: self.closed.append((relay, message)), **more)

    def _hear(self, relay, events):
        self.events += [(relay, event) for event in events]

    def ids(self):
        return [event.id for _, event in self.events]

    def contents(self):
        return [event.content for _, event in self.events]


class Oks:
    """Collects the answers to publishing."""

    def __init__(self):
        self.answers = []

    def __call__(self, relay, event_id, accepted, message):
        self.answers.append((relay, event_id, accepted, message))

    def words(self):
        return [(accepted, message) for _, _, accepted, message in self.answers]


def an_event(content="", kind=5050, tags=(), by=NODE, at=None):
    return by.sign(kind, content, tags, int(time.time()) if at is None else at)


def state_of(pool, url):
    return next(state for state in pool.states() if state.url == url)


def echo_secs(pool, ear, url):
    """How long an event takes to `url` and back into the ear."""
    event = an_event(f"echo {time.monotonic()}")
    started = time.monotonic()
    wait_for(lambda: pool.publish(event.id, event.to_json(), [url], Oks()), what="publish")
    wait_for(lambda: event.id in ear.ids(), what="echo")
    return time.monotonic() - started


def assert_others_are_fast(pool, ear, url, rounds=20):
    """The good relay's p95 stays within the promised bound while the bad one does its worst."""
    times = sorted(echo_secs(pool, ear, url) for _ in range(rounds))
    assert times[int(rounds * 0.95) - 1] < BOUND_SECS, times
    assert state_of(pool, url).connected


@pytest.fixture(scope="session")
def good():
    """A real relay that does everything right."""
    with LocalRelay() as relay:
        yield relay


@pytest.fixture
def make_pool():
    """make_pool(urls, **[relay] settings): a started pool, stopped at the end."""
    pools = []

    def make(urls, identities=(NODE,), on_state=lambda url, connected: None, **changes):
        pool = Pool(settings(**changes), lambda: list(identities), on_state)
        pools.append(pool)
        pool.start(urls)
        return pool

    yield make
    for pool in pools:
        pool.stop()
