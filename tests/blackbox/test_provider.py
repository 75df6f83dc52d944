"""A stranger's job over a real relay to the real daemon and back: what issue and promises say."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.blackbox.conftest import connected, relay_connected
from tests.fakes.logged_backend import MODEL, answer_to
from tests.fakes.stranger import tag
from tests.parts import certificates
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for


def test_a_job_comes_back_with_every_tag_that_nip90_names(make_node, make_stranger, relay,
                                                          backend):
    make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    job = stranger.job("what is it?", tags=[["output", "text/plain"], ["relays", relay.url]])
    result = stranger.result(job)
    assert result["content"] == answer_to("what is it?") and result["kind"] == 6050
    assert json.loads(tag(result, "request")[1])["id"] == job
    assert tag(result, "e")[1] == job and tag(result, "p")[1] == stranger.pubkey
    assert tag(result, "i")[:3] == ["i", "what is it?", "text"]
    assert stranger.about(job, 7000, "processing")
    wait_for(lambda: stranger.about(job, 7000, "success"), 10)


def test_encrypted_jobs_are_answered_in_kind_and_nothing_of_them_is_in_clear(
        make_node, make_stranger, relay, backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    for scheme in ("nip44", "nip04"):
        job = stranger.secret_job("a private matter", node.json("whoami")["pubkey"], scheme)
        result = stranger.result(job)
        assert stranger.open(result) == answer_to("a private matter")
        assert any(t == ["encrypted"] for t in result["tags"])
        assert ("?iv=" in result["content"]) == (scheme == "nip04")
    for line in relay.recorded():
        assert "private matter" not in json.dumps(line)


def test_every_kind_that_is_announced_is_served(make_node, make_stranger, relay, backend):
    make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    announced = wait_for(lambda: [line["event"] for line in relay.recorded()
                                  if line["event"]["kind"] == 31990], 10)[0]
    kinds = [int(t[1]) for t in announced["tags"] if t[0] == "k"]
    assert sorted(kinds) == [5000, 5001, 5002, 5050]
    for kind in kinds:
        job = stranger.job(f"text for {kind}", kind=kind)
        assert stranger.result(job)["kind"] == kind + 1000
    assert json.loads(announced["content"])["name"] == "Pylon Provider"


def test_the_same_job_through_three_relays_gives_one_result(make_node, make_stranger, backend,
                                                            stack, tmp_path):
    relays = [stack.enter_context(LocalRelay(record=tmp_path / f"{n}.log")) for n in range(2)]
    tls = certificates.make(tmp_path)
    relays.append(stack.enter_context(LocalRelay(record=tmp_path / "tls.log", tls=tls)))
    make_node([relay.url for relay in relays], backend.url, ca=str(tls.authority))
    strangers = [make_stranger(relays[0].url)]
    strangers.append(make_stranger(relays[1].url, keys=strangers[0].keys))
    event = strangers[0].sign(5050, [["i", "only once", "text"]])
    for stranger in strangers:
        stranger.publish(event)
    for stranger in strangers:
        wait_for(lambda: stranger.about(event["id"], 6050), 20)
    wait_for(lambda: any(line["event"]["kind"] == 6050 for line in relays[2].recorded()), 20)
    ids = {line["event"]["id"] for relay in relays for line in relay.recorded()
           if line["event"]["kind"] == 6050}
    assert len(ids) == 1 and backend.calls == ["only once"]


def test_kill_9_in_the_middle_of_inference_gives_one_result_after_the_restart(
        make_node, make_stranger, relay, backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    job = stranger.job("a long one")
    wait_for(lambda: backend.calls, 20)
    node.kill()
    backend.gate.set()
    node.start()
    assert stranger.result(job)["content"] == answer_to("a long one")
    assert node.run("explain", job[:10]).stdout.count("started with") == 2
    node.stop()
    assert len({e["id"] for e in stranger.results(job)}) == 1


def test_a_thousand_old_jobs_on_the_relay_are_not_answered_at_start(make_node, make_stranger,
                                                                    relay, backend):
    stranger = make_stranger(relay.url)
    hour_ago = int(time.time()) - 3600
    for number in range(1000):
        stranger.publish(stranger.sign(5050, [["i", f"old {number}", "text"]], "", hour_ago))
    make_node([relay.url], backend.url)
    job = stranger.job("a fresh one")
    stranger.result(job)
    assert backend.calls == ["a fresh one"]


def test_a_job_answered_before_is_not_answered_again_after_a_restart(make_node, make_stranger,
                                                                     relay, backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    first = stranger.job("before")
    stranger.result(first)
    node.stop()
    node.start()
    wait_for(lambda: connected(node), 20)
    stranger.result(stranger.job("after"))
    assert backend.calls == ["before", "after"] and len(stranger.results(first)) == 1


def test_a_result_waits_in_the_outbox_until_the_relay_is_back(make_node, make_stranger, relay,
                                                              backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    job = stranger.job("deliver me later")
    wait_for(lambda: backend.calls, 20)
    relay.stop()
    backend.gate.set()
    wait_for(lambda: "signed and stored" in node.run("explain", job[:12]).stdout, 20)
    node.kill()
    relay.start()
    node.start()
    delivered = wait_for(lambda: [line["event"] for line in relay.recorded()
                                  if line["event"]["kind"] == 6050], 30)
    assert {event["id"] for event in delivered} == {delivered[0]["id"]}
    assert node.run("explain", job[:12]).stdout.count("delivered") == 1


def test_a_daemon_started_with_all_relays_down_heals_when_they_come(make_node, make_stranger,
                                                                    relay, backend):
    relay.stop()
    node = make_node([relay.url], backend.url, start=False)
    node.start()
    assert node.status()["relay_states"][0]["connected"] is False
    relay.start()
    wait_for(lambda: connected(node), 30)
    stranger = make_stranger(relay.url)
    assert stranger.result(stranger.job("are you there?"))


def test_h104_after_a_suspension_the_links_are_built_again_and_missed_jobs_are_served(
        make_node, make_stranger, relay, backend):
    """The process stands still while the relay hangs up and comes back, and jobs arrive."""
    node = make_node([relay.url], backend.url)
    pid = int(node.home.pid.read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        relay.stop()
        relay.start()
        stranger = make_stranger(relay.url)
        missed = stranger.job("while you slept")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert stranger.result(missed)["content"] == answer_to("while you slept")
    assert stranger.result(stranger.job("and now"))
    assert node.answers() and len(stranger.results(missed)) == 1


def test_a_relay_that_wants_nip42_gets_it(make_node, make_stranger, relay, backend, stack):
    guarded = stack.enter_context(LocalRelay(auth="write"))
    node = make_node([relay.url, guarded.url], backend.url)
    stranger = make_stranger(relay.url)
    job = stranger.job("over both", tags=[["relays", guarded.url]])
    stranger.result(job)
    wait_for(lambda: [s for s in node.status()["relay_states"]
                      if s["url"] == guarded.url and s["auth"] == "ok"], 15)


def test_a_job_is_cancelled_by_its_author_before_it_runs(make_node, make_stranger, relay,
                                                         backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    running, waiting = stranger.job("running"), stranger.job("waiting")
    wait_for(lambda: backend.calls, 20)
    wait_for(lambda: "received" in node.run("explain", waiting[:12], check=False).stdout, 10)

    def cancel():
        stranger.publish(stranger.sign(5, [["e", waiting], ["k", "5050"]]))
        return "cancelled" in node.run("explain", waiting[:12]).stdout
    wait_for(cancel, 15, "the cancellation")
    backend.gate.set()
    stranger.result(running)
    assert backend.calls == ["running"] and not stranger.results(waiting)


def test_stop_puts_running_work_back_and_start_finishes_it(make_node, make_stranger, relay,
                                                           backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    job = stranger.job("interrupted by a stop")
    wait_for(lambda: backend.calls, 20)
    started = time.monotonic()
    node.run("stop", "-t", "2")
    assert time.monotonic() - started < 10
    backend.gate.set()
    node.start()
    assert stranger.result(job)["content"] == answer_to("interrupted by a stop")


def test_a_chained_job_gets_the_result_of_the_first_as_its_input(make_node, make_stranger, relay,
                                                                 backend):
    make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    first = stranger.job("one")
    event = stranger.sign(5001, [["i", first, "job"]])
    stranger.publish(event)
    backend.gate.set()
    stranger.result(event["id"])
    assert backend.calls[-1] == answer_to("one")


def test_partial_answers_stream_to_the_customer(make_node, make_stranger, relay, backend):
    make_node([relay.url], backend.url, provider="partial_interval_secs = 0")
    stranger = make_stranger(relay.url)
    job = stranger.job("stream it")
    stranger.result(job)
    partial = wait_for(lambda: stranger.about(job, 7000, "partial"), 10)
    assert "".join(e["content"] for e in partial) == answer_to("stream it")


def test_the_announcement_is_withdrawn_at_a_graceful_stop(make_node, relay, backend):
    node = make_node([relay.url], backend.url)
    pubkey = node.json("whoami")["pubkey"]
    wait_for(lambda: any(line["event"]["kind"] == 31990 for line in relay.recorded()), 10)
    assert node.stop() == 0
    deletions = [line["event"] for line in relay.recorded() if line["event"]["kind"] == 5]
    assert any(["a", f"31990:{pubkey}:pylon"] in event["tags"] for event in deletions)


def test_reload_takes_new_settings_and_drops_no_job(make_node, make_stranger, relay, backend):
    node = make_node([relay.url], backend.url)
    stranger = make_stranger(relay.url)
    backend.gate.clear()
    job = stranger.job("in hand")
    wait_for(lambda: backend.calls, 20)
    blocking = f'[admission]\nblock = ["{"ab" * 32}"]'
    node.configure(node.home.config.read_text().replace("[admission]", blocking))
    node.run("reload")
    backend.gate.set()
    stranger.result(job)
    assert relay_connected(node, relay.url) and MODEL in node.run("status").stdout


def test_answers_go_where_the_customer_reads_by_its_relay_list(make_node, make_stranger, relay,
                                                               backend, stack, tmp_path):
    theirs = stack.enter_context(LocalRelay(record=tmp_path / "theirs.log"))
    node = make_node([relay.url], backend.url, start=False)
    node.configure(node.home.config.read_text() + "allow_private = true\n")
    node.start()
    wait_for(lambda: connected(node), 20)
    stranger = make_stranger(relay.url)
    stranger.publish(stranger.sign(10002, [["r", theirs.url, "read"]]))
    stranger.result(stranger.job("now the list is known"))

    def ask_again():
        stranger.result(stranger.job(f"job {len(backend.calls)}"))
        return [line for line in theirs.recorded() if line["event"]["kind"] == 6050]
    wait_for(ask_again, 20, "a result where the customer reads")
