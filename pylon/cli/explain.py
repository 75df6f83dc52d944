"""`pylon explain`: why a job, order, payment or tick went as it did."""

from __future__ import annotations

import argparse

from pylon.cli.terminal import print_json, say
from pylon.errors import PylonError
from pylon.store.database import ReadOnly
from pylon.watch import explain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a job, order, payment hash or tick; its first "
                        "characters are enough")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if not args.home.database.exists():
        raise PylonError(f"{args.home.database} does not exist: this node has done nothing yet; "
                         "start it with: pylon start")
    db = ReadOnly(args.home.database)
    try:
        subject = explain.find(db, args.id.strip())
        steps = explain.story(db, subject)
    finally:
        db.close()
    if args.json:
        print_json({"id": subject, "steps": steps})
    else:
        say(subject)
        say(explain.render(steps))
    return 0
