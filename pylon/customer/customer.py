"""The customer: the facade that owns the roles of the buying side.

Built by the daemon after relays, publisher and payer; `resume` follows the payer's own recovery.
Other accounts (agents) bring their keys and terms by `add_account`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pylon.config import Config
from pylon.customer import shop
from pylon.customer.buyer import Terms
from pylon.customer.discover import Directory
from pylon.customer.order import Orders
from pylon.customer.shop import Shop
from pylon.nostr.keys import Keys
from pylon.relays.pool import Pool
from pylon.role import Role
from pylon.store import books
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.payments import PaymentRow
from pylon.store.spending import Limits
from pylon.wallets.payer import Payer

NOTHING = Limits(action_msats=0)      # what an account that nobody speaks for may spend
Account = tuple[Callable[[], Keys], Callable[[OrderRow], Terms]]


class Customer:
    """`orders` takes orders of anybody in the node; `shop` serves the owner's commands."""

    def __init__(self, db: Database, keys: Keys, config: Config, pool: Pool,
                 ring: Callable[[], None], payer: Payer) -> None:
        self._config = config
        self._accounts: dict[str, Account] = {
            books.OWNER: (lambda: keys, lambda order: shop.owner_terms(self._config, order))}
        self.directory = Directory(db, pool, config.network)
        self.orders = Orders(db, pool, payer, ring=ring, keys_for=self._keys_for,
                             terms_for=self._terms_for, find_targets=self.directory.targets,
                             own_pubkey=keys.pubkey)
        self.shop = Shop(db, self.orders, self.directory, keys, lambda: self._config)

    def add_account(self, account: str, keys: Callable[[], Keys],
                    terms: Callable[[OrderRow], Terms]) -> None:
        """Whose orders are signed with other keys and paid from another account; before
        `start`, so that open orders of the account find their keys again."""
        self._accounts[account] = (keys, terms)

    def _keys_for(self, order: OrderRow) -> Keys | None:
        known = self._accounts.get(order.account)
        keys = known[0]() if known else None
        return keys if keys is not None and keys.pubkey == order.pubkey else None

    def _terms_for(self, order: OrderRow) -> Terms:
        known = self._accounts.get(order.account)
        return known[1](order) if known else Terms(limits=NOTHING)

    # -- for the daemon --

    @property
    def roles(self) -> list[Role]:
        return self.orders.roles

    def start(self) -> None:
        self.orders.resume()
        self.orders.start()

    def stop(self, timeout_secs: float) -> None:
        """A buyer whose wallet hangs is left to itself: a kill is safe at any point."""
        self.orders.stop()
        self.orders.join(timeout_secs)

    def reload(self, config: Config) -> None:
        self._config = config

    def published(self, event_ids: Iterable[str]) -> None:
        """Relays have taken these events. Any thread."""
        self.orders.published(event_ids)

    def payment_decided(self, row: PaymentRow) -> None:
        """The reconciler knows how a payment ended. Any thread."""
        self.orders.payment_decided(row.action_key)

    def facts(self) -> dict[str, Any]:
        return dict(self.orders.states())

    def handlers(self) -> dict[str, tuple[Callable[..., Any], bool]]:
        """Control commands: handler (args, peer), and whether it changes nothing."""
        return {name: (partial(_serve, handler, self.shop), name in shop.ASKING)
                for name, handler in shop.HANDLERS.items()}

    def streams(self) -> dict[str, tuple[Callable[..., Any], bool]]:
        return {name: (partial(_serve, stream, self.shop), name in shop.ASKING)
                for name, stream in shop.STREAMS.items()}


def _serve(handler: Callable[[Shop, dict[str, Any]], Any], at: Shop, args: dict[str, Any],
           peer: object) -> Any:
    return handler(at, args)
