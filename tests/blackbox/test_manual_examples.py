"""Every example of the manual is run as it stands: commands, configurations, programs, exchanges.

Only what must differ is put in its place: ids, invoices, addresses. The node has a real relay and
daemon, and a backend and an LNbits that are stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from pylon import config as configuration
from pylon.control import client
from pylon.customer import shop
from pylon.host import desk as agents
from pylon.wallets import desk
from pylon.wallets.ledger import Ledger
from tests import manual
from tests.blackbox.conftest import connected
from tests.cli.conftest import WORDS
from tests.fakes.lnbits import ADMIN_KEY, Lnbits
from tests.fakes.logged_backend import MODEL, LoggedBackend
from tests.fakes.stranger import Stranger
from tests.manual import PAGES, ROOT
from tests.node import LAUNCHER, Node
from tests.parts.program import free_port
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

CONFIG = """
relays = ["{relay}"]
default_model = "{model}"
require_payment = false
backend_preference = ["ollama"]
[customer]
quote_secs = 1
[api]
enabled = true
bind = "127.0.0.1:{api_port}"
[backends.ollama]
url = "{backend}"
"""
QUIET = (" > ", "reload", "--by")   # examples that may say nothing
ALONE = {"pylon-init.1"}            # its examples make the node
STOPPED = {"pylon-start.1"}         # its examples start the daemon
OWN_WORLD = ALONE | STOPPED | {"pylon-wallet.1"}        # that one connects another wallet


class World:
    """A user's HOME with a node in it, and what the examples need around it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pm",
                                                                          dir="/tmp")))
        self.relay = stack.enter_context(LocalRelay())
        self.backend = LoggedBackend()
        stack.callback(self.backend.close)
        self.api_port = free_port()
        self.node = Node(self.place / ".openagents", CONFIG.format(
            relay=self.relay.url, model=MODEL, backend=self.backend.url, api_port=self.api_port))
        self.purse = Ledger(self.place / ".openagents" / "ledger.db", b"\x05" * 32,
                            self.place / "purse.sock")
        stack.callback(self.purse.close)
        self.lnbits = Lnbits(self.purse)
        stack.callback(self.lnbits.close)
        self._lay_out_files()
        self.order = ""

    def _lay_out_files(self) -> None:
        for name, text in (("README.md", "A short text."), ("words", WORDS + "\n"),
                           ("pass", "a passphrase\n"), ("lnbits.key", ADMIN_KEY + "\n"),
                           ("pylon", f'#!/bin/sh\nexec {sys.executable} {LAUNCHER} "$@"\n')):
            (self.place / name).write_text(text)
            (self.place / name).chmod(0o700 if name == "pylon" else 0o600)

    def begin(self, running: bool) -> None:
        """A node, and with `running` its daemon, money and an order that is done."""
        self.node.init()
        if not running:
            return
        self.node.start()
        wait_for(lambda: connected(self.node), 20, "the relays")
        self.ask("WalletFund", {"amount_msats": 10_000_000})
        self.order = self.ask("JobSubmit", {"prompt": "hello", "max_tokens": 60})["id"]
        wait_for(lambda: self.ask("JobStatus", {"id": self.order})["state"] == "completed", 20)

    def ask(self, name, args):
        return client.call(self.node.home, name, args, timeout_secs=20)

    def invoice(self, msats: int = 21_000) -> str:
        return self.purse.make_invoice(msats, "an example", 600, os.urandom(8).hex()).bolt11

    def in_place(self, text: str) -> str:
        """An example with what is so only here."""
        for word, instead in (
                ("3fa2c1d0", self.order[:12]), ("/tmp/second", str(self.place / "second")),
                ("http://127.0.0.1:5000", self.lnbits.url), ("127.0.0.1:9899",
                                                             f"127.0.0.1:{self.api_port}"),
                ("--network mainnet", "--network regtest"), ("5h pylon", "1 pylon"),
                ("--port 7778", "--port 0")):
            text = text.replace(word, instead)
        return text.replace("lnbcrt210n1...", self.invoice()) if "lnbcrt" in text else text

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HOME": str(self.place), "TMPDIR": str(self.place),
               "PATH": f"{self.place}:{os.environ['PATH']}"}
        env.pop("OPENAGENTS_HOME", None)
        return subprocess.run(["/bin/sh", "-c", self.in_place(command)], cwd=self.place, env=env,
                              text=True, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=100, check=False)


@contextlib.contextmanager
def new_world():
    with contextlib.ExitStack() as stack:
        made = World(stack)
        try:
            yield made
        finally:
            made.node.stop()


@pytest.fixture
def world():
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def served():
    """A world whose daemon runs, for all examples that leave it as it was."""
    with new_world() as made:
        made.begin(running=True)
        yield made


def examples(page: Path) -> list[list[str]]:
    """Those of the guides are run as the documents that the guides are made of."""
    return list(manual.blocks(manual.sections(page).get("EXAMPLES", [])))


def commands(page: Path) -> list[str]:
    return [line[2:] for block in examples(page) for line in block if line.startswith("$ ")]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in OWN_WORLD],
                         ids=lambda page: page.name)
def test_the_commands_of_a_page_that_needs_a_world_of_its_own(world, page):
    if page.name not in ALONE:
        world.begin(running=page.name not in STOPPED)
    run_all(world, page)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)
                                  and page.name not in OWN_WORLD], ids=lambda page: page.name)
def test_the_commands_of_a_page(served, page):
    run_all(served, page)


def run_all(world: World, page: Path) -> None:
    for command in commands(page):
        done = world.run(command)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.stdout or done.stderr or any(
            word in command for word in QUIET), f"$ {command}: printed nothing"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in (
    "pylon-api.1", "pylon-control.7")], ids=lambda page: page.name)
def test_the_programs_of_a_page(served, page):
    [program] = [block for block in examples(page) if block[0].startswith("import ")]
    (served.place / "example.py").write_text(served.in_place("\n".join(program)))
    done = served.run(f"{sys.executable} example.py")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.parametrize("text", ["\n".join(block) for block in examples(
    ROOT / "man/pylon.conf.5")], ids=["node", "engines", "friends"])
def test_the_configurations(text):
    configuration.from_values(tomllib.loads(text))


# ---- the control socket -------------------------------------------------------------------------

NOT_SHOWN = {"WalletResolve", "OwedPay", "OwedWaive", "JobPay", "JobCancel", "AgentAllow",
             "AgentApprove", "AgentReject", "AgentTick"}        # their answers
PARTS = ("The daemon", "The wallet", "Buying", "Agents")
MORE = "..."                        # a key of a documented answer: more stands here


def exchanges():
    """(call, answers) of pylon-control(7), as they are written there."""
    lines: list[str] = []
    for block in manual.blocks(manual.sections(ROOT / "man/pylon-control.7")["DESCRIPTION"] + [
            line for title, part in manual.sections(ROOT / "man/pylon-control.7").items()
            if title in PARTS for line in part]):
        for line in block:
            if line.startswith(("> ", "< ")):
                lines.append(line)
            elif line.startswith("   ") and lines:
                lines[-1] += line.strip()
    found: list[tuple[str, list[object]]] = []
    for line in lines:
        if line.startswith("> "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(json.loads(line[2:]))
    return found


def name_of(call: str) -> str:
    said = json.loads(call)
    return said if isinstance(said, str) else next(iter(said))


def same_form(said, real, where=""):
    """The documented value has the keys and types of the real one; null fits everything."""
    if said is None or real is None:
        return
    assert type(said) is type(real) or {type(said), type(real)} <= {int, float}, where
    if isinstance(said, dict):
        keys = set(said) - {MORE}
        assert keys <= set(real) and (MORE in said or keys == set(real)), \
            f"{where}: {sorted(keys ^ set(real))}"
        for key in keys:
            same_form(said[key], real[key], f"{where}.{key}")
    elif isinstance(said, list) and said and real:
        same_form(said[0], real[0], f"{where}[0]")


def test_every_exchange_with_the_daemon_is_as_documented(world):
    world.begin(running=True)
    stranger = Stranger(world.relay.url)
    try:
        stranger.result(stranger.job("one for the history"))
    finally:
        stranger.close()
    for call, answers in sorted(exchanges(), key=lambda pair: name_of(pair[0]) == "Shutdown"):
        assert bool(answers) != (name_of(call) in NOT_SHOWN), call
        if not answers:
            continue
        asked = json.loads(world.in_place(call))
        args = None if isinstance(asked, str) else asked[name_of(call)]
        for said, real in zip(answers, replies(world, name_of(call), args)):
            same_form(said, real, name_of(call))


def replies(world, name, args):
    if name == "JobFollow":
        return [{name: line} for line in client.stream(world.node.home, name, args, 20)]
    real = client.call(world.node.home, name, args, 20)
    return ["Ok" if real is None else real if name == "Ping" else {name: real}]


def test_every_command_of_the_daemon_stands_in_the_manual():
    known = {name_of(call) for call, _ in exchanges()}
    assert {*shop.HANDLERS, *shop.STREAMS, *desk.HANDLERS, *agents.HANDLERS,
            *agents.STREAMS} <= known
    for file in (ROOT / "pylon/daemon").glob("*.py"):
        for line in file.read_text().splitlines():
            if "control.add(\"" in line:
                assert line.split('"')[1] in known, line.strip()
