"""pylon providers: who sells what, at which price, and what we have lived through with each."""

from __future__ import annotations

import argparse
from typing import Any

from pylon.cli import terminal
from pylon.cli.terminal import printable
from pylon.control import client
from pylon.errors import EXIT_OK, UsageError
from pylon.units import format_sats, parse_count

LOOK_SECS = 15.0                    # the daemon asks its relays, and waits for 3 s at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", "--kind", metavar="KIND", default="5050",
                        help="the kind of job (default 5050, text generation)")
    parser.add_argument("-a", "--all", action="store_true",
                        help="also those without a fresh heartbeat, or on another network, and "
                             "those that we only know from before")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="show what each score is made of")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    try:
        kind = parse_count(args.kind)
    except ValueError:
        raise UsageError(f"--kind {args.kind!r} is not a number") from None
    answer = client.call(args.home, "Providers", {"kind": kind, "all": args.all}, LOOK_SECS)
    if args.json:
        terminal.print_json(answer)
    elif not answer["providers"]:
        terminal.say(f"nobody is there who serves kind {kind}"
                     + ("" if args.all else "; see those without a heartbeat with --all"))
    else:
        _show(answer["providers"], args.verbose)
    return EXIT_OK


def _show(found: list[dict[str, Any]], verbose: bool) -> None:
    rows = [(one["score"], "avoided" if one["avoided"] else "alive" if one["alive"] else "-",
             _price(one["price_msats"]), _history(one["history"]), one["npub"],
             printable(one["name"])[:24], printable(", ".join(one["models"]))[:60])
            for one in found]
    head = ("SCORE", "STATE", "PRICE", "DELIVERED", "PROVIDER", "NAME", "MODELS")
    lines = terminal.table(head, rows).splitlines()
    terminal.say(lines[0])
    for one, line in zip(found, lines[1:]):
        terminal.say(line)
        if verbose:
            for reason in one["reasons"]:
                terminal.say(f"  {reason['points']:+5d}  {reason['text']}")


def _price(msats: int | None) -> str:
    if msats is None:
        return "not told"
    return format_sats(msats) if msats else "free"


def _history(history: dict[str, Any]) -> str:
    text = f"{history['delivered']} of {history['asked']}"
    if history["mean_secs"] is not None:
        text += f" in {history['mean_secs']:.0f} s"
    if history["undelivered"]:
        text += f", kept {format_sats(history['lost_msats'])}"
    return text
