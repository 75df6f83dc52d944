"""pylon whoami: npub, key and home. Needs no daemon and no passphrase."""

from __future__ import annotations

import argparse

from pylon import config as configuration
from pylon import identity
from pylon.cli import terminal
from pylon.errors import EXIT_OK
from pylon.nostr import nip19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    config, _ = configuration.read(args.home)
    npub = identity.npub_of(configuration.identity_path(args.home, config))
    pubkey = nip19.decode_pubkey(npub)
    if args.json:
        terminal.print_json({"npub": npub, "pubkey": pubkey, "home": str(args.home.root)})
    else:
        terminal.say(f"{npub}\n{pubkey}\n{args.home.root}")
    return EXIT_OK
