"""The publisher by hand: a real store, a pretended pool, a clock that the test moves; and then
once with a real relay."""

import time

import pytest

from pylon.relays import publisher as publisher_module
from pylon.relays.publisher import Publisher
from pylon.store import outbox
from pylon.store.database import Database
from tests.parts.relays import LocalRelay
from tests.relays.conftest import an_event
from tests.waiting import wait_for

A, B, GUEST = "wss://a.example", "wss://b.example", "wss://guest.example"
NOW = 1_800_000_000


class PretendedPool:
    """Relays that take everything that is offered, until told otherwise; answers by hand."""

    def __init__(self):
        self.up = {A}
        self.own = [A, B]
        self.room = 1000
        self.sent = []              # (relay, event id, text)
        self.called = []
        self.on_ok = None

    def listen(self, on_state):
        pass

    def own_urls(self):
        return list(self.own)

    def connected(self):
        return sorted(self.up)

    def add_relay(self, url):
        self.called.append(url)
        return True

    def publish(self, event_id, text, urls, on_ok):
        self.on_ok = on_ok
        took = []
        for url in urls:
            if url in self.up and self.room > 0:
                self.room -= 1
                self.sent.append((url, event_id, text))
                took.append(url)
        return took

    def ids(self, relay=None):
        return [event_id for url, event_id, _ in self.sent if relay in (None, url)]


class Stand:
    """A publisher whose steps the test makes."""

    def __init__(self, db, monkeypatch):
        self.db, self.pool, self.mono = db, PretendedPool(), 1000.0
        self.first = []
        monkeypatch.setattr(publisher_module.time, "monotonic", lambda: self.mono)
        self.publisher = self.fresh()

    def fresh(self):
        """As after a restart: nothing in memory."""
        self.publisher = Publisher(self.db, self.pool, self.first.append)
        self.publisher.wait = lambda secs: False
        return self.publisher

    def store(self, content="", purpose="test", relays=(), expires_at=NOW + 86400):
        event = an_event(content, at=NOW)
        with self.db.transaction(durable=False) as tx:
            outbox.add(tx, event, purpose, event.id, relays, NOW, expires_at)
        return event

    def step(self, later=0.0):
        self.mono += later
        self.publisher.step(NOW)

    def answer(self, event, accepted=True, message="", relay=A):
        self.pool.on_ok(relay, event.id, accepted, message)

    def settled(self, event):
        return bool(outbox.find(self.db, event.id)["settled"])


@pytest.fixture
def stand(home, monkeypatch):
    db = Database(home.database)
    yield Stand(db, monkeypatch)
    db.close()


def test_what_is_stored_is_sent_byte_for_byte(stand):
    event = stand.store("hello")
    stand.step()
    assert stand.pool.sent == [(A, event.id, event.to_json())]


def test_nothing_is_sent_twice_while_it_is_under_way(stand):
    stand.store()
    stand.step()
    stand.step(later=3000)
    assert len(stand.pool.sent) == 1


def test_the_first_acceptance_is_told_and_all_of_them_settle(stand):
    event = stand.store()
    stand.pool.up = {A, B}
    stand.step()
    stand.answer(event)
    stand.step()
    assert stand.first == [{event.id}] and not stand.settled(event)
    stand.answer(event, relay=B)
    stand.step()
    assert stand.first == [{event.id}] and stand.settled(event)


def test_a_relay_that_comes_is_offered_what_it_has_not_taken(stand):
    event = stand.store()
    stand.step()
    stand.answer(event)
    stand.pool.up = {A, B}
    stand.step()
    assert stand.pool.ids() == [event.id, event.id] and stand.pool.ids(B) == [event.id]


def test_a_restart_offers_the_same_bytes_to_those_that_have_not_taken_them(stand):
    event = stand.store("once signed")
    stand.step()
    stand.answer(event)
    stand.step()
    stand.fresh()
    stand.pool.up = {A, B}
    stand.step()
    assert stand.pool.sent[1:] == [(B, event.id, event.to_json())]
    stand.answer(event, relay=B)
    stand.step()
    assert stand.settled(event)


def test_a_refusal_that_may_pass_is_tried_again_with_growing_pauses(stand):
    event = stand.store()
    stand.step()
    for pause in (2, 10, 60, 300, 1800, 1800):
        stand.answer(event, False, "error: not now")
        stand.step()
        before = len(stand.pool.sent)
        stand.step(later=pause - 0.5)
        assert len(stand.pool.sent) == before
        stand.step(later=1)
        assert len(stand.pool.sent) == before + 1


def test_a_refusal_does_not_hold_up_other_events(stand):
    bad = stand.store("bad")
    stand.step()
    stand.answer(bad, False, "error: not now")
    stand.step()
    good = stand.store("good")
    stand.step()
    assert stand.pool.ids() == [bad.id, good.id]


def test_a_final_refusal_is_final_where_another_relay_took_the_event(stand):
    event = stand.store()
    stand.pool.up = {A, B}
    stand.step()
    stand.answer(event, False, "blocked: you are not welcome")
    stand.answer(event, relay=B)
    stand.step()
    stand.step(later=100_000)
    assert len(stand.pool.sent) == 2


def test_an_event_that_nobody_takes_is_offered_until_it_expires(stand):
    """Money may hang on it: `invalid:` of every relay is no reason to forget it."""
    event = stand.store(expires_at=NOW + 86400)
    stand.step()
    stand.answer(event, False, "invalid: no")
    stand.step()
    stand.step(later=601)
    assert stand.pool.ids() == [event.id, event.id] and not stand.settled(event)
    stand.publisher.step(NOW + 86400)
    stand.mono += publisher_module.EXPIRY_SECS
    stand.publisher.step(NOW + 86401)
    assert stand.settled(event)


def test_rate_limited_holds_the_relay_and_only_that(stand):
    event = stand.store("one")
    stand.pool.up = {A, B}
    stand.step()
    stand.answer(event, False, "rate-limited: slow down")
    stand.step()
    second = stand.store("two")
    stand.step()
    assert stand.pool.ids(A) == [event.id] and stand.pool.ids(B) == [event.id, second.id]
    stand.step(later=6)
    assert set(stand.pool.ids(A)) == {event.id, second.id}


def test_a_full_queue_loses_nothing(stand):
    stand.pool.room = 3
    stored = [stand.store(str(number)) for number in range(10)]
    stand.step()
    assert stand.pool.ids() == [event.id for event in stored[:3]]
    for event in stored[:3]:
        stand.answer(event)
    stand.pool.room = 100
    stand.step()
    assert stand.pool.ids() == [event.id for event in stored]


def test_more_than_a_page_in_the_order_of_storing(stand, monkeypatch):
    monkeypatch.setattr(publisher_module, "PAGE_ROWS", 7)
    stored = [stand.store(str(number)) for number in range(30)]
    stand.step()
    assert stand.pool.ids(A) == [event.id for event in stored]
    stand.fresh()
    stand.pool.sent.clear()
    stand.step()
    assert stand.pool.ids(A) == [event.id for event in stored]


def test_what_has_expired_is_not_sent(stand):
    stand.store(expires_at=NOW)
    stand.step()
    assert stand.pool.sent == []


def test_a_replaced_announcement_is_sent_although_its_row_was_the_last(stand):
    stand.store("old", purpose="announcement")
    stand.step()
    with stand.db.transaction(durable=False) as tx:
        tx.execute("DELETE FROM outbox")
    new = stand.store("new", purpose="announcement")
    stand.step()
    assert stand.pool.ids()[-1] == new.id


def test_relays_that_a_customer_named_are_called_and_served(stand):
    event = stand.store(relays=[GUEST])
    stand.step()
    assert stand.pool.called == [GUEST] and stand.pool.ids(A) == [event.id]
    stand.pool.up |= {GUEST}
    stand.step()
    assert stand.pool.ids(GUEST) == [event.id]


def test_a_named_relay_is_called_again_with_pauses_and_then_given_up(stand):
    stand.store(relays=[GUEST])
    for _ in range(30):
        stand.step(later=3601)
    assert len(stand.pool.called) == len(publisher_module.GUEST_PAUSES_SECS)


def test_after_a_restart_named_relays_are_called_again(stand):
    stand.store(relays=[GUEST])
    stand.fresh()
    stand.step()
    assert stand.pool.called == [GUEST]


def test_a_direct_message_goes_to_the_named_relays_and_no_others(stand):
    event = stand.store(purpose="direct-message", relays=[GUEST])
    stand.pool.up = {A, B, GUEST}
    stand.step()
    assert stand.pool.sent == [(GUEST, event.id, event.to_json())]


def test_answers_are_not_lost_when_the_store_fails(stand, monkeypatch):
    event = stand.store()
    stand.step()
    stand.answer(event)
    real = outbox.ack_many

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(outbox, "ack_many", full)
    with pytest.raises(OSError):
        stand.step()
    monkeypatch.setattr(outbox, "ack_many", real)
    stand.step()
    assert stand.first == [{event.id}]


def test_a_relay_that_is_down_for_long_costs_no_memory(stand):
    stand.pool.own = [A, "wss://dead.example"]
    for number in range(50):
        event = stand.store(str(number))
        stand.step()
        stand.answer(event)
    stand.step()
    feed = stand.publisher._feeds[A]
    assert not feed.under_way and not feed.pauses
    assert len(stand.publisher._targets) <= publisher_module.REMEMBERED


@pytest.fixture
def run(home):
    """run(pool): a store and a publisher with its thread."""
    db, running = Database(home.database), []

    def start(pool):
        publisher = Publisher(db, pool, lambda first: None)
        running.append(publisher)
        publisher.start()
        return db, publisher

    yield start
    for publisher in running:
        publisher.stop()
        publisher.join(5)
    db.close()


def put(db, event, expires_in=600):
    now = int(time.time())
    with db.transaction(durable=False) as tx:
        outbox.add(tx, event, "test", event.id, [], now, now + expires_in)


def test_flush_waits_for_what_is_stored_and_no_longer(run, make_pool, good):
    pool = make_pool([good.url])
    wait_for(pool.connected)
    db, publisher = run(pool)
    event = an_event("goodbye")
    put(db, event)
    assert publisher.flush(5)
    assert outbox.taken_by(db, event.id) == {good.url}


def test_a_relay_that_was_down_gets_everything_when_it_comes(run, make_pool, tmp_path):
    """The same bytes, each once and in order, although the relay went away in between."""
    with LocalRelay(record=tmp_path / "log") as relay:
        pool = make_pool([relay.url])
        db, publisher = run(pool)
        wait_for(pool.connected)
        relay.stop()
        wait_for(lambda: not pool.connected())
        stored = [an_event(str(number)) for number in range(300)]
        for event in stored:
            put(db, event)
            publisher.ring()
        relay.start()
        wait_for(lambda: len(relay.recorded()) >= 300, 20)
        wait_for(lambda: not outbox.unsettled(db, relay.url, 0, int(time.time()), 10))
        assert [line["event"]["id"] for line in relay.recorded()] == [one.id for one in stored]
