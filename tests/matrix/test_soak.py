"""The soak: cycles of paid jobs with a SIGKILL at a random moment of each; nothing lost or doubled.

PYLON_SOAK_CYCLES x PYLON_SOAK_JOBS; `make soak` runs 250 x 20 = 5,000 jobs, CI runs 20 x 20.
PYLON_SOAK_SEED repeats a run's moments.
"""

from __future__ import annotations

import os
import random
import threading

import pytest

from tests.matrix.world import World
from tests.waiting import wait_for

CYCLES = int(os.environ.get("PYLON_SOAK_CYCLES", "20"))
JOBS = int(os.environ.get("PYLON_SOAK_JOBS", "20"))
SEED = int(os.environ.get("PYLON_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
LONGEST_LIFE_SECS = 1.5             # after the jobs were sent

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(90 + CYCLES * 30)]


@pytest.mark.parametrize("escrow", ["off", "on"])
def test_random_kills_lose_and_double_nothing(openagents, escrow):
    chance = random.Random(SEED + (escrow == "on"))
    cycles = max(1, CYCLES // 2)
    with World(openagents, escrow) as world:
        jobs: list[str] = []
        for _ in range(cycles):
            world.start()
            wait_for(world.connected, 30, "the relay")
            jobs += [world.order(f"job {len(jobs)} {n}") for n in range(JOBS)]
            threading.Event().wait(chance.random() * LONGEST_LIFE_SECS)     # the moment of fate
            world.node.kill()
        world.start()
        wait_for(lambda: world.settled(jobs), 60 + cycles, "every job to end")
        world.node.stop()
        assert world.verdict() == [], f"seed {SEED}\n{world.node.tail()}"
        stages = list(world.stages().values())
        good = stages.count("settled") + stages.count("delivered")
        print(f"seed {SEED}, escrow {escrow}: {len(jobs)} jobs, {cycles} kills, {good} delivered")
        assert len(jobs) == cycles * JOBS == len(stages)
