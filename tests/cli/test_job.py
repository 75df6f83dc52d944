"""pylon job: what it prints, what it refuses, and with which exit status; on a real relay."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from pylon.cli import job_wait, main, terminal
from pylon.customer import draft
from tests.customer.real import running
from tests.fakes.dishonest_provider import DishonestProvider
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def relay():
    with LocalRelay() as relay:
        yield relay


@pytest.fixture(scope="module")
def buyer(relay):
    with running(relay.url) as node:
        yield node


@pytest.fixture
def provider(buyer, relay, request):
    made = []

    def make(*sins, **options):
        made.append(DishonestProvider(relay.url, buyer.openagents, f"c{request.node.name[:40]}",
                                      sins=sins, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


@pytest.fixture
def run(buyer, capfd, monkeypatch):
    """Run one command in this process against the buyer's daemon."""
    def run(*words, text_in="", home=None):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text_in.encode())))
        capfd.readouterr()
        try:
            status = main(["--home", str((home or buyer.home).root), *words])
        except SystemExit as bad_usage:
            status = bad_usage.code
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)
    return run


@pytest.fixture
def submit(run):
    def submit(provider, *words, prompt="What is the capital of France?", **options):
        return run("job", "submit", prompt, "--provider", provider.npub, "-t", "10s", *words,
                   **options)
    return submit


# ---- the way of an order ------------------------------------------------------------------------

def test_submit_and_go_then_fetch_in_another_process(submit, run, provider):
    free = provider(price_msats=0)
    done = submit(free)
    order_id = done.stdout.strip()
    assert done.returncode == 0 and len(order_id) == 64
    assert f"pylon job result {order_id[:16]}" in done.stderr
    assert run("job", "result", order_id[:8]).stdout == "Paris\n"
    assert run("job", "results", order_id).stdout == "Paris\n"
    assert "state      completed" in run("job", "status", order_id).stdout


def test_wait_prints_the_answer_alone_on_stdout(submit, provider):
    done = submit(provider(price_msats=0), "--wait")
    assert (done.returncode, done.stdout) == (0, "Paris\n")
    assert "free" in done.stderr


def test_auto_pay_within_the_limit(submit, provider):
    seller = provider()
    done = submit(seller, "--auto-pay", "--max-sats", "2", "--first")
    assert (done.returncode, done.stdout) == (0, "Paris\n")
    assert "paid 2 sats" in done.stderr and ": 2 sats" in done.stderr
    assert len(seller.did("paid")) == 1


def test_auto_pay_above_the_limit_pays_nothing(submit, provider):
    seller = provider(price_msats=3000)
    done = submit(seller, "--auto-pay", "--max-sats", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the limit is 2 sats" in done.stderr
    assert not seller.did("paid")


def test_stream_prints_as_it_is_made(submit, provider):
    writer = provider(price_msats=0, answer="one two three", partials=("one", "one two"))
    done = submit(writer, "--stream")
    assert (done.returncode, done.stdout) == (0, "one two three\n")


def test_a_price_that_nobody_allowed_is_told_and_paid_by_hand(submit, run, provider):
    seller = provider()
    order_id = submit(seller, "-t", "60s").stdout.strip()
    wait_for(lambda: seller.did("quoted"))
    wait_for(lambda: "asked 2 sats" in run("job", "status", order_id).stdout)
    refused = run("job", "pay", order_id)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    too_low = run("job", "pay", order_id, "--yes", "--max-sats", "1")
    assert too_low.returncode == 1 and "2 sats" in too_low.stderr
    paid = run("job", "pay", order_id, "--yes")
    assert paid.stdout == "Paris\n"


def test_json_is_one_object_with_stable_keys(submit, provider):
    done = submit(provider(price_msats=0), "--wait", "--json")
    order = json.loads(done.stdout)
    assert set(order) == {
        "id", "state", "kind", "model", "prompt", "provider", "created_at", "ended_at", "code",
        "error", "encrypted", "policy", "max_msats", "bid_msats", "relays", "params", "account",
        "deadline_at", "result", "result_event_id", "payment", "providers"}
    assert (order["state"], order["result"]) == ("completed", "Paris")


def test_an_encrypted_order(submit, provider):
    secret = provider(price_msats=0)
    done = submit(secret, "--encrypt", "--wait")
    assert done.stdout == "Paris\n"


def test_model_and_parameters_reach_the_provider(submit, provider):
    free = provider(price_msats=0)
    done = submit(free, "-m", "tiny", "--max-tokens", "7", "-p", "top_k=3", "--wait",
                  "--json")
    assert json.loads(done.stdout)["params"] == {"model": "tiny", "max_tokens": "7", "top_k": "3"}


def test_files_stand_behind_the_prompt(submit, provider, tmp_path):
    (tmp_path / "a.txt").write_text("first")
    done = submit(provider(price_msats=0), "--file", str(tmp_path / "a.txt"), "--wait",
                  "--json", prompt="Summarise:")
    assert json.loads(done.stdout)["prompt"] == "Summarise:\n\nfirst"


def test_a_prompt_from_stdin(submit, provider):
    done = submit(provider(price_msats=0), "--wait", "--json", prompt="-",
                  text_in="from stdin")
    assert json.loads(done.stdout)["prompt"] == "from stdin"


def test_cancel(submit, run, provider):
    idle = provider("never", price_msats=0)
    order_id = submit(idle, "-t", "60s").stdout.strip()
    assert "cancelled" in run("job", "cancel", order_id).stderr
    again = run("job", "cancel", order_id)
    assert again.returncode == 1 and "cancelled already" in again.stderr
    late = run("job", "result", order_id)
    assert late.returncode == 1


def test_explain_tells_every_step(submit, run, provider):
    order_id = json.loads(submit(provider(), "--auto-pay", "--json").stdout)["id"]
    story = run("job", "explain", order_id[:12]).stdout
    for words in ("ordered: kind 5050", "a relay has accepted it", "asks 2 sats", "chosen:",
                  "paid 2 sats", "completed by"):
        assert words in story


def test_a_failed_order_says_why_and_exits_1(submit, provider):
    done = submit(provider("error_after_payment", price_msats=0), "--wait")
    assert (done.returncode, done.stdout) == (1, "")
    assert "it broke" in done.stderr


def test_list_shows_the_newest_first(submit, run, provider):
    submit(provider(price_msats=0), "--wait", prompt="the newest of all")
    lines = run("job", "list", "-l", "2").stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("[done]")
    assert lines[0].endswith("the newest of all")


# ---- bad input ----------------------------------------------------------------------------------

def test_sixty_emoji(submit, run, provider):
    """The first Pylon cut the prompt between bytes and fell over it in `list`."""
    emoji = "\U0001f600" * 60
    done = submit(provider(price_msats=0), "--wait", "--json", prompt=emoji)
    assert json.loads(done.stdout)["prompt"] == emoji
    assert "\U0001f600" * 29 + "…" in run("job", "list", "-l", "1").stdout


def test_a_full_prompt_of_emoji_fits(submit, provider):
    prompt = "\U0001f600" * (draft.MAX_PROMPT_BYTES // 4)
    done = submit(provider(price_msats=0), "--wait", "--encrypt", prompt="-",
                  text_in=prompt)
    assert done.stdout == "Paris\n", done.stderr


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_prompt_is_refused(run, prompt):
    done = run("job", "submit", prompt)
    assert done.returncode == 1 and "the prompt is empty" in done.stderr


def test_no_prompt_at_all_is_a_usage_error(run):
    assert run("job", "submit").returncode == 2


@pytest.mark.parametrize("size", [draft.MAX_PROMPT_BYTES + 1, 10_000_000])
def test_a_prompt_of_10_mb_is_refused_before_anything_is_sent(run, size):
    done = run("job", "submit", "-", text_in="x" * size)
    assert done.returncode == 1
    assert f"at most {draft.MAX_PROMPT_BYTES} fit" in done.stderr or "larger than" in done.stderr


def test_binary_stdin_is_refused(run, tmp_path):
    file = tmp_path / "picture"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff")
    done = run("job", "submit", "look:", "--file", str(file))
    assert done.returncode == 2 and "byte 0 is not UTF-8" in done.stderr
    file.write_bytes(b"abc\0def")
    done = run("job", "submit", "look:", "--file", str(file))
    assert done.returncode == 1 and "NUL" in done.stderr


@pytest.mark.parametrize("words, status, says", [
    (("--kind", "1"), 2, "5000 to 5999"), (("--kind", "١"), 2, "not a number"),
    (("--provider", "npub1nonsense"), 2, ""), (("--policy", "dear"), 2, "invalid choice"),
    (("--param", "noequals"), 2, "KEY=VALUE"), (("--relay", "http://x"), 1, "relay"),
    (("--relay", "ws://127.0.0.1:1"), 1, "allow_private"),
    (("--max-sats", "5"), 2, "--auto-pay"), (("--auto-pay", "--max-sats", "101"), 1, "100 sats"),
    (("--max-tokens", "-1"), 2, ""), (("--file", "/nowhere/at/all"), 2, "No such file"),
    (("--encrypt", "--kind", "5999"), 1, "no provider is known")])
def test_what_makes_no_sense_is_refused_with_a_reason(run, words, status, says):
    done = run("job", "submit", "x", *words)
    assert done.returncode in (1, 2) and says in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_answers_cannot_steer_the_terminal(monkeypatch):
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    assert terminal.printable("a\x1b[2Jb\nc\u202e") == "a\ufffd[2Jb\nc\ufffd"


# ---- without a daemon ---------------------------------------------------------------------------

def test_submit_needs_the_daemon_and_says_so(pylon, node):
    code, out, err = pylon("--home", str(node.root), "job", "submit", "x")
    assert code == 3 and "pylon start" in err and out == ""


def test_nothing_was_ever_ordered(pylon, node):
    code, _, err = pylon("--home", str(node.root), "job", "list")
    assert code == 1 and "ordered nothing" in err


def test_looking_works_without_a_daemon(run, relay):
    with running(relay.url) as buyer:
        free = DishonestProvider(relay.url, buyer.openagents, "free", price_msats=0)
        words = ("--provider", free.npub, "-t", "60s")
        done = run("job", "submit", "x", *words, "--wait", "--json", home=buyer.home)
        order_id = json.loads(done.stdout)["id"]
        free.sins = {"never"}
        waits = run("job", "submit", "later", *words, home=buyer.home).stdout.strip()
        free.close()
        assert buyer.stop() == 0
        for verb, says in (("result", "Paris\n"), ("status", "state      completed"),
                           ("explain", "ordered: kind 5050")):
            assert says in run("job", verb, order_id, home=buyer.home).stdout
        assert order_id[:16] in run("job", "list", home=buyer.home).stdout
        late = run("job", "result", waits, home=buyer.home)
        assert late.returncode == 3 and "pylon start" in late.stderr
        unknown = run("job", "status", "0" * 64, home=buyer.home)
        assert unknown.returncode == 1 and "no order" in unknown.stderr


def test_waiting_is_as_patient_as_it_was_told_to_be(home, monkeypatch):
    """The daemon says nothing while nothing happens, and an order may take days."""
    patience = []
    monkeypatch.setattr(job_wait.client, "stream", lambda home, name, args, secs:
                        patience.append(secs) or iter(()))
    monkeypatch.setattr(job_wait.client, "call", lambda *_: {
        "id": "3fa2c1d0" * 8, "state": "expired", "error": "too late", "code": "timeout",
        "result": None})
    for asked in ({}, {"timeout_secs": 7200}):
        assert job_wait.Waiting(home, "3fa2c1d0", False).run(asked) == 1
    assert patience[0] > 3600 and patience[1] > 7200
