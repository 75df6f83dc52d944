"""pylon compute: what could think for this node, here and in the market."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pylon import config as configuration
from pylon.backends.registry import Registry
from pylon.cli import terminal
from pylon.cli.terminal import printable
from pylon.control import client
from pylon.errors import EXIT_OK, ControlError, NotRunning
from pylon.home import Home
from pylon.units import format_duration

SWARM_SECS = 15.0                   # the daemon asks its relays, and waits for 3 s at most
TEXT_KIND = 5050
CLOUDS = (("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"),
          ("openrouter", "OPENROUTER_API_KEY"), ("google", "GOOGLE_API_KEY"))
_STATUS = ("uptime_secs", "jobs_completed", "provider_active", "host_active")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swarm", action="store_true",
                        help="also ask the relays who sells text generation (needs the daemon)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    registry = Registry(configuration.load(args.home), args.home)
    registry.refresh()
    registry.close()
    found = {"pylon": _node(args.home),
             "local_backends": [_backend(state) for state in registry.states()],
             "cloud_providers": [{"name": name} for name, key in CLOUDS if os.environ.get(key)],
             "swarm_providers": _swarm(args.home) if args.swarm else []}
    if args.json:
        terminal.print_json(found)
    else:
        _show(found, args.swarm)
    return EXIT_OK


def _node(home: Home) -> dict[str, Any]:
    try:
        status = client.call(home, "Status")
    except (NotRunning, ControlError):
        return {"running": False, "status": None}
    return {"running": True, "status": {key: status[key] for key in _STATUS}}


def _backend(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": state["id"], "type": state["type"], "available": state["available"],
            "endpoint": state["url"], "models": state["models"], "error": state["error"]}


def _swarm(home: Home) -> list[dict[str, Any]]:
    """Raises NotRunning, ControlError."""
    answer = client.call(home, "Providers", {"kind": TEXT_KIND, "all": False}, SWARM_SECS)
    return [{"pubkey": one["pubkey"], "name": one["name"], "price_msats": one["price_msats"],
             "supported_kinds": one["kinds"]} for one in answer["providers"]]


def _show(found: dict[str, Any], swarm: bool) -> None:
    status = found["pylon"]["status"]
    terminal.say("Daemon:    " + (f"running for {format_duration(status['uptime_secs'])}, "
                                  f"{status['jobs_completed']} jobs completed" if status else
                                  "not running"))
    terminal.say("Backends:" if found["local_backends"] else
                 "Backends:  none (backend_preference is empty)")
    for one in found["local_backends"]:
        terminal.say(f"  {one['name']:<10} " + (
            f"{one['endpoint']}  {', '.join(one['models']) or 'no models'}" if one["available"]
            else f"not available: {one['error']}"))
    clouds = [one["name"] for one in found["cloud_providers"]]
    if clouds:
        terminal.say(f"Clouds:    keys for {', '.join(clouds)} are in the environment; none is "
                     "used unless [backends.NAME] says so")
    for number, one in enumerate(found["swarm_providers"]):
        terminal.say(("Market:    " if number == 0 else " " * 11) +
                     f"{one['pubkey'][:16]}  {printable(one['name'])}")
    if swarm and not found["swarm_providers"]:
        terminal.say("Market:    nobody sells text generation now")
