"""Asking the owner's desk: the daemon over its socket, or, where none runs, directly.

Directly means under the home's lock, with store and wallet opened for this one command; payments
that a crash has left open are looked up first.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pylon import config as configuration
from pylon.config import Config
from pylon.control import client
from pylon.daemon import lockfile
from pylon.errors import NotRunning, PylonError
from pylon.home import Home

ASK_SECS = 15.0
PAY_SECS = 180.0                    # a wallet may look for a route for long


def ask(home: Home, name: str, args: dict[str, Any] | None = None,
        timeout_secs: float = ASK_SECS) -> dict[str, Any]:
    """One command of `pylon.wallets.desk`. Raises ControlError, Refused, WalletError."""
    args = args or {}
    try:
        return dict(client.call(home, name, {**args, "request_id": secrets.token_hex(16)},
                                timeout_secs))
    except NotRunning:
        return directly(home, name, args)


def directly(home: Home, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """The same without a daemon."""
    from pylon.wallets import desk              # late: a daemon mostly answers without all this
    if not home.exists():
        raise PylonError(f"{home.root} does not exist; make a node with: pylon init")
    home.check()
    config = configuration.load(home)
    with lockfile.hold(home, f"pylon {name}"), open_desk(home, config) as at:
        return desk.HANDLERS[name](at, args)


@contextmanager
def open_desk(home: Home, config: Config) -> Iterator[Any]:
    """A desk over the home's store and wallet; the caller holds the lock."""
    from pylon.store.database import Database   # late: as above
    from pylon.wallets.desk import Desk         # late: as above
    from pylon.wallets.payer import Payer       # late: as above
    from pylon.wallets.reconciler import Reconciler     # late: as above
    db = Database(home.database, home.backups)
    purse = Purse(home, config)
    try:
        payer = Payer(db, purse.open, config.network,
                      min_free_bytes=config.store.pay_free_mb * 1_000_000)
        Reconciler(payer).look(int(time.time()))
        yield Desk(db, payer, config.network, lambda: None)
    finally:
        purse.close()
        db.close()


class Purse:
    """The wallet, opened when first needed; None where payments are switched off."""

    def __init__(self, home: Home, config: Config) -> None:
        self.home, self.config = home, config
        self.wallet: Any = None

    def open(self) -> Any:
        from pylon.wallets.opening import open_wallet   # late: only commands that need a wallet
        if self.wallet is None and self.config.enable_payments:
            self.wallet = open_wallet(self.config, self.home, None, self._pool)
        return self.wallet

    def _pool(self, identities: Any) -> Any:
        from pylon.relays.pool import Pool      # late: only the wallet that is reached over relays
        return Pool(self.config, identities)

    def close(self) -> None:
        if self.wallet is not None:
            self.wallet.close()
