"""The identity on disk: private, sealed when asked, never lost."""

import os
import stat

import pytest

from pylon import config, identity
from pylon.errors import IdentityError
from pylon.nostr.keys import Keys

WORDS = "leader monkey parrot ring guide accident before fence cannon height naive bean"
NPUB = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu"
NSEC = Keys(bytes(range(1, 33))).nsec


def test_the_known_answer_of_the_first_pylon():
    assert identity.parse(WORDS).keys.npub == NPUB


@pytest.mark.parametrize("text", [f"  {WORDS}\n", WORDS.upper(), WORDS.replace(" ", "\t\n "),
                                  WORDS + "\r\n"])
def test_words_are_taken_as_people_write_them(text):
    assert identity.parse(text).words == WORDS


def test_an_nsec_is_taken():
    parsed = identity.parse(f" {NSEC}\n")
    assert parsed.words is None and parsed.keys.nsec == NSEC


@pytest.mark.parametrize("text, told", [
    ("", "nothing"), (WORDS + " bean", ""), (WORDS.replace("ring", "rong"), "rong"),
    (WORDS.replace("bean", "leader"), ""), (NSEC[:-1] + "q", "nsec"), ("nsec1", "nsec"),
    ("npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu", ""), ("x" * 3000, "")])
def test_what_is_no_identity_is_refused(text, told):
    with pytest.raises(IdentityError) as caught:
        identity.parse(text)
    assert told in str(caught.value)


def test_a_bad_nsec_is_never_repeated():
    with pytest.raises(IdentityError) as caught:
        identity.parse(NSEC[:-1] + "q")
    assert NSEC[5:20] not in str(caught.value)


@pytest.mark.parametrize("text", [WORDS, NSEC])
def test_it_is_saved_and_loaded(home, text):
    made = identity.parse(text)
    identity.save(home.identity, made)
    assert identity.load(home.identity) == made
    assert stat.S_IMODE(os.stat(home.identity).st_mode) == 0o600
    assert identity.npub_of(home.identity) == made.keys.npub


def test_the_plain_file_is_the_first_pylons(home):
    identity.save(home.identity, identity.parse(WORDS))
    assert home.identity.read_text() == WORDS


def test_sealed_it_opens_with_its_passphrase_only(home):
    made = identity.parse(WORDS)
    identity.save(home.identity, made, b"open sesame")
    text = home.identity.read_text()
    assert not any(word in text for word in WORDS.split() if len(word) > 4)
    opened = identity.load(home.identity, lambda: b"open sesame")
    assert opened.keys == made.keys and opened.words == WORDS and opened.sealed
    with pytest.raises(IdentityError):
        identity.load(home.identity, lambda: b"open barley")
    with pytest.raises(IdentityError, match="--passphrase-file"):
        identity.load(home.identity)
    assert identity.npub_of(home.identity) == NPUB, "who it is needs no passphrase"


@pytest.mark.parametrize("spoil", [lambda text: text[:-10], lambda text: text[:-3] + "!!!",
                                   lambda text: text.replace("\n", "\nAAAA", 1),
                                   lambda text: "\x00" * 50, lambda text: text * 100,
                                   lambda text: "one two three"])
def test_a_damaged_file_is_told(home, spoil):
    identity.save(home.identity, identity.parse(WORDS), b"pass")
    home.identity.write_text(spoil(home.identity.read_text()))
    with pytest.raises(IdentityError):
        identity.load(home.identity, lambda: b"pass")


def test_saving_never_overwrites(home):
    identity.save(home.identity, identity.parse(WORDS))
    with pytest.raises(IdentityError, match="--force"):
        identity.save(home.identity, identity.parse(NSEC))
    assert identity.load(home.identity).words == WORDS


def test_h95_replacing_keeps_every_old_one(home):
    identity.save(home.identity, identity.parse(WORDS))
    first = identity.replace(home.identity, identity.parse(NSEC), None, now=1_700_000_000)
    second = identity.replace(home.identity, identity.parse(WORDS), None, now=1_700_000_000)
    assert first != second
    assert first.read_text() == WORDS and second.read_text() == NSEC
    assert {stat.S_IMODE(os.stat(p).st_mode) for p in (first, second, home.identity)} == {0o600}
    assert identity.load(home.identity).words == WORDS


def test_a_replacement_that_fails_loses_nothing(home, monkeypatch):
    identity.save(home.identity, identity.parse(WORDS))

    def full(path, data):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(identity, "write_private", full)
    with pytest.raises(OSError):
        identity.replace(home.identity, identity.parse(NSEC), None, now=1)
    assert identity.load(home.identity).words == WORDS


def test_h94_a_link_a_loose_mode_and_another_owner_are_refused(home, tmp_path):
    (tmp_path / "real").write_text(WORDS)
    home.identity.symlink_to(tmp_path / "real")
    with pytest.raises(IdentityError, match="symbolic link"):
        identity.load(home.identity)
    home.identity.unlink()
    home.identity.write_text(WORDS)
    home.identity.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 0600"):
        identity.load(home.identity)
    home.identity.chmod(0o600)
    os.chown(home.identity, 65534, 65534)
    with pytest.raises(IdentityError, match="belongs to uid"):
        identity.load(home.identity)


def test_a_missing_one_says_how_to_make_it(home):
    with pytest.raises(IdentityError, match="pylon init"):
        identity.load(home.identity)


def test_a_directory_in_its_place_is_told(home):
    home.identity.mkdir(0o700)
    with pytest.raises(IdentityError, match="is not a file"):
        identity.load(home.identity)


def test_a_pipe_in_its_place_does_not_hang(home):
    os.mkfifo(home.identity, 0o600)
    with pytest.raises(IdentityError, match="is not a file"):
        identity.load(home.identity)


def test_data_dir_moves_the_identity(home, tmp_path):
    elsewhere = config.from_values({"data_dir": str(tmp_path)})
    assert config.identity_path(home, elsewhere) == tmp_path / "identity.mnemonic"
    assert config.identity_path(home, config.from_values({})) == home.identity


def test_no_secret_in_its_repr():
    made = identity.parse(WORDS)
    shown = repr(made) + str(made) + f"{made}" + repr(made.keys)
    assert "monkey" not in shown and made.keys.nsec not in shown
