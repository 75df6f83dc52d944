"""The pool and real relays: nostr-sdk's in Rust with and without NIP-42 and TLS, and by `make
test-real` the Python and the node one, which disagree with it."""

import socket
import threading
import time
from pathlib import Path

import pytest

from pylon.nostr import keys
from pylon.relays import caller, connection
from pylon.relays.pool import LEAST_MESSAGE_BYTES
from tests.fakes.hostile_relay import HostileRelay
from tests.fakes.tls_proxy import TlsProxy
from tests.parts import certificates
from tests.parts.relays import LocalRelay, NodeRelay, PythonRelay
from tests.relays.conftest import NODE, Ear, Oks, an_event, echo_secs, state_of
from tests.waiting import wait_for


def there_and_back(pool, url, kind=5050):
    """Publish one event and hear it again."""
    ear, oks = Ear("there-and-back", [{"kinds": [kind]}]), Oks()
    event = an_event(f"{time.monotonic()}", kind)
    pool.subscribe(ear.sub)
    wait_for(lambda: url in ear.eose, what="EOSE")
    assert pool.publish(event.id, event.to_json(), [url], oks) == [url]
    wait_for(lambda: event.id in ear.ids() and oks.answers, what="event and OK")
    assert oks.answers == [(url, event.id, True, oks.answers[0][3])]
    pool.unsubscribe("there-and-back")
    return event


# ---- real relays ---------------------------------------------------------------------------------

def test_an_open_relay(good, make_pool):
    pool = make_pool([good.url])
    wait_for(pool.connected)
    there_and_back(pool, good.url)
    state = state_of(pool, good.url)
    assert state.connected and state.own and state.auth == "" and state.latency_ms < 2000
    assert state.received_bytes > 0 and state.sent_bytes > 0 and state.events >= 1


@pytest.mark.parametrize("mode", ["read", "write", "both"])
def test_a_relay_that_wants_nip42(make_pool, mode):
    with LocalRelay(auth=mode) as relay:
        pool = make_pool([relay.url])
        wait_for(pool.connected)
        there_and_back(pool, relay.url)
        assert state_of(pool, relay.url).auth == "ok"


def test_nip42_for_several_identities_on_one_connection(make_pool):
    agents = [keys.generate() for _ in range(3)]
    with HostileRelay("wants_auth") as relay:
        pool = make_pool([relay.url], identities=[NODE, *agents])
        wait_for(pool.connected)
        there_and_back(pool, relay.url)
        signers = [message[1]["pubkey"] for message in relay.texts("AUTH")]
        assert signers == [one.pubkey for one in [*agents[::-1], NODE]]


def test_a_guest_learns_only_the_nodes_own_pubkey(make_pool):
    with HostileRelay("wants_auth") as relay:
        pool = make_pool([], identities=[NODE, keys.generate()])
        assert pool.add_relay(relay.url)
        wait_for(lambda: relay.texts("AUTH"))
        wait_for(lambda: state_of(pool, relay.url).auth == "ok")
        assert [message[1]["pubkey"] for message in relay.texts("AUTH")] == [NODE.pubkey]


def test_what_comes_together_with_the_handshake_is_read_at_once(make_pool):
    """It once lay in the buffer until the relay sent more, and the relay waited for us."""
    with HostileRelay("asks_with_the_handshake") as relay:
        pool = make_pool([])
        pool.add_relay(relay.url)
        wait_for(lambda: relay.texts("AUTH"), 1)


def test_a_relay_that_says_restricted_and_does_not_answer_auth(make_pool, monkeypatch):
    """As nostr-relay 1.14 does."""
    monkeypatch.setattr("pylon.relays.auth.SETTLE_SECS", 0.2)
    with HostileRelay("auth_without_ok") as relay:
        pool = make_pool([relay.url])
        wait_for(pool.connected)
        there_and_back(pool, relay.url)


def test_behind_tls(make_pool, tmp_path):
    made = certificates.make(tmp_path)
    with LocalRelay(tls=made) as relay:
        assert relay.url.startswith("wss://")
        pool = make_pool([relay.url], ca_file=str(made.authority))
        wait_for(pool.connected)
        there_and_back(pool, relay.url)
        assert echo_secs(pool, ear_on(pool), relay.url) < 2


def test_nip42_behind_a_tls_proxy_wants_the_relays_own_name(make_pool, tmp_path):
    """The `relay` tag holds the URL that we called, and that is the proxy's."""
    made = certificates.make(tmp_path)
    with HostileRelay("wants_auth") as relay, TlsProxy(relay.port, made) as proxy:
        pool = make_pool([proxy.url("wss")], ca_file=str(made.authority))
        wait_for(pool.connected)
        there_and_back(pool, proxy.url("wss"))
        assert ["relay", proxy.url("wss")] in relay.texts("AUTH")[0][1]["tags"]


@pytest.mark.real
@pytest.mark.parametrize("make, auth", [(PythonRelay, False), (NodeRelay, False),
                                        (NodeRelay, True)])
def test_the_other_relays(make_pool, make, auth):
    with make(auth=auth) as relay:
        pool = make_pool([relay.url])
        wait_for(pool.connected)
        for kind in (5050, 6050, 7000, 31990, 11998):
            there_and_back(pool, relay.url, kind)
        event, oks = an_event("twice"), Oks()
        for _ in range(2):
            pool.publish(event.id, event.to_json(), [relay.url], oks)
            wait_for(lambda: not pool.connected() or pool.flush(5))
        assert [accepted for accepted, _ in oks.words()] == [True, True]


@pytest.mark.real
def test_nostr_relay_lets_us_in_and_refuses_without_saying_what(make_pool):
    """It authenticates in silence, gives roles by a table in which we are not, and says OK for
    the id "" when it refuses; the refusal must reach whoever published."""
    with PythonRelay(auth=True) as relay:
        pool = make_pool([relay.url])
        oks, event = Oks(), an_event()
        wait_for(lambda: state_of(pool, relay.url).auth == "ok")
        assert pool.publish(event.id, event.to_json(), None, oks) == [relay.url]
        wait_for(lambda: oks.answers, 30)
        assert oks.answers == [(relay.url, event.id, False, "restricted: permission denied")]


@pytest.mark.real
@pytest.mark.parametrize("make", [PythonRelay, NodeRelay])
def test_a_filter_of_32_kinds_on_the_other_relays(make_pool, make):
    with make() as relay:
        pool = make_pool([relay.url])
        ear = Ear("agents", [{"kinds": list(range(39200, 39232))}])
        pool.subscribe(ear.sub)
        wait_for(lambda: relay.url in ear.eose)
        found = [an_event(str(kind), kind, [["d", "x"]]) for kind in (39200, 39219, 39220, 39231)]
        for event in found:
            pool.publish(event.id, event.to_json(), [relay.url], Oks())
        wait_for(lambda: set(ear.ids()) == {event.id for event in found})


# ---- relays that come and go ---------------------------------------------------------------------

def ear_on(pool, **more):
    ear = Ear(**more)
    pool.subscribe(ear.sub)
    return ear


def test_it_starts_with_all_relays_down_and_heals_when_they_come(make_pool):
    with LocalRelay() as relay:
        relay.stop()
        pool = make_pool([relay.url])
        ear = ear_on(pool)
        wait_for(lambda: "cannot connect" in state_of(pool, relay.url).last_error)
        assert not pool.connected()
        relay.start()
        assert echo_secs(pool, ear, relay.url) < 5


def test_a_gap_is_filled_after_a_reconnect(good, make_pool, tmp_path):
    """What another client published while the connection was cut arrives, and once."""
    made = certificates.make(tmp_path)
    other = make_pool([good.url])
    wait_for(other.connected)
    with TlsProxy(good.port, made) as proxy:
        pool = make_pool([proxy.url("wss")], ca_file=str(made.authority))
        ear = ear_on(pool, name="jobs", filters=[{"kinds": [5999]}], resume_overlap_secs=30)
        wait_for(lambda: ear.eose)
        before = there_and_back(other, good.url, 5999)
        wait_for(lambda: ear.ids() == [before.id])
        proxy.cut()
        missed = there_and_back(other, good.url, 5999)
        wait_for(lambda: missed.id in ear.ids())
        assert ear.ids() == [before.id, missed.id]


def test_states_are_told_as_they_change(make_pool):
    told = []
    with LocalRelay() as relay:
        pool = make_pool([relay.url], on_state=lambda url, connected: told.append(connected))
        later = []
        pool.listen(lambda url, connected: later.append(connected))
        wait_for(lambda: told == [True])
        relay.stop()
        wait_for(lambda: told == [True, False])
        relay.start()
        wait_for(lambda: told == [True, False, True])
        assert later[-2:] == [False, True]


def test_a_reload_drops_and_adds_and_leaves_the_rest_alone(good, make_pool):
    with LocalRelay() as second:
        pool = make_pool([good.url])
        ear = ear_on(pool)
        wait_for(pool.connected)
        kept = threading.enumerate()
        pool.reload([good.url, second.url, second.url + "/"])
        wait_for(lambda: len(pool.connected()) == 2)
        assert echo_secs(pool, ear, second.url) < 2
        assert set(kept) <= set(threading.enumerate())
        pool.reload([second.url])
        wait_for(lambda: pool.connected() == [second.url])
        assert pool.own_urls() == [second.url]


# ---- sending -------------------------------------------------------------------------------------

def test_a_relay_that_is_not_there_takes_nothing(good, make_pool):
    pool, event = make_pool([good.url, "ws://127.0.0.1:9"]), an_event()
    wait_for(pool.connected)
    assert pool.publish(event.id, event.to_json(), None, Oks()) == [good.url]
    assert pool.publish(event.id, event.to_json(), ["ws://127.0.0.1:9", "wss://unknown.example",
                                                    "nonsense"], Oks()) == []


def test_a_slow_relay_takes_only_so_much_and_delays_no_other(good, make_pool):
    """Its queue is bounded; what it did not take is told at once, nothing waits."""
    with HostileRelay("never_ok") as slow:
        pool, oks = make_pool([good.url, slow.url]), Oks()
        ear = ear_on(pool)
        wait_for(lambda: len(pool.connected()) == 2)
        took = []
        for number in range(1200):
            event = an_event(str(number), kind=7000)
            took += pool.publish(event.id, event.to_json(), [slow.url], oks)
        assert len(took) == connection.MAX_QUEUED
        assert echo_secs(pool, ear, good.url) < 2
        assert state_of(pool, slow.url).queued == connection.MAX_QUEUED


def test_bytes_are_bounded_too(make_pool):
    with HostileRelay("never_ok") as slow:
        pool = make_pool([slow.url])
        wait_for(pool.connected)
        event = an_event("x" * 60_000, kind=7000)
        took = [pool.publish(f"{number:064x}", event.to_json(), None, Oks())
                for number in range(200)]
        assert sum(map(len, took)) == connection.MAX_QUEUED_BYTES // len(event.to_json())


def test_much_at_once_is_sent_at_the_pace_of_the_relay(make_pool, monkeypatch):
    """Four megabytes for a relay that reads slowly are no reason to hang up on it."""
    real = caller.open_stream

    def with_small_buffer(*args):
        stream = real(*args)
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        return stream

    monkeypatch.setattr(caller, "open_stream", with_small_buffer)
    with HostileRelay("reads_slowly") as slow:
        pool, oks = make_pool([slow.url]), Oks()
        wait_for(pool.connected)
        for number in range(65):
            event = an_event(f"{number:>60000}", kind=7000)
            assert pool.publish(event.id, event.to_json(), None, oks)
        assert pool.flush(30)
        assert {accepted for accepted, _ in oks.words()} == {True} and len(oks.answers) == 65
        assert state_of(pool, slow.url).last_error == ""


def test_every_event_that_was_taken_gets_exactly_one_answer(make_pool):
    """Also when the relay dies, and when the pool is stopped."""
    oks, taken = Oks(), 0
    with HostileRelay("never_ok") as relay:
        pool = make_pool([relay.url])
        for _ in range(2):
            wait_for(pool.connected)
            for number in range(50):
                event = an_event(f"{time.monotonic()}")
                taken += len(pool.publish(event.id, event.to_json(), None, oks))
            relay.stop()
            wait_for(lambda: not pool.connected())
            relay.start()
        wait_for(pool.connected)
        event = an_event("at the end")
        taken += len(pool.publish(event.id, event.to_json(), None, oks))
        pool.stop()
        assert pool.publish(event.id, event.to_json(), None, oks) == []
    assert taken > 100 and len(oks.answers) == taken
    assert {accepted for accepted, _ in oks.words()} == {False}


def test_flush_waits_for_the_answers(good, make_pool):
    pool, oks = make_pool([good.url]), Oks()
    wait_for(pool.connected)
    for number in range(200):
        event = an_event(str(number))
        pool.publish(event.id, event.to_json(), None, oks)
    assert pool.flush(10) and len(oks.answers) == 200


def test_flush_gives_up(make_pool):
    with HostileRelay("never_ok") as relay:
        pool, event = make_pool([relay.url]), an_event()
        wait_for(pool.connected)
        pool.publish(event.id, event.to_json(), None, Oks())
        assert not pool.flush(0.1)


# ---- guests --------------------------------------------------------------------------------------

def test_a_guest_is_closed_when_nothing_is_left_to_do(make_pool, good, monkeypatch):
    monkeypatch.setattr(connection, "IDLE_SECS", 0.3)
    pool = make_pool([])
    assert pool.add_relay(good.url) and pool.add_relay(good.url + "/")
    wait_for(pool.connected)
    event, oks = an_event("for a guest"), Oks()
    assert pool.publish(event.id, event.to_json(), [good.url], oks) == [good.url]
    wait_for(lambda: oks.answers)
    wait_for(lambda: not pool.states())


def test_a_guest_with_a_subscription_stays(make_pool, good, monkeypatch):
    monkeypatch.setattr(connection, "IDLE_SECS", 0.2)
    pool = make_pool([])
    ear = ear_on(pool, relays=[good.url])
    wait_for(lambda: ear.eose)
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > 0.5)
    assert pool.connected() == [good.url]
    pool.unsubscribe("ear")
    wait_for(lambda: not pool.states())


def test_a_guest_hears_nothing_of_the_general_subscriptions(make_pool, good):
    with HostileRelay("honest") as relay:
        pool = make_pool([good.url])
        ear = ear_on(pool)
        wait_for(lambda: ear.eose)
        pool.add_relay(relay.url)
        wait_for(lambda: relay.url in pool.connected())
        ear_on(pool, name="named", relays=[relay.url])
        wait_for(lambda: relay.texts("REQ"))
        assert [text[1] for text in relay.texts("REQ")] == ["named"]


def test_a_guest_that_cannot_be_reached_is_given_up(make_pool):
    pool = make_pool([], backoff_max_secs=0)
    assert pool.add_relay("ws://127.0.0.1:9")
    wait_for(lambda: not pool.states())


def test_guests_are_limited_in_number(make_pool, good):
    pool = make_pool([good.url], max_relays=3)
    assert [pool.add_relay(f"{good.url}/{number}") for number in range(5)] \
        == [True, True, False, False, False]
    assert pool.add_relay(f"{good.url}/0")
    wait_for(lambda: len(pool.connected()) == 3)


def test_a_guest_that_becomes_the_nodes_own(make_pool, good):
    pool = make_pool([])
    ear = ear_on(pool)
    pool.add_relay(good.url)
    wait_for(pool.connected)
    pool.reload([good.url])
    wait_for(lambda: ear.eose == [good.url])
    assert state_of(pool, good.url).own


# ---- idleness ------------------------------------------------------------------------------------

def test_an_idle_relay_does_not_wake_its_thread(make_pool, good):
    pool = make_pool([good.url])
    ear = ear_on(pool, filters=[{"kinds": [5998]}])
    wait_for(lambda: ear.eose)
    thread = next(one for one in threading.enumerate() if one.name.startswith("relay:"))
    started, before = time.monotonic(), wakes(thread)
    wait_for(lambda: time.monotonic() - started > 1.5)
    assert wakes(thread) - before <= 1


def wakes(thread):
    """How often a thread has gone to sleep so far."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


# ---- the end -------------------------------------------------------------------------------------

def test_stopping_is_bounded_whatever_relays_do(make_pool, good):
    sins = ["never_shakes_hands", "trickles", "accepts_then_silence", "floods_valid"]
    running = [HostileRelay(sin).start() for sin in sins]
    try:
        pool = make_pool([good.url, "ws://127.0.0.1:9", *(bad.url for bad in running)],
                         connect_secs=60)
        ear_on(pool)
        wait_for(lambda: len(pool.connected()) >= 4)
        started = time.monotonic()
        pool.stop()
        assert time.monotonic() - started < 2
        assert not pool.states()
    finally:
        for bad in running:
            bad.__exit__()


def test_the_longest_message_that_all_relays_take(make_pool, monkeypatch):
    pool = make_pool(["ws://127.0.0.1:9", "ws://127.0.0.1:10"])
    said = {"ws://127.0.0.1:9": 40_000, "ws://127.0.0.1:10": 10}
    monkeypatch.setattr(connection.Connection, "limits", property(
        lambda self: connection.nip11.Limits(max_message_length=said[self.url])))
    assert pool.max_message_bytes(61_440) == 40_000
    said["ws://127.0.0.1:9"] = LEAST_MESSAGE_BYTES - 1
    assert pool.max_message_bytes(61_440) == 61_440
