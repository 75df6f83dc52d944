"""NIP-42 on one connection, with a clock that the test moves."""

import json

from pylon.nostr import event as events
from pylon.nostr import keys, messages
from pylon.relays.auth import SETTLE_SECS, SIGN_EVERY_SECS, Authentication

URL = "wss://relay.example"
NODE, AGENT = keys.generate(), keys.generate()


def signed(texts):
    """The AUTH events in these texts, parsed and verified."""
    found = []
    for text in texts:
        verb, obj = json.loads(text)
        event = events.parse(obj)
        events.verify(event)
        assert verb == "AUTH" and event.kind == 22242
        found.append(event)
    return found


def ok(event, accepted=True, message=""):
    return messages.Ok(event.id, accepted, message)


def test_a_challenge_is_signed_for_this_relay_alone():
    auth = Authentication(URL, lambda: [NODE])
    assert auth.state == "" and auth.due_at() is None
    assert auth.challenged("abc") and auth.state == "asked"
    event, = signed(auth.step(1000, 5.0))
    assert event.tags == [["relay", URL], ["challenge", "abc"]] and event.pubkey == NODE.pubkey
    assert auth.answered(ok(event)) and auth.rounds == 1 and auth.state == "ok"


def test_every_identity_signs_and_the_node_goes_last():
    auth = Authentication(URL, lambda: [NODE, AGENT])
    auth.challenged("abc")
    found = signed(auth.step(1000, 5.0))
    assert [event.pubkey for event in found] == [AGENT.pubkey, NODE.pubkey]
    auth.answered(ok(found[0], False, "restricted: not you"))
    assert auth.rounds == 0
    auth.answered(ok(found[1]))
    assert auth.rounds == 1 and auth.state == "ok"


def test_only_the_latest_of_many_challenges_is_signed_and_not_too_often():
    auth, signatures = Authentication(URL, lambda: [NODE]), []
    for number in range(1000):
        auth.challenged(f"challenge {number}")
        signatures += signed(auth.step(1000, number * 0.05))
        for event in signatures[-1:]:
            auth.answered(ok(event))
    assert len(signatures) == 50 / SIGN_EVERY_SECS
    assert signatures[1].tags[1] == ["challenge", "challenge 200"]


def test_silence_is_taken_as_consent_after_a_moment():
    """nostr-relay lets one in and says nothing."""
    auth = Authentication(URL, lambda: [NODE])
    auth.challenged("abc")
    auth.step(1000, 5.0)
    assert auth.due_at() == 5.0 + SETTLE_SECS and auth.pending
    auth.step(1000, 5.0 + SETTLE_SECS)
    assert auth.rounds == 1 and auth.state == "ok" and not auth.pending


def test_a_refusal_of_all_is_told():
    auth = Authentication(URL, lambda: [NODE])
    auth.challenged("abc")
    event, = signed(auth.step(1000, 5.0))
    auth.answered(ok(event, False, "restricted: \x1b[31mnot you"))
    assert auth.state == "refused" and auth.refusal == "restricted: \\x1b[31mnot you"


def test_answers_about_other_events_are_not_taken():
    auth = Authentication(URL, lambda: [NODE])
    auth.challenged("abc")
    auth.step(1000, 5.0)
    assert not auth.answered(messages.Ok("ab" * 32, True, "")) and auth.rounds == 0


def test_new_identities_answer_the_known_challenge():
    identities = [NODE]
    auth = Authentication(URL, lambda: identities)
    auth.again()
    assert auth.due_at() is None
    auth.challenged("abc")
    auth.answered(ok(signed(auth.step(1000, 5.0))[0]))
    identities.append(AGENT)
    auth.again()
    assert auth.step(1000, 6.0) == []
    assert len(signed(auth.step(1000, 5.0 + SIGN_EVERY_SECS))) == 2


def test_nobody_to_authenticate_with():
    auth = Authentication(URL, lambda: [])
    auth.challenged("abc")
    assert auth.step(1000, 5.0) == [] and auth.state == "refused"


def test_overlong_challenges_are_not_signed():
    auth = Authentication(URL, lambda: [NODE])
    assert not auth.challenged("x" * 5000) and auth.due_at() is None
