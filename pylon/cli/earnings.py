"""pylon earnings: what the node has earned, in all, by source, and of late."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from typing import Any

from pylon.cli import terminal
from pylon.errors import EXIT_OK, UsageError
from pylon.home import Home
from pylon.store import earnings
from pylon.store.database import ReadOnly
from pylon.units import format_duration, format_sats, parse_count, parse_duration

GROUPS = ("day", "model", "customer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-l", "--limit", metavar="N", default="10",
                        help="how many of the latest to show (default 10)")
    parser.add_argument("--since", metavar="AGO", help="only what came since: 12h, 7d, 4w")
    parser.add_argument("--by", choices=GROUPS, help="totals for each day, model or customer")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")


def run(args: argparse.Namespace) -> int:
    now = int(time.time())
    found = collect(args.home, now, _limit(args.limit), args.by,
                    now - parse_duration(args.since) if args.since else 0)
    if args.json:
        terminal.print_json(found)
    elif args.csv:
        _print_csv(found["groups"] if args.by else found["recent"])
    else:
        _print(found, args.by, now)
    return EXIT_OK


def _limit(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise UsageError(f"--limit {text!r} is not a number") from None


def collect(home: Home, now: int, limit: int, by: str | None, since: int) -> dict[str, Any]:
    """Everything that is shown; zeros where nothing was ever earned."""
    if not home.database.exists():
        return {"summary": {"total_sats": 0, "total_msats": 0, "job_count": 0,
                            "by_source": dict.fromkeys(earnings.SOURCES, 0), "today_msats": 0,
                            "week_msats": 0},
                "recent": [], **({"groups": []} if by else {})}
    db = ReadOnly(home.database)
    try:
        found: dict[str, Any] = {
            "summary": earnings.summary(db, now, since),
            "recent": [dict(row) for row in earnings.recent(db, limit, since)]}
        if by:
            found["groups"] = [dict(row) for row in earnings.grouped(db, by, since)]
        return found
    finally:
        db.close()


def _print_csv(rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(text.getvalue())


def _print(found: dict[str, Any], by: str | None, now: int) -> None:
    summary = found["summary"]
    if not summary["total_msats"] and not found["recent"]:
        terminal.say("nothing earned yet")
        return
    terminal.say(f"total      {format_sats(summary['total_msats'])} from "
                 f"{summary['job_count']} jobs")
    terminal.say(f"this week  {format_sats(summary['week_msats'])}")
    terminal.say(f"today      {format_sats(summary['today_msats'])}")
    terminal.say("by source  " + ", ".join(f"{source} {format_sats(msats)}" for source, msats
                                           in summary["by_source"].items()))
    terminal.say()
    if by:
        terminal.say(terminal.table(("AMOUNT", "JOBS", by.upper()), [
            (format_sats(row["amount_msats"]), row["jobs"], row["name"])
            for row in found["groups"]]))
    else:
        terminal.say(terminal.table(("AMOUNT", "SOURCE", "WHEN", "JOB"), [
            (format_sats(row["amount_msats"]), row["source"],
             format_duration(max(0, now - row["earned_at"])) + " ago",
             (row["job_id"] or "-")[:16]) for row in found["recent"]]))
