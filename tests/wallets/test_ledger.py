import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pylon.errors import ConfigError, WalletError, WalletUnreachable
from pylon.units import MAX_MSATS
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pair(ledgers):
    payer, payee = ledgers("a"), ledgers("b")
    payer.fund(1_000_000)
    return payer, payee


def hold_hash():
    preimage = os.urandom(32)
    return preimage.hex(), hashlib.sha256(preimage).hexdigest()


def conserved(path):
    """Every msat that was made is in a balance, on hold, or burned as a fee; and nothing else."""
    with sqlite3.connect(path) as db:
        def total(sql):
            return db.execute(f"SELECT coalesce(sum({sql}").fetchone()[0]
        balances = total("balance_msats), 0) FROM account")
        entries = total("delta_msats), 0) FROM entry")
        made = total("delta_msats), 0) FROM entry WHERE kind = 'fund'")
        moving = total("amount_msats + fee_msats), 0) FROM payment WHERE state = 'pending'")
        burned = total("fee_msats), 0) FROM payment WHERE state = 'paid'")
    db.close()
    return balances == entries == made - moving - burned


# ---- the file -----------------------------------------------------------------------------------

def test_files_are_private_whatever_the_umask(openagents, ledgers):
    before = os.umask(0)
    try:
        ledger = ledgers("a")
        ledger.watch(lambda changed: None)
        ledger.fund(1000)
    finally:
        os.umask(before)
    for name in ("ledger.db", "a.sock"):
        assert stat.S_IMODE((openagents / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("spoil", ["loose", "symlink", "directory"])
def test_a_ledger_that_others_could_change_is_refused(openagents, ledgers, spoil):
    path = openagents / "ledger.db"
    if spoil == "loose":
        path.touch(0o644)
    elif spoil == "symlink":
        path.symlink_to(openagents / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(ConfigError):
        ledgers("a")


def test_a_newer_ledger_is_refused(openagents, ledgers):
    ledgers("a").close()
    with sqlite3.connect(openagents / "ledger.db") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        ledgers("b")


def test_a_damaged_ledger_is_named_and_not_made_anew(openagents, ledgers):
    rubbish = b"this is no database, whatever its name may be" * 100
    (openagents / "ledger.db").write_bytes(rubbish)
    (openagents / "ledger.db").chmod(0o600)
    with pytest.raises(WalletError, match="damaged"):
        ledgers("a")
    assert (openagents / "ledger.db").read_bytes() == rubbish


def test_history_cannot_be_rewritten(openagents, pair):
    payer, payee = pair
    invoice = payee.make_invoice(5000, "tea", 600, "x")
    payer.pay(invoice.bolt11, 5000, 0)
    with sqlite3.connect(openagents / "ledger.db") as db:
        for statement in ("DELETE FROM entry", "UPDATE entry SET delta_msats = 1",
                          "DELETE FROM invoice", "DELETE FROM payment",
                          "UPDATE invoice SET state = 'open'",
                          "UPDATE payment SET state = 'failed'",
                          "UPDATE account SET balance_msats = -1"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(statement)
    db.close()


def test_a_full_or_failing_disk_is_unreachable_and_loses_nothing(openagents, pair):
    payer, payee = pair
    invoice = payee.make_invoice(5000, "tea", 600, "x")
    pages = payer._db.execute("PRAGMA page_count").fetchone()[0]
    payer._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(WalletUnreachable):
        for number in range(1000):
            payer.fund(1)
    payer._db.execute("PRAGMA max_page_count=1000000")
    assert payer.pay(invoice.bolt11, 5000, 0).state == "paid"
    assert conserved(openagents / "ledger.db")


def test_a_closed_ledger_says_so(ledgers):
    ledger = ledgers("a")
    ledger.close()
    ledger.close()
    with pytest.raises(WalletError, match="closed"):
        ledger.balance()


# ---- invoices -----------------------------------------------------------------------------------

def test_an_invoice_is_signed_by_the_home_s_own_node(pair):
    payer, payee = pair
    read = bolt11.decode(payee.make_invoice(5000, "tea", 600, "x").bolt11)
    assert (read.network, read.payee) == ("regtest", payee.node)
    assert payee.node != payer.node == payer.info()["node"]


def test_d55_an_invoice_whose_answer_was_lost_is_found_by_its_name(pair):
    made = pair[1].make_invoice(5000, "tea", 600, "job-1")
    assert pair[1].find_invoice("job-1") == made
    assert pair[1].make_invoice(5000, "tea", 600, "job-1") == made
    assert pair[0].find_invoice("job-1") is None        # names are each account's own
    with pytest.raises(WalletError):
        pair[1].make_invoice(6000, "tea", 600, "job-1")


def test_invoices_without_a_name_are_all_different(pair):
    one, two = (pair[1].make_invoice(5000, "tea", 600, "") for _ in range(2))
    assert one.payment_hash != two.payment_hash and pair[1].find_invoice("") is None


@pytest.mark.parametrize("arguments", [
    (0, "x", 600), (-1, "x", 600), (MAX_MSATS + 1, "x", 600), (1, "x" * 640, 600), (1, "x", 0),
    (1, "x", -1), (1, "x", 10**9)])
def test_an_invoice_that_makes_no_sense_is_not_made(pair, arguments):
    with pytest.raises(WalletError):
        pair[1].make_invoice(*arguments, "")


@pytest.mark.parametrize("bad", ["", "zz" * 32, "00" * 31])
def test_a_hold_hash_must_be_one(pair, bad):
    if bad:
        with pytest.raises(WalletError):
            pair[1].make_invoice(1000, "x", 600, "", bad)


def test_one_hash_has_one_invoice(pair):
    _, payment_hash = hold_hash()
    pair[1].make_invoice(1000, "x", 600, "", payment_hash)
    for wallet in pair:
        with pytest.raises(WalletError, match="exists"):
            wallet.make_invoice(1000, "x", 600, "", payment_hash)


def test_d49_not_paid_at_the_expiry_second_but_the_second_before(pair, clock):
    payer, payee = pair
    one, two = (payee.make_invoice(5000, "tea", 600, "") for _ in range(2))
    clock.now += 599
    assert payer.pay(one.bolt11, 5000, 0).state == "paid"
    clock.now += 1
    assert payer.pay(two.bolt11, 5000, 0).state == "failed"
    assert payee.lookup(two.payment_hash).state == "expired"
    assert payer.lookup_payment(two.payment_hash).state == "missing"


# ---- paying -------------------------------------------------------------------------------------

def test_e66_what_is_not_of_this_ledger_is_not_paid(pair):
    payer, payee = pair
    good = bolt11.decode(payee.make_invoice(5000, "tea", 600, "").bolt11)
    key = b"b" * 32

    def other(**changes):
        fields = {"network": "regtest", "amount_msats": 5000, "payment_hash": good.payment_hash,
                  "description": "tea", "secret32": key, "payment_secret": good.payment_secret,
                  "created_at": good.created_at, "expiry_secs": 600, **changes}
        return bolt11.encode(**fields)
    for text in (other(network="mainnet"), other(amount_msats=None), other(amount_msats=5001),
                 other(payment_hash="ab" * 32), other(description="tee"), "lnbcrt1", "",
                 other(amount_msats=MAX_MSATS), other(secret32=b"z" * 32)):
        assert payer.pay(text, 5000, 10**9).state == "failed"
    assert (payer.balance(), payee.balance()) == (1_000_000, 0)
    assert payer.history()[0].description == "play money"


def test_e69_a_fee_above_the_cap_is_refused_and_a_paid_one_counted(openagents, ledgers, pair):
    payer, payee = pair
    payer.fee_msats = 300
    invoice = payee.make_invoice(5000, "tea", 600, "")
    refused = payer.pay(invoice.bolt11, 5000, 299)
    assert refused.state == "failed" and "fee" in refused.reason
    assert payer.pay(invoice.bolt11, 5000, 300).fee_msats == 300
    assert (payer.balance(), payee.balance()) == (994_700, 5000)
    assert payer.history()[0].fee_msats == 300
    assert conserved(openagents / "ledger.db")


def test_a_balance_that_is_too_low_pays_nothing_and_may_pay_later(pair):
    payer, payee = pair
    payer.fee_msats = 1
    invoice = payee.make_invoice(1_000_000, "all of it", 600, "")
    assert payer.pay(invoice.bolt11, 1_000_000, 1).state == "failed"
    payer.fund(1)
    assert payer.pay(invoice.bolt11, 1_000_000, 1).state == "paid"
    assert payer.balance() == 0


def test_our_own_invoice_is_not_paid(pair):
    invoice = pair[0].make_invoice(5000, "tea", 600, "")
    assert pair[0].pay(invoice.bolt11, 5000, 0).reason == "the invoice is our own"


def test_d50_a_second_payer_is_refused_and_keeps_its_money(ledgers, pair):
    payer, payee = pair
    late = ledgers("c")
    late.fund(5000)
    invoice = payee.make_invoice(5000, "tea", 600, "")
    assert payer.pay(invoice.bolt11, 5000, 0).state == "paid"
    assert late.pay(invoice.bolt11, 5000, 0).state == "failed"
    assert (late.balance(), late.lookup_payment(invoice.payment_hash).state) == (5000, "missing")


def test_e73_fifty_threads_and_two_processes_worth_of_connections_pay_once(openagents, ledgers,
                                                                           pair):
    payer, payee = pair
    twin = ledgers("a")                 # the same account, as a second process opens it
    invoice = payee.make_invoice(5000, "tea", 600, "")
    outcomes = []

    def pay(wallet):
        outcomes.append(wallet.pay(invoice.bolt11, 5000, 0))
    threads = [threading.Thread(target=pay, args=(wallet,)) for wallet in (payer, twin) * 25]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 50 and {outcome.state for outcome in outcomes} == {"paid"}
    assert len({outcome.preimage for outcome in outcomes}) == 1
    assert (payer.balance(), payee.balance()) == (995_000, 5000)
    assert conserved(openagents / "ledger.db")


# ---- held money ---------------------------------------------------------------------------------

def test_e63_held_money_is_unknown_until_it_is_taken(pair):
    payer, payee = pair
    preimage, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 600, "x", payment_hash)
    assert invoice.preimage is None
    assert payer.pay(invoice.bolt11, 5000, 0).state == "unknown"
    assert payer.pay(invoice.bolt11, 5000, 0).state == "unknown"
    assert (payer.balance(), payee.balance()) == (995_000, 0)
    assert payer.history()[0].state == "pending" and payee.history() == []
    payee.settle(preimage)
    payee.settle(preimage)
    assert payer.lookup_payment(payment_hash).preimage == preimage
    assert payee.balance() == 5000 and payee.history()[0].payment_hash == payment_hash
    with pytest.raises(WalletError):
        payee.cancel(payment_hash)


def test_e64_held_past_the_invoice_s_expiry_is_still_unknown(pair, clock):
    payer, payee = pair
    _, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 60, "", payment_hash)
    payer.pay(invoice.bolt11, 5000, 0)
    clock.now += 100
    assert payer.lookup_payment(payment_hash).state == "unknown"
    assert payee.lookup(payment_hash).state == "held"


def test_cancelled_money_comes_back_with_its_fee_and_the_hash_is_spent(openagents, pair):
    payer, payee = pair
    payer.fee_msats = 7
    preimage, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 600, "", payment_hash)
    payer.pay(invoice.bolt11, 5000, 7)
    payee.cancel(payment_hash)
    payee.cancel(payment_hash)
    assert payer.balance() == 1_000_000 and payee.lookup(payment_hash).state == "cancelled"
    assert payer.lookup_payment(payment_hash).state == "failed"
    assert payer.pay(invoice.bolt11, 5000, 7).state == "failed"
    with pytest.raises(WalletError):
        payee.settle(preimage)
    assert payer.history()[0].description == "play money"       # nothing moved in the end
    assert conserved(openagents / "ledger.db")


def test_an_open_invoice_can_be_closed(pair):
    payer, payee = pair
    invoice = payee.make_invoice(5000, "tea", 600, "")
    payee.cancel(invoice.payment_hash)
    assert payer.pay(invoice.bolt11, 5000, 0).state == "failed"


def test_held_money_goes_back_when_its_time_is_over(openagents, pair, clock):
    payer, payee = pair
    preimage, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 600, "", payment_hash)
    payer.pay(invoice.bolt11, 5000, 0)
    assert payee.lookup(payment_hash).hold_expires_at == clock.now + 600
    clock.now += 600
    assert payer.balance() == 1_000_000                 # whoever looks first finds it back
    with pytest.raises(WalletError):
        payee.settle(preimage)
    assert payee.lookup(payment_hash).state == "cancelled"
    assert conserved(openagents / "ledger.db")


@pytest.mark.parametrize("call", ["settle", "cancel"])
def test_only_the_payee_moves_held_money(pair, call):
    payer, payee = pair
    preimage, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 600, "", payment_hash)
    payer.pay(invoice.bolt11, 5000, 0)
    with pytest.raises(WalletError):
        getattr(payer, call)(preimage if call == "settle" else payment_hash)
    assert payee.lookup(payment_hash).state == "held"


@pytest.mark.parametrize("preimage", ["", "zz", "00" * 32])
def test_a_preimage_of_nothing_settles_nothing(pair, preimage):
    with pytest.raises(WalletError):
        pair[1].settle(preimage)


# ---- the doorbell -------------------------------------------------------------------------------

def test_both_sides_are_told(ledgers, pair):
    payer, payee = pair
    heard_by_payer, heard_by_payee = [], []
    payer.watch(heard_by_payer.append)
    payee.watch(heard_by_payee.append)
    preimage, payment_hash = hold_hash()
    invoice = payee.make_invoice(5000, "tea", 600, "", payment_hash)
    payer.pay(invoice.bolt11, 5000, 0)
    wait_for(lambda: heard_by_payee == [payment_hash])
    payee.settle(preimage)
    wait_for(lambda: payment_hash in heard_by_payer)


def test_the_end_of_a_hold_rings_without_anybody_looking(ledgers, openagents):
    payer, payee = (ledgers(name, clock=time.time, hold_secs=1) for name in "ab")
    payer.fund(10_000)
    heard = []
    payer.watch(heard.append)
    payee.watch(heard.append)
    _, payment_hash = hold_hash()
    payer.pay(payee.make_invoice(5000, "tea", 600, "", payment_hash).bolt11, 5000, 0)

    def returned():
        with sqlite3.connect(openagents / "ledger.db") as db:
            state = db.execute("SELECT state FROM payment").fetchone()[0]
        db.close()
        return state == "failed"
    wait_for(returned)


def test_d59_a_forged_ring_is_only_a_reason_to_look(openagents, pair):
    payer, payee = pair
    heard = []
    payee.watch(heard.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        for rubbish in (b"", b"ab" * 32, os.urandom(1000)):
            bell.sendto(rubbish, str(openagents / "b.sock"))
    invoice = payee.make_invoice(5000, "tea", 600, "")
    payer.pay(invoice.bolt11, 5000, 0)
    wait_for(lambda: heard == [invoice.payment_hash])


def test_a_storm_of_payments_loses_no_change(ledgers, pair):
    """A datagram queue is short: rings are lost in a storm, and what they mean must not be."""
    payer, payee = pair
    heard, gate = [], threading.Event()

    def slow(payment_hash):
        gate.wait(10)
        heard.append(payment_hash)
    payee.watch(slow)
    hashes = []
    for _ in range(60):
        invoice = payee.make_invoice(1000, "tea", 600, "")
        payer.pay(invoice.bolt11, 1000, 0)
        hashes.append(invoice.payment_hash)
    gate.set()
    wait_for(lambda: set(heard) == set(hashes))


def test_nobody_at_home_is_no_error(openagents, pair):
    payer, payee = pair
    payee.watch(lambda changed: None)
    payee._doorbell.close()
    assert not (openagents / "b.sock").exists()
    assert payer.pay(payee.make_invoice(5000, "x", 600, "").bolt11, 5000, 0).state == "paid"


def test_a_stale_doorbell_is_replaced(openagents, ledgers):
    (openagents / "a.sock").write_text("left by a crash")
    ledger = ledgers("a")
    ledger.watch(lambda changed: None)
    assert stat.S_ISSOCK((openagents / "a.sock").stat().st_mode)


# ---- other processes ----------------------------------------------------------------------------

PAYER = """
import sys
from pathlib import Path
from pylon.wallets.ledger import Ledger
place = Path(sys.argv[1])
ledger = Ledger(place / "ledger.db", b"a" * 32, place / "a.sock")
for text in sys.stdin:
    print(ledger.pay(text.strip(), 1000, 0).state, flush=True)
"""


def payer_process(place):
    return subprocess.Popen([sys.executable, "-c", PAYER, str(place)], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_payee_in_another_process_sees_the_payment_at_once(openagents, ledgers):
    payer, payee = (ledgers(name, clock=time.time) for name in "ab")
    payer.fund(5000)
    heard = threading.Event()
    payee.watch(lambda changed: heard.set())
    invoice = payee.make_invoice(1000, "tea", 600, "")
    with payer_process(openagents) as child:
        child.stdin.write(invoice.bolt11 + "\n")
        child.stdin.close()
        assert child.stdout.readline() == "paid\n"
        assert heard.wait(5)
    assert payee.lookup(invoice.payment_hash).state == "paid"


def test_sigkill_at_any_instant_leaves_every_payment_whole(openagents, ledgers):
    payer, payee = (ledgers(name, clock=time.time) for name in "ab")
    payer.fund(10**9)
    chance = random.Random(1)
    for _ in range(15):
        texts = [payee.make_invoice(1000, "tea", 600, "").bolt11 for _ in range(20)]
        with payer_process(openagents) as child:
            child.stdin.write("\n".join(texts) + "\n")
            child.stdin.flush()
            child.stdout.readline()
            threading.Event().wait(chance.random() * 0.03)
            child.send_signal(signal.SIGKILL)
            child.stdin.close()
        assert conserved(openagents / "ledger.db")
        for text in texts:
            payment_hash = bolt11.decode(text).payment_hash
            ours, theirs = payer.lookup_payment(payment_hash), payee.lookup(payment_hash)
            assert (ours.state, theirs.state) in (("paid", "paid"), ("missing", "open"))
            assert ours.preimage == theirs.preimage
    assert payer.balance() + payee.balance() == 10**9


# ---- any order of anything ----------------------------------------------------------------------

class AnyOrder(RuleBasedStateMachine):
    """Whatever three homes do in whatever order, money is conserved and outcomes stay."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="py", dir="/tmp"))
        self.now, self.made, self.final = 1_800_000_000, [], {}
        self.homes = [Ledger(self.place / "l.db", bytes([n]) * 32, self.place / f"{n}.sock",
                             fee_msats=n - 1, clock=lambda: self.now) for n in (1, 2, 3)]

    @rule(who=st.integers(0, 2), amount=st.integers(1, 50_000))
    def fund(self, who, amount):
        self.homes[who].fund(amount)

    @rule(who=st.integers(0, 2), amount=st.integers(1, 30_000), hold=st.booleans())
    def invoice(self, who, amount, hold):
        preimage, payment_hash = hold_hash() if hold else (None, None)
        made = self.homes[who].make_invoice(amount, "x", 600, "", payment_hash)
        self.made.append((who, made, preimage))

    @precondition(lambda self: self.made)
    @rule(who=st.integers(0, 2), which=st.integers(0, 100))
    def pay(self, who, which):
        _, made, _ = self.made[which % len(self.made)]
        outcome = self.homes[who].pay(made.bolt11, made.amount_msats, 1)
        known = self.homes[who].lookup_payment(made.payment_hash)
        assert outcome == known or (outcome.state, known.state) == ("failed", "missing")

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 100), take=st.booleans())
    def end(self, which, take):
        who, made, preimage = self.made[which % len(self.made)]
        try:
            if take and preimage:
                self.homes[who].settle(preimage)
            else:
                self.homes[who].cancel(made.payment_hash)
        except WalletError:
            assert self.homes[who].lookup(made.payment_hash).state != "held"

    @rule(secs=st.sampled_from([1, 300, 700]))
    def wait(self, secs):
        self.now += secs

    @invariant()
    def nothing_is_lost_and_nothing_ended_changes(self):
        for home in self.homes:
            assert home.balance() >= 0
            for _, made, _ in self.made:
                outcome = home.lookup_payment(made.payment_hash)
                if outcome.state in ("paid", "failed"):
                    assert self.final.setdefault((home.node, made.payment_hash),
                                                 outcome) == outcome
                if outcome.state == "paid":
                    digest = hashlib.sha256(bytes.fromhex(outcome.preimage)).hexdigest()
                    assert digest == made.payment_hash
        assert conserved(self.place / "l.db")

    def teardown(self):
        for home in self.homes:
            home.close()
        shutil.rmtree(self.place)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
