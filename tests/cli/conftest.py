"""Commands run in this process, and a node that needs nothing of the world outside."""

import os

import pytest

from pylon import identity
from pylon.cli import main

WORDS = "leader monkey parrot ring guide accident before fence cannon height naive bean"
NPUB = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu"
OFFLINE = "relays = []\nenable_payments = false\nrequire_payment = false\nbackend_preference = []\n"


@pytest.fixture
def tame(monkeypatch):
    """Commands harden their process; this one has more tests to run."""
    before = os.umask(0o022)
    os.umask(before)
    for module in ("init", "start", "restart"):
        monkeypatch.setattr(f"pylon.cli.{module}.harden", lambda: os.umask(0o077))
    yield
    os.umask(before)


@pytest.fixture
def pylon(capfd, openagents, tame):
    """Run one command: (exit status, stdout, stderr)."""
    def run(*words):
        capfd.readouterr()
        status = main(list(words))
        out, err = capfd.readouterr()
        return status, out, err
    return run


@pytest.fixture
def node(home):
    """The home of an initialised node without a daemon."""
    home.config.write_text(OFFLINE)
    home.config.chmod(0o600)
    identity.save(home.identity, identity.parse(WORDS))
    return home
