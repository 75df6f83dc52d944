"""pylon init: an identity from nothing, never lost again."""

import io
import json
import os
import stat
import sys

import pytest

from pylon import config, identity
from pylon.cli import init
from pylon.home import Home
from pylon.nostr.keys import Keys
from tests.cli.conftest import NPUB, WORDS

NSEC = Keys(bytes(range(1, 33))).nsec


@pytest.fixture
def stdin(monkeypatch):
    def give(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return give


@pytest.fixture
def place(openagents):
    return Home(openagents / "pylon")


def test_a_new_node(pylon, place):
    status, out, _ = pylon("init")
    assert status == 0
    words = place.identity.read_text()
    assert len(words.split()) == 12 and words in out
    assert identity.load(place.identity).keys.npub in out
    loaded = config.load(place)
    assert loaded.files == [place.config] and "#max_concurrent_jobs" in place.config.read_text()


def test_h94_everything_is_private_under_umask_0(pylon, place):
    before = os.umask(0)
    try:
        pylon("init")
    finally:
        os.umask(before)
    paths = [place.root, place.agents, *place.root.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600, 0o700}


def test_two_nodes_are_not_the_same(pylon, tmp_path):
    assert pylon("--home", str(tmp_path / "a" / "pylon"), "init", "--json")[1] != \
        pylon("--home", str(tmp_path / "b" / "pylon"), "init", "--json")[1]


def test_json(pylon, place):
    _, out, _ = pylon("init", "--json")
    known = json.loads(out)
    assert known["created"] and known["words"] == place.identity.read_text()
    assert known["home"] == str(place.root) and not known["encrypted"]


def test_an_existing_identity_stays(pylon, place):
    pylon("init")
    before = place.identity.read_text()
    status, out, _ = pylon("init")
    assert status == 0 and "nothing was changed" in out and before not in out
    assert place.identity.read_text() == before
    assert json.loads(pylon("init", "--json")[1])["created"] is False


def test_h95_force_keeps_a_dated_copy_and_the_configuration(pylon, place):
    pylon("init")
    before = place.identity.read_text()
    place.config.write_text("name = 'mine'\n")
    status, out, _ = pylon("init", "--force")
    assert status == 0 and place.identity.read_text() != before
    [copy] = place.root.glob("identity.mnemonic.*")
    assert copy.read_text() == before and str(copy) in out
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert place.config.read_text() == "name = 'mine'\n"


@pytest.mark.parametrize("text, npub", [
    (f"{WORDS}\n", NPUB), (f"  {WORDS.upper()}  \r\n", NPUB), (WORDS, NPUB),
    (f"{NSEC}\n", Keys(bytes(range(1, 33))).npub)])
def test_import(pylon, place, stdin, text, npub):
    stdin(text)
    status, out, _ = pylon("init", "--import")
    assert status == 0 and npub in out
    assert "monkey" not in out and NSEC not in out, "what was brought along is not repeated"
    assert identity.load(place.identity).keys.npub == npub


@pytest.mark.parametrize("text", ["", "\n", "one two three\n", WORDS.replace("ring", "rong"),
                                  NSEC[:-2] + "qq", "x" * 100_000])
def test_what_cannot_be_imported_makes_nothing(pylon, place, stdin, text):
    stdin(text)
    status, _, err = pylon("init", "--import")
    assert status == 78 and err.startswith("pylon: ") and not place.root.exists()


def test_encrypted(pylon, place, tmp_path):
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\nsecond line\n")
    status, out, _ = pylon("init", "--encrypt", "--passphrase-file", str(secret), "--json")
    known = json.loads(out)
    assert status == 0 and known["encrypted"]
    assert known["words"].split()[0] not in place.identity.read_text()
    opened = identity.load(place.identity, lambda: b"open sesame")
    assert opened.words == known["words"]
    assert pylon("whoami", "--json")[1].startswith("{"), "whoami needs no passphrase"


def test_encrypting_without_a_passphrase_makes_nothing(pylon, place, tmp_path):
    status, _, err = pylon("init", "--encrypt")
    assert status == 2 and "--passphrase-file" in err and not place.identity.exists()
    (tmp_path / "empty").write_text("\n")
    assert pylon("init", "--encrypt", "--passphrase-file", str(tmp_path / "empty"))[0] == 78
    assert pylon("init", "--passphrase-file", str(tmp_path / "empty"))[0] == 2
    assert not place.identity.exists()


def test_a_wrong_configuration_stops_it_before_anything_is_made(pylon, place):
    place.create()
    place.config.write_text("nam = 1\n")
    place.config.chmod(0o600)
    assert pylon("init")[0] == 78 and not place.identity.exists()


def test_a_home_of_somebody_else_is_refused(pylon, place):
    place.create()
    os.chown(place.root, 65534, 65534)
    status, _, err = pylon("init")
    assert status == 78 and "belongs to uid 65534" in err and not place.identity.exists()


def test_a_failed_write_keeps_the_old_identity(pylon, place, monkeypatch):
    pylon("init")
    before = place.identity.read_text()

    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(identity, "write_private", full)
    assert pylon("init", "--force")[0] == 1
    assert place.identity.read_text() == before


def test_data_dir_is_honoured(pylon, place, tmp_path):
    place.create()
    place.config.write_text(f"data_dir = '{tmp_path / 'elsewhere'}'\n")
    place.config.chmod(0o600)
    assert pylon("init")[0] == 0
    assert (tmp_path / "elsewhere" / "identity.mnemonic").exists() and not place.identity.exists()
    assert pylon("whoami")[0] == 0


def test_while_a_daemon_runs_the_identity_stays(pylon, place):
    from pylon.daemon import lockfile       # here, as it is the only test that needs it
    pylon("init")
    before = place.identity.read_text()
    with lockfile.hold(place, "the daemon"):
        status, _, err = pylon("init", "--force")
    assert status == 1 and "in use by the daemon" in err
    assert place.identity.read_text() == before


def test_old_places_are_explained(pylon, place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pylon").mkdir()
    _, _, err = pylon("init")
    assert f"{tmp_path}/.pylon" in err and "pylon init --import" in err
    assert init.OWN_HOME
