"""How the wallet that the configuration names is opened.

A wallet on another network than `network` refuses here, before anybody uses it. Secrets come from
0600 files or systemd credentials only. The wallets over HTTP are loaded by name when they are
chosen: they bring `requests` along, which is 6 MB that a node with another wallet does without.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylon.errors import ConfigError
from pylon.home import Home, read_secret, write_private
from pylon.nostr import nip47
from pylon.nostr.event import is_hex
from pylon.wallets.ledger import HOLD_SECS, NETWORK, Ledger
from pylon.wallets.nwc import Nwc
from pylon.wallets.nwc_line import PoolFactory
from pylon.wallets.wallet import Wallet

if TYPE_CHECKING:
    from pylon.wallets.lnbits import Lnbits
    from pylon.wallets.phoenixd import Phoenixd

LEDGER_KEY = "ledger.key"           # among the home's secrets: the node key of its account
LEDGER_DOORBELL = "ledger.sock"


def open_wallet(config: Any, home: Home, keys: Any, pool_factory: PoolFactory) -> Wallet:
    """The wallet of `[wallet] backend`, asked for its network. Raises ConfigError, WalletError.

    `pool_factory` makes a pool of relays for a wallet of its own (NWC) out of what lists the keys
    that authenticate there. `keys`, the node's own, belong to no wallet.
    """
    wallet: Lnbits | Phoenixd | Nwc
    if config.wallet.backend == "ledger":
        check_network("ledger", NETWORK, config.network)
        return open_ledger(config, home)
    if config.wallet.backend == "nwc":
        wallet = open_nwc(config, home, pool_factory)
    elif config.wallet.backend == "lnbits":
        wallet = open_lnbits(config, home)
    else:
        wallet = open_phoenixd(config, home)
    try:
        check_network(wallet.name, wallet.ask_network(), config.network)
    except BaseException:
        wallet.close()
        raise
    return wallet


def open_nwc(config: Any, home: Home, pool_factory: PoolFactory) -> Nwc:
    uri = _secret(config.wallet.nwc.uri_file, "wallet.nwc.uri_file", home)
    return Nwc(nip47.parse_uri(uri), config.network, pool_factory)


def open_lnbits(config: Any, home: Home) -> Lnbits:
    options = config.wallet.lnbits
    keys = _secret(options.key_file, "wallet.lnbits.key_file", home)
    made: Lnbits = importlib.import_module("pylon.wallets.lnbits").Lnbits(
        _url(options.url, "wallet.lnbits.url"), keys, config.network, options.ca_file)
    return made


def open_phoenixd(config: Any, home: Home) -> Phoenixd:
    options = config.wallet.phoenixd
    full, limited = (read_secret(name, home) if name else "" for name in (
        options.password_file, options.limited_password_file))
    made: Phoenixd = importlib.import_module("pylon.wallets.phoenixd").Phoenixd(
        _url(options.url, "wallet.phoenixd.url"), config.network, full, limited)
    return made


def _secret(name: str, option: str, home: Home) -> str:
    if not name:
        raise ConfigError(f"{option} is not set; `pylon wallet connect` asks and sets it")
    return read_secret(name, home)


def _url(url: str, option: str) -> str:
    if not url:
        raise ConfigError(f"{option} is not set")
    return url


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
    if not is_hex(text):
        raise ConfigError(f"{place} holds no key of 64 hex digits; without it the account in the "
                          "ledger is lost")
    return bytes.fromhex(text)
