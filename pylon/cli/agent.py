"""pylon agent: agents that live on this node, their money, their goals, and what they may do."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from pylon import config as configuration
from pylon.cli import counter, terminal
from pylon.control import client
from pylon.daemon import lockfile
from pylon.errors import EXIT_FAILED, EXIT_OK, NotRunning, PylonError, UsageError
from pylon.home import Home
from pylon.units import format_duration, format_sats, parse_count, parse_duration, parse_sats

TICK_SILENCE_SECS = 120.0
PAY_SECS = 180.0
Args = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    spawn = _add(actions, "spawn", "make a new agent", agent=False)
    spawn.add_argument("-n", "--name", metavar="NAME", required=True, help="its name")
    spawn.add_argument("--about", metavar="TEXT", help="who it is, in its own profile")
    spawn.add_argument("--autonomy", choices=("supervised", "bounded", "autonomous"),
                       help="what it may do without asking you")
    spawn.add_argument("--heartbeat", metavar="TIME", help="how often it wakes (default 15m)")
    spawn.add_argument("--trigger", action="append", choices=("mention", "dm"),
                       help="what else wakes it; may be given several times")
    spawn.add_argument("--relay", action="append", metavar="URL", help="a relay of its own")
    spawn.add_argument("--network", metavar="NETWORK", help="the Bitcoin network")
    spawn.add_argument("--runner", metavar="PROGRAM", help="the program that thinks for it")
    spawn.add_argument("--import", dest="import_", action="store_true",
                       help="take its 12 to 24 words from the first line of stdin")
    _add(actions, "list", "all agents", agent=False)
    _add(actions, "info", "everything about one agent")
    _add(actions, "start", "let it wake again, after a pause or in quarantine")
    _add(actions, "pause", "let it sleep until it is started again")
    _add(actions, "tick", "wake it now, and watch")
    fund = _add(actions, "fund", "give it money of yours")
    fund.add_argument("amount", metavar="AMOUNT", help="sats, or like 21000msats")
    withdraw = _add(actions, "withdraw", "take money back")
    withdraw.add_argument("amount", metavar="AMOUNT", help="sats, or 'all'")
    history = _add(actions, "history", "its last ticks")
    history.add_argument("-l", "--limit", metavar="N", default="10", help="how many (default 10)")
    setting = _add(actions, "set", "change one of its settings")
    setting.add_argument("key", metavar="KEY")
    setting.add_argument("value", metavar="VALUE")
    goal = _add(actions, "goal", "its goals")
    goal.add_argument("what", choices=("add", "list", "done"))
    goal.add_argument("text", metavar="TEXT", nargs="?", default="",
                      help="the goal, or for done its number")
    for name, text in (("allow", "let money and messages go to somebody"),
                       ("deny", "take somebody off that list")):
        one = _add(actions, name, text)
        one.add_argument("payee", metavar="PAYEE", help="an npub or a Lightning node's key")
    _add(actions, "approvals", "what waits for your word", agent=False)
    for name, text in (("approve", "let a waiting action be done"),
                       ("reject", "refuse a waiting action")):
        one = _add(actions, name, text, agent=False)
        one.add_argument("id", metavar="ID", help="the beginning or the end of its id")
    delete = _add(actions, "delete", "take it off this node; its money goes to you first")
    delete.add_argument("--confirm", metavar="NAME", help="its name again, instead of a question")


def _add(actions: Any, name: str, text: str, agent: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if agent:
        parser.add_argument("agent", metavar="AGENT", help="its name or npub")
    return parser


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


# ---- asking -------------------------------------------------------------------------------------

def _ask(home: Home, name: str, args: Args, timeout_secs: float = counter.ASK_SECS) -> Args:
    """The daemon, or, where none runs, the same function under the home's lock."""
    try:
        return dict(client.call(home, name, {**args, "request_id": secrets.token_hex(16)},
                                timeout_secs))
    except NotRunning:
        return _directly(home, name, args)


def _directly(home: Home, name: str, args: Args) -> Args:
    from pylon import identity                      # late: a daemon mostly answers
    from pylon.host import desk                     # late: as above
    from pylon.host.registry import Registry        # late: as above
    from pylon.store.database import Database       # late: as above
    if not home.exists():
        raise PylonError(f"{home.root} does not exist; make a node with: pylon init")
    home.check()
    place = configuration.identity_path(home, configuration.load(home))
    keys = None
    sealed = place.exists() and place.read_bytes().startswith(identity.SEALED_MARK.encode())
    with lockfile.hold(home, f"pylon agent ({name})"):
        db = Database(home.database, home.backups)
        try:
            at = desk.Desk(db, Registry(home, keys, sealed))
            return desk.HANDLERS[name](at, args)
        finally:
            db.close()


def _show(args: argparse.Namespace, answer: Args, show: Callable[[Args], None]) -> int:
    if args.json:
        terminal.print_json(answer)
    else:
        show(answer)
    return EXIT_OK


# ---- the actions --------------------------------------------------------------------------------

def _spawn(args: argparse.Namespace) -> int:
    settings = {"about": args.about, "autonomy": args.autonomy, "triggers": args.trigger,
                "relays": args.relay, "runner": args.runner,
                "network": args.network or configuration.load(args.home).network,
                "heartbeat_seconds": parse_duration(args.heartbeat) if args.heartbeat else None}
    wish: Args = {"name": args.name,
                  "settings": {key: value for key, value in settings.items() if value is not None}}
    if args.import_:
        line = sys.stdin.readline(2000) if sys.stdin else ""
        if not line.strip():
            raise UsageError("no words came in; pipe them in on one line")
        wish["words"] = line.strip()
    made = _ask(args.home, "AgentSpawn", wish)
    return _show(args, made, lambda one: terminal.say(
        f"{one['name']}: {one['npub']}\nIt has no money yet and sleeps: "
        f"pylon agent fund '{one['name']}' 10000"))


def _list(args: argparse.Namespace) -> int:
    found = _ask(args.home, "AgentList", {})
    if found.get("trouble"):
        terminal.tell(f"pylon: {found['trouble']}")
    for name, why in found["broken"].items():
        terminal.tell(f"pylon: {name}: {why}")
    return _show(args, found, _print_list)


def _print_list(found: Args) -> None:
    if not found["agents"]:
        terminal.say("there are no agents; make one with: pylon agent spawn -n NAME")
        return
    terminal.say(terminal.table(("NAME", "STATE", "BALANCE", "TICKS", "NEXT", "RUNWAY"), [
        (one["name"], _state(one), format_sats(one["balance_msats"]), one["ticks"],
         _next(one), one["runway"]) for one in found["agents"]]))


def _state(one: Args) -> str:
    if one["quarantined_until"]:
        return "quarantined"
    return "paused" if one["paused"] else "ticking" if one["ticking"] else str(one["state"])


def _next(one: Args) -> str:
    if not one["next_tick_at"]:
        return "-"
    return "in " + format_duration(max(0, one["next_tick_at"] - int(time.time())))


def _info(args: argparse.Namespace) -> int:
    return _show(args, _ask(args.home, "AgentInfo", {"agent": args.agent}), _print_info)


def _print_info(one: Args) -> None:
    terminal.say(f"{one['name']}  {one['npub']}")
    terminal.say(f"state: {_state(one)}; {format_sats(one['balance_msats'])}; {one['runway']}")
    terminal.say(f"ticks: {one['ticks']}; next: {_next(one)}; memories: {one['memories']}")
    if one["trouble"]:
        terminal.say(f"trouble: {terminal.printable(one['trouble'])}; go on with: pylon agent "
                     f"start '{one['name']}'")
    for number, goal in enumerate(one["goals"], 1):
        terminal.say(f"goal {number}: {terminal.printable(goal['description'])} "
                     f"({goal['status']})")
    for wish in one["approvals"]:
        _print_approval(wish)
    for key, value in one["settings"].items():
        shown = ", ".join(value) if isinstance(value, list) else value
        terminal.say(f"  {key} = {shown}")


def _approvals(args: argparse.Namespace) -> int:
    def show(found: Args) -> None:
        for one in found["approvals"]:
            _print_approval(one)
        if not found["approvals"]:
            terminal.say("nothing waits")
    return _show(args, _ask(args.home, "AgentApprovals", {}), show)


def _print_approval(one: Args) -> None:
    left = format_duration(max(0, one["expires_at"] - int(time.time())))
    terminal.say(f"waits for your word, {left} more: {one['id']}\n    "
                 f"{terminal.printable(str(one['action']))}")


def _decide(args: argparse.Namespace) -> int:
    name = "AgentApprove" if args.action == "approve" else "AgentReject"
    done = _ask(args.home, name, {"id": args.id}, PAY_SECS)
    _show(args, done, lambda one: terminal.say(f"{one['id']}: {one['outcome']}"
                                               + (f": {one['message']}" if "message" in one
                                                  else "")))
    return EXIT_FAILED if done["outcome"] == "failed" else EXIT_OK


def _tick(args: argparse.Namespace) -> int:
    last: Args = {}
    try:
        for update in client.stream(args.home, "AgentTick", {"agent": args.agent},
                                    TICK_SILENCE_SECS):
            if update is None:
                continue
            last = update
            if args.json:
                terminal.print_json(update)
            else:
                _print_update(update)
    except NotRunning:
        raise NotRunning("a tick needs the running daemon: pylon start") from None
    return EXIT_OK if last.get("state") == "succeeded" else EXIT_FAILED


def _print_update(one: Args) -> None:
    facts = " ".join(f"{key}={value}" for key, value in one.items()
                     if key != "event" and value not in (None, ""))
    terminal.say(terminal.printable(f"{one['event']:9} {facts}"))


def _money(args: argparse.Namespace) -> int:
    wish: Args = {"agent": args.agent, "key": secrets.token_hex(16)}
    if args.action == "withdraw" and args.amount == "all":
        wish["all"] = True
    else:
        wish["amount_msats"] = parse_sats(args.amount)
    done = _ask(args.home, "AgentFund" if args.action == "fund" else "AgentWithdraw", wish)
    return _show(args, done, lambda one: terminal.say(
        f"{format_sats(one['moved_msats'])} moved; {one['name']} has "
        f"{format_sats(one['balance_msats'])}: {one['runway']}"))


def _history(args: argparse.Namespace) -> int:
    try:
        limit = parse_count(args.limit)
    except ValueError:
        raise UsageError(f"--limit {args.limit!r} is not a number") from None

    def show(found: Args) -> None:
        rows = [(one["tick_id"], one["trigger"], one["state"], format_sats(one["cost_msats"]),
                 ",".join(f"{a['type']}:{a['outcome']}" for a in one["actions"]) or "-",
                 terminal.printable(one["reason"] or one["summary"] or ""))
                for one in found["ticks"]]
        terminal.say(terminal.table(("TICK", "WHY", "STATE", "COST", "ACTIONS", "SUMMARY"), rows)
                     if rows else "no ticks yet")
    return _show(args, _ask(args.home, "AgentHistory", {"agent": args.agent, "limit": limit}),
                 show)


def _set(args: argparse.Namespace) -> int:
    done = _ask(args.home, "AgentSet", {"agent": args.agent, "key": args.key,
                                        "value": args.value})
    return _show(args, done, lambda one: terminal.say(
        f"{args.key} = {one['settings'][args.key]}"))


def _goal(args: argparse.Namespace) -> int:
    done = _ask(args.home, "AgentGoal", {"agent": args.agent, "what": args.what,
                                         "text": args.text, "goal": args.text})

    def show(found: Args) -> None:
        for number, one in enumerate(found["goals"], 1):
            terminal.say(f"{number}. {terminal.printable(one['description'])} ({one['status']})")
        if not found["goals"]:
            terminal.say("it has no goals")
    return _show(args, done, show)


def _allow(args: argparse.Namespace) -> int:
    done = _ask(args.home, "AgentAllow", {"agent": args.agent, "payee": args.payee,
                                          "deny": args.action == "deny"})
    return _show(args, done, lambda one: terminal.say(
        "\n".join(one["settings"]["allow"]) or "nobody is on the list"))


def _pause(args: argparse.Namespace) -> int:
    done = _ask(args.home, "AgentPause", {"agent": args.agent, "on": args.action == "pause"})
    return _show(args, done, lambda one: terminal.say(f"{one['name']}: {_state(one)}"))


def _delete(args: argparse.Namespace) -> int:
    one = _ask(args.home, "AgentInfo", {"agent": args.agent})
    word = args.confirm
    if word is None and terminal.can_ask():
        terminal.tell(f"Type {one['name']!r} to delete it: ")
        word = sys.stdin.readline().strip()
    done = _ask(args.home, "AgentDelete", {"agent": one["npub"], "confirm": word or ""})
    return _show(args, done, lambda gone: terminal.say(
        f"deleted; {format_sats(gone['returned_msats'])} went back to you; its file is kept as "
        f"{gone['kept']}"))


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "spawn": _spawn, "list": _list, "info": _info, "start": _pause, "pause": _pause,
    "tick": _tick, "fund": _money, "withdraw": _money, "history": _history, "set": _set,
    "goal": _goal, "allow": _allow, "deny": _allow, "approvals": _approvals,
    "approve": _decide, "reject": _decide, "delete": _delete}
