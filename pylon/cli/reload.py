"""pylon reload: let the daemon read its configuration again, without dropping jobs."""

from __future__ import annotations

import argparse

from pylon.cli import terminal
from pylon.control import client
from pylon.errors import EXIT_OK

TIMEOUT_SECS = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    client.call(args.home, "Reload", timeout_secs=TIMEOUT_SECS)
    terminal.say("configuration reloaded")
    return EXIT_OK
