"""pylon start: run the daemon, and tell the truth about it."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from pylon import config as configuration
from pylon.cli import identity, terminal
from pylon.config import Config
from pylon.control import client
from pylon.daemon import detach, lockfile
from pylon.daemon.process import harden
from pylon.errors import (EXIT_CONFIG, EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, ConfigError,
                          IdentityError, PylonError, StoreDamaged)
from pylon.home import Home

if TYPE_CHECKING:
    from pylon.identity import Identity

OWN_HOME = True                     # never falls back to the system's node
POLL_SECS = 0.1


class StartFailed(PylonError):
    """The daemon said why it did not start, with this exit status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_status = status
        self.code = {EXIT_CONFIG: ConfigError.code, EXIT_DAMAGED: StoreDamaged.code}.get(
            status, PylonError.code)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--foreground", action="store_true",
                        help="stay in the foreground and log to stderr")
    parser.add_argument("-d", "--daemon", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-m", "--mode", choices=("provider", "host", "both"), default="both",
                        help="what to do: sell inference, host agents, or both (default)")
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="configuration to use instead of the home's, for this run")
    identity.add_passphrase_option(parser)


def run(args: argparse.Namespace) -> int:
    harden()
    detach.fill_standard_fds()
    return start(args.home, args.mode, args.config, args.passphrase_file, args.foreground)


def start(home: Home, mode: str, config_file: str | None, passphrase_file: str | None,
          foreground: bool, node: Identity | None = None) -> int:
    """Start a daemon unless one runs; NODE where the identity is open already. Raises
    PylonError with the status and the reason."""
    check_home(home)
    if lockfile.is_held(home) and _answers_soon(home):
        return _already_running(home)
    from pylon.daemon.node import Node      # late: --help and `already running` need none of it
    config = configuration.load(home, config_file)
    node = node or identity.open_identity(home, config, passphrase_file)
    daemon = Node(home, config, node, mode, os.path.abspath(config_file) if config_file else "",
                  foreground)
    if config.api.enabled:
        from pylon.api.opening import attach    # late: an HTTP server, only where it is on
        daemon.extras = (attach,)
    if foreground:
        return daemon.serve(detach.Report())
    terminal.mention(f"identity {node.keys.npub}, mode {mode}")
    outcome = detach.into_background(daemon.serve)
    return _conclude(home, config, outcome)


def check_home(home: Home) -> None:
    """Raises IdentityError without a home, HomeError for one that is not safe."""
    if not home.exists():
        raise IdentityError(f"there is no node at {home.root}; make one with: pylon init")
    home.check()


def _conclude(home: Home, config: Config, outcome: detach.Outcome) -> int:
    if outcome.status == EXIT_OK and client.answers(home, 5.0):
        terminal.mention(f"pylon is running (pid {outcome.pid})")
        return EXIT_OK
    if outcome.status == EXIT_FAILED and (client.answers(home) or _answers_soon(home)):
        return _already_running(home)       # another start was faster
    raise StartFailed(outcome.status or EXIT_FAILED,
                      outcome.text or "the daemon started, but does not answer; see: pylon logs")


def _already_running(home: Home) -> int:
    pid = client.daemon_pid(home)
    terminal.mention("pylon is already running" + (f" (pid {pid})" if pid else ""))
    return EXIT_OK


def _answers_soon(home: Home) -> bool:
    """Whether who holds the home is, or becomes, a daemon that answers."""
    deadline = time.monotonic() + detach.READY_TIMEOUT_SECS
    while lockfile.is_held(home) and time.monotonic() < deadline:
        if client.answers(home):
            return True
        time.sleep(POLL_SECS)
    return False
