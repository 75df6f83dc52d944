"""The control server against clients of every kind (RELIABILITY H 92, 93; P19)."""

import json
import os
import select
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from pylon.control import client, listener, server
from pylon.control.server import Server
from pylon.errors import ControlError, NotRunning, UsageError
from pylon.home import Home

ASK_AS_NOBODY = """
import os, socket, sys
os.setgroups([int(g) for g in sys.argv[2:]])
os.setgid(65534)
os.setuid(65534)
conn = socket.socket(socket.AF_UNIX)
conn.connect(sys.argv[1])
try:
    conn.sendall(sys.stdin.buffer.read())
except OSError:
    pass                # refused before we spoke
print(conn.recv(65536).decode())
"""


@pytest.fixture
def effects():
    return []


@pytest.fixture
def serve(home, effects):
    """A running server with commands that a test needs."""
    hold = threading.Event()
    servers = []

    def refuse(args, peer):
        raise UsageError("that makes no sense")

    def slow(args, peer):
        hold.wait(10)
        effects.append("slow")

    def count(args, peer):
        try:
            for number in range(args["n"]):
                yield number
            while True:
                hold.wait(0.02)
                yield None
        finally:
            effects.append("stream closed")

    def start(place=home, **kwargs):
        made = Server(place, {"Echo": lambda args, peer: args, "Refuse": refuse, "Slow": slow,
                              "Bug": lambda args, peer: 1 / 0, "Big": lambda a, p: "x" * 300_000,
                              "Pay": lambda args, peer: effects.append("paid"),
                              "Who": lambda args, peer: [peer.uid, peer.pid, peer.may_change]},
                      {"Count": count}, asking={"Who"})
        made.start()
        servers.append(made)
        return made
    start.hold = hold
    yield start
    hold.set()
    for made in servers:
        made.stop()


def connect(home, timeout=5.0):
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(str(home.socket))              # waits while the queue of callers is full
    conn.settimeout(timeout)
    return conn


def ask(home, data):
    """Send bytes, give the first line of the answer as an object; None for a hang-up."""
    with connect(home) as conn:
        try:
            conn.sendall(data)
        except OSError:
            pass                        # refused while still sending; the answer may be there
        try:
            line = conn.makefile("rb").readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None


def test_it_answers(home, serve):
    serve()
    assert client.call(home, "Ping") == "Pong"
    assert client.call(home, "Echo", {"a": [1, "ü"]}) == {"a": [1, "ü"]}
    assert client.call(home, "Who") == [os.geteuid(), os.getpid(), True]
    assert client.daemon_pid(home) == os.getpid()
    assert len(client.call(home, "Big")) == 300_000


def test_the_socket_is_private_under_any_umask(home, serve):
    before = os.umask(0)
    try:
        serve()
    finally:
        os.umask(before)
    info = os.lstat(home.socket)
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o600
    assert sorted(os.listdir(home.root)) == ["control.sock", "secrets"]


def test_a_stale_socket_is_replaced_and_a_stop_removes_ours_only(home, serve):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home.socket))
    made = serve()
    assert client.answers(home)
    made.stop()
    assert not home.socket.exists()
    other = serve()
    home.socket.unlink()
    home.socket.write_text("somebody else's")
    other.stop()
    assert home.socket.exists()


def test_failures_are_answered(home, serve, caplog):
    serve()
    with pytest.raises(ControlError, match="^that makes no sense$"):
        client.call(home, "Refuse")
    with pytest.raises(ControlError, match="^internal error"):
        client.call(home, "Bug")
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(ControlError, match="unknown command"):
        client.call(home, "Nonsense")
    assert client.answers(home)


def test_nobody_there_is_told(home):
    with pytest.raises(NotRunning, match="pylon start"):
        client.call(home, "Ping")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home.socket))
    with pytest.raises(NotRunning):
        client.call(home, "Ping")
    home.socket.unlink()
    home.socket.write_text("a file")
    with pytest.raises(NotRunning):
        client.call(home, "Ping")


def test_h92_an_over_long_path_is_a_clear_error(tmp_path):
    with pytest.raises(ControlError, match="too long for a socket"):
        client.call(Home(tmp_path / ("x" * 120)), "Ping")


def test_h92_another_user_is_refused_by_the_kernels_word_not_by_the_mode(home, serve, openagents):
    serve()
    for place in (openagents, home.root):
        place.chmod(0o777)
    home.socket.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", ASK_AS_NOBODY, str(home.socket)],
                          input=b'"Ping"\n', capture_output=True, timeout=20)
    assert b"belongs to another user" in done.stdout, done.stderr
    assert client.answers(home)


def test_on_the_systems_node_the_group_may_ask_but_not_change(home, serve, openagents, effects,
                                                              monkeypatch):
    monkeypatch.setattr(listener, "SYSTEM_OPENAGENTS", openagents)
    serve()
    assert stat.S_IMODE(os.stat(home.socket).st_mode) == 0o660
    for place in (openagents, home.root):
        place.chmod(0o755)
    home.socket.chmod(0o777)

    def as_member(line, group=os.getegid()):
        done = subprocess.run([sys.executable, "-c", ASK_AS_NOBODY, str(home.socket), str(group)],
                              input=line, capture_output=True, timeout=20)
        return done.stdout.decode()
    answer = json.loads(as_member(b'"Who"\n'))
    assert answer["Who"][2] is False, answer
    assert "may ask, but not change" in as_member(b'"Pay"\n') and effects == []
    assert "belongs to another user" in as_member(b'"Who"\n', group=12345)


def test_h93_a_silent_client_delays_nobody_and_is_shed(home, serve):
    serve()
    with connect(home) as silent:
        begun = time.monotonic()
        assert client.answers(home) and time.monotonic() - begun < 1
        assert b"no command came in time" in silent.recv(1000)
        assert 1.5 < time.monotonic() - begun < 4


def test_h93_half_a_line_and_a_trickle_are_shed(home, serve):
    serve()
    with connect(home) as half:
        half.sendall(b'"Pi')
        begun = time.monotonic()
        assert b"no command came in time" in half.recv(1000)
        assert time.monotonic() - begun < 4


def test_h93_a_line_in_pieces_is_answered(home, serve):
    serve()
    with connect(home) as conn:
        for piece in (b'"P', b"in", b'g"', b"\n"):
            conn.sendall(piece)
        assert conn.recv(100) == b'"Pong"\n'


def test_h93_a_thousand_idle_clients_do_not_keep_a_status_waiting(home, serve):
    serve()
    idle = []
    try:
        for _ in range(1000):
            idle.append(connect(home))
        begun = time.monotonic()
        assert client.call(home, "Ping") == "Pong"
        assert time.monotonic() - begun < 1
    finally:
        for conn in idle:
            conn.close()
    assert client.answers(home)


def test_h93_a_hundred_megabyte_line_is_cut_off(home, serve):
    serve()
    answer = ask(home, b"x" * 100_000_000 + b"\n")
    assert answer is None or "too long" in answer["Error"]
    assert client.answers(home)


@pytest.mark.parametrize("size, fits", [(65536, True), (65537, False)])
def test_h93_the_limit_of_a_line_is_exact(home, serve, size, fits):
    serve()
    frame = len('{"Echo":{"t":""}}')
    line = b'{"Echo":{"t":"' + b"x" * (size - frame) + b'"}}\n'
    answer = ask(home, line)
    assert bool(answer and "Echo" in answer) is fits


@pytest.mark.parametrize("line", [b"\xff\xfe\x00\n", b"\n", b"[[[[\n", b'{"A":1,"B":2}\n',
                                  b"null\n", b'{"Echo":{"request_id":7}}\n', b"GET / HTTP/1.1\r\n"])
def test_h93_what_makes_no_sense_gets_a_reason(home, serve, line):
    serve()
    assert set(ask(home, line)) == {"Error"}
    assert client.answers(home)


def test_while_it_refuses_everybody_hears_why(home, serve):
    serve().refusal = "the daemon is still starting"
    assert not client.answers(home)
    for line in (b'"Ping"\n', b'"Pay"\n', b'{"Count":{"n":1}}\n'):
        assert ask(home, line) == {"Error": "the daemon is still starting"}


def test_a_client_that_leaves_at_once_harms_nobody(home, serve):
    serve()
    for _ in range(200):
        conn = connect(home)
        conn.sendall(b'"Big"\n')
        conn.close()
    assert client.answers(home)


def test_a_client_that_never_reads_harms_nobody(home, serve, monkeypatch):
    monkeypatch.setattr(server, "SEND_SECS", 0.2)
    serve()
    deaf = [connect(home) for _ in range(6)]
    for conn in deaf:
        conn.sendall(b'"Big"\n')
    begun = time.monotonic()
    assert client.answers(home) and time.monotonic() - begun < 2
    for conn in deaf:
        conn.close()


def test_slow_commands_leave_a_thread_for_a_ping(home, serve, wait_for):
    serve()
    waiting = [connect(home) for _ in range(server.SERVING_THREADS - 1)]
    for conn in waiting:
        conn.sendall(b'"Slow"\n')
    assert client.answers(home)
    serve.hold.set()
    for conn in waiting:
        assert conn.recv(100) == b'"Ok"\n'
        conn.close()


def test_when_all_threads_are_busy_more_clients_are_told(home, serve, monkeypatch, wait_for):
    monkeypatch.setattr(server, "MAX_QUEUED_COMMANDS", 2)
    serve()
    waiting = [connect(home) for _ in range(server.SERVING_THREADS + 2 + 5)]
    for conn in waiting:
        conn.sendall(b'"Slow"\n')
    answered = wait_for(lambda: select.select(waiting, [], [], 0)[0])
    assert b"busy" in answered[0].recv(1000)
    serve.hold.set()
    for conn in waiting:
        conn.close()


def test_a_ping_is_answered_while_the_queue_is_full(home, serve):
    """Eight slow commands once made `pylon stop` believe that the daemon was dead."""
    serve()
    waiting = [connect(home) for _ in range(server.SERVING_THREADS)]
    for conn in waiting:
        conn.sendall(b'"Slow"\n')
    begun = time.monotonic()
    assert client.answers(home) and time.monotonic() - begun < 1
    serve.hold.set()
    for conn in waiting:
        conn.close()


def test_the_same_request_id_has_one_effect_and_one_answer(home, serve, effects):
    serve()
    for _ in range(5):
        client.call(home, "Pay", {"request_id": "abc"})
    assert effects == ["paid"]
    client.call(home, "Pay", {"request_id": "abd"})
    client.call(home, "Pay")
    assert effects == ["paid"] * 3


def test_the_same_request_id_at_the_same_time_has_one_effect(home, serve, effects):
    serve()
    conns = [connect(home) for _ in range(5)]
    for conn in conns:
        conn.sendall(b'{"Slow":{"request_id":"one"}}\n')
    serve.hold.set()
    for conn in conns:
        assert conn.recv(100) == b'"Ok"\n'
        conn.close()
    assert effects == ["slow"]


def test_a_stream_sends_lines_until_its_reader_leaves(home, serve, effects, wait_for):
    serve()
    lines = client.stream(home, "Count", {"n": 3})
    assert [next(lines) for _ in range(3)] == [0, 1, 2]
    lines.close()
    wait_for(lambda: effects == ["stream closed"])


def test_streams_are_bounded_and_leave_room_for_others(home, serve, effects, wait_for):
    serve()
    streams = [client.stream(home, "Count", {"n": 1}) for _ in range(server.MAX_STREAMS)]
    assert [next(lines) for lines in streams] == [0] * server.MAX_STREAMS
    with pytest.raises(ControlError, match="too many long commands"):
        next(client.stream(home, "Count", {"n": 1}))
    assert client.answers(home)
    for lines in streams:
        lines.close()
    wait_for(lambda: len(effects) == server.MAX_STREAMS)


def test_a_stop_ends_streams_and_idle_clients(home, serve, effects):
    made = serve()
    lines = client.stream(home, "Count", {"n": 1})
    next(lines)
    idle = connect(home)
    begun = time.monotonic()
    made.stop()
    assert time.monotonic() - begun < 2 and not home.socket.exists()
    assert list(lines) == [] and idle.recv(10) == b""
    idle.close()


def test_a_client_without_patience_is_told(home, serve):
    serve()
    with pytest.raises(ControlError, match="did not answer within 0.2 s"):
        client.call(home, "Slow", timeout_secs=0.2)


def test_h99_no_descriptor_left_is_survived(home, serve, monkeypatch, wait_for):
    made = serve()
    real = made._listener.get_request
    failures = iter([OSError(24, "Too many open files")] * 2)

    def failing():
        err = next(failures, None)
        if err is not None:
            raise err
        return real()
    monkeypatch.setattr(server, "ACCEPT_PAUSE_SECS", 0.01)
    monkeypatch.setattr(made._listener, "get_request", failing)
    assert client.answers(home)


def test_idle_it_does_nothing(home, serve, wait_for):
    """No polling: the reading thread sleeps until somebody comes."""
    made = serve()
    client.call(home, "Ping")
    tid = made._threads[0].native_id

    def switches():
        text = open(f"/proc/self/task/{tid}/status").read()
        return int(text.split("voluntary_ctxt_switches:")[1].split()[0])
    before = switches()
    threading.Event().wait(0.5)
    assert switches() - before <= 1
