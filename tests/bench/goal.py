"""What a measurement is: a ratio against a limit, taken in interleaved rounds.

On a shared machine absolute figures wander; so each thing is measured beside what it is compared
with, turn by turn, and the result is the median of the ratios of the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SLACK = 1.25                # a miss by less than this is named apart: machines differ


@dataclass(frozen=True)
class Result:
    """One line of the table. `at_least` says on which side of `limit` the goal lies."""

    goal: str               # G1..G12
    what: str
    measured: float
    limit: float
    at_least: bool = False
    unit: str = "x"
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.at_least:
            good, near = self.measured >= self.limit, self.measured * SLACK >= self.limit
        else:
            good, near = self.measured <= self.limit, self.measured <= self.limit * SLACK
        return "met" if good else "near" if near else "MISSED"


def interleave(rounds: int, **runs: Callable[[], float]) -> dict[str, list[float]]:
    """Call each of `runs` once per round, in turn; their figures by name."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def ratio(top: list[float], bottom: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(top, bottom))


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def table(results: list[Result]) -> str:
    """The results as people read them, in the order of the goals."""
    def number(result: Result, value: float) -> str:
        digits = 2 if value < 10 else 1 if value < 100 else 0
        return f"{value:.{digits}f} {result.unit}"
    lines = [("goal", "what", "measured", "limit", "verdict", "")]
    for one in sorted(results, key=lambda r: int(r.goal[1:])):
        sign = ">=" if one.at_least else "<="
        lines.append((one.goal, one.what, number(one, one.measured),
                      f"{sign} {number(one, one.limit)}", one.verdict, one.note))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[5]]).rstrip()
        for line in lines)
