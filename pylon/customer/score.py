"""What our own history says about a provider, in numbers that explain themselves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pylon.store.providers import History
from pylon.units import format_sats

UNKNOWN_SECS = 30.0                 # how long we expect a provider to take that we never met
FORGIVEN_PER_LOSS = 10              # deliveries that outweigh one payment without a delivery
RELIABLE_POINTS, FAST_POINTS, ALIVE_POINTS, LOSS_POINTS = 60, 20, 20, 200


@dataclass(frozen=True, slots=True)
class Score:
    """Points, and the sentences that they are the sum of."""

    points: int
    reasons: list[tuple[int, str]]
    avoided: bool


def reliability(history: History) -> float:
    """0 to 1: how sure a delivery is; 0.5 for a stranger."""
    return (history.delivered + 1) / (history.delivered + history.failed + 2)


def expected_secs(history: History) -> float:
    return history.mean_secs if history.mean_secs is not None else UNKNOWN_SECS


def avoided(history: History) -> bool:
    """It took money and did not deliver, and has not made up for it."""
    return history.undelivered * FORGIVEN_PER_LOSS > history.delivered


def score(history: History, alive: bool | None) -> Score:
    """`alive`: its heartbeat is fresh; None where it was not looked at."""
    reasons = [_delivery_points(history), _speed_points(history)]
    if alive is not None:
        reasons.append((ALIVE_POINTS, "its heartbeat is fresh") if alive
                       else (0, "no fresh heartbeat"))
    if history.undelivered:
        reasons.append((-LOSS_POINTS, f"took {format_sats(history.lost_msats)} in "
                        f"{history.undelivered} orders and did not deliver"))
    return Score(sum(points for points, _ in reasons), reasons, avoided(history))


def _delivery_points(history: History) -> tuple[int, str]:
    points = round(RELIABLE_POINTS * reliability(history))
    if not history.delivered and not history.failed:
        return points, "nothing delivered to us yet"
    return points, f"delivered {history.delivered}, failed {history.failed} times"


def _speed_points(history: History) -> tuple[int, str]:
    points = round(FAST_POINTS / (1 + expected_secs(history) / UNKNOWN_SECS))
    if history.mean_secs is None:
        return points, "its speed is not known"
    return points, f"takes {history.mean_secs:.0f} s on average"
