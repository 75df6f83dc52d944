"""Runners that sin, in the real cage: they reach nothing, and the host goes on."""

import json
import os
import socket
import time

import pytest

from pylon.host import cage
from tests.waiting import wait_for


def test_there_is_a_cage_on_this_machine():
    assert cage.probe() is None


def test_a_spy_reaches_no_file_no_socket_no_network_and_no_process(table):
    secrets = [table.home.database, table.home.identity, table.openagents / "ledger.db",
               table.home.agents / f"{table.agent.npub}.toml", "/etc/passwd", "/etc/shadow"]
    table.home.identity.write_text("words")
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(table.home.socket))
    control.listen()
    web = socket.create_server(("127.0.0.1", 0))
    table.goal(json.dumps({
        "files": [str(path) for path in secrets], "sockets": [str(table.home.socket)],
        "ports": [web.getsockname(), ["1.1.1.1", 443]], "pids": [os.getpid(), os.getppid()]}))
    table.runner("spy.py")
    row = table.tick()
    control.close()
    web.close()
    assert (row["state"], row["summary"]) == ("succeeded", "[]"), row["reason"]


@pytest.mark.parametrize("name, code", [
    ("exits_at_once.sh", "runner-exited"), ("half_a_line.sh", "runner-exited"),
    ("floods.py", "runner-flood"), ("eats_memory.py", "runner-exited")])
def test_g89_a_bad_runner_costs_its_own_tick(table, name, code):
    table.runner(name)
    row = table.tick()
    assert (row["state"], row["code"], row["tick_number"]) == ("failed", code, 1)
    assert table.tick()["tick_number"] == 2


def test_g89_a_fork_bomb_that_hangs_is_gone_after_its_deadline(table):
    table.runner("fork_bomb.py", timeout_secs=5)
    started = time.monotonic()
    assert table.tick()["code"] == "runner-timeout"
    assert time.monotonic() - started < 20
    wait_for(lambda: not any(map(is_runner, os.listdir("/proc"))), 5, "the end of the namespace")


def is_runner(pid):
    try:
        with open(f"/proc/{int(pid)}/cmdline", "rb") as file:
            return b"/opt/runner" in file.read()
    except (OSError, ValueError):
        return False


def test_g89_who_ignores_term_is_killed(table):
    table.runner("hangs.py", timeout_secs=5)
    assert table.tick()["code"] == "runner-timeout"


def test_a_disk_is_not_filled(table):
    table.runner("fills_disk.py")
    assert int(table.tick()["summary"]) < 60_000_000


def test_without_a_cage_only_the_built_in_runner_runs(table):
    table.runner("obeys.py")
    table.ticks._confined = False
    assert table.tick()["code"] == "config"
