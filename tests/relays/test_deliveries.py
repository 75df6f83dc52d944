"""Events under way to one relay, until its OK; with a clock that the test moves."""

from pylon.nostr import messages
from pylon.relays.deliveries import ANSWER_SECS, AUTH_WAIT_SECS, Deliveries, Delivery
from tests.relays.conftest import Oks, an_event

URL = "wss://relay.example"


def a_delivery(oks, event=None):
    event = event or an_event()
    return Delivery(event.id, event.to_json(), [oks])


def answer(deliveries, delivery, accepted, message="", mono=1.0, rounds=0, pending=False):
    return deliveries.answered(messages.Ok(delivery.event_id, accepted, message), mono, rounds,
                               pending)


def test_the_relays_word_is_passed_on_once():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    assert deliveries.send(delivery, 0.0, 0) == f'["EVENT",{delivery.event_json}]'
    answer(deliveries, delivery, True, "fine")
    answer(deliveries, delivery, False, "error: changed my mind")
    assert oks.answers == [(URL, delivery.event_id, True, "fine")] and not len(deliveries)


def test_the_same_event_twice_is_sent_once_and_answered_to_both():
    first, second, deliveries, event = Oks(), Oks(), Deliveries(URL), an_event()
    delivery = a_delivery(first, event)
    assert deliveries.send(delivery, 0.0, 0)
    assert deliveries.send(a_delivery(second, event), 0.0, 0) is None
    answer(deliveries, delivery, True)
    assert first.answers == second.answers != []


def test_duplicate_is_a_success():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    deliveries.send(delivery, 0.0, 0)
    answer(deliveries, delivery, False, "duplicate: exists")
    assert oks.words() == [(True, "duplicate: exists")]


def test_an_answer_without_an_id_is_taken_only_when_it_can_mean_one_thing():
    oks, deliveries = Oks(), Deliveries(URL)
    one, two = a_delivery(oks), a_delivery(oks, an_event("other"))
    deliveries.send(one, 0.0, 0)
    deliveries.send(two, 0.0, 0)
    nameless = messages.Ok("", False, "invalid: bad")
    deliveries.answered(nameless, 1.0, 0, False)
    assert oks.answers == []
    answer(deliveries, one, True)
    deliveries.answered(nameless, 1.0, 0, False)
    assert oks.answers[1:] == [(URL, two.event_id, False, "invalid: bad")]


def test_refused_for_the_lack_of_auth_is_sent_again_after_it():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    text = deliveries.send(delivery, 0.0, 0)
    assert answer(deliveries, delivery, False, "auth-required: who?", pending=True) is None
    assert oks.answers == []
    assert deliveries.authenticated(2.0, 1) == [text]
    answer(deliveries, delivery, True, mono=3.0, rounds=1)
    assert oks.words() == [(True, "")]


def test_authenticated_meanwhile_it_is_sent_again_at_once():
    deliveries = Deliveries(URL)
    delivery = a_delivery(Oks())
    text = deliveries.send(delivery, 0.0, 0)
    assert answer(deliveries, delivery, False, "restricted: no", rounds=1) == text


def test_a_second_refusal_is_an_answer():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    deliveries.send(delivery, 0.0, 0)
    answer(deliveries, delivery, False, "auth-required: who?", pending=True)
    deliveries.authenticated(2.0, 1)
    answer(deliveries, delivery, False, "restricted: not you", mono=3.0, rounds=1)
    assert oks.words() == [(False, "restricted: not you")]


def test_restricted_without_a_challenge_is_an_answer():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    deliveries.send(delivery, 0.0, 0)
    answer(deliveries, delivery, False, "restricted: members only")
    assert oks.words() == [(False, "restricted: members only")]


def test_waiting_for_a_challenge_ends():
    oks, deliveries = Oks(), Deliveries(URL)
    delivery = a_delivery(oks)
    deliveries.send(delivery, 0.0, 0)
    answer(deliveries, delivery, False, "auth-required: who?", mono=1.0)
    assert deliveries.due_at() == 1.0 + AUTH_WAIT_SECS
    deliveries.expire(1.0 + AUTH_WAIT_SECS)
    assert oks.words() == [(False, "auth-required: who?")] and deliveries.due_at() is None


def test_silence_ends():
    oks, deliveries = Oks(), Deliveries(URL)
    deliveries.send(a_delivery(oks), 0.0, 0)
    deliveries.expire(ANSWER_SECS - 0.1)
    assert oks.answers == [] and deliveries.due_at() == ANSWER_SECS
    deliveries.expire(ANSWER_SECS)
    assert oks.words() == [(False, "error: the relay did not answer")]


def test_a_lost_connection_answers_for_all():
    oks, deliveries = Oks(), Deliveries(URL)
    for number in range(3):
        deliveries.send(a_delivery(oks, an_event(str(number))), 0.0, 0)
    deliveries.fail_all("error: the connection was lost")
    assert oks.words() == [(False, "error: the connection was lost")] * 3
