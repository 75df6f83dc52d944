"""The crash matrix: every kill point x {SIGKILL, exception, disk full, I/O error}, against the
real daemon, a real relay and the ledger; a pure checker decides each cell.

K points are met by a job that is quoted, paid, run and delivered; A points by a payment that the
owner makes. After the blow the node runs on, or is started again, without the failpoint; then
every paid job must be delivered or owed, once, and every payment known.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from pylon.wallets.ledger import Ledger

from tests.fakes.logged_backend import LoggedBackend
from tests.matrix.world import SETTLE_SECS, World
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

ACTIONS = ("kill", "raise", "enospc", "eio")
JOB_POINTS = [f"K{n}" for n in range(1, 17)]
PAY_POINTS = [f"A{n}" for n in range(1, 7)]
JOBS = 3

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def parts():
    """One relay and one backend for all cells; each cell has a node of its own."""
    place = Path(tempfile.mkdtemp(prefix="pm", dir="/tmp"))
    backend = LoggedBackend()
    with LocalRelay(record=place / "relay.log") as relay:
        yield relay, backend
    backend.close()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def world(openagents, parts, request):
    escrow = getattr(request, "param", "off")
    with World(openagents, escrow, *parts) as made:
        yield made


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", JOB_POINTS)
def test_job(world, point, action):
    # K16 is met by the housekeeper at the start, all others by the second of three jobs
    strike(world, f"{point}:{action}:{1 if point == 'K16' else 2}", action)


@pytest.mark.parametrize("world", ["on"], indirect=True)
@pytest.mark.parametrize("point", ["K3", "K6", "K8", "K9", "K11", "K12", "K13", "K14", "K15"])
def test_held_job_killed(world, point):
    strike(world, f"{point}:kill:2", "kill")


def strike(world: World, failpoint: str, action: str) -> None:
    world.start(failpoint).until_ready_or_dead()
    jobs = [world.order(f"job {n}") for n in range(JOBS)]
    wait_for(lambda: world.mark.exists(), 20, f"{failpoint} to be reached")
    if action == "kill":
        wait_for(lambda: world.died, 10, "the daemon to die")
        assert world.node.daemon.returncode == -9
        world.start()
    settle(world, jobs)


def settle(world: World, jobs: list[str]) -> None:
    """Wait for the end of all jobs; a node that a failure left limping is restarted once."""
    try:
        wait_for(lambda: world.settled(jobs), SETTLE_SECS, "every job to end")
    except AssertionError:
        if not world.died:
            world.node.stop()
        world.start()
        wait_for(lambda: world.settled(jobs), SETTLE_SECS,
                 f"every job to end after a restart: {world.stages()}\n{world.node.tail()}")
    world.node.stop()
    assert world.verdict() == [], world.node.tail()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", PAY_POINTS)
def test_payment(world, openagents, point, action):
    """The owner pays an invoice; whatever happens, it is paid at most once and known."""
    world.node.run("wallet", "fund", "--amount", "1000")
    payee = Ledger(openagents / "ledger.db", b"\x08" * 32, openagents / "p.sock")
    try:
        invoice = payee.make_invoice(5000, "a thing", 600, "")
        world.start(f"{point}:{action}:1").until_ready_or_dead()
        world.node.run("wallet", "pay", invoice.bolt11, "--yes", check=False)
        wait_for(lambda: world.mark.exists(), 20, f"{point} to be reached")
        if action == "kill":
            wait_for(lambda: world.died, 10, "the daemon to die")
            world.start()
        wait_for(lambda: not world.open_payments(), SETTLE_SECS, "the payment to be decided")
        world.node.run("wallet", "pay", invoice.bolt11, "--yes", check=False)
        wait_for(lambda: not world.open_payments(), SETTLE_SECS, "the second try to be decided")
        assert payee.balance() == 5000
        assert world.node.run("wallet", "audit", check=False).returncode == 0
        world.node.stop()
        assert world.verdict() == []
    finally:
        payee.close()
