"""What one relay is asked for, with a clock that the test moves."""

import json
import random

from pylon.relays.listening import EOSE_SECS, RETRY_FIRST_SECS, RETRY_MAX_SECS, Listening
from pylon.relays.nip11 import Limits
from tests.relays.conftest import Ear

URL = "wss://relay.example"
NOW = 1_800_000_000


class Desk:
    """A Listening and its texts, parsed."""

    def __init__(self, *ears, **limits):
        self.listening = Listening(URL, random.Random(1))
        self.listening.limits = Limits(**limits)
        for ear in ears:
            self.listening.add(ear.sub)

    def ask(self, now=NOW, mono=0.0, rounds=0):
        return parsed(self.listening.ask_all(now, mono, rounds))


def parsed(texts):
    return [json.loads(text) for text in texts]


def test_everything_is_asked_for_on_a_connection():
    desk = Desk(Ear("jobs"), Ear("more", [{"kinds": [1]}]))
    assert desk.ask() == [["REQ", "jobs", {"kinds": [5050]}], ["REQ", "more", {"kinds": [1]}]]


def test_eose_is_told_once():
    ear = Ear("jobs")
    desk = Desk(ear)
    desk.ask()
    assert desk.listening.eose("jobs") and desk.listening.eose("jobs")
    assert not desk.listening.eose("unknown")
    assert ear.eose == [URL]


def test_many_filters_become_several_requests_and_one_eose():
    ear = Ear("jobs", [{"kinds": [number]} for number in range(25)])
    desk = Desk(ear)
    asked = desk.ask()
    sizes = [(text[1], len(text) - 2) for text in asked]
    assert sizes == [("jobs", 10), ("jobs.1", 10), ("jobs.2", 5)]
    desk.listening.eose("jobs")
    desk.listening.eose("jobs.2")
    assert ear.eose == []
    desk.listening.eose("jobs.1")
    assert ear.eose == [URL]


def test_the_relays_own_limits_are_kept():
    desk = Desk(Ear("jobs", [{"kinds": [number], "limit": 900} for number in range(4)]),
                Ear("a" * 60), max_filters=2, max_limit=500, max_subid_length=20)
    asked = desk.ask()
    assert all(len(text) - 2 <= 2 and len(text[1]) <= 20 for text in asked)
    assert asked[0][2]["limit"] == 500


def test_more_subscriptions_than_a_relay_takes_wait():
    desk = Desk(*(Ear(f"ear-{number}") for number in range(5)), max_subscriptions=3)
    assert len(desk.ask()) == 3
    desk.listening.remove("ear-0")
    again = parsed(desk.listening.step(NOW, RETRY_MAX_SECS + 1, 0))
    assert [text[1] for text in again if text[0] == "REQ"] == ["ear-3"]


def test_a_relay_without_eose_is_waited_for_and_then_not():
    ear = Ear("jobs")
    desk = Desk(ear)
    desk.ask(mono=100.0)
    assert desk.listening.due_at() == 100.0 + EOSE_SECS
    desk.listening.step(NOW, 100.0 + EOSE_SECS, 0)
    assert ear.eose == [URL] and desk.listening.due_at() is None


def test_after_a_reconnect_only_the_gap_is_asked_for():
    desk = Desk(Ear("jobs", resume_overlap_secs=60), Ear("all"))
    desk.ask()
    desk.listening.eose("jobs")
    desk.listening.eose("all")
    desk.listening.disconnected(NOW + 500)
    asked = desk.ask(now=NOW + 900)
    assert asked == [["REQ", "jobs", {"kinds": [5050], "since": NOW + 440}],
                     ["REQ", "all", {"kinds": [5050]}]]


def test_what_never_reached_its_eose_is_asked_for_in_full():
    desk = Desk(Ear("jobs", resume_overlap_secs=60))
    desk.ask()
    desk.listening.disconnected(NOW + 500)
    assert desk.ask(now=NOW + 900) == [["REQ", "jobs", {"kinds": [5050]}]]


def test_what_a_handler_lost_is_asked_for_again():
    desk = Desk(Ear("jobs", resume_overlap_secs=60))
    desk.ask()
    desk.listening.eose("jobs")
    desk.listening.disconnected(None)
    assert desk.ask(now=NOW + 900) == [["REQ", "jobs", {"kinds": [5050]}]]


def test_a_clock_that_was_set_back_hides_nothing():
    desk = Desk(Ear("jobs", resume_overlap_secs=60))
    desk.ask()
    desk.listening.eose("jobs")
    desk.listening.disconnected(NOW + 10 ** 8)
    assert desk.ask(now=NOW)[0][2]["since"] == NOW - 60


def test_closed_is_asked_again_after_growing_pauses():
    ear = Ear("jobs")
    desk = Desk(ear)
    mono, pauses = 0.0, []
    desk.ask()
    for _ in range(12):
        desk.listening.closed("jobs", "error: no", NOW, mono, 0, False)
        due = desk.listening.due_at()
        pauses.append(due - mono)
        assert desk.listening.step(NOW, due - 0.01, 0) == []
        mono = due
        assert parsed(desk.listening.step(NOW, mono, 0)) == [["REQ", "jobs", {"kinds": [5050]}]]
    assert RETRY_FIRST_SECS / 2 <= pauses[0] <= RETRY_FIRST_SECS
    assert RETRY_MAX_SECS / 2 <= pauses[-1] <= RETRY_MAX_SECS
    assert ear.closed[0] == (URL, "error: no") and len(ear.closed) == 12


def test_a_long_life_makes_closed_an_end_and_not_a_refusal():
    desk = Desk(Ear("jobs"))
    desk.ask(mono=0.0)
    for _ in range(5):
        desk.listening.closed("jobs", "error: no", NOW, 0.0, 0, False)
        desk.listening.ask("jobs", NOW, 0.0, 0)
    desk.listening.eose("jobs")
    desk.listening.closed("jobs", "error: restarting", NOW, 1000.0, 0, False)
    assert desk.listening.due_at() - 1000.0 <= RETRY_FIRST_SECS


def test_closed_for_the_lack_of_auth_waits_for_it():
    ear = Ear("jobs")
    desk = Desk(ear)
    desk.ask()
    assert desk.listening.closed("jobs", "auth-required: who?", NOW, 1.0, 0, True) == []
    assert ear.closed == [] and desk.listening.due_at() is None
    asked = parsed(desk.listening.authenticated(NOW, 2.0, 1))
    assert asked == [["REQ", "jobs", {"kinds": [5050]}]]


def test_closed_although_authenticated_meanwhile_is_asked_at_once():
    desk = Desk(Ear("jobs"))
    desk.ask(rounds=0)
    assert parsed(desk.listening.closed("jobs", "auth-required: who?", NOW, 1.0, 1, False)) \
        == [["REQ", "jobs", {"kinds": [5050]}]]
    assert desk.listening.closed("jobs", "auth-required: who?", NOW, 2.0, 1, False) == []


def test_closed_for_nothing_that_is_open():
    assert Desk().listening.closed("x", "error: no", NOW, 0.0, 0, False) is None


def test_removing_closes_and_remembers_that_stragglers_may_come():
    desk = Desk(Ear("jobs"))
    desk.ask()
    assert desk.listening.remove("jobs") == ['["CLOSE","jobs"]']
    assert desk.listening.find("jobs") is None and desk.listening.was_open("jobs")
    assert not desk.listening.was_open("never")
    for number in range(1000):
        desk.listening.add(Ear(f"ear {number}").sub)
        desk.ask()
        desk.listening.remove(f"ear {number}")
    assert not desk.listening.was_open("jobs")


def test_a_subscription_of_the_same_name_replaces_the_old_one():
    desk = Desk(Ear("jobs", [{"kinds": [number]} for number in range(25)]))
    desk.ask()
    texts = parsed(desk.listening.add(Ear("jobs", [{"kinds": [1]}]).sub))
    texts += parsed(desk.listening.ask("jobs", NOW, 0.0, 0))
    assert texts == [["CLOSE", "jobs"], ["CLOSE", "jobs.1"], ["CLOSE", "jobs.2"],
                     ["REQ", "jobs", {"kinds": [1]}]]
