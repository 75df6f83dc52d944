"""A node that needs nothing of the world outside: no relay, no backend, no wallet."""

import subprocess

import pytest

from pylon import identity
from pylon.cli import main
from pylon.nostr import nip06
from tests.cli.conftest import tame
from tests.node import Node

__all__ = ["tame"]

OFFLINE = """relays = []
enable_payments = false
require_payment = false
backend_preference = []
"""


@pytest.fixture
def node(openagents):
    """An initialised node; whatever runs of it at the end is killed."""
    made = Node(openagents, OFFLINE)
    made.home.create()
    made.configure(OFFLINE)
    identity.save(made.home.identity, identity.parse(nip06.generate_words()))
    yield made
    main(["--home", str(made.home.root), "stop", "--force"])
    if made.daemon is not None and made.daemon.poll() is None:
        made.daemon.kill()
        made.daemon.wait(10)


@pytest.fixture
def alien():
    """A process that has nothing to do with us and must survive."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    alive = process.poll() is None
    process.kill()
    process.wait()
    assert alive, "a process that is not ours was killed"


@pytest.fixture
def pylon(node, capfd, tame):
    """A `pylon` command in this process: (exit status, stdout, stderr). Not for `start`."""
    def run(*words):
        capfd.readouterr()
        status = main(["--home", str(node.home.root), *words])
        out, err = capfd.readouterr()
        return status, out, err
    return run
