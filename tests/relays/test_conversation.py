"""Message by message: who is told of what, and what only costs a strike."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon.errors import RelayMisbehaved
from pylon.nostr import event as events
from pylon.relays import conversation
from pylon.relays.conversation import MAX_BATCH_EVENTS, MAX_STRIKES, Conversation
from pylon.relays.nip11 import Limits
from tests.relays.conftest import NODE, Ear, Oks, an_event
from tests.relays.test_deliveries import a_delivery

URL = "wss://relay.example"
NOW = 1_800_000_000
LATER = 1000.0              # monotonic: no straggler any more


class Talk:
    """An open conversation with ears, and what it wants to send."""

    def __init__(self, *ears, identities=(NODE,)):
        self.talk = Conversation(URL, lambda: identities, 0.0)
        for ear in ears:
            self.talk.subscribe(ear.sub, NOW, 0.0)
        self.talk.opened(Limits(), NOW, 0.0)
        self.mono = LATER
        self.said()

    def hear(self, *message):
        self.hear_text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    def hear_text(self, text):
        self.talk.take(text, NOW, self.mono)
        self.talk.hand_on()

    def event(self, event, sub_id="ear", **changes):
        self.hear("EVENT", sub_id, {**event.to_dict(), **changes})

    def said(self):
        texts, self.talk.texts = self.talk.texts, []
        return [json.loads(text) for text in texts]


@pytest.fixture
def ear():
    return Ear()


@pytest.fixture
def talk(ear):
    return Talk(ear)


def test_a_verified_event_is_handed_on(talk, ear):
    event = an_event("hello")
    talk.event(event)
    assert ear.events == [(URL, event)] and talk.talk.events == 1


def test_copies_are_dropped_unread(talk, ear, monkeypatch):
    event = an_event("hello")
    talk.event(event)
    monkeypatch.setattr(conversation.messages, "parse", None)       # would fail
    for _ in range(5):
        talk.event(event)
    assert len(ear.events) == 1 and talk.talk.duplicates == 5


def test_copies_in_another_spelling_are_dropped_too(talk, ear):
    event = an_event("hello")
    talk.event(event)
    talk.hear_text(json.dumps(["EVENT", "ear", event.to_dict()], indent=2))
    assert len(ear.events) == 1 and talk.talk.duplicates == 1


def test_two_subscriptions_each_get_the_event():
    one, two = Ear("one"), Ear("two")
    talk, event = Talk(one, two), an_event("for both")
    talk.event(event, "one")
    talk.event(event, "two")
    assert one.ids() == two.ids() == [event.id]


def test_p10_b21_the_id_of_one_event_over_the_content_of_another(talk, ear):
    event = an_event("true")
    talk.event(event, content="false")
    assert ear.events == [] and talk.talk.oddities == 1
    talk.event(event)
    assert ear.contents() == ["true"]
    talk.event(event, content="false")
    assert ear.contents() == ["true"]


def test_p10_b22_a_changed_id_over_a_good_signature(talk, ear):
    event = an_event("true")
    talk.event(event, id="ab" * 32)
    assert ear.events == [] and "ab" * 32 not in ear.sub.verified


def test_p10_b23_the_same_id_with_a_bad_signature_before_and_after(talk, ear):
    event = an_event("true")
    talk.event(event, sig="00" * 64)
    talk.event(event)
    talk.event(event, sig="00" * 64)
    assert ear.contents() == ["true"]


def test_p10_a_known_id_in_a_second_key_does_not_smuggle_another_event(talk, ear):
    """The peek at the raw text sees the first id; what is then dropped is only the frame."""
    known, other = an_event("known"), an_event("other")
    talk.event(known)
    text = json.dumps(other.to_dict(), separators=(",", ":"))
    talk.hear_text(f'["EVENT","ear",{{"id":"{known.id}",{text[1:]}]')
    assert ear.contents() == ["known"]
    talk.event(other)
    assert ear.contents() == ["known", "other"]


def test_p10_an_id_inside_the_content_hides_nothing(talk, ear):
    known = an_event("known")
    talk.event(known)
    quoting = an_event(json.dumps(known.to_dict(), separators=(",", ":")))
    talk.event(quoting)
    assert ear.ids() == [known.id, quoting.id]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["id", "pubkey", "created_at", "kind", "tags", "content", "sig"]),
       st.one_of(st.text(max_size=70), st.integers(), st.booleans(), st.none(), st.floats(),
                 st.lists(st.lists(st.text(max_size=4), max_size=3), max_size=3)))
def test_p10_no_changed_field_passes(field, value):
    event = an_event("true", tags=[["t", "x"]])
    if event.to_dict()[field] == value:
        return
    ear = Ear(filters=[{}])
    talk = Talk(ear)
    talk.event(event, **{field: value})
    talk.event(event)
    talk.event(event, **{field: value})
    assert ear.events == [(URL, event)]


def test_wanted_is_asked_before_the_signature_is_looked_at(monkeypatch):
    ear = Ear(wanted=lambda event: event.content != "no")
    talk = Talk(ear)
    monkeypatch.setattr(conversation.events, "verify", None)        # would fail
    talk.event(an_event("no"))
    assert ear.events == [] and talk.talk.oddities == 0


def test_an_unwanted_event_is_not_remembered_as_verified():
    answers = [False, True]
    ear = Ear(wanted=lambda event: answers.pop(0))
    talk, event = Talk(ear), an_event("at last")
    talk.event(event)
    talk.event(event)
    assert ear.contents() == ["at last"]


def test_events_come_in_batches_and_before_their_eose(ear):
    sizes = []
    ear.sub.on_events = lambda relay, found: sizes.append(len(found))
    ear.sub.on_eose = lambda relay: sizes.append("EOSE")
    talk = Talk(ear)
    for number in range(100):
        talk.talk.take(json.dumps(["EVENT", "ear", an_event(str(number)).to_dict()]), NOW, LATER)
    talk.hear("EOSE", "ear")
    assert sizes == [MAX_BATCH_EVENTS, 100 - MAX_BATCH_EVENTS, "EOSE"]


def test_what_a_handler_could_not_take_is_heard_again(ear):
    def fail(relay, found):
        raise OSError("no space left")

    talk, event, heard = Talk(ear), an_event("precious"), ear.sub.on_events
    ear.sub.on_events = fail
    with pytest.raises(OSError):
        talk.event(event)
    ear.sub.on_events = heard
    talk.event(event)
    assert ear.contents() == ["precious"]


def test_events_outside_the_filter_are_odd(talk, ear):
    talk.event(an_event(kind=1))
    assert ear.events == [] and talk.talk.oddities == 1


def test_stragglers_of_an_older_question_are_no_offence(talk, ear):
    talk.mono = 1.0
    talk.event(an_event(kind=1))
    talk.talk.unsubscribe("ear")
    for number in range(100):
        talk.event(an_event(str(number)))
    assert ear.events == [] and talk.talk.oddities == 0


@pytest.mark.parametrize("text", [
    pytest.param('["EVENT","never",' + an_event().to_json() + "]", id="a13"),
    pytest.param("[" * 100_000, id="a09"),
    pytest.param('["EVENT","ear",' + "9" * 5000 + "]", id="a10"),
    pytest.param('["EVENT","ear",{"created_at":NaN}]', id="a11"),
    pytest.param('{"a":1}', id="a12_object"), pytest.param('["WHAT","is","this"]', id="a12_verb"),
    pytest.param('["OK"]', id="a12_arity"), pytest.param("", id="empty"),
    pytest.param("null", id="null"), pytest.param('["EVENT","ear"]', id="no_event")])
def test_nonsense_costs_a_strike_and_too_much_of_it_the_connection(talk, text):
    for _ in range(MAX_STRIKES):
        talk.hear_text(text)
    assert talk.talk.oddities == MAX_STRIKES
    with pytest.raises(RelayMisbehaved):
        talk.hear_text(text)


def test_a08_binary_and_broken_utf8_are_strikes(talk):
    talk.talk.take(b"\xff\xfe", NOW, LATER)
    assert talk.talk.oddities == 1


def test_strikes_are_forgiven_with_time(talk):
    for _ in range(1000):
        talk.mono += 11
        talk.hear_text("nonsense")
    assert talk.talk.oddities == 1000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=10),
                    lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12))
def test_any_json_is_survived(value):
    talk = Talk(Ear())
    for message in (value, ["EVENT", "ear", value], ["OK", value, True, ""], ["CLOSED", value],
                    ["EOSE", value], ["AUTH", value], ["NOTICE", value]):
        talk.hear_text(json.dumps(message))


def test_auth_then_everything_that_was_refused_again(talk, ear):
    oks = Oks()
    delivery = a_delivery(oks)
    talk.talk.deliver(delivery, LATER)
    talk.said()
    talk.hear("AUTH", "challenge")
    talk.hear("CLOSED", "ear", "auth-required: who?")
    talk.hear("OK", delivery.event_id, False, "auth-required: who?")
    talk.talk.step(NOW, LATER)
    (verb, event), = talk.said()
    assert verb == "AUTH" and ear.closed == [] and oks.answers == []
    talk.hear("OK", event["id"], True, "")
    assert [text[0] for text in talk.said()] == ["REQ", "EVENT"]
    talk.hear("OK", delivery.event_id, True, "")
    assert oks.words() == [(True, "")]


def test_what_the_relay_says_it_does_not_take_is_not_sent(talk):
    oks = Oks()
    talk.talk.limits = Limits(max_message_length=100)
    talk.talk.deliver(a_delivery(oks, an_event("x" * 200)), LATER)
    assert talk.said() == [] and oks.words()[0][0] is False


def test_a_lost_connection_answers_for_what_was_under_way(talk):
    oks = Oks()
    talk.talk.deliver(a_delivery(oks), LATER)
    talk.talk.broken(NOW, "error: the connection was lost")
    talk.talk.deliver(a_delivery(oks, an_event("late")), LATER)
    assert oks.words() == [(False, "error: the connection was lost")] * 2


def test_a_subscription_made_while_disconnected_is_asked_for_later(talk):
    talk.talk.broken(NOW, "error: the connection was lost")
    talk.talk.subscribe(Ear("later").sub, NOW, LATER)
    assert talk.said() == []
    talk.talk.opened(Limits(), NOW, LATER)
    assert [text[1] for text in talk.said()] == ["ear", "later"]


def test_a_duplicate_costs_little(talk, ear):
    """G11, roughly: a frame that is known costs at most a quarter of a fresh one."""
    texts = [json.dumps(["EVENT", "ear", an_event(str(number)).to_dict()], separators=(",", ":"))
             for number in range(300)]
    times = []
    for _ in range(2):
        started = time.thread_time()
        for text in texts:
            talk.talk.take(text, NOW, LATER)
        talk.talk.hand_on()
        times.append(time.thread_time() - started)
    assert talk.talk.duplicates == 300 and times[1] < times[0] / 4


def test_verification_happens_on_the_very_event_that_is_handed_on(talk, ear, monkeypatch):
    seen, real = [], events.verify
    monkeypatch.setattr(conversation.events, "verify", lambda event: seen.append(event)
                        or real(event))
    talk.event(an_event("one"))
    assert seen[0] is ear.events[0][1]
