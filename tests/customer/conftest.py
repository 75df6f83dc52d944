"""A market on the table: real store, real ledger, real payer; only relays and time are played.

`market.dealer()` is a provider whose every message the test decides; `market.settle()` runs the
roles by hand until nothing is left to do.
"""

from __future__ import annotations

import pytest

from pylon import failpoints
from pylon.customer.buyer import Terms
from pylon.customer.draft import Draft
from pylon.customer.order import Orders
from pylon.failpoints import FailpointReached
from pylon.nostr import event as nostr_event
from pylon.nostr import filters, keys, nip90
from pylon.nostr.event import Event
from pylon.store import journal, orders, payments, providers
from pylon.store.database import Database
from pylon.store.spending import Cap, Limits, Uptime
from pylon.wallets.ledger import Ledger
from pylon.wallets.payer import Payer
from pylon.wallets.reconciler import Reconciler

START = 1_800_000_000


class Clock:
    """Wall and steady time; they only part where a test sets the wall clock."""

    def __init__(self) -> None:
        self.secs, self.step = 0.0, 0

    def wall(self) -> float:
        return START + self.secs + self.step

    def steady(self) -> float:
        return self.secs

    def now(self) -> int:
        return int(self.wall())

    def uptime(self) -> Uptime:
        return Uptime("boot", int(self.secs) + 1000)


class FakePool:
    """Relays that keep everything: whoever subscribes hears it again. Events are handed over as
    the real pool does it: verified, and matching."""

    def __init__(self, stored: list[Event]) -> None:
        self.subs: dict[str, object] = {}
        self.stored = stored

    def subscribe(self, sub) -> None:
        self.subs[sub.name] = sub
        for event in self.stored:
            self.offer(sub, event)

    def unsubscribe(self, name) -> None:
        self.subs.pop(name, None)

    def usable(self, urls):
        return [url for url in urls if "private" not in url]

    def own_urls(self):
        return ["wss://relay.example"]

    def bring(self, event: Event) -> None:
        nostr_event.verify(event)
        self.stored.append(event)
        for sub in list(self.subs.values()):
            self.offer(sub, event)

    def offer(self, sub, event: Event) -> None:
        if any(filters.matches(one, event) for one in sub.filters) and sub.wanted(event):
            sub.on_events("wss://relay.example", [event])


class Dealer:
    """One provider; it does and signs whatever the test says."""

    def __init__(self, market: "Market", wallet: Ledger | None = None) -> None:
        self.market = market
        self.keys = keys.generate()
        self.pubkey = self.keys.pubkey
        self.wallet = wallet

    def invoice(self, msats: int, hold_hash: str | None = None, secs: int = 600) -> str:
        return self.wallet.make_invoice(msats, "a job", secs, "", hold_hash).bolt11

    def quote(self, order_id: str, msats: int = 2000, bolt11: str | None = None,
              tag: int | None = None, **options) -> str:
        """payment-required; `tag` is the amount that it says, where it lies."""
        bolt11 = bolt11 or self.invoice(msats)
        self.feedback(order_id, "payment-required", amount=msats if tag is None else tag,
                      bolt11=bolt11, **options)
        return bolt11

    def feedback(self, order_id: str, status: str, extra: str = "", content: str = "",
                 amount: int | None = None, bolt11: str | None = None, encryption: str = "",
                 tags=()) -> Event:
        event = nip90.build_feedback(self.keys, self.market.event(order_id), status, extra,
                                     content, amount, bolt11, encryption,
                                     self.market.clock.now(), tags)
        self.market.bring(event)
        return event

    def result(self, order_id: str, text: str = "the answer", amount: int | None = None,
               bolt11: str | None = None, encryption: str = "") -> Event:
        event = nip90.build_result(self.keys, self.market.event(order_id), text, amount, bolt11,
                                   encryption, self.market.clock.now())
        self.market.bring(event)
        return event

    def tagged(self, kind: int, content: str, tags: list[list[str]]) -> None:
        """Anything, with tags of the test's own."""
        self.market.bring(self.keys.sign(kind, content, tags, self.market.clock.now()))


class Market:
    """One buyer with money, and dealers."""

    def __init__(self, home, openagents) -> None:
        self.home, self.openagents = home, openagents
        self.clock = Clock()
        self.keys = keys.generate()
        self.limits = Limits(caps=(Cap("over-day-limit", 100_000, purposes=("order",)),))
        self.wallet = self.ledger("buyer")
        self.wallet.fund(1_000_000)
        self.updates: list[dict] = []
        self.dealers: list[Dealer] = []
        self.targets: list[str] = []
        self.opened: list[Database] = []
        self.stored: list[Event] = []           # on the relays
        self.boot()

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.openagents / "ledger.db", (name.encode() * 32)[:32],
                      self.openagents / f"{name}.sock", label=name, clock=self.clock.wall)

    def boot(self) -> None:
        """The buyer's daemon starts (again): nothing but the store is left of it."""
        self.db = Database(self.home.database)
        self.opened.append(self.db)
        self.pool = FakePool(self.stored)
        self.payer = Payer(self.db, lambda: self.wallet, "regtest", self.clock)
        self.orders = Orders(
            self.db, self.pool, self.payer, ring=lambda: None,
            keys_for=lambda order: self.keys,
            terms_for=lambda order: Terms(limits=self.limits),
            find_targets=lambda wish: list(self.targets), own_pubkey="0" * 64,
            wall=self.clock.wall, steady=self.clock.steady)
        self.reconciler = Reconciler(
            self.payer, lambda row: self.orders.payment_decided(row.action_key),
            self.clock.steady)
        self.pauses: list[float | None] = []
        for role in (*self.orders.roles, self.reconciler):
            role.wait = self.pauses.append
        self.reconciler.recover(self.clock.now())
        self.orders.resume()
        self.settle()

    def crash(self) -> None:
        """The daemon is gone, without a goodbye."""
        failpoints._armed = None
        self.db.close()
        self.boot()

    def survive(self, act, point: str, nth: int = 1) -> bool:
        """Do something with SIGKILL waiting at a point (played by an exception that nobody
        catches), and start again. True where the point was met."""
        failpoints._armed = failpoints._Armed(f"{point}:raise:{nth}")
        try:
            act()
            return False
        except FailpointReached:
            return True
        finally:
            self.crash()

    def close(self) -> None:
        for db in self.opened:
            db.close()
        self.wallet.close()
        for dealer in self.dealers:
            dealer.wallet.close()

    def dealer(self) -> Dealer:
        dealer = Dealer(self, self.ledger(f"dealer{len(self.dealers)}"))
        self.dealers.append(dealer)
        return dealer

    # -- one turn of everything --

    def settle(self) -> None:
        """Run every role until nothing is left to do at this moment."""
        while True:
            self.orders.step(self.clock.now())
            if not self.orders._errands:
                break
            self.orders._buyers[0].step(self.clock.now())

    def reconcile(self) -> None:
        self.reconciler.step(self.clock.now())
        self.settle()

    def wait(self, secs: float) -> None:
        self.clock.secs += secs
        self.settle()

    # -- orders --

    def submit(self, prompt: str = "What is the capital of France?", sent: bool = True,
               **wish) -> str:
        order_id = self.orders.submit(Draft(prompt, **wish), self.keys, "owner", None,
                                      self.updates.append)
        if sent:
            self.accept(order_id)
        self.settle()
        return order_id

    def accept(self, event_id: str) -> None:
        """The relay takes one of our events."""
        with self.db.transaction(durable=False) as tx:
            tx.execute("UPDATE outbox SET accepted_at = ? WHERE event_id = ?",
                       (self.clock.now(), event_id))
        self.orders.published([event_id])

    def event(self, event_id: str) -> Event:
        row = self.db.one("SELECT event_json FROM outbox WHERE event_id = ?", (event_id,))
        return nostr_event.parse(nostr_event.load_json(row["event_json"]))

    def bring(self, event: Event) -> None:
        self.pool.bring(event)
        self.settle()

    def order(self, order_id: str) -> orders.OrderRow:
        return orders.get(self.db, order_id)

    def dealing(self, order_id: str, dealer: Dealer) -> providers.Dealing:
        return providers.get(self.db, order_id, dealer.pubkey)

    def story(self, order_id: str) -> list[str]:
        return [row["type"] for row in journal.story(self.db, order_id)]

    def told(self, event: str) -> list[dict]:
        return [update for update in self.updates if update["event"] == event]

    # -- money --

    def spent(self) -> int:
        """What left the buyer's wallet for good or is held."""
        return 1_000_000 - self.wallet.balance()

    def paid_invoices(self) -> list[str]:
        return [m.payment_hash for m in self.wallet.history() if not m.incoming
                and m.payment_hash]

    def payment(self, order_id: str):
        return payments.by_action(self.db, order_id)


@pytest.fixture
def market(home, openagents):
    market = Market(home, openagents)
    yield market
    market.close()


@pytest.fixture
def dealer(market):
    return market.dealer()
