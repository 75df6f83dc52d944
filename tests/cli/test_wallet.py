"""pylon wallet: on the ledger, without a daemon; what it asks, prints, refuses and stores."""

from __future__ import annotations

import hashlib
import json
import stat
import tomllib

import pytest

from pylon import config as configuration
from pylon.cli import configedit, counter, terminal, wallet_connect
from pylon.control.server import Server
from pylon.daemon import lockfile
from pylon.errors import AlreadyRunning, ConfigError
from pylon.store import payments
from pylon.store.database import Database
from pylon.wallets.desk import ASKING, HANDLERS
from pylon.wallets.ledger import Ledger
from tests.fakes.phoenixd import FULL, LIMITED, Phoenixd
from tests.fakes.scripted_wallet import foreign_invoice

CONFIG = "relays = []\nbackend_preference = []\n"
ACTIONS = ("balance", "status", "address", "history", "whoami", "audit")


@pytest.fixture
def node(node):
    """The node of every command, with a wallet."""
    node.config.write_text(CONFIG)
    return node


@pytest.fixture
def shop(openagents):
    """Somebody else on the same ledger."""
    ledger = Ledger(openagents / "ledger.db", b"\x77" * 32, openagents / "shop.sock")
    yield ledger
    ledger.close()


@pytest.fixture
def asked(monkeypatch):
    """A terminal where somebody says yes, or what the test puts into the list."""
    answers, questions = [], []

    def confirm(question):
        questions.append(question)
        return answers.pop(0) if answers else True
    monkeypatch.setattr(terminal, "can_ask", lambda: True)
    monkeypatch.setattr(terminal, "confirm", confirm)
    return questions, answers


def ask(pylon, *words):
    """The object that a command prints with --json."""
    status, out, err = pylon("wallet", *words, "--json")
    assert status == 0, err
    return json.loads(out)


def test_play_money_becomes_the_owners(pylon, node):
    assert ask(pylon, "fund", "-a", "5000")["owner_msats"] == 5_000_000
    found = ask(pylon, "balance")
    assert (found["wallet_msats"], found["owner_msats"]) == (5_000_000, 5_000_000)
    assert (found["wallet"], found["network"]) == ("ledger", "regtest")
    assert ask(pylon, "fund")["wallet_msats"] == 105_000_000


def test_looking_works_in_words_too(pylon, node):
    ask(pylon, "fund")
    for action in ACTIONS:
        status, out, _ = pylon("wallet", action)
        assert status == 0 and out, action


def test_a_wallet_with_nothing_in_it_is_told_how_to_get_some(pylon, node):
    status, out, err = pylon("wallet", "balance")
    assert status == 0 and "0 sats" in out and "pylon wallet fund" in err
    assert "nothing moved yet" in pylon("wallet", "history")[1]


def test_an_invoice_is_the_owners_and_watched(pylon, node, shop):
    made = ask(pylon, "invoice", "21", "-d", "coffee", "--expiry", "10m")
    assert made["amount_msats"] == 21_000 and made["bolt11"].startswith("lnbcrt210n")
    shop.fund(100_000)
    assert shop.pay(made["bolt11"], 21_000, 0).state == "paid"
    db = Database(node.database)
    rows = db.query("SELECT account, wallet, watch_until FROM invoices")
    assert [tuple(row)[:2] for row in rows] == [("owner", "ledger")] and rows[0]["watch_until"]
    db.close()
    assert pylon("wallet", "invoice", "21")[1].startswith("lnbcrt210n")


@pytest.mark.parametrize("words", [("0",), ("-5",), ("1_000",), ("٢١",), ("21", "--expiry", "1s"),
                                   ("21", "-d", "x" * 700), ("999999999999999999",)])
def test_a_senseless_invoice_is_refused(pylon, node, words):
    status, out, err = pylon("wallet", "invoice", *words)
    assert status == 2 and not out


def test_paying_shows_asks_and_pays(pylon, node, shop, asked):
    ask(pylon, "fund")
    invoice = shop.make_invoice(21_000, "tea for two", 3600, "")
    status, out, err = pylon("wallet", "pay", invoice.bolt11)
    assert status == 0 and "paid 21 sats" in out
    for shown in ("regtest", "21 sats", "tea for two", "expires      in ", invoice.payment_hash,
                  shop.node):
        assert shown in err, shown
    assert asked[0] == ["Pay this?"]
    assert shop.balance() == 21_000
    history = ask(pylon, "history")["movements"]
    assert [(m["for"], m["incoming"]) for m in history] == [("owner", False), ("external", True)]
    assert pylon("wallet", "audit")[0] == 0


def test_paying_is_not_done_when_the_answer_is_no(pylon, node, shop, asked):
    ask(pylon, "fund")
    asked[1].append(False)
    status, out, err = pylon("wallet", "pay", shop.make_invoice(21_000, "tea", 3600, "").bolt11)
    assert status == 1 and "not paid" in err and shop.balance() == 0


def test_paying_without_a_terminal_needs_yes(pylon, node, shop):
    ask(pylon, "fund")
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    status, _, err = pylon("wallet", "pay", text)
    assert status == 2 and "--yes" in err and shop.balance() == 0
    done = ask(pylon, "pay", text, "--yes")
    assert (done["state"], done["amount_msats"]) == ("succeeded", 21_000)


@pytest.mark.parametrize("words", [("--yes",), ()])
def test_max_sats_is_always_honoured(pylon, node, shop, asked, words):
    ask(pylon, "fund")
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    status, _, err = pylon("wallet", "pay", text, "--max-sats", "20", *words)
    assert status == 1 and "more than" in err and shop.balance() == 0
    assert pylon("wallet", "pay", text, "--max-sats", "21", *words)[0] == 0


def test_max_sats_is_honoured_by_the_daemons_side_as_well(pylon, node, shop):
    ask(pylon, "fund")
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    with pytest.raises(Exception, match="at most 20 sats"):
        counter.directly(node, "WalletPay", {"bolt11": text, "max_msats": 20_000})


def test_what_cannot_be_paid_says_why(pylon, node, shop):
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    status, _, err = pylon("wallet", "pay", text, "--yes")
    assert status == 1 and "more than the account has" in err
    ask(pylon, "fund")
    assert pylon("wallet", "pay", foreign_invoice(1, None), "--yes")[0] == 1
    status, _, err = pylon("wallet", "pay", foreign_invoice(1, 9_000), "--yes")
    assert status == 1 and "not paid" in err        # no account of the ledger has made it
    assert pylon("wallet", "pay", "rubbish", "--yes")[0] == 1
    assert pylon("wallet", "audit")[0] == 0


def test_a_strangers_description_cannot_move_the_cursor(pylon, node, shop, asked):
    text = shop.make_invoice(21_000, "a\x1b[2J\x1b[1;1HPaid already\r\n‮evil", 3600, "").bolt11
    _, _, err = pylon("wallet", "pay", text)
    assert "\x1b" not in err and "‮" not in err


def test_the_audit_exits_1_and_says_what_differs(pylon, node):
    ask(pylon, "fund")
    db = Database(node.database)
    with db.transaction(durable=True) as tx:
        tx.execute("INSERT INTO entries(kind, ref, account, amount_msats, created_at) VALUES "
                   "('fund', 'f', 'owner', 5, 1)")
    db.close()
    status, out, _ = pylon("wallet", "audit")
    assert status == 1 and "not-balanced" in out
    status, out, _ = pylon("wallet", "audit", "--json")
    found = json.loads(out)
    assert status == 1 and found["clean"] is False and found["findings"][0]["code"]


def test_spending_is_stopped_and_allowed_by_the_owner(pylon, node, shop):
    ask(pylon, "fund")
    assert ask(pylon, "freeze")["spending_stopped"] == ["owner"]
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    status, _, err = pylon("wallet", "pay", text, "--yes")
    assert status == 1 and "the owner stopped all spending" in err
    assert "no spending: owner" in pylon("wallet", "status")[1]
    assert ask(pylon, "unfreeze")["spending_stopped"] == []
    assert pylon("wallet", "pay", text, "--yes")[0] == 0


def test_an_unknown_payment_is_resolved_by_the_owners_word(pylon, node, shop, asked):
    ask(pylon, "fund")
    held = "ab" * 32
    payment_hash = hashlib.sha256(bytes.fromhex(held)).hexdigest()
    invoice = shop.make_invoice(21_000, "tea", 3600, "", hold_hash=payment_hash)
    status, _, err = pylon("wallet", "pay", invoice.bolt11)
    assert status == 1 and "does not say yet" in err
    assert ask(pylon, "status")["pending"][0]["state"] == "unknown"
    status, _, err = pylon("wallet", "resolve", payment_hash[:10], "--failed", "--yes")
    assert status == 1 and "24 hours" in err
    assert pylon("wallet", "resolve", payment_hash, "--paid", "cd" * 32, "--yes")[0] == 1
    assert pylon("wallet", "resolve", "ffff", "--failed", "--yes")[0] == 1
    done = ask(pylon, "resolve", payment_hash[:10], "--paid", held)
    assert done["state"] == "succeeded"


def test_what_a_crash_left_open_is_looked_up_by_the_next_command(pylon, node, shop):
    ask(pylon, "fund")
    text = shop.make_invoice(21_000, "tea", 3600, "").bolt11
    assert ask(pylon, "pay", text, "--yes")["state"] == "succeeded"
    db = Database(node.database)
    row = payments.latest(db, 1)[0]
    with db.transaction(durable=True) as tx:
        tx.execute("DROP TRIGGER payments_state")
        tx.execute("DROP TRIGGER entries_stay")
        tx.execute("UPDATE payments SET state = 'sent', ended_at = NULL WHERE id = ?", (row.id,))
        tx.execute("DELETE FROM entries WHERE kind = 'paid'")
    db.close()
    assert ask(pylon, "status")["pending"] == []
    assert pylon("wallet", "audit")[0] == 0


def test_without_a_home_it_says_how_to_make_one(pylon, openagents):
    status, _, err = pylon("wallet", "balance")
    assert status == 1 and "pylon init" in err


def test_another_command_at_work_is_named(pylon, node):
    with lockfile.hold(node, "pylon backup"):
        status, _, err = pylon("wallet", "balance")
    assert status == AlreadyRunning.exit_status and "pylon backup" in err


def test_a_broken_wallet_is_said_not_raised(pylon, node):
    node.config.write_text('network = "mainnet"\n' + CONFIG)
    status, out, err = pylon("wallet", "status")
    assert status == 0 and "not connected" in out and "regtest" in out
    status, _, err = pylon("wallet", "balance")
    assert status == 78 and "regtest" in err
    found = ask(pylon, "whoami")
    assert found["npub"].startswith("npub1") and "trouble" in found


def test_without_payments_there_is_no_wallet(pylon, node):
    node.config.write_text("enable_payments = false\n" + CONFIG)
    status, _, err = pylon("wallet", "balance")
    assert status == 1 and "no wallet" in err


# ---- with a daemon ------------------------------------------------------------------------------

@pytest.fixture
def daemon(node):
    """The desk behind a control socket, as the daemon has it."""
    with lockfile.hold(node, "the daemon"), \
            counter.open_desk(node, configuration.load(node)) as desk:
        server = Server(node, {name: lambda args, peer, handler=handler: handler(desk, args)
                               for name, handler in HANDLERS.items()}, asking=ASKING)
        server.start()
        yield desk
        server.stop()


def test_with_a_daemon_every_action_goes_through_its_socket(pylon, node, daemon, shop, asked):
    assert ask(pylon, "fund")["owner_msats"] == 100_000_000
    for action in ACTIONS:
        assert pylon("wallet", action)[0] == 0, action
    assert ask(pylon, "pay", shop.make_invoice(21_000, "tea", 3600, "").bolt11)["state"] == \
        "succeeded"
    assert pylon("owed")[1].strip() == "nothing is owed"
    status, _, err = pylon("wallet", "resolve", "ffff", "--failed", "--yes")
    assert status == 1 and "no unknown payments" in err


# ---- another wallet -----------------------------------------------------------------------------

@pytest.fixture
def phoenixd(openagents):
    ledger = Ledger(openagents / "ledger.db", b"\x78" * 32, openagents / "service.sock")
    service = Phoenixd(ledger)
    yield service
    service.close()
    ledger.close()


def secret_file(tmp_path, text, mode=0o600):
    place = tmp_path / "secret"
    place.write_text(text + "\n")
    place.chmod(mode)
    return str(place)


def test_connect_tests_and_then_stores(pylon, node, phoenixd, tmp_path, asked):
    node.config.write_text("# mine\n" + CONFIG + "\n[log]\nlevel = \"debug\" # loud\n")
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url,
                           "--secret-file", secret_file(tmp_path, FULL))
    assert status == 0, err
    assert "phoenixd answers: regtest" in err
    kept = node.secrets / "phoenixd.password"
    assert kept.read_text().strip() == FULL and stat.S_IMODE(kept.stat().st_mode) == 0o600
    text = node.config.read_text()
    assert "# mine" in text and 'level = "debug" # loud' in text and FULL not in text
    assert tomllib.loads(text)["wallet"] == {
        "backend": "phoenixd", "phoenixd": {"url": phoenixd.url,
                                            "password_file": "phoenixd.password"}}
    assert ask(pylon, "balance")["wallet"] == "phoenixd"
    assert not list(node.secrets.glob(".*"))


def test_connect_changes_nothing_where_the_test_fails(pylon, node, phoenixd, tmp_path, asked):
    before = node.config.read_text()
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url,
                           "--secret-file", secret_file(tmp_path, "wrong-password"))
    assert status == 1 and "wrong-password" not in err
    assert node.config.read_text() == before
    assert not (node.secrets / "phoenixd.password").exists()
    assert not list(node.secrets.glob(".*"))


def test_connect_refuses_a_wallet_of_another_network(pylon, node, phoenixd, tmp_path, asked):
    phoenixd.chain = "mainnet"
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url,
                           "--secret-file", secret_file(tmp_path, FULL))
    assert status == 78 and "mainnet" in err
    assert not (node.secrets / "phoenixd.password").exists()


def test_connect_asks_on_the_terminal_and_can_be_declined(pylon, node, phoenixd, monkeypatch,
                                                          asked):
    monkeypatch.setattr("getpass.getpass", lambda question: FULL)
    asked[1].append(False)
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url)
    assert status == 1 and "nothing was changed" in err
    assert pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url)[0] == 0
    assert FULL not in node.config.read_text()


def test_connect_takes_no_loose_secret_and_none_without_a_terminal(pylon, node, phoenixd,
                                                                   tmp_path):
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url,
                           "--secret-file", secret_file(tmp_path, FULL, 0o644))
    assert status == 78 and "chmod 0600" in err
    status, _, err = pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url)
    assert status == 2 and "--secret-file" in err
    assert LIMITED != FULL and not (node.secrets / "phoenixd.password").exists()


def test_connect_goes_back_to_the_ledger(pylon, node, phoenixd, tmp_path, asked):
    pylon("wallet", "connect", "phoenixd", "--url", phoenixd.url, "--secret-file",
          secret_file(tmp_path, FULL))
    assert pylon("wallet", "connect", "ledger")[0] == 0
    assert ask(pylon, "balance")["wallet"] == "ledger"


@pytest.mark.parametrize("text, expected", [
    ("", '\n[wallet]\nbackend = "nwc"\n'),
    ("network = 'regtest'\n", 'network = \'regtest\'\n\n[wallet]\nbackend = "nwc"\n'),
    ("[wallet]\n#backend = \"ledger\"\n[wallet.nwc]\nuri_file = ''\n",
     '[wallet]\nbackend = "nwc"\n[wallet.nwc]\nuri_file = \'\'\n'),
    ("[wallet] # x\nbackend = 'ledger' # y\n[log]\n", '[wallet] # x\nbackend = "nwc"\n[log]\n'),
    ("[log]\nlevel = 'info'\n[wallet]\n", "[log]\nlevel = 'info'\n[wallet]\nbackend = \"nwc\"\n"),
])
def test_editing_keeps_the_owners_lines(text, expected):
    assert configedit.with_keys(text, {"wallet.backend": "nwc"}) == expected


def test_a_top_level_key_stands_before_the_tables():
    text = configedit.with_keys("[wallet]\nbackend = 'ledger'\n", {"network": "mainnet"})
    assert tomllib.loads(text) == {"network": "mainnet", "wallet": {"backend": "ledger"}}


def test_an_edit_that_would_break_the_file_is_taken_back(node):
    before = node.config.read_text()
    with pytest.raises(ConfigError):
        configedit.set_keys(node, {"wallet.backend": "no-such-wallet"})
    assert node.config.read_text() == before


def test_every_wallet_has_its_secrets_place():
    assert set(wallet_connect._SECRETS) == {"nwc", "lnbits", "phoenixd"}
