"""pylon job: order work from the market, follow it, and fetch what came back."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable
from typing import Any

from pylon.cli import job_show, terminal
from pylon.cli.job_wait import Waiting
from pylon.cli.terminal import printable
from pylon.control import client
from pylon.errors import EXIT_FAILED, EXIT_OK, NotRunning, PylonError, Refused, UsageError
from pylon.units import format_sats, parse_count, parse_duration, parse_sats

MAX_INPUT_BYTES = 1_000_000         # more is not even read; the order's own limit is far below
ASK_SECS = 15.0                     # an encrypted order may have to find its provider first
RESULT_SECS = 60
POLICIES = ("free", "cheap", "fast", "trusted")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_submit(_add(actions, "submit", "order a piece of work"))
    _with_id(_add(actions, "status", "how an order stands"))
    for name in ("result", "results"):
        result = _with_id(_add(actions, name, "print the result of an order, fetching it where "
                               "it has come meanwhile"))
        result.add_argument("--timeout", metavar="TIME", default=f"{RESULT_SECS}s",
                            help=f"longest wait for it (default {RESULT_SECS}s)")
    listing = _add(actions, "list", "the newest orders")
    listing.add_argument("-l", "--limit", metavar="N", default="10",
                         help="how many (default 10)")
    pay = _with_id(_add(actions, "pay", "allow an order to pay the price that was asked"))
    pay.add_argument("--max-sats", metavar="N", help="most to pay (default: the price asked)")
    pay.add_argument("-y", "--yes", action="store_true", help="do not ask")
    _with_id(_add(actions, "cancel", "take an order back, unless it is being paid"))
    _with_id(_add(actions, "explain", "why an order went as it did"))


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("id", metavar="ID", help="the order; its first characters are enough")
    return parser


def _add_submit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", metavar="PROMPT|-", nargs="?", help="what is to be done; - reads it from stdin")
    add("-f", "--file", metavar="FILE", action="append", default=[],
        help="put this file's text behind the prompt (again for more)")
    add("-k", "--kind", metavar="KIND", default="5050",
        help="the kind of job (default 5050, text generation)")
    add("-m", "--model", metavar="MODEL", help="the model to use")
    add("--max-tokens", metavar="N", help="longest answer")
    add("-p", "--param", metavar="KEY=VALUE", action="append", default=[],
        help="another parameter (again for more)")
    add("--output", metavar="TYPE", help="wanted media type, like text/markdown")
    add("-b", "--bid", metavar="MSATS", help="tell providers the most that you would pay")
    add("-r", "--relay", metavar="URL", action="append", default=[],
        help="send it to these relays only (again, or with commas, for more)")
    add("--provider", metavar="NPUB", help="ask this provider and no other")
    add("--encrypt", action="store_true", help="only the provider can read it")
    add("--auto-pay", action="store_true", help="pay for it, within the limits; waits")
    add("--max-sats", metavar="N", help="with --auto-pay: most to pay (default: [customer] "
        "max_sats_per_job)")
    add("--first", action="store_true", help="take the first good quote")
    add("--policy", choices=POLICIES, help="which quote to take (default: [customer] policy)")
    add("-t", "--timeout", metavar="TIME", help="longest wait for a result (default: [customer] "
        "timeout_secs)")
    add("-w", "--wait", action="store_true", help="wait for the result and print it")
    add("--stream", action="store_true", help="print the answer as it is made; waits")


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


# ---- submit -------------------------------------------------------------------------------------

def _submit(args: argparse.Namespace) -> int:
    asked = _asked(args)
    order = client.call(args.home, "JobSubmit",
                        {**asked, "request_id": secrets.token_hex(16)}, ASK_SECS)
    if not (args.wait or args.stream or args.auto_pay):
        if args.json:
            terminal.print_json(order)
        else:
            terminal.say(order["id"])
            terminal.tell(f"see what became of it with: pylon job result {order['id'][:16]}")
        return EXIT_OK
    if not args.json:
        terminal.tell(f"order {order['id']}")
    return Waiting(args.home, order["id"], args.json, args.stream).run({})


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of JobSubmit. Raises UsageError, Refused."""
    asked: dict[str, Any] = {"prompt": _prompt(args), "kind": _count(args.kind, "--kind")}
    for name in ("model", "output", "provider", "policy"):
        if getattr(args, name):
            asked[name] = getattr(args, name)
    if args.max_tokens is not None:
        asked["max_tokens"] = _count(args.max_tokens, "--max-tokens")
    if args.bid is not None:
        asked["bid_msats"] = _count(args.bid, "--bid")
    if args.timeout is not None:
        asked["timeout_secs"] = parse_duration(args.timeout)
    if args.max_sats is not None:
        if not args.auto_pay:
            raise UsageError("--max-sats goes with --auto-pay: without it nothing is paid")
        asked["max_msats"] = parse_sats(args.max_sats)
    asked["params"] = dict(_param(text) for text in args.param)
    asked["relays"] = [url for text in args.relay for url in text.split(",") if url]
    for name in ("encrypt", "first", "auto_pay"):
        asked[name] = getattr(args, name)
    return asked


def _prompt(args: argparse.Namespace) -> str:
    """Prompt and files as one text. Raises UsageError, Refused."""
    if args.prompt is None and not args.file:
        raise UsageError("what is to be done? Give a PROMPT, - for stdin, or --file FILE")
    parts = []
    if args.prompt == "-":
        parts.append(_text_of(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), "stdin"))
    elif args.prompt is not None:
        parts.append(_text_of(os.fsencode(args.prompt), "the prompt"))
    for name in args.file:
        try:
            with open(name, "rb") as file:
                parts.append(_text_of(file.read(MAX_INPUT_BYTES + 1), name))
        except OSError as err:
            raise UsageError(f"{name}: {err.strerror}") from err
    return "\n\n".join(parts)


def _text_of(data: bytes, name: str) -> str:
    if len(data) > MAX_INPUT_BYTES:
        raise Refused("prompt-too-long", f"{name} is larger than {MAX_INPUT_BYTES} bytes; it "
                                         "cannot be part of a job")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise UsageError(f"{name} is not text: byte {err.start} is not UTF-8") from None


def _param(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is no parameter; write --param KEY=VALUE")
    return name, value


# ---- looking ------------------------------------------------------------------------------------

def _status(args: argparse.Namespace) -> int:
    order = job_show.ask(args.home, "JobStatus", {"id": args.id})
    if args.json:
        terminal.print_json(order)
    else:
        job_show.show(order)
    return EXIT_OK


def _result(args: argparse.Namespace) -> int:
    order = job_show.ask(args.home, "JobStatus", {"id": args.id})
    secs = parse_duration(args.timeout)
    if order["result"] is not None:
        if args.json:
            terminal.print_json(order)
        else:
            terminal.say(printable(order["result"]))
        return EXIT_OK
    if order["state"] == "completed":
        raise PylonError("the result was forgotten: its time in the store ([store] content_days) "
                         "is over")
    if order["state"] == "cancelled" or secs == 0:
        terminal.tell(f"pylon: no result: the order is {order['state']}")
        return EXIT_FAILED
    try:
        return Waiting(args.home, order["id"], args.json).run(
            {"timeout_secs": secs, "fetch_secs": min(secs, 3600)})
    except NotRunning:
        raise NotRunning(f"the order is {order['state']} and its result is not here yet; the "
                         "daemon could fetch it; start it with: pylon start") from None


def _list(args: argparse.Namespace) -> int:
    answer = job_show.ask(args.home, "JobList", {"limit": _count(args.limit, "--limit")})
    if args.json:
        terminal.print_json(answer)
        return EXIT_OK
    if not answer["orders"]:
        terminal.say("nothing was ordered yet")
    for order in answer["orders"]:
        terminal.say(job_show.line(order))
    return EXIT_OK


def _explain(args: argparse.Namespace) -> int:
    from pylon.cli import explain               # late: only this action
    order = job_show.ask(args.home, "JobStatus", {"id": args.id})
    args.id = order["id"]
    return explain.run(args)


# ---- acting -------------------------------------------------------------------------------------

def _pay(args: argparse.Namespace) -> int:
    order = client.call(args.home, "JobStatus", {"id": args.id})
    prices = sorted(one["amount_msats"] for one in order["providers"]
                    if one["bolt11"] and not one["code"])
    if not prices:
        raise PylonError(f"nobody asks money for order {order['id'][:16]} now "
                         f"(it is {order['state']})")
    limit = parse_sats(args.max_sats) if args.max_sats is not None else prices[0]
    if limit < prices[0]:
        raise Refused("amount-too-large", f"the lowest price is {format_sats(prices[0])}")
    if not args.yes:
        if not terminal.can_ask():
            raise UsageError("there is no terminal to ask; say --yes to pay without asking")
        if not terminal.confirm(f"Pay up to {format_sats(limit)}?"):
            terminal.tell("not paid")
            return EXIT_FAILED
    client.call(args.home, "JobPay", {"id": order["id"], "max_msats": limit,
                                      "request_id": secrets.token_hex(16)})
    return Waiting(args.home, order["id"], args.json).run({})


def _cancel(args: argparse.Namespace) -> int:
    order = client.call(args.home, "JobCancel", {"id": args.id,
                                                 "request_id": secrets.token_hex(16)})
    if args.json:
        terminal.print_json(order)
    else:
        terminal.tell(f"cancelled {order['id'][:16]}")
    return EXIT_OK


def _count(text: str, what: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is not a number") from None


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "submit": _submit, "status": _status, "result": _result, "results": _result, "list": _list,
    "pay": _pay, "cancel": _cancel, "explain": _explain,
}
