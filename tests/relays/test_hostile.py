"""What bad relays do, one by one (the lines of the catalogue of bad inputs, A 1 to 20), each
beside a good one that must not notice."""

import logging
import os
import socket
import socketserver
import threading
import time

import pytest

from pylon.relays import connection, listening, tls
from pylon.relays.subscription import Subscription
from tests.fakes.hostile_relay import HostileRelay
from tests.fakes.tls_proxy import TlsProxy
from tests.parts import certificates
from tests.parts.relays import LocalRelay
from tests.relays.conftest import (BOUND_SECS, Ear, Oks, an_event, assert_others_are_fast,
                                   echo_secs, state_of)
from tests.waiting import wait_for


@pytest.fixture
def beside(good, make_pool):
    """beside(sin, **settings): a hostile relay beside the good one -> (bad, pool, ear)."""
    running = []

    def start(sin, **changes):
        bad = HostileRelay(sin).start()
        running.append(bad)
        pool = make_pool([good.url, bad.url], **changes)
        ear = Ear()
        pool.subscribe(ear.sub)
        wait_for(lambda: good.url in ear.eose, what="the good relay")
        return bad, pool, ear

    yield start
    for bad in running:
        bad.__exit__()


def rss_kib():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def last_error(pool, bad):
    return state_of(pool, bad.url).last_error


def closed_with(bad):
    return [line["code"] for line in bad.log("close")]


def test_a01_frame_of_2_to_the_63_bytes(beside, good):
    before = rss_kib()
    bad, pool, ear = beside("declares_huge_frame")
    wait_for(lambda: 1009 in closed_with(bad))
    wait_for(lambda: "a frame of 9223372036854775807 bytes" in last_error(pool, bad))
    assert rss_kib() - before < 4096            # of which the pool itself is most
    assert_others_are_fast(pool, ear, good.url)


@pytest.mark.parametrize("sin", ["endless_continuation", "endless_crumbs"])
def test_a02_endless_continuation(beside, good, sin):
    bad, pool, ear = beside(sin)
    assert_others_are_fast(pool, ear, good.url)
    wait_for(lambda: "without end" in last_error(pool, bad), 60)


def test_a03_one_byte_now_and_then_inside_a_frame(beside, good):
    bad, pool, ear = beside("trickles", message_secs=0.5)
    assert_others_are_fast(pool, ear, good.url)
    wait_for(lambda: "took longer than 0.5 s" in last_error(pool, bad))


def test_a03_a_trickling_relay_still_gets_what_it_is_sent(beside):
    """The thread is not stuck inside a half frame: it goes on sending."""
    bad, pool, ear = beside("trickles", message_secs=20)
    wait_for(lambda: bad.url in pool.connected())
    event = an_event("while it trickles")
    assert pool.publish(event.id, event.to_json(), [bad.url], Oks()) == [bad.url]
    pool.subscribe(Ear("another").sub)
    wait_for(lambda: [text for text in bad.texts("REQ") if text[1] == "ear"])


def test_a04_accepts_tcp_and_never_shakes_hands(beside, good):
    bad, pool, ear = beside("never_shakes_hands", connect_secs=0.5)
    wait_for(lambda: "no answer within 0.5 s" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url)


def test_a05_header_without_end(beside, good):
    bad, pool, ear = beside("endless_header")
    wait_for(lambda: "has no end" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url)


def test_a06_black_hole_is_noticed_within_two_pings_and_the_gap_is_filled(beside, good):
    bad, pool, ear = beside("black_hole", ping_secs=0.5)
    later = Ear("jobs", resume_overlap_secs=60)
    pool.subscribe(later.sub)
    wait_for(lambda: "silent for" in last_error(pool, bad), 5)
    wait_for(lambda: [text for text in bad.texts("REQ") if text[1] == "jobs"])
    assert_others_are_fast(pool, ear, good.url)


def test_a06_after_a_black_hole_only_the_gap_is_asked_for(make_pool):
    with HostileRelay("black_hole") as bad:
        ear = Ear("jobs", resume_overlap_secs=60)
        pool = make_pool([bad.url], ping_secs=0.5)
        pool.subscribe(ear.sub)
        asked = wait_for(lambda: [line["message"] for line in bad.log("text")
                                  if line["visit"] == 1 and line["message"][0] == "REQ"])
        heard = bad.log("connect")[0]
        assert heard and asked[0][1] == "jobs"
        since = asked[0][2]["since"]
        wait_for(lambda: state_of(pool, bad.url).connected)
        assert -70 < since - state_of(pool, bad.url).since < -55


def test_a07_flood_of_pings(beside, good):
    bad, pool, ear = beside("ping_flood")
    wait_for(lambda: "flood of pings" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url)


def test_a07_no_pongs(beside, good):
    bad, pool, ear = beside("never_pongs", ping_secs=0.3)
    wait_for(lambda: "after a ping" in last_error(pool, bad))
    wait_for(lambda: len({line["visit"] for line in bad.log("ping")}) > 1)      # it came back
    assert_others_are_fast(pool, ear, good.url)


def test_a07_a_relay_that_does_not_read_our_pongs(beside, good):
    bad, pool, ear = beside("never_reads")
    assert_others_are_fast(pool, ear, good.url)
    wait_for(lambda: "does not read" in last_error(pool, bad)
             or "flood of pings" in last_error(pool, bad), 30)


@pytest.mark.parametrize("sin, words", [("overlong_ping", "control frame is too long"),
                                        ("masked_frames", "is masked")])
def test_frames_that_no_server_sends(beside, good, sin, words):
    bad, pool, ear = beside(sin)
    wait_for(lambda: words in last_error(pool, bad))
    wait_for(lambda: 1002 in closed_with(bad))
    assert_others_are_fast(pool, ear, good.url, rounds=5)


@pytest.mark.parametrize("sin", [
    pytest.param("binary_frames", id="a08_binary"), pytest.param("bad_utf8", id="a08_utf8"),
    pytest.param("deep_nesting", id="a09"), pytest.param("huge_number", id="a10"),
    pytest.param("not_a_number", id="a11_nan"), pytest.param("duplicate_keys", id="a11_keys"),
    pytest.param("not_an_array", id="a12_array"), pytest.param("unknown_verb", id="a12_verb"),
    pytest.param("wrong_arity", id="a12_arity"),
    pytest.param("foreign_subscription", id="a13")])
def test_a08_to_a13_nonsense_costs_a_strike_each(beside, good, sin):
    """One such message costs only itself; a stream of them ends the connection, with a pause."""
    bad, pool, ear = beside(sin)
    wait_for(lambda: "makes no sense" in last_error(pool, bad))
    assert 1008 in wait_for(lambda: closed_with(bad))
    assert state_of(pool, bad.url).oddities >= 20
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    assert all(relay == good.url for relay, _ in ear.events)


def test_a14_never_eose_goes_on_by_timeout(beside, good, monkeypatch):
    monkeypatch.setattr(listening, "EOSE_SECS", 0.3)
    bad, pool, ear = beside("never_eose")
    wait_for(lambda: bad.url in ear.eose)
    wait_for(lambda: "before the EOSE that never comes" in ear.contents())
    assert_others_are_fast(pool, ear, good.url, rounds=5)


def test_a14_eose_twice_is_told_once(beside, good):
    bad, pool, ear = beside("eose_twice")
    wait_for(lambda: bad.url in ear.eose)
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    assert ear.eose.count(bad.url) == 1


def test_a14_closed_at_once_is_asked_again_with_growing_pauses(beside, good, monkeypatch):
    monkeypatch.setattr(listening, "RETRY_FIRST_SECS", 0.05)
    bad, pool, ear = beside("closes_at_once")
    wait_for(lambda: len(bad.texts("REQ")) >= 4)
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    times = [line["at"] for line in bad.log("text")]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps[2] > gaps[0]
    assert (bad.url, "error: not today") in ear.closed


def test_a15_storm_of_challenges_costs_one_signature(beside, good):
    bad, pool, ear = beside("auth_storm")
    wait_for(lambda: bad.texts("AUTH"))
    wait_for(lambda: state_of(pool, bad.url).received_bytes > 50_000)
    assert_others_are_fast(pool, ear, good.url)
    assert len(bad.texts("AUTH")) == 1
    event = bad.texts("AUTH")[0][1]
    assert ["relay", bad.url] in event["tags"]


def test_a16_ok_for_a_foreign_id_says_nothing_about_ours(beside):
    bad, pool, _ = beside("foreign_ok")
    wait_for(lambda: bad.url in pool.connected())
    event, oks = an_event("mine"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert pool.flush(5)
    assert oks.answers == [(bad.url, event.id, True, "")]


def test_a16_ok_false_and_then_true_is_told_once_and_sending_again_mends_it(beside):
    bad, pool, _ = beside("ok_false_then_true")
    wait_for(lambda: bad.url in pool.connected())
    event, oks = an_event("twice"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert oks.words() == [(False, "error: try again")]


def test_a16_no_ok_is_an_answer_too_after_a_while(beside, good, monkeypatch):
    monkeypatch.setattr("pylon.relays.deliveries.ANSWER_SECS", 0.3)
    bad, pool, ear = beside("never_ok")
    wait_for(lambda: bad.url in pool.connected())
    event, oks = an_event("swallowed"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert oks.words() == [(False, "error: the relay did not answer")]
    assert_others_are_fast(pool, ear, good.url, rounds=5)


def test_an_ok_without_an_id_is_about_the_only_event_under_way(beside):
    bad, pool, _ = beside("empty_ok")
    wait_for(lambda: bad.url in pool.connected())
    event, oks = an_event("which?"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert oks.answers == [(bad.url, event.id, False, "invalid: cannot read it")]


def test_a_duplicate_is_a_success_even_when_the_relay_says_false(beside):
    bad, pool, _ = beside("duplicate_is_false")
    wait_for(lambda: bad.url in pool.connected())
    event, oks = an_event("again"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert oks.words() == [(True, "duplicate: exists")]


def test_a17_long_texts_with_escapes_are_cut_and_escaped(beside, good, caplog):
    caplog.set_level(logging.DEBUG, "pylon")
    bad, pool, ear = beside("long_notice")
    wait_for(lambda: ear.closed)
    event, oks = an_event("?"), Oks()
    pool.publish(event.id, event.to_json(), [bad.url], oks)
    wait_for(lambda: oks.answers)
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    shown = [oks.words()[0][1], ear.closed[0][1], last_error(pool, bad),
             *(record.getMessage() for record in caplog.records)]
    assert all(len(text) < 400 and text.isprintable() for text in shown)
    assert "evil" not in last_error(pool, bad)


def test_a17_notice_of_a_megabyte(beside, good):
    bad, pool, ear = beside("megabyte_notice")
    wait_for(lambda: "bytes" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url, rounds=5)


@pytest.mark.parametrize("sin, enough_bytes", [
    ("floods_valid", 200_000), ("floods_forged", 5_000), ("floods_one_event", 200_000)])
def test_a18_flood_is_paid_by_the_flooding_relay_alone(beside, good, sin, enough_bytes,
                                                       monkeypatch):
    monkeypatch.setattr(connection, "CPU_BURST_SECS", 0.2)
    monkeypatch.setattr(connection, "CPU_SHARE", 0.1)
    bad, pool, ear = beside(sin)
    wait_for(lambda: state_of(pool, bad.url).received_bytes > enough_bytes)
    assert_others_are_fast(pool, ear, good.url, rounds=40)
    assert threading.active_count() < 12


def test_a18_a_flood_of_valid_events_is_slowed_down_but_not_cut(beside, good, monkeypatch):
    monkeypatch.setattr(connection, "CPU_BURST_SECS", 0.2)
    monkeypatch.setattr(connection, "CPU_SHARE", 0.05)
    bad, pool, ear = beside("floods_valid")
    wait_for(lambda: state_of(pool, bad.url).events > 1000)
    name, started = f"relay:127.0.0.1:{bad.port}", time.monotonic()
    before = thread_cpu_secs(name)
    assert_others_are_fast(pool, ear, good.url, rounds=40)
    wait_for(lambda: time.monotonic() - started > 2)
    used, took = thread_cpu_secs(name) - before, time.monotonic() - started
    assert used < 0.05 * took + 0.3
    assert state_of(pool, bad.url).connected and state_of(pool, bad.url).last_error == ""


def thread_cpu_secs(name):
    thread = next(one for one in threading.enumerate() if one.name == name)
    with open(f"/proc/self/task/{thread.native_id}/stat", encoding="ascii") as file:
        numbers = file.read().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def test_a19_redirects_are_not_followed(beside, good):
    bad, pool, ear = beside("redirects")
    wait_for(lambda: "HTTP 302" in last_error(pool, bad)
             or "redirects are not followed" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    assert {line["path"] for line in bad.log("request")} == {"/"}


def test_a19_proxies_and_key_logs_of_the_environment_are_ignored(good, make_pool, monkeypatch,
                                                                 tmp_path):
    made = certificates.make(tmp_path)
    key_log = tmp_path / "keys"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))
    with TlsProxy(good.port, made) as proxy:
        pool = make_pool([good.url, proxy.url("wss")], ca_file=str(made.authority))
        wait_for(lambda: len(pool.connected()) == 2)
    assert not key_log.exists()


@pytest.mark.parametrize("hosts, days, trusted, words", [
    (("localhost",), -1, True, "expired"), (("elsewhere.example",), 2, True, "ostname"),
    (("localhost",), 2, False, "certificate")])
def test_a20_bad_certificates_are_refused(good, make_pool, tmp_path, hosts, days, trusted, words):
    made = certificates.make(tmp_path, hosts, days)
    with TlsProxy(good.port, made) as proxy:
        url = proxy.url("wss")
        pool = make_pool([good.url, url], ca_file=str(made.authority) if trusted else "")
        wait_for(lambda: words in state_of(pool, url).last_error)
        assert pool.connected() == wait_for(pool.connected) == [good.url]


def test_a20_there_is_no_way_to_switch_verification_off():
    context = tls.client_context("")
    assert context.check_hostname and context.verify_mode.name == "CERT_REQUIRED"


def test_reset_connections_in_a_loop(beside, good):
    bad, pool, ear = beside("resets_at_once")
    wait_for(lambda: len(bad.log("connect")) > 3)
    assert_others_are_fast(pool, ear, good.url)
    assert not state_of(pool, bad.url).connected


def test_accepts_and_then_silence(beside, good):
    bad, pool, ear = beside("accepts_then_silence", ping_secs=0.3)
    wait_for(lambda: "silent for" in last_error(pool, bad))
    assert_others_are_fast(pool, ear, good.url)


def test_events_that_were_not_asked_for_reach_nobody(beside):
    bad, pool, ear = beside("lies_about_filter")
    wait_for(lambda: bad.url in ear.eose)
    echo_secs(pool, ear, next(iter(set(pool.own_urls()) - {bad.url})))
    assert all(event.kind == 5050 for _, event in ear.events)


def test_p10_a_forged_copy_neither_passes_nor_hides_the_true_event(beside):
    bad, pool, ear = beside("forges_then_tells")
    wait_for(lambda: bad.url in ear.eose)
    assert [event.content for relay, event in ear.events if relay == bad.url] == ["true"]


def test_cookies_of_one_relay_are_sent_to_none(beside):
    """websocket-client keeps one jar for all: a relay could make us send 8 kB to another."""
    bad, pool, ear = beside("sets_cookies", backoff_max_secs=0)
    wait_for(lambda: bad.url in pool.connected())
    bad.stop()
    wait_for(lambda: bad.url not in pool.connected())
    bad.start()
    wait_for(lambda: len([line for line in bad.log("request")
                          if "Sec-WebSocket-Key" in line["headers"]]) >= 2)
    assert not [line for line in bad.log("request") if "Cookie" in line["headers"]]


def test_one_good_and_nine_bad(good, make_pool):
    """The mix of RELIABILITY P12: threads and memory stay flat, the good one stays fast."""
    sins = ["floods_valid", "floods_forged", "declares_huge_frame", "endless_continuation",
            "trickles", "never_eose", "auth_storm", "accepts_then_silence", "resets_at_once"]
    running = [HostileRelay(sin).start() for sin in sins]
    try:
        pool = make_pool([good.url, *(bad.url for bad in running)], ping_secs=1)
        ear = Ear()
        pool.subscribe(ear.sub)
        wait_for(lambda: len(pool.connected()) >= 6)
        threads, before = threading.active_count(), rss_kib()
        assert_others_are_fast(pool, ear, good.url, rounds=60)
        assert threading.active_count() <= threads + 1
        assert rss_kib() - before < 20 * 1024
    finally:
        for bad in running:
            bad.__exit__()


def test_a_handler_that_fails_costs_no_event(good, make_pool):
    """The relay is asked again after the reconnect; nothing that was not handled is forgotten."""
    heard, failures = [], []

    def handle(relay, events):
        if not failures:
            failures.append(events)
            raise RuntimeError("the disk is full")
        heard.extend(events)

    pool = make_pool([good.url])
    pool.subscribe(Subscription("jobs", [{"kinds": [5001]}], handle, resume_overlap_secs=60))
    wait_for(pool.connected)
    event = an_event("precious", kind=5001)
    pool.publish(event.id, event.to_json(), None, Oks())
    wait_for(lambda: heard, 20)
    assert failures and event.id in [one.id for one in heard]


def test_a_stranger_cannot_make_us_call_at_home(make_pool):
    pool = make_pool([], allow_private=False)
    for url in ("ws://relay.example", "wss://localhost", "wss://x.onion", "wss://router.local",
                "http://relay.example", "wss://", "wss://a b", "wss://u:p@relay.example",
                "wss://relay.example/\r\nX: y", "wss://" + "a" * 600):
        assert not pool.add_relay(url)
    assert pool.usable(["wss://localhost", "WSS://Relay.Example:443/", "wss://relay.example"]) \
        == ["wss://relay.example"]
    assert pool.add_relay("wss://127.0.0.1:9")          # refused when its address is looked at
    wait_for(lambda: not pool.states())


# ---- the network itself --------------------------------------------------------------------------

def test_h105_names_that_do_not_resolve_are_asked_for_with_pauses_and_heal(
        good, make_pool, monkeypatch):
    """DNS is down, and comes back: no busy loop, and no restart."""
    asked, down, real = [], [True], socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        if host != "relay.test":
            return real(host, *args, **kwargs)
        asked.append(time.monotonic())
        if down:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    named = f"ws://relay.test:{good.port}"
    pool = make_pool([named, good.url], backoff_max_secs=2)
    wait_for(lambda: "name resolution" in state_of(pool, named).last_error)
    ear = Ear()
    pool.subscribe(ear.sub)
    assert_others_are_fast(pool, ear, good.url, rounds=5)
    before, started = len(asked), time.monotonic()
    wait_for(lambda: time.monotonic() - started > 2)
    assert len(asked) - before <= 10
    down.clear()
    wait_for(lambda: named in pool.connected())


def test_h105_a_relay_that_only_ipv6_reaches(make_pool):
    with LocalRelay(host="::1") as relay:
        pool = make_pool([relay.url])
        ear = Ear()
        pool.subscribe(ear.sub)
        wait_for(lambda: relay.url in ear.eose)
        assert echo_secs(pool, ear, relay.url) < BOUND_SECS


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 28\r\n\r\n"
    b"<html>Please log in.</html>\n",
    b"HTTP/1.1 511 Network Authentication Required\r\nContent-Length: 0\r\n\r\n"])
def test_h105_a_captive_portal_is_no_relay(good, make_pool, answer):
    """A portal answers for every name until somebody logs in; then the relay is there."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), portal(answer)) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            url = f"ws://127.0.0.1:{server.server_address[1]}"
            pool = make_pool([url, good.url])
            ear = Ear()
            pool.subscribe(ear.sub)
            code = answer.split()[1].decode()
            wait_for(lambda: code in state_of(pool, url).last_error)
            assert_others_are_fast(pool, ear, good.url, rounds=5)
            assert url not in pool.connected()
        finally:
            server.shutdown()
            serving.join()


def portal(answer: bytes):
    class Portal(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(4096)
            self.request.sendall(answer)
    return Portal
