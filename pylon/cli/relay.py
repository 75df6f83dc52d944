"""pylon relay: a small Nostr relay on this machine, to try a node out without anybody else's."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from pylon.cli import terminal
from pylon.errors import EXIT_OK, PylonError

OWN_HOME = True                     # it has no home at all
PORT = 7777


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--port", metavar="PORT", type=int, default=PORT,
                        help=f"listen on this port of 127.0.0.1 (default {PORT}; 0: any)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from pylon.cli.toy_relay import ToyRelay        # late: --help needs no server
    try:
        relay = ToyRelay(args.port)
    except (OSError, OverflowError) as err:
        raise PylonError(f"the relay cannot listen on 127.0.0.1:{args.port}: {err}; choose "
                         "another port: pylon relay --port PORT") from None

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)       # one is enough; a second is no failure
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)
    if args.json:
        terminal.print_json({"url": relay.url})
    else:
        terminal.mention(f"a relay for trying things out, in memory only: {relay.url}")
        terminal.mention("it ends with Ctrl-C, and forgets everything")
    try:
        relay.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        relay.server_close()
    return EXIT_OK
