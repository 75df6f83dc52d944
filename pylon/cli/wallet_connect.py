"""pylon wallet connect: ask for a wallet's secret, test it, and only then store it.

A secret comes from the terminal, unseen, or from a 0600 file; never from an argument. It is kept
in the home's `secrets`, 0600, and config.toml names only the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pylon import config as configuration
from pylon.cli import configedit, terminal
from pylon.config import Config
from pylon.errors import EXIT_FAILED, EXIT_OK, UsageError
from pylon.home import Home, read_secret, write_private
from pylon.units import format_sats

NETWORKS = ("mainnet", "testnet", "signet", "regtest")

# backend -> (option that names the secret's file, the file, what to ask for, default address)
_SECRETS = {
    "nwc": ("uri_file", "nwc.uri", "Connection string (nostr+walletconnect://...): ", None),
    "lnbits": ("key_file", "lnbits.key", "Admin key of the LNbits wallet: ",
               "http://127.0.0.1:5000"),
    "phoenixd": ("password_file", "phoenixd.password", "Password of phoenixd's API: ",
                 "http://127.0.0.1:9740"),
}


def add_arguments(parser: argparse.ArgumentParser, wallets: Iterable[str]) -> None:
    parser.add_argument("wallet", choices=tuple(wallets))
    parser.add_argument("--url", metavar="URL", help="its address (lnbits, phoenixd)")
    parser.add_argument("--network", choices=NETWORKS,
                        help="also set the node's network to this (a real wallet: mainnet)")
    parser.add_argument("--secret-file", metavar="FILE",
                        help="read the secret from this file of mode 0600, where nobody can be "
                             "asked")
    parser.add_argument("-y", "--yes", action="store_true", help="store it without asking")


def run(args: argparse.Namespace) -> int:
    home: Home = args.home
    current = configuration.load(home)
    keys = {"wallet.backend": args.wallet}
    network = args.network or ("regtest" if args.wallet == "ledger" else None)
    if network:
        keys["network"] = network
    if args.wallet == "ledger":
        return _store(args, current, keys, None)
    option, name, question, url = _SECRETS[args.wallet]
    if args.url or url:
        keys[f"wallet.{args.wallet}.url"] = args.url or _known(current, args.wallet) or str(url)
    keys[f"wallet.{args.wallet}.{option}"] = name
    trial = home.secrets / f".{name}.trial"
    write_private(trial, _secret(args, question).encode() + b"\n")
    try:
        return _store(args, current, {**keys, f"wallet.{args.wallet}.{option}": str(trial)},
                      home.secrets / name)
    finally:
        trial.unlink(missing_ok=True)


def _known(current: Config, wallet: str) -> str:
    return str(getattr(getattr(current.wallet, wallet), "url", ""))


def _secret(args: argparse.Namespace, question: str) -> str:
    if args.secret_file:
        return read_secret(str(Path(args.secret_file).resolve()), args.home)
    if not terminal.can_ask():
        raise UsageError("there is no terminal to ask for the secret; give --secret-file FILE")
    import getpass                              # late: only when somebody is asked
    text = getpass.getpass(question).strip()
    if not text:
        raise UsageError("no secret was given; nothing was changed")
    return text


def _store(args: argparse.Namespace, current: Config, keys: dict[str, str],
           place: Path | None) -> int:
    """Test with these keys; then move the secret to its place and write the keys."""
    facts = _test(args.home, current, keys)
    if args.json:
        terminal.print_json(facts)
    else:
        terminal.tell(f"{facts['wallet']} answers: {facts['network']}, "
                      f"{format_sats(facts['balance_msats'])}")
    if not args.yes and not terminal.confirm("Use this wallet from now on?"):
        terminal.tell("nothing was changed")
        return EXIT_FAILED
    if place is not None:
        trial = next(Path(value) for key, value in keys.items() if key.endswith("_file"))
        write_private(place, trial.read_bytes())
        keys = {key: place.name if key.endswith("_file") else value for key, value in keys.items()}
    configedit.set_keys(args.home, keys)
    terminal.tell("stored; a running daemon uses it after: pylon restart")
    return EXIT_OK


def _test(home: Home, current: Config, keys: dict[str, str]) -> dict[str, Any]:
    """Open the wallet as it would be. Raises ConfigError, WalletError."""
    from pylon.cli.counter import Purse         # late: brings the wallets along
    values = current.as_dict()
    for key, value in keys.items():
        *tables, name = key.split(".")
        node = values
        for table in tables:
            node = node.setdefault(table, {})
        node[name] = value
    purse = Purse(home, configuration.from_values({**values, "enable_payments": True}))
    try:
        wallet = purse.open()
        return {"wallet": wallet.name, "network": wallet.network,
                "balance_msats": wallet.balance(), **wallet.info()}
    finally:
        purse.close()
