"""The daemon as a process, from outside: promises 8 to 12, RELIABILITY H and P15 to P22."""

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pylon.control import client
from pylon.daemon import lockfile
from tests.daemon.conftest import OFFLINE
from tests.node import ROOT, Node

STEPS = ("take_lock", "open_log", "settle_in", "open_store", "bind_socket", "write_pid")


def left_behind(home):
    return [path.name for path in (home.socket, home.pid) if path.exists()] + \
        (["lock"] if lockfile.is_held(home) else [])


def status_of(pid, field):
    text = Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)[1]


def gone(pid):
    """Ended; an init that is slow to reap leaves a zombie."""
    try:
        return status_of(pid, "State").startswith("Z")
    except FileNotFoundError:
        return True


def started(node):
    """Start in the background; the daemon's pid."""
    node.run("start")
    return client.daemon_pid(node.home)


# ---- start --------------------------------------------------------------------------------------

def test_p11_start_returns_0_when_the_daemon_answers(node, pylon):
    done = node.run("start")
    assert "pylon is running (pid " in done.stdout
    assert pylon("status")[1].startswith("Daemon:    running")
    known = node.json("status")["daemon"]
    assert known["pid"] == client.daemon_pid(node.home) == int(node.home.pid.read_text())
    assert known["running"] and known["provider_active"] and known["host_active"]


@pytest.mark.parametrize("mode, provider, host", [("provider", True, False),
                                                  ("host", False, True)])
def test_modes(node, mode, provider, host):
    node.run("start", "-m", mode)
    answer = client.call(node.home, "Status")
    assert (answer["provider_active"], answer["host_active"]) == (provider, host)


def test_p10_a_second_start_says_so_and_exits_0(node):
    pid = started(node)
    done = node.run("start")
    assert done.stdout == f"pylon is already running (pid {pid})\n"
    assert node.run("start", "-f").stdout == done.stdout
    assert client.daemon_pid(node.home) == pid


def test_p10_h96_parallel_starts_make_one_daemon_and_all_tell_the_truth(node):
    racers = [subprocess.Popen(node._command("start"), env=node._env({}), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE) for _ in range(8)]
    outcomes = [(racer.communicate(timeout=100), racer.returncode) for racer in racers]
    assert {code for _, code in outcomes} == {0}, outcomes
    assert sum("pylon is running" in out for (out, _), _ in outcomes) == 1
    assert client.answers(node.home)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_p10_h96_two_hundred_parallel_starts_in_many_rounds(node):
    for _ in range(5):
        racers = [subprocess.Popen(node._command("start"), env=node._env({}), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL) for _ in range(200)]
        texts = [racer.communicate(timeout=300)[0] for racer in racers]
        assert sum("pylon is running" in text for text in texts) == 1
        assert {racer.returncode for racer in racers} == {0}
        node.run("stop")


@pytest.mark.parametrize("step, action", [*((step, "raise") for step in STEPS),
                                          ("open_store", "enospc"), ("write_pid", "eio")])
def test_p11_a_failing_step_is_told_and_leaves_nothing(node, step, action):
    done = node.run("start", check=False, PYLON_FAILPOINT=f"start-{step}:{action}")
    assert done.returncode == 1
    assert re.search(f"^pylon: .*({step}|full|put/output)", done.stderr), done.stderr
    assert "is running" not in done.stdout and left_behind(node.home) == []


def test_p11_a_daemon_that_dies_while_starting_is_told_and_never_in_the_way(node):
    for step in ("take_lock", "bind_socket", "write_pid"):
        done = node.run("start", check=False, PYLON_FAILPOINT=f"start-{step}:kill")
        assert done.returncode == 1 and "died before it was ready" in done.stderr
        assert not lockfile.is_held(node.home)
    assert node.run("start").returncode == 0


def test_p11_a_wrong_configuration_is_78_and_named(node):
    node.configure("relays = []\nnam = 'x'\n")
    done = node.run("start", check=False)
    assert done.returncode == 78
    assert done.stderr.startswith(f"pylon: {node.home.config}:2: unknown key nam")


def test_p11_no_identity_is_78(openagents):
    done = Node(openagents, "").run("start", check=False)
    assert done.returncode == 78 and "pylon init" in done.stderr
    assert not (openagents / "pylon").exists()


def test_p11_a_damaged_store_is_70_and_never_recreated(node):
    node.run("start")
    node.run("stop")
    data = bytearray(node.home.database.read_bytes())
    data[100:3000] = os.urandom(2900)
    node.home.database.write_bytes(data)
    done = node.run("start", check=False)
    assert done.returncode == 70 and "damaged" in done.stderr, done.stderr
    assert node.home.database.read_bytes() == data and left_behind(node.home) == []


def test_p11_a_newer_store_is_70_by_name(node):
    node.run("start")
    node.run("stop")
    with sqlite3.connect(node.home.database) as db:
        db.execute("INSERT INTO migrations(name) VALUES ('999_from_the_future')")
    db.close()
    done = node.run("start", check=False)
    assert done.returncode == 70 and "999_from_the_future" in done.stderr


@pytest.mark.parametrize("spoil, told", [
    (lambda home: home.root.chmod(0o777), "chmod 0700"),
    (lambda home: home.identity.chmod(0o644), "chmod 0600"),
    (lambda home: home.database.symlink_to("/nonexistent"), "symbolic link")])
def test_h94_a_loose_home_refuses_to_start(node, spoil, told):
    """tests/test_home.py has every place."""
    spoil(node.home)
    done = node.run("start", check=False)
    assert done.returncode == 78 and told in done.stderr and left_behind(node.home) == []


def test_h94_a_socket_that_is_a_link_is_replaced_not_followed(node, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    node.home.socket.symlink_to(victim)
    node.run("start")
    assert victim.read_text() == "keep me" and stat.S_ISSOCK(node.home.socket.lstat().st_mode)


def test_h92_an_over_long_home_is_a_clear_error(openagents):
    node = Node(openagents, OFFLINE, "x" * 100)
    done = node.run("init", check=False)
    assert done.returncode == 78 and "too long for a socket" in done.stderr


def test_a_termination_while_starting_ends_the_start(node):
    """The signal is noticed between two steps; nothing is left."""
    daemon = subprocess.Popen([sys.executable, "-c", START_AND_TERM, str(node.home.root)],
                              cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _, err = daemon.communicate(timeout=30)
    assert daemon.returncode == 0 and "stopped by a signal" in err
    assert left_behind(node.home) == []


def test_p11_a_daemon_that_still_starts_does_not_pass_for_one_that_runs(node, wait_for):
    """Its socket is there early, and says so to everybody."""
    slow_start = subprocess.Popen([sys.executable, "-c", START_SLOWLY, str(node.home.root)],
                                  cwd=ROOT, stdin=subprocess.PIPE)
    wait_for(node.home.socket.exists)
    assert not client.answers(node.home)
    done = node.run("status", check=False)
    assert done.returncode == 4 and "still starting" in done.stderr
    slow_start.stdin.close()
    wait_for(lambda: client.answers(node.home))
    slow_start.terminate()
    assert slow_start.wait(20) == 0


START_SLOWLY = """
import sys
from tests.daemon import slow_daemon

class Slow(slow_daemon.SlowDaemon):
    def more_steps(self):
        def wait_for_the_test():
            sys.stdin.read()
        return (wait_for_the_test,)

slow_daemon.SlowDaemon = Slow
sys.exit(slow_daemon.main(sys.argv[1], "0"))
"""


START_AND_TERM = """
import os, signal, sys
from tests.daemon import slow_daemon

class Term(slow_daemon.SlowDaemon):
    def more_steps(self):
        def send_term():
            os.kill(os.getpid(), signal.SIGTERM)
        return (send_term,)

slow_daemon.SlowDaemon = Term
sys.exit(slow_daemon.main(sys.argv[1], "0"))
"""


# ---- the process --------------------------------------------------------------------------------

def test_the_daemon_is_cut_loose_from_its_starter(node):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    subprocess.run(node._command("start"), env=node._env({}), close_fds=False, check=True,
                   stdout=subprocess.DEVNULL, timeout=60)
    os.close(write)
    assert os.read(read, 1) == b"", "the daemon holds a descriptor that is none of its business"
    os.close(read)
    pid = client.daemon_pid(node.home)
    stat_line = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert stat_line[1] == "1" or int(stat_line[1]) != os.getpid()
    assert int(stat_line[3]) != pid, "a session leader could get a controlling terminal again"
    assert stat_line[4] == "0", "no controlling terminal"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/2") == str(node.home.log)


def test_p9_nothing_is_readable_by_others_under_umask_0(openagents):
    node = Node(openagents, OFFLINE)
    before = os.umask(0)
    try:
        node.run("init")
        node.configure(OFFLINE)
        node.run("start")
    finally:
        os.umask(before)
    loose = [path for path in [node.home.root, *node.home.root.rglob("*")]
             if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink()]
    assert loose == [] and status_of(client.daemon_pid(node.home), "Umask") == "0077"
    node.run("stop")


def test_p9_no_core_dump_and_no_look_into_the_daemon(openagents):
    """Another process of the same user may not read its environment, memory or descriptors."""
    openagents.chmod(0o777)
    root = openagents / "of-nobody"
    base = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    env = {**os.environ, "HOME": str(openagents), "OPENAGENTS_HOME": str(root)}
    command = [*base, sys.executable, str(ROOT / "pylon.py")]
    subprocess.run([*command, "init"], env=env, check=True, capture_output=True, timeout=60)
    (root / "pylon" / "config.toml").write_text(OFFLINE)
    subprocess.run([*command, "start"], env=env, check=True, capture_output=True, timeout=60)
    pid = int((root / "pylon" / "pylon.pid").read_text())
    try:
        for tool, name in (("cat", "environ"), ("cat", "mem"), ("cat", "maps"), ("ls", "fd")):
            peek = subprocess.run([*base, tool, f"/proc/{pid}/{name}"], capture_output=True,
                                  timeout=20)
            assert peek.returncode and not peek.stdout, name
        assert re.search(r"Max core file size\s+0\s+0", Path(f"/proc/{pid}/limits").read_text())
    finally:
        subprocess.run([*command, "stop"], env=env, check=True, capture_output=True, timeout=60)


def test_p9_no_secret_in_arguments_environment_log_or_answers(node):
    words = node.home.identity.read_text()
    pid = started(node)
    node.run("reload")
    seen = [Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes(),
            node.home.log.read_bytes(), node.run("status", "--json").stdout.encode(),
            node.run("config", "show").stdout.encode(), node.run("whoami").stdout.encode(),
            node.home.database.read_bytes(),
            node.home.database.with_name("pylon.db-wal").read_bytes()]
    for text in seen:
        assert words.encode() not in text and b"nsec1" not in text


def test_g8_an_idle_daemon_sleeps(node, wait_for):
    pid = started(node)

    def switches():
        return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)[1])
                   for text in (path.read_text() for path in
                                Path(f"/proc/{pid}/task").glob("*/status")))
    calm_since = [time.monotonic(), switches()]

    def is_calm():
        if switches() > calm_since[1] + 2:
            calm_since[:] = [time.monotonic(), switches()]
        return time.monotonic() - calm_since[0] > 2
    wait_for(is_calm, 15)


# ---- stop ---------------------------------------------------------------------------------------

def test_p12_stop_ends_it_and_leaves_nothing(node):
    pid = started(node)
    done = node.run("stop")
    assert done.stdout == "pylon has stopped\n" and left_behind(node.home) == []
    assert gone(pid)


def test_stopping_what_does_not_run_is_0(node):
    assert node.run("stop").stdout == "pylon is not running\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_p12_signals_stop_it_gracefully(node, number):
    node.start()
    node.daemon.send_signal(number)
    assert node.ended() == 0 and left_behind(node.home) == []
    assert "pylon is down" in node.tail()


def test_p12_a_hung_daemon_is_killed_within_the_bound(node):
    pid = started(node)
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    done = node.run("stop", "-t", "1", timeout_secs=60)
    assert time.monotonic() - begun < 20
    assert "was killed" in done.stdout and left_behind(node.home) == []


def test_force_kills_at_once(node):
    pid = started(node)
    assert "killed" in node.run("stop", "-f").stdout
    assert gone(pid) and left_behind(node.home) == []


def slow(node, secs, *deaf):
    node.daemon = subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.slow_daemon", str(node.home.root), str(secs), *deaf],
        cwd=ROOT, env=node._env({}), stderr=open(node.log, "a"))
    return node


def test_p12_a_stop_waits_for_work_but_not_longer_than_asked(node, wait_for):
    slow(node, 1)
    wait_for(node.answers)
    begun = time.monotonic()
    assert "has stopped" in node.run("stop", "-t", "10").stdout
    assert 0.8 < time.monotonic() - begun < 8 and node.ended() == 0


def test_p12_a_second_signal_skips_the_grace(node, wait_for):
    slow(node, 60)
    wait_for(node.answers)
    node.daemon.terminate()
    wait_for(lambda: node.json("status")["daemon"]["stopping"])
    begun = time.monotonic()
    node.daemon.terminate()
    assert node.ended() == 0 and time.monotonic() - begun < 5


def test_p12_a_part_that_never_ends_is_left_behind(node, wait_for):
    slow(node, 600, "deaf")
    wait_for(node.answers)
    node.daemon.terminate()
    wait_for(lambda: node.json("status")["daemon"]["stopping"])
    node.daemon.terminate()
    begun = time.monotonic()
    assert node.ended() == 1 and time.monotonic() - begun < 10
    assert not lockfile.is_held(node.home)
    assert node.run("start").returncode == 0


def test_h103_a_storm_of_signals_is_clean(node):
    node.start()
    for _ in range(200):
        node.daemon.send_signal(signal.SIGUSR1)
        node.daemon.send_signal(signal.SIGPIPE)
        node.daemon.send_signal(signal.SIGHUP)
    for _ in range(200):
        if node.daemon.poll() is None:
            node.daemon.send_signal(signal.SIGTERM)
    assert node.ended() in (0, -signal.SIGTERM) and left_behind(node.home) == []
    assert "Traceback" not in node.tail(2000)


# ---- what a kill leaves, and garbage ------------------------------------------------------------

def test_p10_after_a_kill_the_next_start_heals(node):
    os.kill(started(node), signal.SIGKILL)
    assert node.home.pid.exists() and node.home.socket.exists()
    assert node.run("status", check=False).returncode == 3
    assert node.run("start").returncode == 0 and client.answers(node.home)


def test_after_a_kill_stop_takes_the_rest_away(node, wait_for):
    os.kill(started(node), signal.SIGKILL)
    wait_for(lambda: not lockfile.is_held(node.home))
    assert node.run("stop").stdout == "pylon is not running\n" and left_behind(node.home) == []


GARBAGE = ("0", "-1", "1", "4294967295", "99999999999999999999", "", "rubbish", "\x00", "ALIEN",
           "ALIEN\nrubbish", "x" * 1_000_000)


def test_h97_garbage_in_the_pid_file_kills_nobody(node, pylon, alien):
    for content in GARBAGE:
        node.home.pid.write_text(content.replace("ALIEN", str(alien.pid)))
        node.home.pid.chmod(0o600)
        assert pylon("status")[0] == 3
        for words in (("stop",), ("stop", "-f")):
            assert pylon(*words)[:2] == (0, "pylon is not running\n")
    node.home.pid.write_text(str(alien.pid))
    node.home.pid.chmod(0o600)
    pid = started(node)
    node.home.pid.write_text(str(alien.pid))
    pylon("stop")
    assert gone(pid)


def test_a_lock_file_taken_away_does_not_make_two_daemons(node):
    """Somebody cleaned up with rm; the socket still shows that a daemon runs."""
    pid = started(node)
    node.home.lock.unlink()
    done = node.run("start")
    assert "already running" in done.stdout
    assert client.daemon_pid(node.home) == pid
    os.kill(pid, signal.SIGKILL)


def test_a_stop_without_a_socket_finds_the_holder_of_the_lock(node):
    pid = started(node)
    node.home.socket.unlink()
    done = node.run("stop")
    assert "SIGTERM" in done.stderr and "has stopped" in done.stdout
    assert gone(pid)


# ---- reload, log --------------------------------------------------------------------------------

def test_reload_takes_a_new_configuration(node):
    node.start()
    node.configure(OFFLINE + "[log]\nlevel = 'debug'\n")
    assert node.run("reload").stdout == "configuration reloaded\n"
    node.configure(OFFLINE + "[log]\nlevel = 'loud'\n")
    done = node.run("reload", check=False)
    assert done.returncode == 1 and f"{node.home.config}:6" in done.stderr
    assert client.answers(node.home)


def test_h103_sighup_reloads_and_a_wrong_file_changes_nothing(node, wait_for):
    node.start()
    node.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "configuration reloaded" in node.tail())
    node.configure("nam = 1\n")
    node.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in node.tail())
    assert client.answers(node.home)
    assert node.stop() == 0


def test_reload_refuses_what_only_a_restart_can_change(node):
    started(node)
    node.configure(OFFLINE + "network = 'signet'\n")
    done = node.run("reload", check=False)
    assert done.returncode == 1 and "pylon restart" in done.stderr


def test_reload_without_a_daemon_is_3(node):
    assert node.run("reload", check=False).returncode == 3


def test_sigusr1_opens_the_log_anew(node, wait_for):
    pid = started(node)
    moved = node.home.log.with_name("moved.log")
    node.home.log.rename(moved)
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: node.home.log.exists() and "log opened anew" in node.home.log.read_text())


def test_restart_keeps_mode_and_file(node, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(OFFLINE + "name = 'other'\n")
    node.run("start", "-m", "host", "-c", str(other))
    before = node.json("status")["daemon"]
    node.run("restart")
    after = node.json("status")["daemon"]
    assert (after["mode"], after["config_file"]) == ("host", str(other))
    assert after["pid"] != before["pid"]


def test_restart_leaves_a_foreground_daemon_to_its_keeper(node, pylon):
    node.start()
    code, _, err = pylon("restart")
    assert code == 2 and "systemctl restart pylon" in err
    assert client.daemon_pid(node.home) == node.daemon.pid


def test_restart_with_a_wrong_configuration_keeps_the_daemon(node):
    pid = started(node)
    node.configure("nam = 1\n")
    assert node.run("restart", check=False).returncode == 78
    assert client.daemon_pid(node.home) == pid


# ---- streams and systemd ------------------------------------------------------------------------

@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&- <&-", "| true"])
def test_h103_closed_streams_harm_nothing(node, redirect):
    command = " ".join(map(repr, node._command("start")))
    subprocess.run(["sh", "-c", f"{command} {redirect}"], env=node._env({}), timeout=60,
                   capture_output=True)
    assert client.answers(node.home)
    with sqlite3.connect(f"file:{node.home.database}?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
    db.close()
    for words in (("status",), ("status", "--json"), ("stop",)):
        command = " ".join(map(repr, node._command(*words)))
        done = subprocess.run(["sh", "-c", f"{command} {redirect}"], env=node._env({}), timeout=60,
                              capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_systemd_hears_everything_and_the_watchdog(node, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as conn:
        conn.bind(str(tmp_path / "notify"))
        conn.settimeout(20)

        def next_word():
            while True:
                word = conn.recv(1000).decode().split("\n")[0]
                if word != "WATCHDOG=1":
                    return word
        node.start(ready=False, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        assert next_word() == "READY=1"
        assert client.answers(node.home), "READY before the socket answers"
        assert conn.recv(1000) == conn.recv(1000) == b"WATCHDOG=1"
        node.daemon.send_signal(signal.SIGHUP)
        assert [next_word(), next_word()] == ["RELOADING=1", "READY=1"]
        node.daemon.terminate()
        assert next_word() == "STOPPING=1"
        assert node.ended() == 0


START_STUCK = """
import sys, threading
from pylon.role import Role
from tests.daemon import slow_daemon

class Stuck(Role):
    max_step_secs = 0.05

    def step(self, now):
        threading.Event().wait(30)

class StuckDaemon(slow_daemon.SlowDaemon):
    def more_steps(self):
        def start_stuck():
            role = Stuck("stuck-one")
            role.start()
            self.watch(role)
        return (start_stuck,)

slow_daemon.SlowDaemon = StuckDaemon
sys.exit(slow_daemon.main(sys.argv[1], "0"))
"""


def test_the_watchdog_is_not_fed_while_a_role_is_stuck(node, tmp_path, wait_for):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as conn, open(node.log, "w") as log:
        conn.bind(str(tmp_path / "notify"))
        conn.settimeout(20)
        stuck = subprocess.Popen(
            [sys.executable, "-c", START_STUCK, str(node.home.root)], cwd=ROOT, stderr=log,
            env=node._env({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}))
        assert conn.recv(1000).startswith(b"READY=1")
        wait_for(lambda: node.tail().count("stuck: stuck-one") >= 2)
        stuck.terminate()
        words = [conn.recv(1000).split(b"\n")[0]]
        while words[-1] != b"STOPPING=1":
            words.append(conn.recv(1000).split(b"\n")[0])
        assert words.count(b"WATCHDOG=1") <= 1, "at most before it counted as stuck"
        assert stuck.wait(20) == 0


def test_p8_another_user_gets_a_plain_refusal(node, openagents):
    started(node)
    openagents.chmod(0o755)
    node.home.root.chmod(0o755)
    node.home.socket.chmod(0o777)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           *node._command("stop")], env=node._env({}), capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and "another user" in done.stderr, done.stderr
    assert client.answers(node.home)
    node.home.root.chmod(0o700)


def test_h93_p8_a_silent_client_does_not_delay_status(node):
    started(node)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    for conn in silent:
        conn.connect(str(node.home.socket))
        conn.sendall(b'"Stat')
    begun = time.monotonic()
    assert json.loads(node.run("status", "--json").stdout)["daemon"]["running"]
    assert time.monotonic() - begun < 1
    for conn in silent:
        conn.close()
