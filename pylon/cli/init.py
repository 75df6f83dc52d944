"""pylon init: an identity of one's own, and a configuration that explains itself."""

from __future__ import annotations

import argparse
import sys
import time

from pylon import config as configuration
from pylon import identity
from pylon.cli import terminal
from pylon.cli.config import explain_old_places
from pylon.cli.identity import add_passphrase_option, read_passphrase
from pylon.config import Config
from pylon.daemon import detach, lockfile
from pylon.daemon.process import harden
from pylon.errors import EXIT_OK, IdentityError, UsageError
from pylon.home import Home, write_private
from pylon.identity import Identity
from pylon.nostr import nip06

OWN_HOME = True
MAX_IMPORT_CHARS = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--import", dest="import_", action="store_true",
                        help="take 12 to 24 words or an nsec from the first line of stdin")
    parser.add_argument("-f", "--force", action="store_true",
                        help="replace the identity that is there; a dated copy is kept")
    parser.add_argument("--encrypt", action="store_true",
                        help="seal the identity with a passphrase, asked for at every start")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_passphrase_option(parser)


def run(args: argparse.Namespace) -> int:
    harden()
    detach.fill_standard_fds()
    home: Home = args.home
    config = _config_before(home)
    place = configuration.identity_path(home, config)
    if place.exists() and not args.force:
        return _tell_existing(home, identity.npub_of(place), args.json)
    fresh = _import() if args.import_ else identity.parse(nip06.generate_words())
    passphrase = _passphrase(args)
    home.create()
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.check()
    copy = None
    with lockfile.hold(home, "pylon init"):
        if place.exists():
            copy = identity.replace(place, fresh, passphrase, int(time.time()))
        else:
            identity.save(place, fresh, passphrase)
        wrote_config = _write_config(home)
    _tell(args, home, fresh, str(copy) if copy else None, wrote_config)
    return EXIT_OK


def _config_before(home: Home) -> Config:
    """What a config.toml says that was there first: it may name a data_dir."""
    if home.exists():
        home.check()
    return configuration.load(home)


def _import() -> Identity:
    if terminal.can_ask():
        terminal.tell("Type the words (or the nsec) on one line:")
    line = sys.stdin.readline(MAX_IMPORT_CHARS) if sys.stdin else ""
    if not line.strip():
        raise IdentityError("nothing came in; pipe the words in: pylon init --import < words")
    return identity.parse(line)


def _passphrase(args: argparse.Namespace) -> bytes | None:
    if not args.encrypt:
        if args.passphrase_file:
            raise UsageError("--passphrase-file goes with --encrypt")
        return None
    return read_passphrase(args.passphrase_file) or terminal.ask_new_passphrase()


def _write_config(home: Home) -> bool:
    try:
        write_private(home.config, configuration.render().encode(), replace=False)
        return True
    except FileExistsError:
        return False


def _tell_existing(home: Home, npub: str, as_json: bool) -> int:
    if as_json:
        terminal.print_json({"created": False, "npub": npub, "home": str(home.root)})
    else:
        terminal.say(f"this node has an identity already: {npub}")
        terminal.say("nothing was changed; to replace it (a copy is kept): pylon init --force")
    return EXIT_OK


def _tell(args: argparse.Namespace, home: Home, fresh: Identity, copy: str | None,
          wrote_config: bool) -> None:
    words = None if args.import_ else fresh.words
    if args.json:
        terminal.print_json({"created": True, "npub": fresh.keys.npub,
                             "pubkey": fresh.keys.pubkey, "home": str(home.root),
                             "words": words, "encrypted": args.encrypt, "old_identity": copy})
        return
    terminal.say(f"Identity: {fresh.keys.npub}\nPublic key: {fresh.keys.pubkey}")
    terminal.say(f"Home: {home.root}")
    if copy:
        terminal.say(f"The old identity is kept in {copy}")
    if words:
        terminal.say("\nThese words are the node and its money. Write them on paper, now:\n")
        terminal.say(f"    {words}\n")
    if wrote_config:
        terminal.say(f"Look through {home.config}, then: pylon start")
    for note in explain_old_places(home):
        terminal.tell(f"note: {note}")
