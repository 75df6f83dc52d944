"""A7 and A8: the daemon dies in the middle of a tick."""

import time

import pytest

from pylon import failpoints
from pylon.failpoints import FailpointReached
from pylon.store import agents
from pylon.wallets import bolt11
from tests.host.test_end_to_end import WORDS
from tests.waiting import wait_for


def die_at(table, point):
    failpoints._armed = failpoints._Armed(f"{point}:raise")
    try:
        with pytest.raises(FailpointReached):
            table.tick("mention")
    finally:
        failpoints._armed = None


@pytest.mark.parametrize("point", ["A7", "A8", "A2", "A3", "A4"])
def test_a_tick_that_was_cut_off_is_counted_once_and_pays_at_most_once(table, point):
    made = table.stranger.make_invoice(300_000, "bill", 3600, "b")
    table.set(allow=[f"node:{bolt11.decode(made.bolt11).payee}"], per_tick_limit_sats=400,
              daily_limit_sats=400)
    table.runner("obeys.py")
    table.hear(made.bolt11)
    die_at(table, point)
    assert agents.interrupt_ticks(table.db, int(time.time())) == 1
    assert not agents.waiting_triggers(table.db, table.agent.npub)      # it wakes nobody twice
    table.hear(made.bolt11)
    table.hear(table.stranger.make_invoice(300_000, "more", 3600, "c").bolt11)
    row = table.tick("mention")
    assert row["tick_number"] == 2 and table.paid() <= 400_000
    assert table.stranger.balance() <= 300_000


def test_sigkill_in_a_tick_leaves_it_interrupted_and_counted(world):
    node, relay, model = world
    node.run("agent", "spawn", "-n", "scribe", "--heartbeat", "1h")
    node.run("agent", "fund", "scribe", "20000")
    node.stop()
    node.start(PYLON_FAILPOINT="A8:kill")
    node.run("agent", "tick", "scribe", check=False)
    assert node.ended() == -9
    node.start()
    node.run("agent", "tick", "scribe")
    ticks = node.json("agent", "history", "scribe")["ticks"]
    assert [(one["tick_number"], one["state"]) for one in ticks] == [
        (2, "succeeded"), (1, "interrupted")]
    assert node.json("wallet", "audit")["clean"]
    wait_for(lambda: node.status()["host"]["ticking"] == 0, 5)


def test_words_may_be_the_agents_own_and_are_shown_nowhere(world):
    node, relay, model = world
    made = node.run("agent", "spawn", "-n", "old", "--import", "--json", text_in=WORDS)
    shown = made.stdout + node.run("agent", "list", "--json").stdout + node.run(
        "agent", "info", "old", "--json").stdout + node.log.read_text()
    assert "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu" in shown
    assert "leader monkey" not in shown
