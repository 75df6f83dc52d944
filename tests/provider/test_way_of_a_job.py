"""The way of one job through the steps, by hand: free, paid, held; and what can go wrong on it."""

from __future__ import annotations

import json
import time

import pytest

from pylon.errors import BackendError, WalletDenied, WalletUnreachable
from pylon.provider import worker as workers
from pylon.provider.admission import Admission
from pylon.states import JobStage
from pylon.store import books, clock, jobs, outbox
from pylon.wallets.wallet import Receipt

from tests.provider.conftest import Bench


def delivered(bench: Bench, event) -> None:
    row = bench.outbox("result")[-1]
    assert row["ref"] == event.id
    outbox.ack(bench.db, row["event_id"], "ws://127.0.0.1:7000", True, "", int(time.time()))


def paid_job(bench: Bench, **request):
    event = bench.request(**request)
    bench.arrive(event)
    bench.till.step(int(time.time()))
    assert bench.pay(event).state in ("paid", "unknown")
    bench.look()
    return event


def test_a_free_job_runs_and_its_result_is_stored_before_it_is_sent(free_bench):
    event = free_bench.request()
    free_bench.arrive(event)
    assert free_bench.stage(event) == "free"
    free_bench.worker.step(0)
    assert free_bench.stage(event) == "done"
    result = json.loads(free_bench.outbox("result")[0]["event_json"])
    assert result["content"] == "an answer" and result["kind"] == 6050
    delivered(free_bench, event)
    assert free_bench.stage(event) == "delivered"
    assert [e.first("status") for e in free_bench.sent] == ["processing", "success"]


def test_a_paid_job_is_quoted_paid_booked_and_answered(bench):
    event = bench.request()
    bench.arrive(event)
    assert bench.stage(event) == "received"
    bench.till.step(int(time.time()))
    assert bench.stage(event) == "quoted"
    quote = json.loads(bench.outbox("quote")[0]["event_json"])
    amount = next(t for t in quote["tags"] if t[0] == "amount")
    assert amount[1] == "1000" and amount[2].startswith("lnbcrt")
    assert bench.pay(event).state == "paid"
    assert books.balance(bench.db, "provider") == 0         # nothing is booked before we look
    bench.look()
    assert bench.stage(event) == "paid" and books.balance(bench.db, "provider") == 1000
    bench.worker.step(0)
    delivered(bench, event)
    assert bench.stage(event) == "delivered"
    result = json.loads(bench.outbox("result")[0]["event_json"])
    assert ["amount", "1000", amount[2]] in result["tags"]


def test_held_money_is_booked_only_when_the_result_is_delivered(hold_bench):
    event = paid_job(hold_bench)
    row = hold_bench.db.one("SELECT deadline_at FROM jobs WHERE id = ?", (event.id,))
    assert row["deadline_at"] > time.time() + 60, "held money without a time limit, or with none"
    assert hold_bench.stage(event) == "held" and books.balance(hold_bench.db, "provider") == 0
    hold_bench.worker.step(0)
    delivered(hold_bench, event)
    hold_bench.look()
    hold_bench.look()
    assert hold_bench.stage(event) == "settled"
    assert books.balance(hold_bench.db, "provider") == 1000 == hold_bench.wallet.balance()


def test_held_money_goes_back_when_the_job_fails(hold_bench):
    before = hold_bench.purse.balance()
    hold_bench.registry.answer = BackendError("broken")
    event = paid_job(hold_bench)
    fail_for_good(hold_bench)
    assert hold_bench.stage(event) == "cancelling"
    hold_bench.look()
    hold_bench.look()
    assert hold_bench.stage(event) == "cancelled" and hold_bench.purse.balance() == before
    assert books.balances(hold_bench.db) == {}


def fail_for_good(bench: Bench) -> None:
    for _ in range(3):
        with bench.db.transaction(durable=False) as tx:
            tx.execute("UPDATE jobs SET ready_at = 0")
        bench.worker.step(0)


def test_paid_money_is_owed_when_the_job_fails(bench):
    bench.registry.answer = BackendError("broken")
    event = paid_job(bench)
    fail_for_good(bench)
    assert (bench.stage(event), bench.code(event)) == ("owed", "backend-failed")
    assert books.balances(bench.db) == {"external": -1000, "owed": 1000, "provider": 0}
    told = json.loads(bench.outbox("error")[0]["event_json"])
    assert ["status", "error", "backend-failed: the model failed on this job"] in told["tags"]


def test_a_job_that_another_boot_left_running_runs_again_and_keeps_its_one_result(bench):
    event = paid_job(bench)
    assert jobs.claim(bench.db, "last-boot", int(time.time())) is not None
    assert workers.recover(bench.db, bench.keys, "this-boot", 3, int(time.time())) == 1
    assert bench.stage(event) == "paid"
    bench.worker.step(0)
    assert bench.stage(event) == "done" and len(bench.outbox("result")) == 1


def test_a_job_interrupted_too_often_is_given_up(bench):
    event = paid_job(bench)
    for boot in ("boot-1", "boot-2", "boot-3"):
        assert jobs.claim(bench.db, boot, int(time.time())) is not None
        workers.recover(bench.db, bench.keys, "this-boot", 3, int(time.time()))
    assert (bench.stage(event), bench.code(event)) == ("owed", "interrupted")


# ---- RELIABILITY section 4 C ---------------------------------------------------------------------

def test_c34_the_same_job_from_five_relays_is_one_job_and_logged_once(free_bench, caplog):
    caplog.set_level("INFO", "pylon.provider.intake")
    event = free_bench.request()
    for _ in range(5):
        free_bench.arrive(event, event)
    assert len(free_bench.db.query("SELECT id FROM jobs")) == 1
    assert caplog.text.count(f"job {event.id[:8]}: ") == 1


def test_c35_the_same_job_after_its_rows_were_pruned_is_stale(free_bench):
    old = free_bench.request(created_at=int(time.time()) - 3600)
    free_bench.arrive(old)
    assert free_bench.stage(old) is None


def test_c36_two_jobs_whose_ids_share_a_prefix_are_two_jobs(free_bench):
    first, second = free_bench.request("a"), free_bench.request("b")
    free_bench.arrive(first, second)
    assert len({row["id"] for row in free_bench.db.query("SELECT id FROM jobs")}) == 2
    assert jobs.find(free_bench.db, first.id[:20]) == [first.id]


def test_c37_a_job_for_somebody_else_is_not_wanted(free_bench):
    theirs = free_bench.request(tags=[["p", "ab" * 32]])
    ours = free_bench.request(tags=[["p", "ab" * 32], ["p", free_bench.keys.pubkey]])
    assert not free_bench.intake.wanted(theirs) and free_bench.intake.wanted(ours)


def test_c38_a_kind_that_is_not_offered_is_not_wanted(free_bench):
    assert not free_bench.intake.wanted(free_bench.request(kind=5100))
    assert all(free_bench.intake.wanted(free_bench.request(kind=kind))
               for kind in free_bench.config.provider.kinds)


def test_c39_a_url_input_is_refused_with_a_reason_and_nothing_is_fetched(free_bench):
    event = free_bench.customer.sign(5050, "", [["i", "http://127.0.0.1/", "url"]],
                                     int(time.time()))
    free_bench.arrive(event)
    assert free_bench.code(event) == "unsupported-input"
    assert len(free_bench.outbox("error")) == 1


def test_c39_no_input_is_refused(free_bench):
    event = free_bench.customer.sign(5050, "", [], int(time.time()))
    free_bench.arrive(event)
    assert free_bench.code(event) == "no-input"


def test_c40_sixty_emoji_are_a_fine_prompt(free_bench):
    event = free_bench.request("🤖" * 60)
    free_bench.registry.answer = "🧠" * 60
    free_bench.arrive(event)
    free_bench.worker.step(0)
    assert json.loads(free_bench.outbox("result")[0]["event_json"])["content"] == "🧠" * 60


@pytest.mark.parametrize("model", ["../../x", "nope", "gpt-4"])
def test_c41_a_model_that_is_not_served_is_refused(free_bench, model):
    event = free_bench.request(tags=[["param", "model", model]])
    free_bench.arrive(event)
    assert free_bench.code(event) == "model-unknown"


@pytest.mark.parametrize("number", ["-1", "١٢٣", "1_000", "", "1.5", "nan"])
def test_c42_a_number_that_is_none_is_refused(free_bench, number):
    event = free_bench.request(tags=[["param", "max_tokens", number]])
    free_bench.arrive(event)
    assert free_bench.code(event) == "bad-param"


def test_c42_a_huge_number_is_clamped(free_bench):
    event = free_bench.request(tags=[["param", "max-tokens", "1000000000"]])
    free_bench.arrive(event)
    assert free_bench.stage(event) in ("free", "rejected")
    if free_bench.stage(event) == "rejected":
        assert free_bench.code(event) == "prompt-too-long"


def test_c43_unknown_parameters_never_reach_the_backend(free_bench):
    event = free_bench.request(tags=[["param", "n_discard", "-1"], ["param", "num_gpu", "99"],
                                     ["param", "temperature", "0.5"]])
    free_bench.arrive(event)
    free_bench.worker.step(0)
    prompt = free_bench.registry.asked[0]
    assert prompt.temperature == 0.5
    assert not {"n_discard", "num_gpu"} & {f for f in prompt.__slots__}


def test_c44_a_bid_below_the_price_gets_one_answer_and_no_invoice(bench):
    event = bench.request(tags=[["bid", "999"]])
    bench.arrive(event, event)
    bench.till.step(0)
    assert bench.code(event) == "bid-too-low" and len(bench.outbox("error")) == 1
    assert not bench.db.query("SELECT 1 FROM invoices")


def test_c45_quotes_are_capped_per_customer_and_in_all(make_bench):
    bench = make_bench(pricing={"escrow": "off"}, admission={
        "jobs_per_minute": 1000, "jobs_per_minute_total": 100000, "max_open_quotes": 4})
    mine = [bench.request(str(n)) for n in range(5)]
    bench.arrive(*mine[:3])
    bench.arrive(mine[3])
    assert bench.code(mine[3]) == "too-many-quotes"


def test_c46_a_job_that_cannot_be_decrypted_gets_one_generic_answer(bench):
    event = bench.customer.sign(5050, "AAAA?iv=AAAA", [["p", bench.keys.pubkey], ["encrypted"]],
                                int(time.time()))
    bench.arrive(event)
    assert bench.code(event) == "cannot-decrypt"


def test_c47_cancelled_before_payment_late_money_is_owed(bench):
    event = bench.request()
    bench.arrive(event)
    bench.till.step(int(time.time()))
    deletion = bench.customer.sign(5, "", [["e", event.id]], int(time.time()))
    bench.intake.on_deletions("ws://127.0.0.1:7000", [deletion])
    assert bench.stage(event) == "cancelled"
    bench.pay(event)
    bench.look()
    assert bench.stage(event) == "owed" and books.balance(bench.db, "owed") == 1000


def test_c47_a_cancellation_after_payment_or_by_somebody_else_changes_nothing(bench):
    event = paid_job(bench)
    for keys in (bench.customer, bench.keys):
        deletion = keys.sign(5, "", [["e", event.id]], int(time.time()))
        bench.intake.on_deletions("ws://127.0.0.1:7000", [deletion])
    assert bench.stage(event) == "paid"


# ---- RELIABILITY section 4 D ---------------------------------------------------------------------

def quoted(bench: Bench):
    event = bench.request()
    bench.arrive(event)
    bench.till.step(int(time.time()))
    return event


def tell(bench: Bench, monkeypatch, *receipts: Receipt) -> None:
    """Let the wallet give these answers, one a look, the last one for ever."""
    answers = list(receipts)
    monkeypatch.setattr(bench.wallet, "lookup",
                        lambda payment_hash: answers.pop(0) if len(answers) > 1 else answers[0])


def expire_quote(bench: Bench, event, ago_secs: int) -> None:
    with bench.db.transaction(durable=False) as tx:
        tx.execute("UPDATE invoices SET expires_at = ?, watch_until = ? WHERE job_id = ?",
                   (int(time.time()) - ago_secs, int(time.time()) + 600000, event.id))


def test_d49_paid_a_second_late_is_served(bench, monkeypatch):
    event = quoted(bench)
    expire_quote(bench, event, 1)
    tell(bench, monkeypatch, Receipt("open"), Receipt("paid", 1000))
    bench.look()
    assert bench.stage(event) == "expired"
    bench.look()
    assert bench.stage(event) == "paid"


def test_d49_paid_a_day_late_is_owed(bench, monkeypatch):
    event = quoted(bench)
    expire_quote(bench, event, 86400)
    tell(bench, monkeypatch, Receipt("expired"), Receipt("paid", 1000))
    bench.look()
    bench.look()
    assert (bench.stage(event), books.balance(bench.db, "owed")) == ("owed", 1000)
    told = json.loads(bench.outbox("error")[0]["event_json"])
    assert any(t[:2] == ["status", "error"] and t[2].startswith("paid-late") for t in told["tags"])


def test_d51_too_little_is_booked_as_received_and_owed(bench, monkeypatch):
    event = quoted(bench)
    tell(bench, monkeypatch, Receipt("paid", 400))
    bench.look()
    assert (bench.stage(event), books.balance(bench.db, "owed")) == ("owed", 400)


def test_d51_too_much_is_booked_as_received(bench, monkeypatch):
    event = quoted(bench)
    tell(bench, monkeypatch, Receipt("paid", 1500))
    bench.look()
    assert (bench.stage(event), books.balance(bench.db, "provider")) == ("paid", 1500)


def test_d52_a_wallet_that_takes_its_word_back_changes_nothing(bench, monkeypatch):
    event = quoted(bench)
    tell(bench, monkeypatch, Receipt("paid", 1000), Receipt("open"))
    bench.look()
    bench.look()
    assert bench.stage(event) == "paid"


def test_d54_a_hundred_newer_payments_hide_nothing(bench):
    event = quoted(bench)
    for number in range(100):
        invoice = bench.wallet.make_invoice(1000 + number, "other", 600, "")
        bench.purse.pay(invoice.bolt11, 1000 + number, 0)
    bench.pay(event)
    bench.look()
    assert bench.stage(event) == "paid"


def test_d55_an_invoice_whose_answer_was_lost_is_adopted(bench, monkeypatch):
    event = bench.request()
    bench.arrive(event)
    real = bench.wallet.make_invoice

    def lost(*args, **kwargs):
        real(*args, **kwargs)
        raise WalletUnreachable("timed out")
    monkeypatch.setattr(bench.wallet, "make_invoice", lost)
    bench.till.step(int(time.time()))
    assert bench.stage(event) == "invoicing"
    monkeypatch.setattr(bench.wallet, "make_invoice", None)         # must not be asked again
    bench.till.step(int(time.time()))
    assert bench.stage(event) == "quoted" and len(bench.outbox("quote")) == 1


@pytest.mark.parametrize("wrong", ["amount", "hash", "garbage"])
def test_d56_an_invoice_that_was_not_asked_for_is_refused(bench, monkeypatch, wrong):
    event = bench.request()
    bench.arrive(event)
    real = bench.wallet.make_invoice

    def lie(amount_msats, *args, **kwargs):
        made = real(amount_msats + (1 if wrong == "amount" else 0), *args, **kwargs)
        return type(made)("lnbcrt1garbage" if wrong == "garbage" else made.bolt11,
                          "00" * 32 if wrong == "hash" else made.payment_hash, amount_msats,
                          made.expires_at)
    monkeypatch.setattr(bench.wallet, "make_invoice", lie)
    bench.till.step(int(time.time()))
    assert (bench.stage(event), bench.code(event)) == ("rejected", "wallet-mismatch")
    assert not bench.outbox("quote")


def test_d57_a_wallet_that_denies_us_closes_the_till_without_a_retry_storm(bench, monkeypatch):
    event = bench.request()
    bench.arrive(event)
    calls = []

    def deny(*args, **kwargs):
        calls.append(1)
        raise WalletDenied("401")
    monkeypatch.setattr(bench.wallet, "make_invoice", deny)
    for _ in range(5):
        bench.till.step(int(time.time()))
    assert len(calls) == 1 and bench.code(event) == "no-wallet"


def test_d61_a_customer_who_says_it_is_paid_gets_nothing(bench):
    event = quoted(bench)
    bench.look()
    bench.worker.step(0)
    assert bench.stage(event) == "quoted" and not bench.registry.asked


# ---- promise 14 ----------------------------------------------------------------------------------

def test_a_quote_ends_when_the_job_expires(bench):
    now = int(time.time())
    brief = bench.request(tags=[["expiration", str(now + 60)]])
    too_brief = bench.request("b", tags=[["expiration", str(now + 5)]])
    bench.arrive(brief, too_brief)
    bench.till.step(now)
    row = bench.db.one("SELECT expires_at FROM invoices WHERE job_id = ?", (brief.id,))
    assert row["expires_at"] <= now + 62
    assert (bench.stage(too_brief), bench.code(too_brief)) == ("rejected", "expired")


def test_p14_without_a_wallet_no_unpaid_work_is_done(bench):
    bench.open_wallet = None
    event = bench.request()
    bench.arrive(event)
    bench.till.step(0)
    bench.worker.step(0)
    assert bench.code(event) == "no-wallet" and not bench.registry.asked


def test_p14_play_money_is_not_quoted_to_the_public(make_bench):
    bench = make_bench(relays=["wss://relay.example.com"])
    event = bench.request()
    bench.arrive(event)
    assert bench.stage(event) is None and not bench.outbox("error")


def test_h99_on_a_nearly_full_disk_nothing_is_quoted(make_bench):
    bench = make_bench(store={"quote_free_mb": 1_000_000})
    event = bench.request()
    bench.arrive(event)
    bench.till.step(0)
    assert bench.code(event) == "closed" and not bench.db.query("SELECT 1 FROM invoices")


def test_h99_a_store_that_refused_a_write_closes_intake_until_it_takes_one(bench):
    bench.db.trouble = "database or disk is full"
    refused, taken = bench.request("a"), bench.request("b")
    bench.arrive(refused)                       # its refusal is written: the disk is well again
    bench.arrive(taken)
    assert (bench.code(refused), bench.stage(taken)) == ("closed", "received")


@pytest.mark.parametrize("step_secs", [-50 * 365 * 86400, -86400, -3600])
def test_h101_with_a_clock_in_the_past_nothing_is_signed_until_it_is_right(
        bench, monkeypatch, step_secs):
    """P22: a machine without a battery boots in the past, with a store that knows better."""
    earlier = bench.request("earlier")
    bench.arrive(earlier)
    admission = Admission(bench.db, bench.config, bench.registry, lambda: bench.wallet,
                          lambda: 65536)
    bench.intake._admission = admission
    real = time.time
    monkeypatch.setattr(clock, "synchronised", lambda: False)
    monkeypatch.setattr(time, "time", lambda: real() + step_secs)
    event = bench.request("later")
    bench.arrive(event)
    assert bench.stage(event) is None and not bench.outbox("error")
    assert "clock" in admission.clock_trouble(int(time.time()))
    monkeypatch.setattr(time, "time", real)
    event = bench.request("right again")
    bench.arrive(event)
    assert bench.stage(event) == "received" and admission.clock_trouble(int(real())) is None


def test_h101_a_step_in_the_middle_of_a_job_loses_nothing(bench, monkeypatch):
    event = paid_job(bench)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    bench.worker.step(0)
    assert bench.stage(event) == "done"


def test_the_status_words_of_the_first_pylon_go_with_every_stage(bench):
    event = paid_job(bench)
    row = bench.db.one("SELECT status FROM jobs WHERE id = ?", (event.id,))
    assert row["status"] == "processing"
    assert {stage.value for stage in JobStage} >= {bench.stage(event)}
