import hashlib
import json

import pytest

from pylon.errors import InvalidMessage
from pylon.nostr import event as events, nipsa
from tests.nostr.conftest import NOW


def tags_of(event):
    events.verify(event)
    return {tag[0]: tag[1:] for tag in event.tags}


def test_profile(alice):
    event = nipsa.profile(alice, "Näme", "about", ["general"], "bounded", "0.1.0", NOW,
                          "https://x/y.png", "a@b.c")
    assert event.kind == 39200
    assert tags_of(event) == {"d": ["profile"], "threshold": ["1", "1"], "lud16": ["a@b.c"],
                              "signer": [alice.pubkey], "operator": [alice.pubkey]}
    assert json.loads(event.content) == {"name": "Näme", "about": "about", "version": "0.1.0",
                                         "picture": "https://x/y.png",
                                         "capabilities": ["general"],
                                         "autonomy_level": "bounded"}


def test_state_is_for_the_agent_alone(alice, bob):
    content = {"goals": [{"id": "1", "description": "SECRET"}], "memory": [], "tick_count": 3}
    event = nipsa.state(alice, content, NOW)
    assert event.kind == 39201 and "SECRET" not in event.to_json()
    assert tags_of(event)["d"] == ["state"] and tags_of(event)["state_version"] == ["1"]
    assert nipsa.parse_state(event, alice) == content
    for wrong in (event, bob.sign(39201, event.content, [["d", "state"]], NOW),
                  bob.sign(1, "", [], NOW)):
        with pytest.raises(InvalidMessage):
            nipsa.parse_state(wrong, bob)


def test_a_profile_without_picture_and_address(alice):
    event = nipsa.profile(alice, "n", "", [], "supervised", "1", NOW)
    assert event.first("lud16") is None and "picture" not in json.loads(event.content)


def test_a_state_that_is_no_object_is_refused(alice):
    event = alice.sign(39201, alice.nip44_encrypt(alice.pubkey, "[]"), [["d", "state"]], NOW)
    with pytest.raises(InvalidMessage):
        nipsa.parse_state(event, alice)


def test_a_result_without_a_trajectory(alice):
    event = nipsa.tick_result(alice, "t", "ab" * 32, "timeout", 5, [], 0, 0, NOW)
    assert event.first("trajectory_hash") is None


def test_state_that_is_too_large_is_refused(alice):
    with pytest.raises(InvalidMessage):
        nipsa.state(alice, {"memory": ["x" * 70_000]}, NOW)


def test_schedule(alice):
    event = nipsa.schedule(alice, 900, ["mention", "dm", "custom:42"], NOW, business_hours="9-17")
    assert event.kind == 39202 and event.content == ""
    assert event.all("trigger") == [["trigger", t] for t in ("mention", "dm", "custom:42")]
    assert tags_of(event)["heartbeat"] == ["900"] and tags_of(event)["active"] == ["true"]
    assert nipsa.schedule(alice, 900, [], NOW, active=False).first("active") == "false"


def test_goals(alice):
    event = nipsa.goals(alice, [{"id": "1"}], NOW)
    assert (event.kind, event.first("d")) == (39203, "goals")
    assert json.loads(event.content) == {"goals": [{"id": "1"}]}


def test_ticks_have_addresses_of_their_own(alice):
    """Without a `d` a relay keeps only the last one of each kind."""
    opened = nipsa.tick_request(alice, "tick-1", "dm", NOW)
    closed = nipsa.tick_result(alice, "tick-1", opened.id, "success", 0, [{"type": "post"}], 10, 5,
                               NOW, "ab" * 32)
    assert (opened.kind, closed.kind) == (39210, 39211)
    assert (opened.first("d"), closed.first("d")) == ("tick-1", "tick-1:result")
    assert tags_of(opened)["trigger"] == ["dm"]
    tags = tags_of(closed)
    assert (tags["request"], tags["status"], tags["duration_ms"], tags["actions"],
            tags["trajectory_hash"]) == ([opened.id], ["success"], ["1"], ["1"], ["ab" * 32])
    assert json.loads(closed.content)["actions"] == [{"type": "post"}]


def test_a_session_is_closed_under_the_same_address(alice):
    opened = nipsa.session(alice, "tick-1", "session-1", NOW, "m", 0, NOW)
    closed = nipsa.session(alice, "tick-1", "session-1", NOW, "m", 3, NOW + 9, NOW + 9, "ab" * 32)
    assert opened.first("d") == closed.first("d") == "session-1"
    assert opened.first("ended_at") is None and closed.first("ended_at") == str(NOW + 9)
    assert json.loads(closed.content)["trajectory_hash"] == "ab" * 32


def test_steps_and_the_hash_over_them(alice):
    steps = [nipsa.step(alice, "session-1", "tick-1", number, "Message", {"n": number}, NOW)
             for number in (1, 2)]
    assert [event.first("d") for event in steps] == ["session-1:1", "session-1:2"]
    assert steps[0].content == '{"type":"Message","n":1}'
    assert nipsa.trajectory_hash([event.content for event in steps]) == hashlib.sha256(
        b'{"type":"Message","n":1}\n{"type":"Message","n":2}').hexdigest()
    assert nipsa.trajectory_hash([]) == "0" * 64
