"""pylon demo: one job, from a stranger's order to the settled books, in a throw-away home."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from pylon.cli import terminal
from pylon.errors import EXIT_OK, PylonError
from pylon.units import parse_duration

if TYPE_CHECKING:
    from pylon.cli.demo_play import Play

OWN_HOME = True                     # the system's node has nothing to do with it
PROMPT = "What is the capital of France? Answer in one sentence."
# What a person would ask afterwards; each takes --json too.
BOOKS = ("wallet balance", "earnings", "wallet audit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--relay", metavar="URL", default="",
                        help="use this relay instead of one of the demo's own")
    parser.add_argument("--backend", metavar="URL", default="",
                        help="use this model server: Ollama, llama.cpp or OpenAI-compatible")
    parser.add_argument("--model", metavar="NAME", default="", help="use this model")
    parser.add_argument("--prompt", metavar="TEXT", default=PROMPT,
                        help="what the stranger asks (default: the capital of France)")
    parser.add_argument("--timeout", metavar="TIME", default="2m",
                        help="longest wait for the answer (default 2m)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from pylon.cli.demo_play import Play, Wishes    # late: --help needs none of a node
    from pylon.cli.demo_stage import Stage          # late: as above
    telling = Telling(quiet=args.json)
    wishes = Wishes(args.relay, args.backend, args.model, args.prompt,
                    parse_duration(args.timeout))
    facts: dict[str, Any] = {}
    try:
        with Stage() as stage:
            play = Play(stage, args.home, wishes, telling.tell)
            facts = play.facts
            play.perform()
            facts.update(_conclude(play, telling))
        status = EXIT_OK
    except PylonError as err:
        if not args.json:
            raise
        facts["error"], status = str(err), err.exit_status
    if args.json:
        terminal.print_json({"ok": status == EXIT_OK, **facts, "steps": telling.steps,
                             "total_secs": telling.secs()})
    else:
        terminal.say(f"\nAll of it took {telling.secs():.1f} s, and nothing of it is left here. "
                     "A node of your own: pylon init")
    return status


class Telling:
    """What happened when, told at once unless quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self.steps: list[dict[str, Any]] = []

    def secs(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def tell(self, step: str, text: str, **facts: Any) -> None:
        at = self.secs()
        self.steps.append({"at_secs": at, "step": step, "text": text, **facts})
        if not self._quiet:
            line = terminal.printable(" ".join(text.split()))
            terminal.mention(f"{at:7.2f} s  {terminal.colour(step.ljust(9), 'bold')}  {line}")

    def show(self, title: str, text: str) -> None:
        if not self._quiet:
            terminal.mention(f"\n{terminal.colour(title, 'bold')}")
            terminal.mention("\n".join(f"  {line}" for line in text.rstrip().splitlines()))


def _conclude(play: Play, telling: Telling) -> dict[str, Any]:
    """The answer, the node's own story of it, and its books; all but the answer are asked with the
    commands that are shown."""
    job_id = play.facts["job_id"]
    telling.show("The answer", terminal.printable(play.facts["answer"]))
    telling.show(f"$ pylon explain {job_id[:16]}", play.pylon("explain", job_id).stdout)
    books = {}
    for words in BOOKS if not play.free else ():
        telling.show(f"$ pylon {words}", play.pylon(*words.split()).stdout)
        books[words] = json.loads(play.pylon(*words.split(), "--json").stdout)
    story = json.loads(play.pylon("explain", job_id, "--json").stdout)["steps"]
    return {"story": story, "books": books}
