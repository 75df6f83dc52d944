"""pylon status, where the quick way of `pylon.cli` did not do: no daemon, or options."""

from __future__ import annotations

import argparse

from pylon import config as configuration
from pylon.cli import terminal
from pylon.control import client
from pylon.daemon import lockfile, status
from pylon.errors import EXIT_NOT_RUNNING, EXIT_OK, ControlError, NotRunning
from pylon.home import Home

EXIT_UNKNOWN = 4                    # LSB: the state cannot be determined


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = "exit status: 0 running, 3 not running, 4 running but not answering"


def run(args: argparse.Namespace) -> int:
    try:
        known = client.call(args.home, "StatusJson")
    except NotRunning:
        return _down(args.home, args.json)
    except ControlError as err:
        terminal.tell(f"pylon: {err}")
        return EXIT_UNKNOWN
    _show(known, args.json)
    return EXIT_OK


def _down(home: Home, as_json: bool) -> int:
    config, problems = configuration.read(home)
    for problem in problems:
        terminal.tell(f"pylon: {problem}")
    known = status.facts_when_down(
        str(home.root), configuration.identity_path(home, config).exists(), list(config.relays),
        list(config.backend_preference))
    _show(known, as_json)
    if lockfile.is_held(home):
        terminal.tell(f"pylon: {home.root} is in use by {lockfile.describe_holder(home)}, which "
                      "does not answer")
        return EXIT_UNKNOWN
    return EXIT_NOT_RUNNING


def _show(known: dict[str, object], as_json: bool) -> None:
    if as_json:
        terminal.print_json(known)
    else:
        terminal.say(status.render(known).rstrip())
