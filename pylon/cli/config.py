"""pylon config: show what is in force, check the files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pylon import config as configuration
from pylon.cli import terminal
from pylon.config import Config
from pylon.errors import EXIT_CONFIG, EXIT_OK
from pylon.home import SYSTEM_OPENAGENTS, Home

OLD_PLACES = ("~/.pylon", "~/.config/pylon", "~/.config/openagents/pylon")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "check", "default"),
                        help="show: all values in force; check: what is wrong; default: a file "
                             "with every key and its explanation")
    parser.add_argument("-c", "--config", metavar="FILE", help="this file instead of the home's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.action == "default":
        terminal.say(configuration.render().rstrip())
        return EXIT_OK
    if args.action == "show":
        return _show(configuration.load(args.home, args.config), args.json)
    return _check(args.home, args.config, args.json)


def _show(config: Config, as_json: bool) -> int:
    if as_json:
        terminal.print_json(config.as_dict())
    else:
        files = ", ".join(map(str, config.files)) or "no file, only defaults"
        terminal.say(f"# from: {files}")
        terminal.say(configuration.render(config).rstrip())
    return EXIT_OK


def _check(home: Home, file: str | None, as_json: bool) -> int:
    config, problems = configuration.read(home, file)
    notes = config.notes + explain_old_places(home)
    if as_json:
        terminal.print_json({"ok": not problems, "files": [str(path) for path in config.files],
                             "problems": [str(problem) for problem in problems], "notes": notes})
    else:
        for problem in problems:
            terminal.say(str(problem))
        for note in notes:
            terminal.say(f"note: {note}")
        if not problems:
            terminal.say("the configuration is in order")
    return EXIT_CONFIG if problems else EXIT_OK


def explain_old_places(home: Home) -> list[str]:
    """Where earlier versions, or their documents, had a home; nothing is read from there."""
    if home.root.parent == SYSTEM_OPENAGENTS:
        return []
    notes = []
    for name in OLD_PLACES:
        place = Path(os.path.expanduser(name))
        if place.is_dir() and place != home.root:
            notes.append(f"{place} is from an older Pylon and is not read; this node's home is "
                         f"{home.root}. To keep the old identity: pylon init --import "
                         f"< {place}/identity.mnemonic")
    return notes
