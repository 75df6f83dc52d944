"""pylon restart: stop and start again, in the same mode and with the same configuration."""

from __future__ import annotations

import argparse

from pylon import config as configuration
from pylon.cli import identity, start, stop
from pylon.control import client
from pylon.control.protocol import STOP_SECS
from pylon.daemon import detach
from pylon.daemon.process import harden
from pylon.errors import ControlError, NotRunning, UsageError
from pylon.home import Home

OWN_HOME = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--mode", choices=("provider", "host", "both"),
                        help="change the mode (default: as it runs now)")
    parser.add_argument("-c", "--config", metavar="FILE", help="configuration to use from now on")
    parser.add_argument("-t", "--timeout", metavar="SECS", default=f"{STOP_SECS:g}",
                        help=f"time for what is under way (default {STOP_SECS:g})")
    identity.add_passphrase_option(parser)


def run(args: argparse.Namespace) -> int:
    harden()
    detach.fill_standard_fds()
    mode, file = _as_it_runs(args.home)
    mode, file = args.mode or mode, args.config or file
    start.check_home(args.home)
    config = configuration.load(args.home, file or None)    # a typo must not take the node down
    node = identity.open_identity(args.home, config, args.passphrase_file)
    stopped = stop.stop(args.home, stop.parse_duration(args.timeout), force=False)
    return stopped or start.start(args.home, mode, file or None, args.passphrase_file,
                                  foreground=False, node=node)


def _as_it_runs(home: Home) -> tuple[str, str]:
    """Mode and configuration file of the running daemon. Raises UsageError for one that
    somebody else keeps up."""
    try:
        daemon = client.call(home, "StatusJson")["daemon"]
    except (NotRunning, ControlError):
        return "both", ""
    if daemon["foreground"]:
        raise UsageError("this daemon runs in the foreground, so whoever started it must restart "
                         "it; under systemd: systemctl restart pylon")
    return daemon["mode"], daemon["config_file"]
