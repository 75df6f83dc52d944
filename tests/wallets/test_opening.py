"""How a wallet is opened: its network, its secrets, and what is refused before anybody uses it."""

import os
import stat
from contextlib import closing

import pytest

from pylon import config
from pylon.errors import ConfigError, WalletDenied, WalletUnreachable
from pylon.home import Home
from pylon.wallets import nwc_line
from pylon.wallets.opening import open_wallet
from tests.fakes import lnbits as fake_lnbits
from tests.fakes import phoenixd as fake_phoenixd
from tests.fakes.nwc_service import NwcService, make_pool


def settings(network="regtest", **wallet):
    return config.from_values({"network": network, "wallet": wallet})


def opened(home, values):
    return open_wallet(values, home, None, make_pool)


def secret(home, name, text, mode=0o600):
    place = home.secrets / name
    place.write_text(text)
    place.chmod(mode)
    return name


@pytest.fixture
def servers(ledgers, relay):
    """One stand-in of each kind, and how it is configured."""
    with closing(fake_lnbits.Lnbits(ledgers("a"))) as lnbits, \
            closing(fake_phoenixd.Phoenixd(ledgers("b"))) as phoenixd, \
            closing(NwcService(ledgers("c"), [relay.url])) as nwc:
        def configure(home, kind, network="regtest"):
            if kind == "ledger":
                return settings(network)
            if kind == "lnbits":
                name = secret(home, "lnbits.key", fake_lnbits.ADMIN_KEY + "\n")
                return settings(network, backend=kind, lnbits={"url": lnbits.url,
                                                               "key_file": name})
            if kind == "phoenixd":
                name = secret(home, "phoenixd.password", fake_phoenixd.FULL)
                return settings(network, backend=kind, phoenixd={"url": phoenixd.url,
                                                                 "password_file": name})
            name = secret(home, "nwc.uri", nwc.uri)
            return settings(network, backend=kind, nwc={"uri_file": name})
        yield configure


KINDS = ["ledger", "lnbits", "phoenixd", "nwc"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_opened_and_used(home, servers, kind):
    with closing(opened(home, servers(home, kind))) as wallet:
        assert (wallet.name, wallet.network) == (kind, "regtest")
        assert wallet.make_invoice(21_000, "x", 600, "").amount_msats == 21_000


@pytest.mark.parametrize("network", ["mainnet", "testnet", "signet"])
@pytest.mark.parametrize("kind", KINDS)
def test_p23_a_wallet_on_another_network_is_refused(home, servers, kind, network):
    with pytest.raises(ConfigError, match="regtest"):
        opened(home, servers(home, kind, network))


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_a_secret_that_others_can_read_is_refused(home, servers, kind, mode):
    values = servers(home, kind)
    for place in home.secrets.iterdir():
        place.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 0600"):
        opened(home, values)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_secret_that_is_missing_or_a_link_is_refused(home, servers, kind):
    values = servers(home, kind)
    for place in list(home.secrets.iterdir()):
        place.rename(home.root / "elsewhere")
        with pytest.raises(ConfigError, match="cannot be read"):
            opened(home, values)
        place.symlink_to(home.root / "elsewhere")
        with pytest.raises(ConfigError, match="cannot be read"):
            opened(home, values)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_systemd_credential_is_a_secret(home, servers, kind, monkeypatch, tmp_path):
    values = servers(home, kind)
    for place in home.secrets.iterdir():
        place.rename(tmp_path / place.name)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with closing(opened(home, values)) as wallet:
        assert wallet.name == kind


@pytest.mark.parametrize("wallet", [
    {"backend": "nwc"}, {"backend": "lnbits"}, {"backend": "phoenixd"},
    {"backend": "lnbits", "lnbits": {"url": "http://127.0.0.1:1"}},
    {"backend": "phoenixd", "phoenixd": {"url": "http://127.0.0.1:1"}}])
def test_a_wallet_that_is_not_configured_says_what_is_missing(home, wallet):
    with pytest.raises(ConfigError, match="set"):
        opened(home, settings(**wallet))


def test_a_connection_string_that_is_none_is_not_repeated(home):
    name = secret(home, "nwc.uri", "nostr+walletconnect://ab?relay=wss://x&secret=very-secret")
    with pytest.raises(ConfigError) as caught:
        opened(home, settings(backend="nwc", nwc={"uri_file": name}))
    assert "very-secret" not in str(caught.value)


def test_a_wallet_that_does_not_answer_may_be_opened_later(home, monkeypatch, relay, ledgers):
    """And nothing of it stays: no thread, no connection."""
    monkeypatch.setattr(nwc_line, "CALL_SECS", 0.3)
    key = secret(home, "lnbits.key", "a" * 32)
    with closing(NwcService(ledgers("c"), [relay.url], publishes_info=False)) as nwc:
        uri = secret(home, "nwc.uri", nwc.uri)
        for wallet in ({"backend": "lnbits", "lnbits": {"url": "http://127.0.0.1:1",
                                                        "key_file": key}},
                       {"backend": "nwc", "nwc": {"uri_file": uri}}):
            with pytest.raises(WalletUnreachable):
                opened(home, settings(**wallet))


def test_a_wrong_password_is_denied_at_once(home, servers):
    values = servers(home, "phoenixd")
    secret(home, "phoenixd.password", "wrong")
    with pytest.raises(WalletDenied):
        opened(home, values)


# ---- the ledger's key ---------------------------------------------------------------------------

def test_the_ledger_s_account_stays_the_home_s_own(home):
    with closing(opened(home, settings())) as wallet:
        wallet.fund(1000)
        node = wallet.node
    with closing(opened(home, settings())) as wallet:
        assert (wallet.node, wallet.balance()) == (node, 1000)
    key = home.secrets / "ledger.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (home.root.parent / "ledger.db").exists()


def test_two_homes_share_one_ledger_and_trade(home, openagents):
    other = Home(openagents / "other" / "pylon")
    other.create()
    shared = settings(ledger={"file": str(openagents / "shared.db")})
    with closing(opened(home, shared)) as payer, closing(opened(other, shared)) as payee:
        payer.fund(10_000)
        made = payee.make_invoice(4000, "x", 600, "")
        assert payer.pay(made.bolt11, 4000, 0).state == "paid"
        assert (payer.balance(), payee.balance()) == (6000, 4000)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "AB" * 32])
def test_a_ledger_key_that_is_none_is_never_replaced(home, text):
    secret(home, "ledger.key", text)
    with pytest.raises(ConfigError):
        opened(home, settings())
    assert (home.secrets / "ledger.key").read_text() == text


def test_held_money_lives_longer_than_the_work_may(home):
    values = config.from_values({"pricing": {"max_hold_secs": 3600}})
    with closing(opened(home, values)) as wallet:
        assert wallet._hold_secs == 7200


def test_a_ledger_that_cannot_be_made_says_so(home, openagents):
    (openagents / "file").touch()
    with pytest.raises(ConfigError, match="ledger"):
        opened(home, settings(ledger={"file": str(openagents / "file" / "ledger.db")}))


def test_modes_hold_under_any_umask(home):
    before = os.umask(0)
    try:
        with closing(opened(home, settings())) as wallet:
            wallet.watch(lambda changed: None)
            modes = {place.name: stat.S_IMODE(place.stat().st_mode) for place in (
                home.secrets / "ledger.key", home.root.parent / "ledger.db",
                home.root / "ledger.sock")}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
