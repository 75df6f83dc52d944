"""pylon wallet: what it holds, getting paid, paying, and proving that nothing is lost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from pylon.cli import counter, terminal, wallet_connect
from pylon.errors import EXIT_FAILED, EXIT_OK, PylonError, Refused, UsageError
from pylon.units import format_duration, format_sats, parse_count, parse_duration, parse_sats

WALLETS = ("ledger", "nwc", "lnbits", "phoenixd")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add(actions, "balance", "what the wallet holds, and whose it is")
    _add(actions, "status", "whether it answers, and what is unusual")
    _add(actions, "address", "where it can be paid without an invoice")
    invoice = _add(actions, "invoice", "make an invoice of your own")
    invoice.add_argument("amount", metavar="AMOUNT", help="sats, or like 21000msats")
    invoice.add_argument("-d", "--description", metavar="TEXT", default="Pylon")
    invoice.add_argument("--expiry", metavar="TIME", default="1h", help="its life (default 1h)")
    pay = _add(actions, "pay", "pay an invoice from your own account")
    pay.add_argument("invoice", metavar="BOLT11")
    pay.add_argument("-y", "--yes", action="store_true", help="do not ask")
    pay.add_argument("--max-sats", metavar="N", help="refuse to pay more than this")
    pay.add_argument("--max-fee-sats", metavar="N",
                     help="refuse a higher fee (default: 1 %% or 10 sats, whichever is more)")
    history = _add(actions, "history", "what moved lately")
    history.add_argument("-l", "--limit", metavar="N", default="10", help="how many (default 10)")
    history.add_argument("--completed", action="store_true", help="without what is pending")
    fund = _add(actions, "fund", "make play money (only with the ledger)")
    fund.add_argument("-a", "--amount", metavar="SATS", default="100000",
                      help="how much (default 100000 sats)")
    _add(actions, "whoami", "who this node is, for people and for its wallet")
    _add(actions, "audit", "prove that books and wallet agree")
    _add(actions, "freeze", "stop all spending")
    _add(actions, "unfreeze", "allow spending again, after a freeze or a restore")
    resolve = _add(actions, "resolve", "end a payment whose outcome nobody knows, by your word")
    resolve.add_argument("hash", metavar="HASH", help="its payment hash, or the beginning of it")
    word = resolve.add_mutually_exclusive_group(required=True)
    word.add_argument("--paid", metavar="PREIMAGE", help="it was paid; this proves it")
    word.add_argument("--failed", action="store_true",
                      help="it failed for certain; believed 24 hours after it was sent")
    resolve.add_argument("--fee-sats", metavar="N", default="0", help="with --paid: its fee")
    resolve.add_argument("-y", "--yes", action="store_true", help="do not ask")
    connect = _add(actions, "connect", "use another wallet: ask for its secret, test it, store it")
    wallet_connect.add_arguments(connect, WALLETS)


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _asked(name: str, show: Callable[[dict[str, Any]], None],
           *arguments: str) -> Callable[[argparse.Namespace], int]:
    """An action that asks the desk one thing and shows the answer."""
    def action(args: argparse.Namespace) -> int:
        answer = counter.ask(args.home, name, {key: getattr(args, key) for key in arguments})
        _show(args, answer, show)
        return EXIT_OK
    return action


def _show(args: argparse.Namespace, answer: dict[str, Any],
          show: Callable[[dict[str, Any]], None]) -> None:
    if args.json:
        terminal.print_json(answer)
    else:
        show(answer)


# ---- looking ------------------------------------------------------------------------------------

def _balance(answer: dict[str, Any]) -> None:
    say = terminal.say
    say(f"wallet     {format_sats(answer['wallet_msats'])}  ({answer['wallet']}, "
        f"{answer['network']})")
    say(f"yours      {format_sats(answer['owner_msats'])}  (of which earned "
        f"{format_sats(answer['provider_msats'])})")
    for npub, msats in answer["agents_msats"].items():
        say(f"agent      {format_sats(msats)}  ({npub})")
    if answer["reserved_msats"]:
        say(f"under way  {format_sats(answer['reserved_msats'])}")
    if answer["owed_msats"]:
        say(f"owed       {format_sats(answer['owed_msats'])}  (see: pylon owed)")
    if answer["underfunded"]:
        terminal.tell("pylon: the wallet covers less than it should; spending is stopped; see: "
                      "pylon wallet audit")
    if not answer["wallet_msats"] and answer["wallet"] == "ledger":
        terminal.tell("make play money with: pylon wallet fund")


def _status(answer: dict[str, Any]) -> None:
    say = terminal.say
    say(f"wallet     {answer.get('wallet', '-')} on {answer['network']}: "
        + ("connected" if answer["connected"] else f"not connected ({answer.get('trouble')})"))
    if answer["connected"]:
        say(f"balance    {format_sats(answer['balance_msats'])}")
        say(f"can        hold payments: {'yes' if answer['holds'] else 'no'}; fee cap: "
            f"{answer['fee_cap']}; pushes: {'yes' if answer['pushes'] else 'no'}")
    for reason in answer["spending_stopped"]:
        say(f"stopped    no spending: {reason}")
    for row in answer["pending"]:
        say(f"pending    {format_sats(row['amount_msats'])}, {row['state']}, "
            f"{row['payment_hash'][:16]}")
    if answer["owed"]:
        say(f"owed       {answer['owed']} customers; see: pylon owed")


def _address(answer: dict[str, Any]) -> None:
    for name in ("lud16", "node"):
        if answer[name]:
            terminal.say(answer[name])
    if not answer["lud16"]:
        terminal.tell("this wallet has no lightning address; make an invoice with: "
                      "pylon wallet invoice SATS")


def _history(args: argparse.Namespace) -> int:
    answer = counter.ask(args.home, "WalletHistory", {"limit": _count(args.limit, "--limit")})
    if args.completed:
        answer["movements"] = [m for m in answer["movements"] if m["state"] == "paid"]
    _show(args, answer, _movements)
    return EXIT_OK


def _movements(answer: dict[str, Any]) -> None:
    if not answer["movements"]:
        terminal.say("nothing moved yet")
        return
    rows = [("in" if m["incoming"] else "out", format_sats(m["amount_msats"]),
             "done" if m["state"] == "paid" else "pending",
             time.strftime("%Y-%m-%d %H:%M", time.localtime(m["at"])), m["for"],
             m["payment_hash"][:16] or "-") for m in answer["movements"]]
    terminal.say(terminal.table(("WAY", "AMOUNT", "STATE", "WHEN", "FOR", "HASH"), rows))


def _whoami(args: argparse.Namespace) -> int:
    """The keys first: they need neither wallet nor daemon."""
    from pylon import config as configuration, identity     # late: only this action
    from pylon.nostr import nip19               # late: only this action
    config, _ = configuration.read(args.home)
    npub = identity.npub_of(configuration.identity_path(args.home, config))
    answer: dict[str, Any] = {"npub": npub, "pubkey": nip19.decode_pubkey(npub),
                              "wallet": config.wallet.backend, "network": config.network}
    try:
        answer.update(counter.ask(args.home, "WalletWhoami"))
    except PylonError as err:
        answer["trouble"] = str(err)
    _show(args, answer, lambda facts: terminal.say("\n".join(
        f"{name:<10} {value}" for name, value in facts.items())))
    return EXIT_OK


def _audit(args: argparse.Namespace) -> int:
    answer = counter.ask(args.home, "WalletAudit", timeout_secs=counter.PAY_SECS)
    lines = answer.pop("text")
    _show(args, answer, lambda _: terminal.say("\n".join(lines)))
    return EXIT_OK if answer["clean"] else EXIT_FAILED


# ---- acting -------------------------------------------------------------------------------------

def _invoice(args: argparse.Namespace) -> int:
    answer = counter.ask(args.home, "WalletInvoice", {
        "amount_msats": parse_sats(args.amount), "description": args.description,
        "expiry_secs": parse_duration(args.expiry)}, counter.PAY_SECS)
    _show(args, answer, lambda made: terminal.say(made["bolt11"]))
    return EXIT_OK


def _fund(args: argparse.Namespace) -> int:
    answer = counter.ask(args.home, "WalletFund", {"amount_msats": parse_sats(args.amount)})
    _show(args, answer, _balance)
    return EXIT_OK


def _pay(args: argparse.Namespace) -> int:
    asked: dict[str, Any] = {"bolt11": args.invoice.strip()}
    for name, text in (("max_msats", args.max_sats), ("max_fee_msats", args.max_fee_sats)):
        if text is not None:
            asked[name] = parse_sats(text)
    _read_out(asked)
    if not args.yes:
        if not terminal.can_ask():
            raise UsageError("there is no terminal to ask; say --yes to pay without asking")
        if not terminal.confirm("Pay this?"):
            terminal.tell("not paid")
            return EXIT_FAILED
    done = counter.ask(args.home, "WalletPay", asked, counter.PAY_SECS)
    _show(args, done, _paid)
    return EXIT_OK if done["state"] == "succeeded" else EXIT_FAILED


def _read_out(asked: dict[str, Any]) -> None:
    """Show the invoice, on stderr. Raises Refused for what would not be paid anyway."""
    from pylon.wallets.payer import decoded     # late: brings the curve along
    invoice = decoded(asked["bolt11"])
    if invoice.amount_msats is None:
        raise Refused("no-amount", "the invoice names no amount; such invoices are never paid")
    left = invoice.expires_at - int(time.time())
    terminal.tell(f"network      {invoice.network}")
    terminal.tell(f"amount       {format_sats(invoice.amount_msats)}")
    terminal.tell(f"description  {_printable(invoice.description or '(only its hash)')}")
    terminal.tell("expires      " + (f"in {format_duration(left)}" if left > 0 else "EXPIRED"))
    terminal.tell(f"payee        {invoice.payee}")
    terminal.tell(f"hash         {invoice.payment_hash}")
    if invoice.amount_msats > asked.get("max_msats", invoice.amount_msats):
        raise Refused("amount-too-large", "the invoice asks for more than --max-sats allows")


def _printable(text: str) -> str:
    """A stranger's text without what could move the cursor or hide the rest."""
    return "".join(char if char.isprintable() else "?" for char in text)[:300]


def _paid(done: dict[str, Any]) -> None:
    if done["state"] == "succeeded":
        terminal.say(f"paid {format_sats(done['amount_msats'])}, fee "
                     f"{format_sats(done['fee_msats'] or 0)}")
    elif done["state"] == "failed":
        terminal.tell(f"pylon: not paid: {done['reason']}")
    else:
        terminal.tell("pylon: the wallet does not say yet how it ended; the money stays reserved "
                      "and nothing is paid twice; see: pylon wallet status")


def _resolve(args: argparse.Namespace) -> int:
    question = ("Book it as paid?" if args.paid else "Is it certain that it failed? If it is paid "
                "after all, that money is lost to the books.")
    if not args.yes and not terminal.confirm(question):
        raise UsageError("nothing was done; say yes at the question, or --yes")
    answer = counter.ask(args.home, "WalletResolve", {
        "payment_hash": args.hash, "preimage": args.paid or "",
        "fee_msats": parse_sats(args.fee_sats)})
    _show(args, answer, lambda row: terminal.say(f"{row['payment_hash'][:16]}: {row['state']}"))
    return EXIT_OK


def _freezing(on: bool) -> Callable[[argparse.Namespace], int]:
    def action(args: argparse.Namespace) -> int:
        answer = counter.ask(args.home, "WalletStopSpending", {"on": on})
        _show(args, answer, lambda now: terminal.say(
            "no spending: " + ", ".join(now["spending_stopped"]) if now["spending_stopped"]
            else "spending is allowed"))
        return EXIT_OK
    return action


def _count(text: str, what: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is not a number") from None


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "balance": _asked("WalletBalance", _balance), "status": _asked("WalletStatus", _status),
    "address": _asked("WalletAddress", _address), "invoice": _invoice, "pay": _pay,
    "history": _history, "fund": _fund, "whoami": _whoami, "audit": _audit,
    "freeze": _freezing(True), "unfreeze": _freezing(False), "resolve": _resolve,
    "connect": wallet_connect.run,
}
