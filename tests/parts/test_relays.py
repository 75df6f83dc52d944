"""The relays of the tests do what the tests rely on: they forward, record, refuse and restart."""

import json
import ssl

import nostr_sdk as sdk
import pytest
import websocket

from tests.parts import certificates
from tests.parts.relays import LocalRelay, NodeRelay, PythonRelay
from tests.waiting import wait_for


def connect(relay, **options):
    return websocket.create_connection(relay.url, timeout=10, **options)


def say(socket, *message):
    socket.send(json.dumps(message))


def note(content="hello", kind=1, keys=None):
    event = sdk.EventBuilder(sdk.Kind(kind), content).finalize(keys or sdk.Keys.generate())
    return json.loads(event.as_json())


def answer(socket, verb):
    """The next message with this verb."""
    return wait_for(lambda: next((m for m in [json.loads(socket.recv())] if m[0] == verb), None))


def assert_forwards(relay, **options):
    ear, mouth, event = connect(relay, **options), connect(relay, **options), note()
    say(ear, "REQ", "all", {"kinds": [1]})
    answer(ear, "EOSE")
    say(mouth, "EVENT", event)
    assert answer(mouth, "OK")[:3] == ["OK", event["id"], True]
    assert answer(ear, "EVENT") == ["EVENT", "all", event]
    ear.close()
    mouth.close()


def test_local_relay_records_every_valid_submission_and_keeps_its_url(tmp_path):
    with LocalRelay(record=tmp_path / "relay.log", reject={7: "no reactions"}) as relay:
        assert_forwards(relay)
        socket, event = connect(relay), note("twice")
        for published in (event, event, {**event, "content": "forged"}, note(kind=7)):
            say(socket, "EVENT", published)
        oks = [json.loads(socket.recv())[2:] for _ in range(4)]
        assert [accepted for accepted, _ in oks] == [True, True, False, False]
        assert oks[3][1] == "blocked: no reactions"
        socket.close()
        assert [line["event"]["content"] for line in relay.recorded()] == [
            "hello", "twice", "twice"]
        assert relay.recorded()[1]["event"] == event
        url = relay.url
        relay.stop()
        relay.start()
        assert relay.url == url
        assert_forwards(relay)


def test_local_relay_behind_tls(tmp_path):
    made = certificates.make(tmp_path)
    with LocalRelay(tls=made) as relay:
        assert relay.url.startswith("wss://")
        assert_forwards(relay, sslopt={"ca_certs": str(made.authority)})
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(relay)


def assert_wants_auth(relay):
    socket = connect(relay)
    say(socket, "REQ", "all", {"kinds": [1]})
    challenge = answer(socket, "AUTH")[1]
    socket.close()
    assert challenge


def test_local_relay_wants_auth():
    with LocalRelay(auth="both") as relay:
        assert_wants_auth(relay)


@pytest.mark.real
@pytest.mark.parametrize("make", [PythonRelay, NodeRelay])
def test_other_relays_forward_and_want_auth(make):
    with make() as relay:
        assert_forwards(relay)
    with make(auth=True) as relay:
        assert_wants_auth(relay)
