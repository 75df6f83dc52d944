"""Opening the node's identity for a command: where a passphrase may come from."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pylon import config as configuration
from pylon.cli import terminal
from pylon.config import Config
from pylon.errors import IdentityError
from pylon.home import Home

if TYPE_CHECKING:
    from pylon.identity import Identity

CREDENTIAL = "passphrase"           # its name for systemd's LoadCredential=


def add_passphrase_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passphrase-file", metavar="FILE",
                        help="read the identity's passphrase from the first line of FILE")


def open_identity(home: Home, config: Config, passphrase_file: str | None) -> Identity:
    """The identity; a passphrase comes from FILE, a systemd credential, or the terminal, in
    this order, and never from an argument or the environment. Raises IdentityError."""
    from pylon import identity              # late: brings the curve along
    place = configuration.identity_path(home, config)
    return identity.load(place, lambda: read_passphrase(passphrase_file)
                         or terminal.ask_passphrase(f"Passphrase of {place}: "))


def read_passphrase(file: str | None) -> bytes | None:
    """From a file or a credential; None when neither is there. Raises IdentityError."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(file) if file else Path(directory) / CREDENTIAL if directory else None
    if path is None or (not file and not path.exists()):
        return None
    try:
        with open(path, "rb") as handle:
            line = handle.readline(4096).rstrip(b"\r\n")
    except OSError as err:
        raise IdentityError(f"cannot read the passphrase from {path}: {err.strerror}") from err
    if not line:
        raise IdentityError(f"the first line of {path} is empty; it should be the passphrase")
    return line
