"""The play itself: the parts come on, a stranger orders, pays, gets an answer; then the books.

The owner's home is only read, for the backends that its configuration names. What is said about
each step goes to `tell`, at once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from pylon import config as configuration
from pylon.backends.registry import Registry
from pylon.cli.demo_needs import MODEL_PACKAGE, MODULES, RELAY_PACKAGE, require
from pylon.cli.demo_sale import KIND, START_SECS, Sale, Stranger, Tell
from pylon.cli.demo_stage import PYLON, Stage
from pylon.config import Config
from pylon.control import client
from pylon.errors import ControlError, NotRunning, PylonError, Refused
from pylon.home import Home, write_private
from pylon.relays.address import is_local
from pylon.wallets.ledger import Ledger

MAX_TOKENS = 256
BASE_MSATS, OUTPUT_MSATS_PER_1K = 5_000, 50_000
POCKET_MSATS = 100_000_000          # the stranger's play money
READY_SECS = 30
SMALL_MODEL = "smollm2:135m"


class Brain(NamedTuple):
    """A model server."""

    type: str
    url: str
    model: str
    key_file: str


class Wishes(NamedTuple):
    """What the command line asked for; empty means the demo's own choice."""

    relay: str
    backend: str
    model: str
    prompt: str
    timeout_secs: int


class Play:
    """One performance on a stage. `facts` is all that is known of it, for --json."""

    def __init__(self, stage: Stage, owner: Home, wishes: Wishes, tell: Tell) -> None:
        self.stage, self.owner, self.wishes, self.tell = stage, owner, wishes, tell
        self.home = Home(stage.place / "pylon")
        self.free = bool(wishes.relay) and not is_local(wishes.relay)
        self.facts: dict[str, Any] = {}
        self.pubkey = ""                        # the node's

    def perform(self) -> None:
        """From nothing to settled. Raises PylonError, Interrupted."""
        brain = self._find_brain()
        require(*([RELAY_PACKAGE] if brain else MODULES))
        relay = self._relay()
        brain = brain or self._small_brain()
        self.tell("model", f"{brain.model} on {brain.url} ({brain.type})")
        self.facts.update(relay=relay, backend=brain.url, model=brain.model)
        stranger = Stranger(self.stage)
        self._node(relay, brain, stranger)
        self._sale(relay, stranger)
        self._wait_for_the_books()

    # -- the parts --

    def _find_brain(self) -> Brain | None:
        """A model server that answers: the one that was given, those that the owner's node would
        use, the usual ones of this machine. None: none, and none was asked for."""
        url = self.wishes.backend
        config = _candidates(url) if url else configuration.load(self.owner)
        registry = Registry(config, self.owner)
        try:
            registry.refresh()
            backend, model = registry.choose(self.wishes.model or None)
        except Refused as err:
            if not url and not self.wishes.model:
                return None
            raise PylonError(f"{err}; " + _what_there_is(registry.states())) from err
        finally:
            registry.close()
        key_file = config.backends[backend.id].key_file if backend.id in config.backends else ""
        return Brain(backend.type, backend.url, model, _full_path(key_file, self.owner))

    def _small_brain(self) -> Brain:
        found = importlib.util.find_spec(MODULES[MODEL_PACKAGE])
        assert found is not None and found.submodule_search_locations
        [file] = Path(found.submodule_search_locations[0]).glob("*.gguf")
        url = self.stage.serve("model", START_SECS, file, SMALL_MODEL)
        return Brain("llamacpp", url, SMALL_MODEL, "")

    def _relay(self) -> str:
        url = self.wishes.relay
        if url:
            self.tell("relay", url)
        else:
            url = self.stage.serve("relay", START_SECS)
            self.tell("relay", f"{url} (nostr-sdk's, in memory)")
        return url

    def _node(self, relay: str, brain: Brain, stranger: Stranger) -> None:
        """A home, its configuration, its daemon, until that has all it needs."""
        made = json.loads(self.pylon("init", "--json").stdout)
        self.tell("node", f"{made['npub']}, in {self.home.root}")
        customers = [] if not self.free else [stranger.key]
        write_private(self.home.config, configuration.render(
            _node_config(relay, brain, customers)).encode())
        self.stage.start("daemon", [*PYLON, "--home", self.home.root, "start", "-f",
                                    "-m", "provider"])
        facts = self.stage.wait_for(self._ready, READY_SECS, "the node and its relay to be ready")
        self.pubkey = json.loads(self.pylon("whoami", "--json").stdout)["pubkey"]
        wallet = "free, for play money is not quoted on public relays" if self.free else \
            "paid work only, wallet: ledger (play money)"
        self.tell("daemon", f"serving (pid {facts['daemon']['pid']}); {wallet}")

    def _ready(self) -> dict[str, Any] | None:
        try:
            facts: dict[str, Any] = client.call(self.home, "StatusJson")
        except (NotRunning, ControlError):
            return None
        relays, backends = facts.get("relay_states"), facts.get("backend_states")
        there = (relays and all(one["connected"] and one["subscriptions"] for one in relays)
                 and backends and any(one["available"] for one in backends))
        return facts if there else None

    # -- the sale --

    def _sale(self, relay: str, stranger: Stranger) -> None:
        purse = None if self.free else Ledger(
            self.home.root.parent / "ledger.db", os.urandom(32), self.stage.place / "purse.sock",
            label="the stranger")
        try:
            if purse is not None:
                purse.fund(POCKET_MSATS)
                purse.watch(stranger.wallet_changed)
            stranger.order({"relay": relay, "kind": KIND, "prompt": self.wishes.prompt,
                            "max_tokens": MAX_TOKENS,
                            "to": self.pubkey if self.wishes.relay else None})
            Sale(stranger, self.pubkey, purse, self.tell, self.facts).go_through(
                self.wishes.timeout_secs)
        finally:
            if purse is not None:
                purse.close()

    # -- the books --

    def _wait_for_the_books(self) -> None:
        """The node's own record follows the relay's and the wallet's word within moments."""
        def closed() -> bool:
            status = client.call(self.home, "Status")
            return bool(status["jobs_completed"] and
                        status["earnings_msats"] >= self.facts.get("amount_msats", 0))
        self.stage.wait_for(closed, START_SECS, "the books to show the job")

    def pylon(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command for the demo's node. Raises PylonError where it fails."""
        done = self.stage.run("--home", str(self.home.root), *words)
        self.stage.check()
        if done.returncode:
            raise PylonError(f"pylon {' '.join(words)} ended with {done.returncode}: "
                             f"{(done.stderr or done.stdout).strip()}")
        return done


def _what_there_is(states: list[dict[str, Any]]) -> str:
    models = [name for state in states if state["available"] for name in state["models"]]
    if models:
        return f"there is {', '.join(models)}"
    return "; ".join(dict.fromkeys(f"{state['type']}: {state['error']}" for state in states))


def _candidates(url: str) -> Config:
    """A configuration that tries an address as each type of backend, the most telling first."""
    types = ["ollama", "llamacpp", "openai"]
    return configuration.from_values({
        "backend_preference": types,
        "backends": {type_: {"type": type_, "url": url} for type_ in types}})


def _full_path(key_file: str, home: Home) -> str:
    """A key's file as another home must name it."""
    if not key_file:
        return ""
    return str((home.root if "/" in key_file else home.secrets) / os.path.expanduser(key_file))


def _node_config(relay: str, brain: Brain, only: list[str]) -> Config:
    """The demo's node. With ONLY these customers, on a relay of other people's, it is free and
    does not announce itself."""
    return configuration.from_values({
        "name": "Pylon demo", "relays": [relay], "default_model": brain.model,
        "backend_preference": ["demo"], "require_payment": not only,
        "provider": {"announce": not only, "heartbeat_secs": 0 if only else 300,
                     "partial_interval_secs": 1},
        "admission": {"allow": only},
        "pricing": {"base_msats": BASE_MSATS, "output_msats_per_1k": OUTPUT_MSATS_PER_1K},
        "backends": {"demo": {"type": brain.type, "url": brain.url,
                              "key_file": brain.key_file}}})
