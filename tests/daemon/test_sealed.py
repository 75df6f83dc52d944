"""A sealed identity: where its passphrase may come from, and what is said without one."""

import pytest

from pylon import identity
from pylon.control import client
from pylon.nostr import nip06


@pytest.fixture
def sealed(node, tmp_path):
    node.home.identity.unlink()
    identity.save(node.home.identity, identity.parse(nip06.generate_words()), b"open sesame")
    (tmp_path / "passphrase").write_text("open sesame\n")
    return node


def test_from_a_file_and_once_for_a_restart(sealed, tmp_path):
    sealed.run("start", "--passphrase-file", str(tmp_path / "passphrase"))
    sealed.run("restart", "--passphrase-file", str(tmp_path / "passphrase"))
    assert client.answers(sealed.home)


def test_from_a_credential_of_systemd(sealed, tmp_path):
    sealed.run("start", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert client.answers(sealed.home)


def test_a_wrong_one_is_78(sealed, tmp_path):
    (tmp_path / "passphrase").write_text("open barley\n")
    done = sealed.run("start", "--passphrase-file", str(tmp_path / "passphrase"), check=False)
    assert done.returncode == 78 and "passphrase" in done.stderr and "barley" not in done.stderr


def test_without_one_and_without_a_terminal_it_is_told_how(sealed):
    done = sealed.run("start", check=False)
    assert done.returncode == 2 and "--passphrase-file" in done.stderr
    assert not client.answers(sealed.home)
