"""A host on the table: real store, ledger, payer, cage and runners; relays and time are played."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pylon.host import lifecycle
from pylon.host.hands import Hands
from pylon.host.registry import Registry
from pylon.host.think import Question, Thought
from pylon.host.tick import Errand, Ticks
from pylon.nostr import keys as nostr_keys
from pylon.nostr import nip06, nip65
from pylon.store import agents, books, payments
from pylon.store.database import Database
from pylon.wallets.ledger import Ledger
from pylon.wallets.payer import Payer
from tests.fakes.model import MODEL, ScriptedModel, acting
from tests.node import Node
from tests.parts.relays import LocalRelay

RUNNERS = Path(__file__).parent.parent / "fakes" / "runners"
RELAY = "wss://relay.example"


class FakePool:
    """Relays that know one thing: where people want their messages."""

    def __init__(self) -> None:
        self.people: dict[str, nostr_keys.Keys] = {}

    def subscribe(self, sub) -> None:
        for author in sub.filters[0].get("authors", []):
            if author in self.people:
                sub.on_events(RELAY, [nip65.build_dm_relays(self.people[author], [RELAY],
                                                            int(time.time()))])
        if sub.on_eose is not None:
            sub.on_eose(RELAY)

    def unsubscribe(self, name) -> None:
        """There is nothing to end."""

    def usable(self, urls):
        return list(urls)

    def own_urls(self):
        return [RELAY]

    connected = own_urls


class FreeThinker:
    """A model that costs nothing and says what the test says."""

    def __init__(self) -> None:
        self.answer: Callable[[Question], str] = lambda asked: "{}"

    def think(self, agent, keys, tick_id, number, asked, deadline) -> Thought:
        return Thought(self.answer(asked), "fake", 10, 5, 0)


class Table:
    """One node's host with one agent on it."""

    def __init__(self, home, openagents) -> None:
        self.home, self.openagents = home, openagents
        self.db = Database(home.database)
        self.wallet = self.ledger("node")
        self.wallet.fund(10_000_000_000)
        self.stranger = self.ledger("stranger")
        self.registry = Registry(home, None, False)
        self.pool, self.thinker = FakePool(), FreeThinker()
        self.payer = Payer(self.db, lambda: self.wallet, "regtest")
        self.hands = Hands(self.db, self.pool, self.payer, "regtest", lambda: None, lambda: None,
                           lambda: None)
        self.ticks = Ticks(self.db, self.pool, self.thinker, self.hands, lambda: None,
                           lambda agent: home.agents / f"{agent.npub}.log")
        self.agent = self.spawn("scribe")

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.openagents / "ledger.db", (name.encode() * 32)[:32],
                      self.openagents / f"{name}.sock", label=name)

    def spawn(self, name, sats=100_000, **settings):
        agent = self.registry.create(name, nip06.generate_words(), int(time.time()), **settings)
        now = int(time.time())
        with self.db.transaction(durable=True) as tx:
            agents.add(tx, agent.npub, name, now, now)
            if sats:
                books.post(tx, "test-fund", agent.npub, {
                    books.EXTERNAL: -sats * 1000, books.agent_account(agent.npub): sats * 1000},
                    now)
        return agent

    def set(self, **settings) -> None:
        for name, value in settings.items():
            self.agent = self.registry.change(self.agent.npub, name, value)

    def goal(self, text: str) -> None:
        with self.db.transaction(durable=True) as tx:
            agents.set_goals(tx, self.agent.npub, [{"id": "a", "description": text,
                                                    "status": "active"}], 0)

    def hear(self, text: str, author: str | None = None, kind: str = "mention") -> None:
        with self.db.transaction(durable=True) as tx:
            agents.add_trigger(tx, self.agent.npub, nostr_keys.generate().pubkey, kind,
                               author or nostr_keys.generate().pubkey, text, int(time.time()))

    def tick(self, trigger: str = "manual") -> dict:
        """One tick; its row."""
        rows = tuple(agents.waiting_triggers(self.db, self.agent.npub))
        row = agents.get(self.db, self.agent.npub)
        runway = lifecycle.Runway(self.balance(), 1000, False)
        self.ticks.run(Errand(self.agent.npub, trigger, rows), self.agent,
                       self.registry.keys(self.agent.npub), row, runway)
        return dict(agents.ticks(self.db, self.agent.npub, 1)[0])

    def runner(self, name: str, timeout_secs: int = 30) -> None:
        self.set(runner=str(RUNNERS / name), timeout_secs=timeout_secs)

    def balance(self) -> int:
        return books.balance(self.db, books.agent_account(self.agent.npub))

    def paid(self) -> int:
        """What left for good or is on its way."""
        return sum(row.amount_msats for row in payments.latest(self.db, 1000)
                   if row.state != "failed")

    def outbox(self, purpose: str) -> list[dict]:
        return [json.loads(row["event_json"]) for row in self.db.query(
            "SELECT event_json FROM outbox WHERE purpose = ? ORDER BY row", (purpose,))]

    def close(self) -> None:
        self.db.close()
        self.wallet.close()
        self.stranger.close()


@pytest.fixture
def table(home, openagents):
    made = Table(home, openagents)
    yield made
    made.close()


CONFIG = """
relays = ["{relay}"]
default_model = "{model}"
min_price_msats = 3000
[backends.ollama]
url = "{backend}"
[relay]
backoff_max_secs = 1
allow_private = true
"""


@pytest.fixture
def world(openagents, tmp_path):
    model = ScriptedModel(lambda prompt: acting(type="post", text="hello, world"))
    with LocalRelay(record=tmp_path / "relay.log") as relay:
        node = Node(openagents, CONFIG.format(relay=relay.url, model=MODEL, backend=model.url))
        node.init().start()
        node.run("wallet", "fund", "-a", "100000")
        yield node, relay, model
        node.stop()
    model.close()
