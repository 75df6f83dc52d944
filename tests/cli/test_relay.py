"""pylon relay: it speaks NIP-01 with a client that shares no code with it."""

import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.request

import pytest
import websocket

from pylon.cli import toy_relay
from pylon.cli.toy_relay import ToyRelay
from pylon.nostr import keys
from tests.fakes.stranger import Stranger
from tests.node import LAUNCHER

AUTHOR = keys.generate()


@pytest.fixture
def relay():
    made = ToyRelay(0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05},
                              name="relay")
    thread.start()
    yield made
    made.shutdown()
    thread.join(5)
    made.server_close()


@pytest.fixture
def client(relay):
    conn = websocket.create_connection(relay.url, timeout=5)
    yield conn
    conn.close()


def ask(conn, *message):
    conn.send(json.dumps(message))
    return json.loads(conn.recv())


def fetch(conn, *wanted):
    """The events that match, up to EOSE."""
    conn.send(json.dumps(["REQ", "f", *wanted]))
    found = []
    while (answer := json.loads(conn.recv()))[0] == "EVENT":
        found.append(answer[2])
    assert answer == ["EOSE", "f"]
    conn.send(json.dumps(["CLOSE", "f"]))
    return found


def note(kind=1, text="hello", tags=(), at=1_700_000_000):
    return AUTHOR.sign(kind, text, [list(tag) for tag in tags], at).to_dict()


def test_a_subscriber_gets_what_another_client_publishes(relay, client):
    assert ask(client, "REQ", "jobs", {"kinds": [5050]}) == ["EOSE", "jobs"]
    stranger = Stranger(relay.url)
    try:
        job = stranger.job("What is the capital of France?")
    finally:
        stranger.close()
    verb, name, event = json.loads(client.recv())
    assert (verb, name, event["kind"]) == ("EVENT", "jobs", 5050) and event["id"] in str(job)


def test_what_was_published_before_is_there_newest_first_up_to_the_limit(client):
    for number in range(3):
        assert ask(client, "EVENT", note(text=str(number), at=1_700_000_000 + number))[2] is True
    assert [event["content"] for event in fetch(client, {"limit": 2})] == ["2", "1"]


def test_the_same_event_twice_is_a_duplicate(client):
    event = note()
    assert ask(client, "EVENT", event)[3] == ""
    assert ask(client, "EVENT", event)[2:] == [True, "duplicate: it is here, or a newer one"]
    assert len(fetch(client, {})) == 1


@pytest.mark.parametrize("kind, tags", [(0, ()), (31990, (("d", "x"),))])
def test_only_the_newest_of_a_replaceable_kind_is_kept(client, kind, tags):
    for at in (1_700_000_005, 1_700_000_009, 1_700_000_007):
        ask(client, "EVENT", note(kind, str(at), tags, at))
    assert [event["created_at"] for event in fetch(client, {})] == [1_700_000_009]


def test_an_ephemeral_event_is_passed_on_and_not_kept(client):
    assert ask(client, "REQ", "live", {"kinds": [20001]}) == ["EOSE", "live"]
    client.send(json.dumps(["EVENT", note(20001)]))
    assert {json.loads(client.recv())[0] for _ in range(2)} == {"OK", "EVENT"}
    assert fetch(client, {"kinds": [20001]}) == []


def test_a_forged_event_is_refused(client):
    forged = {**note(), "content": "other words"}
    assert ask(client, "EVENT", forged)[2:] == [False, "invalid: the id is not the hash of the "
                                                       "event"]


@pytest.mark.parametrize("line", ["", "{", "[]", '["REQ"]', '["REQ",""]', '["EVENT",5]', "null"])
def test_nonsense_gets_a_notice_and_the_client_stays(client, line):
    client.send(line)
    assert json.loads(client.recv())[0] == "NOTICE"
    assert fetch(client, {}) == []


@pytest.mark.parametrize("wanted", [5, {"kinds": 1}, {"since": "now"}, {"limit": -1},
                                    {"ids": [[]]}])
def test_a_filter_that_is_none_is_refused(client, wanted):
    assert ask(client, "REQ", "f", wanted)[0] == "CLOSED"


def test_too_many_subscriptions_are_refused(client, monkeypatch):
    monkeypatch.setattr(toy_relay, "MAX_SUBSCRIPTIONS", 1)
    assert ask(client, "REQ", "one", {})[0] == "EOSE"
    assert ask(client, "REQ", "two", {})[0] == "CLOSED"


@pytest.mark.parametrize("frame", [
    b"\x81\xff" + struct.pack("!Q", 2 ** 62) + b"mask", b"\x81\x05hello"],
    ids=["huge", "not masked"])
def test_a_client_that_breaks_the_protocol_is_hung_up_on(relay, frame):
    conn = websocket.create_connection(relay.url, timeout=5)
    conn.sock.sendall(frame)
    with pytest.raises((websocket.WebSocketException, OSError)):
        conn.recv()
    other = websocket.create_connection(relay.url, timeout=5)
    assert fetch(other, {}) == []
    other.close()


def test_it_says_what_it_is(relay):
    with urllib.request.urlopen("http" + relay.url[2:], timeout=5) as answer:
        assert json.load(answer)["supported_nips"] == [1, 11]


def test_it_listens_on_this_machine_only(relay):
    assert relay.server_address[0] == "127.0.0.1"


def test_a_taken_port_says_what_to_do(pylon):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = pylon("relay", "--port", str(taken.getsockname()[1]))
    assert code == 1 and "choose another port: pylon relay --port PORT" in err


def test_a_port_that_is_none_says_so(pylon):
    code, _, err = pylon("relay", "--port", "70000")
    assert code == 1 and "127.0.0.1:70000" in err


def test_the_command_ends_on_sigterm():
    with subprocess.Popen([sys.executable, LAUNCHER, "relay", "--port", "0", "--json"],
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        websocket.create_connection(url, timeout=5).close()
        process.terminate()
        assert process.wait(10) == 0
