"""G6: what a command costs beside starting Python at all."""

from __future__ import annotations


from collections.abc import Callable

from pylon.cli.commands import COMMANDS
from tests.bench.goal import Result, interleave, ratio
from tests.bench.installed import Installed
from tests.parts.relays import LocalRelay

ROUNDS = 21
FEWER_ROUNDS = 7
# How each command is asked for something harmless; the others are asked for their --help.
HARMLESS = {"config": ["show"], "logs": [], "status": ["--json"], "whoami": [], "earnings": [],
            "wallet": ["balance"], "owed": [], "agent": ["list"], "compute": [], "events": []}


def run() -> list[Result]:
    with LocalRelay() as relay, Installed(f'relays = ["{relay.url}"]\n') as node:
        python, pylon = node.bin / "python", node.bin / "pylon"

        def bare() -> float:
            return node.seconds(python, "-c", "pass")

        times = interleave(ROUNDS, bare=bare, status=lambda: node.seconds(pylon, "status"),
                           help=lambda: node.seconds(pylon, "--help"))
        bare_ms = min(times["bare"]) * 1e3
        results = [Result("G6", "pylon status, of python -c pass",
                          ratio(times["status"], times["bare"]), 1.25,
                          note=f"python: {bare_ms:.1f} ms"),
                   Result("G6", "pylon --help", ratio(times["help"], times["bare"]), 2.5)]
        return [*results, slowest(node, bare)]


def slowest(node: Installed, bare: Callable[[], float]) -> Result:
    """The slowest of all commands but the one that becomes the daemon."""
    ratios = {}
    for name, _ in COMMANDS:
        words = [name, *HARMLESS.get(name, ["--help"])]
        times = interleave(FEWER_ROUNDS, bare=bare,
                           ours=lambda: node.seconds(node.bin / "pylon", *words))
        ratios[" ".join(words)] = ratio(times["ours"], times["bare"])
    worst = sorted(ratios, key=lambda name: -ratios[name])
    note = ", ".join(f"{name} {ratios[name]:.1f}" for name in worst[:6])
    daemon = {name for name in ratios if name.split()[0] in ("start", "restart")}
    first = next(name for name in worst if name not in daemon)
    return Result("G6", f"the slowest command ({first})", ratios[first], 4.0, note=note)
