"""How the wallet that the configuration names is opened.

A wallet on another network than `network` refuses here, before anybody uses it. Secrets come from
0600 files or systemd credentials only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pylon.errors import ConfigError
from pylon.home import Home, read_secret, write_private
from pylon.wallets.ledger import HOLD_SECS, Ledger
from pylon.wallets.wallet import Wallet

LEDGER_KEY = "ledger.key"           # among the home's secrets: the node key of its account
LEDGER_DOORBELL = "ledger.sock"


def open_wallet(config: Any, home: Home, keys: Any = None, pool_factory: Any = None) -> Wallet:
    """The wallet of `[wallet] backend`. Raises ConfigError, WalletError."""
    if config.wallet.backend == "ledger":
        check_network("ledger", "regtest", config.network)
        return open_ledger(config, home)
    raise ConfigError(f"wallet.backend: {config.wallet.backend} is not to be had")


def check_network(wallet: str, its_network: str, network: str) -> None:
    """Raises ConfigError where wallet and configuration do not mean the same money."""
    if its_network != network:
        raise ConfigError(f"the {wallet} wallet is on {its_network}, but network is {network!r}; "
                          f"set network = \"{its_network}\" or choose another wallet")


def open_ledger(config: Any, home: Home) -> Ledger:
    """The home's account in the ledger; both are made when they are missing."""
    path = Path(os.path.expanduser(config.wallet.ledger.file or "ledger.db"))
    return Ledger(home.root.parent / path, _ledger_key(home), home.root / LEDGER_DOORBELL,
                  label=str(home.root), hold_secs=max(HOLD_SECS, 2 * config.pricing.max_hold_secs))


def _ledger_key(home: Home) -> bytes:
    place = home.secrets / LEDGER_KEY
    if not place.exists():
        try:
            write_private(place, os.urandom(32).hex().encode() + b"\n", replace=False)
        except FileExistsError:
            pass                    # another command of this home was faster: its key is the key
    text = read_secret(str(place), home)
    if len(text) != 64:
        raise ConfigError(f"{place} holds no key of 64 hex digits; without it the account in the "
                          "ledger is lost")
    return bytes.fromhex(text)
