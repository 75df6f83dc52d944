"""Reading the command line and running one command.

Only the module of the command that was asked for is imported. This holds the one catch-all of the
command line: a PylonError is one line on stderr, anything else is a bug of ours.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pylon import __version__
from pylon.cli.commands import COMMANDS, overview
from pylon.errors import EXIT_FAILED, EXIT_USAGE, PylonError, UsageError
from pylon.home import SYSTEM_OPENAGENTS, Home

NAMES = tuple(name for name, _ in COMMANDS)
UNTOLD = (PylonError.code, UsageError.code)
EXIT_INTERRUPTED = 130              # 128 + SIGINT
EXIT_BROKEN_PIPE = 141              # 128 + SIGPIPE


def run(argv: list[str]) -> int:
    """Parse, run, and turn every failure into one line and an exit status."""
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except PylonError as err:
        _complain(str(err) + _entry(err))
        return err.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # so that the exit flushes in peace
        return EXIT_BROKEN_PIPE
    except Exception as err:
        if "PYLON_TRACEBACK" in os.environ:
            raise
        _complain(f"internal error: {type(err).__name__}: {err} (please report this; "
                  "PYLON_TRACEBACK=1 shows where)")
        return EXIT_FAILED


def _run(argv: list[str]) -> int:
    name, place, rest = _split(argv)
    if name is None:
        print(overview(), end="")
        return EXIT_USAGE
    module = importlib.import_module(f"pylon.cli.{name}")
    args = build(name, module).parse_args(rest)
    args.home = find_home(args.home or place, own=getattr(module, "OWN_HOME", False))
    _set_up_warnings()
    status = module.run(args)
    return int(status or 0)


def _split(argv: list[str]) -> tuple[str | None, str | None, list[str]]:
    """(command, --home, the rest); global options stand before the command."""
    place, index = None, 0
    while index < len(argv) and argv[index].startswith("-"):
        word = argv[index]
        if word in ("-h", "--help", "--version"):
            print(overview() if word != "--version" else f"pylon {__version__}\n", end="")
            raise SystemExit(0)
        if word == "--home" and index + 1 < len(argv):
            place, index = argv[index + 1], index + 1
        elif word.startswith("--home="):
            place = word.partition("=")[2]
        else:
            raise UsageError(f"unknown option {word}; see: pylon --help")
        index += 1
    if index == len(argv):
        return None, place, []
    if argv[index] not in NAMES:
        near = difflib.get_close_matches(argv[index], NAMES, 1)
        raise UsageError(f"unknown command {argv[index]!r}" +
                         (f"; did you mean: pylon {near[0]}?" if near else
                          "; see: pylon --help"))
    return argv[index], place, argv[index + 1:]


class _Parser(argparse.ArgumentParser):
    """Says where to read on; and where an action is missing, which there are."""

    def error(self, message: str) -> NoReturn:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and message.endswith(": ACTION"):
                message = "say which: " + ", ".join(action.choices)
        super().error(f"{message}; see: {self.prog} --help")


def build(name: str, module: ModuleType | None = None) -> argparse.ArgumentParser:
    """The parser of one command; also for completion and for the manual's tests."""
    module = module or importlib.import_module(f"pylon.cli.{name}")
    text = dict(COMMANDS)[name]
    parser = _Parser(
        prog=f"pylon {name}", description=text[0].upper() + text[1:] + ".", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", metavar="DIR", help="the node's home")
    module.add_arguments(parser)
    return parser


def find_home(place: str | None, own: bool = False) -> Home:
    """The home that is meant. Who has none of his own talks to the system's node, but for
    commands that make or run a node (OWN). Raises HomeError."""
    if place:
        return Home(place)
    home = Home.default()
    system = Home(SYSTEM_OPENAGENTS / "pylon")
    if not own and not os.environ.get("OPENAGENTS_HOME") and not home.exists() \
            and _is_there(system.root):
        return system
    return home


def _is_there(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _set_up_warnings() -> None:
    """Send log warnings to stderr, if the command's imports have brought the log along."""
    log = sys.modules.get("pylon.log")
    if log is not None:
        log.setup_for_command()


def _entry(err: PylonError) -> str:
    """Where the manual says more; for what has no code of its own the message is all there is."""
    return "" if err.code in UNTOLD else f" [{err.code}, pylon-troubleshooting(7)]"


def _complain(text: str) -> None:
    if sys.stderr is not None:
        print(f"pylon: {text}", file=sys.stderr)
