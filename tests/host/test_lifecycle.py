"""Balance and burn decide a life; the scheduler turns it into ticks, step by step."""

import time
from collections import deque

import pytest

from pylon.host import lifecycle
from pylon.host.agentfile import AgentFile, parse, render
from pylon.host.lifecycle import Runway, state_for
from pylon.host.scheduler import Scheduler
from pylon.states import AgentState, TickState
from pylon.store import agents, books

FILE = AgentFile("scribe", "a" * 64, "npub1", "words")


@pytest.mark.parametrize("sats, state", [(7000, "active"), (6000, "low_balance"),
                                         (500, "hibernating"), (0, "dormant")])
def test_the_first_pylons_numbers(sats, state):
    assert state_for(FILE, Runway(sats * 1000, 1000 * 1000, False)) == state


def test_burn_is_measured_after_a_day():
    assert lifecycle.burn(FILE, 50_000, 3600) == (1_000_000, False)
    assert lifecycle.burn(FILE, 700_000, 30 * 86400) == (100_000, True)
    assert Runway(940_000, 100_000, True).words() == "9.4 days left at 100 sats a day"
    assert Runway(1, 0, True).words() == "lasts for ever: it spends nothing"


def test_what_may_wake_whom():
    for state, trigger, may in ((AgentState.ACTIVE, "mention", True),
                                (AgentState.HIBERNATING, "mention", False),
                                (AgentState.HIBERNATING, "zap", True),
                                (AgentState.HIBERNATING, "manual", True),
                                (AgentState.DORMANT, "manual", False),
                                (AgentState.DORMANT, "heartbeat", False)):
        assert lifecycle.may_wake(FILE, state, trigger) == may
    assert lifecycle.heartbeat_secs(FILE, AgentState.LOW_BALANCE) == 1800


def test_a_file_is_read_back_and_old_forms_are_read(table):
    agent = table.agent
    assert parse(render(agent), "x") == agent
    old = parse(f'name = "Old"\nnpub = "{agent.npub}"\nmnemonic_encrypted = "a b c"\n'
                '[network]\nbitcoin = "regtest"\n[relays]\nurls = ["wss://relay.example"]\n'
                '[profile]\nautonomy = "full"\n[schedule]\ntriggers = ["reply", "zap"]\n', "x")
    assert (old.network, old.relays, old.autonomy, old.triggers) == (
        "regtest", ["wss://relay.example"], "autonomous", ["mention", "zap"])


class Clock:
    secs = 1000.0

    def __call__(self):
        return self.secs


@pytest.fixture
def turn(table):
    clock, errands = Clock(), deque()
    scheduler = Scheduler(table.db, table.registry, errands, lambda: None, lambda: True, clock,
                          lambda: 0.5)
    scheduler.wait = lambda secs: None

    def step(secs=0.0):
        clock.secs += secs
        scheduler.step(int(time.time()))
        return [errands.popleft() for _ in range(len(errands))]
    step.scheduler = scheduler
    return step


def test_heartbeats_come_one_interval_after_start_and_after_each_tick(table, turn):
    assert turn() == [] and turn(899) == []
    assert [one.trigger for one in turn(2)] == ["heartbeat"]
    assert turn(10_000) == []                               # it still runs
    turn.scheduler.ended(table.agent.npub, TickState.SUCCEEDED)
    assert turn(899) == [] and len(turn(2)) == 1


def test_triggers_that_come_together_are_one_tick(table, turn):
    turn()
    for text in ("one", "two", "three"):
        table.hear(text)
        turn.scheduler.heard(table.agent.npub)
    assert turn(1) == []
    assert [(one.trigger, len(one.rows)) for one in turn(2)] == [("mention", 3)]


def test_a_dormant_agent_sleeps_and_money_wakes_it(table, turn):
    agent = table.spawn("poor", sats=0)
    turn()
    assert agents.get(table.db, agent.npub).state == "dormant"
    heard = []
    turn.scheduler.wish(agent.npub, heard.append)
    assert turn() == [] and heard[0]["state"] == "refused"
    with table.db.transaction(durable=True) as tx:
        books.post(tx, "test", "x", {books.EXTERNAL: -90_000_000,
                                     books.agent_account(agent.npub): 90_000_000}, 0)
    turn.scheduler.look(agent.npub)
    turn()
    assert agents.get(table.db, agent.npub).state == "active"


def test_failures_wait_longer_and_end_in_quarantine_that_says_why(table, turn):
    turn()
    for n in range(1, 6):
        turn.scheduler.ended(table.agent.npub, TickState.FAILED)
        assert turn(50) == []
    row = agents.get(table.db, table.agent.npub)
    assert row.crashes == 5 and row.quarantined_until and "5 ticks in a row" in row.trouble
    turn.scheduler.wish(table.agent.npub, None)
    assert len(turn()) == 1                                 # the owner's word goes before
    turn.scheduler.ended(table.agent.npub, TickState.SUCCEEDED)
    assert agents.get(table.db, table.agent.npub).trouble is None


def test_a_paused_agent_is_left_alone(table, turn):
    with table.db.transaction(durable=False) as tx:
        agents.update(tx, table.agent.npub, 0, paused=1)
    table.hear("hello")
    turn.scheduler.heard(table.agent.npub)
    assert turn() == [] and turn(5000) == []
