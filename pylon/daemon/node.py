"""The node: the daemon with all that it does, put together in the order of its needs.

Wallet, backends, relays, the outbox's publisher, paying, and then the modes: provider, customer,
host. Each step registers how it is undone (see `daemon`); none holds any job's state.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from pylon.backends.registry import Prober, Registry
from pylon.control.server import Peer
from pylon.customer.customer import Customer
from pylon.daemon.daemon import Daemon
from pylon.daemon.hosting import Hosting
from pylon.daemon.inbox import Deadline
from pylon.errors import ConfigError, UsageError, WalletError
from pylon.log import Repeated
from pylon.nostr.keys import Keys
from pylon.provider.payments import Watch
from pylon.provider.provider import Provider
from pylon.relays.pool import Pool
from pylon.relays.publisher import Publisher
from pylon.role import Role
from pylon.store import journal, meta
from pylon.store.payments import PaymentRow
from pylon.wallets.desk import ASKING, HANDLERS, Desk
from pylon.wallets.external import Auditor
from pylon.wallets.opening import open_wallet
from pylon.wallets.payer import Payer
from pylon.wallets.reconciler import Reconciler
from pylon.wallets.wallet import Wallet

log = logging.getLogger(__name__)

WALLET_RETRY_FIRST_SECS, WALLET_RETRY_MAX_SECS = 2.0, 60.0
STOP_MARGIN_SECS = 3.0              # of the grace, kept for what stops after the workers


class WalletKeeper(Role):
    """Opens the wallet, again and again where it does not answer; `wallet` is None meanwhile.

    Thread: wallet. With payment required a node without a wallet refuses (promise 14).
    """

    def __init__(self, open_it: Callable[[], Wallet], opened: Callable[[Wallet], None]) -> None:
        super().__init__("wallet")
        self._open, self._opened = open_it, opened
        self.wallet: Wallet | None = None
        self.trouble: str | None = "not opened yet"
        self._pause_next = WALLET_RETRY_FIRST_SECS
        self._failing = Repeated(log, logging.WARNING)

    def try_once(self) -> None:
        """Open it. Raises ConfigError; where the wallet does not answer, tries again later."""
        try:
            wallet = self._open()
        except ConfigError:
            raise
        except WalletError as err:
            self.trouble = str(err)
            self._failing.failed("wallet: %s", err)
            return
        self.trouble = None
        self.wallet = wallet
        self._failing.over("wallet: open")
        self._opened(wallet)

    def step(self, now: int) -> None:
        if self.wallet is None:
            try:
                self.try_once()
            except ConfigError as err:
                self.trouble = str(err)
                self._failing.failed("wallet: %s", err)
        if self.wallet is not None:
            self.wait(None)
            return
        self._pause(self._pause_next)
        self._pause_next = min(self._pause_next * 2, WALLET_RETRY_MAX_SECS)

    def leave(self) -> None:
        if self.wallet is not None:
            self.wallet.close()


class Node(Daemon):
    """A daemon that serves. `extras` are attached last; whoever starts the node sets them."""

    extras: Sequence[Callable[[Node], None]] = ()

    def more_steps(self) -> tuple[Callable[[], None], ...]:
        return (self._open_relays, self._open_wallet, self._start_backends,
                self._start_paying, self._start_customer, self._start_provider,
                self._start_hosting, self._start_extras, self._show_facts)

    @property
    def wallet(self) -> Wallet | None:
        """The open wallet; None while there is none, or payments are switched off."""
        return self.purse.wallet if self.purse is not None else None

    # -- the steps --

    def _open_relays(self) -> None:
        self.lease = secrets.token_hex(8)       # names this boot in the rows that it works on
        self.provider: Provider | None = None
        self.customer: Customer | None = None
        self.pool = Pool(self.config, lambda: [self.keys], self._relay_changed)
        self.publisher = Publisher(self.db, self.pool, self._delivered)
        self.add_part("relays", lambda deadline: self.pool.stop())
        self._start_roles("publisher", self.publisher)
        self.pool.start(list(self.config.relays))
        self.on_reload(lambda config: self.pool.reload(list(config.relays)))
        self.facts["relays"] = lambda: list(self.config.relays)
        self.facts["relay_states"] = lambda: [asdict(one) for one in self.pool.states()]

    def _open_wallet(self) -> None:
        self.purse: WalletKeeper | None = None
        self.payer = Payer(self.db, lambda: self.wallet, self.config.network,
                           min_free_bytes=self.config.store.pay_free_mb * 1_000_000)
        self.reconciler = Reconciler(self.payer, self._payment_decided)
        self.incoming = Watch(self.db, self.keys, self.config, lambda: self.wallet,
                              self.publisher.ring)
        self.on_reload(self.incoming.configure)
        if not self.config.enable_payments:
            return
        self.purse = WalletKeeper(
            lambda: open_wallet(self.config, self.home, self.keys, self._wallet_pool),
            self._wallet_opened)
        self.purse.try_once()
        self._start_roles("wallet", self.purse)
        self.facts["wallet"] = self._wallet_facts

    def _wallet_pool(self, identities: Callable[[], Sequence[Keys]]) -> Pool:
        """Relays of a wallet's own, which starts and stops them: no business of the market's."""
        return Pool(self.config, identities)

    def _wallet_opened(self, wallet: Wallet) -> None:
        log.info("wallet: %s on %s", wallet.name, wallet.network)
        if wallet.pushes:
            wallet.watch(self._wallet_pushed)

    def _wallet_pushed(self, payment_hash: str | None) -> None:
        self.reconciler.pushed(payment_hash)
        self.incoming.pushed(payment_hash)

    def _wallet_facts(self) -> dict[str, Any]:
        wallet = self.wallet
        if wallet is None:
            return {"backend": self.config.wallet.backend, "ok": False,
                    "trouble": self.purse.trouble if self.purse else None}
        return {"backend": wallet.name, "ok": True, "network": wallet.network}

    def _start_backends(self) -> None:
        self.registry = Registry(self.config, self.home)
        self.registry.refresh()
        self.prober = Prober(self.registry, self._backends_changed)
        self._start_roles("backends", self.prober)
        self.on_reload(self.registry.reload)
        self.facts["backend_states"] = self.registry.states
        self.facts["default_backend"] = self.registry.default

    def _start_paying(self) -> None:
        """Before anybody pays: end what a crash left open, by the wallet's own record."""
        self._start_roles("reconciler", self.reconciler)
        if self.purse is not None:
            self._start_roles("incoming", self.incoming)
            self._start_roles("auditor", Auditor(self.db, lambda: self.wallet))
        desk = Desk(self.db, self.payer, self.config.network, self._watch_invoices)
        for name, handler in HANDLERS.items():
            self.control.add(name, partial(_ask_desk, handler, desk), asking=name in ASKING)

    def _start_customer(self) -> None:
        self.customer = Customer(self.db, self.keys, self.config, self.pool, self.publisher.ring,
                                 self.payer)
        self.customer.start()
        customer = self.customer
        self.add_part("customer", lambda deadline: customer.stop(max(0.1, deadline.left())))
        self.watch(*customer.roles)
        self.on_reload(customer.reload)
        self.facts["customer"] = customer.facts
        for name, (handler, asking) in customer.handlers().items():
            self.control.add(name, handler, asking=asking)
        for name, (stream, asking) in customer.streams().items():
            self.control.add_stream(name, stream, asking=asking)

    def _start_provider(self) -> None:
        if self.mode not in ("provider", "both"):
            return
        self.provider = Provider(self.db, self.keys, self.config, self.pool, self.publisher,
                                 self.registry, lambda: self.wallet, self.incoming, self.lease)
        self.provider.start()
        self.add_part("provider", self._stop_provider, self.provider.abort)
        self.watch(*self.provider.roles)
        self.on_reload(self.provider.reload)
        self.facts["provider"] = self.provider.facts
        self.control.add("Pause", self._answer_pause)
        self._journal("WentOnline", {"relays": list(self.config.relays)})

    def _stop_provider(self, deadline: Deadline) -> None:
        assert self.provider is not None
        self.provider.stop(max(0.0, deadline.left() - STOP_MARGIN_SECS))
        self.publisher.flush(min(2.0, max(0.0, deadline.left())))
        self._journal("WentOffline", {})

    def _start_hosting(self) -> None:
        self.hosting = Hosting(self)

    def _start_extras(self) -> None:
        """What stands above the node and was given to it: the HTTP endpoint, where it is on."""
        for attach in self.extras:
            attach(self)

    def _show_facts(self) -> None:
        self.facts["stats"] = lambda: {
            "jobs_completed": meta.total(self.db, "jobs_completed"),
            "earnings_msats": meta.total(self.db, "earnings_msats")}
        self.facts["backends"] = lambda: [s["id"] for s in self.registry.states() if s["available"]]

    def _start_roles(self, name: str, *roles: Role) -> None:
        """Start roles, and register that they are stopped and joined together."""
        for role in roles:
            role.start()
        self.watch(*roles)

        def stop(deadline: Deadline) -> None:
            for role in roles:
                role.stop()
            for role in roles:
                role.join(max(0.1, deadline.left()))
        self.add_part(name, stop)

    # -- what the parts tell each other --

    def _relay_changed(self, url: str, connected: bool) -> None:
        self._journal("RelayConnected" if connected else "RelayDisconnected", {"url": url}, url)

    def _backends_changed(self, type_: str, data: dict[str, Any]) -> None:
        self._journal(type_, data, str(data.get("backend_id", "")))
        if self.provider is not None:
            self.provider.models_changed()

    def _delivered(self, event_ids: set[str]) -> None:
        if self.provider is not None:
            self.provider.delivered()
        if self.customer is not None:
            self.customer.published(event_ids)

    def _payment_decided(self, row: PaymentRow) -> None:
        if self.customer is not None:
            self.customer.payment_decided(row)

    def _journal(self, type_: str, data: dict[str, Any], subject: str = "") -> None:
        with self.db.transaction(durable=False) as tx:
            journal.add(tx, type_, subject or self.keys.npub, data, int(time.time()))

    def _watch_invoices(self) -> None:
        """An invoice of the owner's was made: its money is watched for like a job's."""
        self.incoming.wake()

    # -- what the socket answers --

    def _answer_pause(self, args: dict[str, Any], peer: Peer) -> dict[str, Any]:
        """`{"Pause": {"on": true}}`: take no new jobs until it is said otherwise."""
        if self.provider is None:
            raise UsageError("this node runs without provider mode; there is nothing to pause")
        self.provider.pause("paused by the owner" if args.get("on", True) else None)
        return {"paused": bool(args.get("on", True))}


def _ask_desk(handler: Callable[[Desk, dict[str, Any]], dict[str, Any]], desk: Desk,
              args: dict[str, Any], peer: Peer) -> dict[str, Any]:
    return handler(desk, args)
