"""pylon owed: money that arrived for work that was not delivered, and how to settle it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from pylon.cli import counter, terminal
from pylon.errors import EXIT_FAILED, EXIT_OK
from pylon.nostr import nip19
from pylon.units import format_duration, format_sats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--all", action="store_true", help="also what was settled")
    actions = parser.add_subparsers(dest="action", metavar="settle")
    settle = actions.add_parser("settle", help="end one: pay it back, or keep it by agreement",
                                allow_abbrev=False)
    settle.add_argument("id", metavar="ID", help="its id; the first characters are enough")
    how = settle.add_mutually_exclusive_group(required=True)
    how.add_argument("--pay", metavar="BOLT11", help="pay this invoice of the customer's; the "
                     "fee is yours")
    how.add_argument("--waive", action="store_true", help="keep the money, as agreed with the "
                     "customer")
    settle.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
                        help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.action == "settle":
        return _settle(args)
    rows = counter.ask(args.home, "OwedList", {"all": args.all})["owed"]
    if args.json:
        terminal.print_json({"owed": rows})
    elif rows:
        terminal.say(_table(rows))
    else:
        terminal.say("nothing is owed")
    return EXIT_OK


def _table(rows: list[dict[str, Any]]) -> str:
    now = int(time.time())
    return terminal.table(("ID", "AMOUNT", "WHY", "STATE", "SINCE", "CUSTOMER"), [
        (row["id"], format_sats(row["amount_msats"]), row["reason"], row["state"],
         format_duration(max(0, now - row["created_at"])), _npub(row["customer_pubkey"]))
        for row in rows])


def _npub(pubkey: str) -> str:
    return nip19.encode_npub(pubkey) if pubkey else "-"


def _settle(args: argparse.Namespace) -> int:
    if args.waive:
        done = counter.ask(args.home, "OwedWaive", {"id": args.id})
    else:
        done = counter.ask(args.home, "OwedPay", {"id": args.id, "bolt11": args.pay},
                           counter.PAY_SECS)
    if args.json:
        terminal.print_json(done)
    elif done["state"] in ("succeeded", "waived"):
        word = "kept" if args.waive else "paid back"
        terminal.say(f"{done['owed']['id']}: {format_sats(done['owed']['amount_msats'])} {word}")
    elif done["state"] == "failed":
        terminal.tell(f"pylon: the refund failed: {done['reason']}")
    else:
        terminal.tell("pylon: the refund's outcome is not known yet; it stays reserved until the "
                      "wallet says; see: pylon wallet status")
    return EXIT_OK if done["state"] in ("succeeded", "waived") else EXIT_FAILED
