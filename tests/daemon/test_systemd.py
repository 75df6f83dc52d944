"""What systemd hears of us."""

import os
import socket

import pytest

from pylon.daemon.systemd import Notifier


@pytest.fixture
def heard(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as conn:
        conn.bind(str(tmp_path / "n"))
        conn.settimeout(2)
        yield conn


@pytest.fixture
def environ(tmp_path):
    return {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "2000000"}


def test_every_word(heard, environ):
    notifier = Notifier(environ)
    notifier.ready("fine")
    assert heard.recv(1000).decode() == f"READY=1\nSTATUS=fine\nMAINPID={os.getpid()}"
    notifier.reloading()
    assert heard.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    notifier.stopping("bye")
    assert heard.recv(1000) == b"STOPPING=1\nSTATUS=bye"
    notifier.alive()
    assert heard.recv(1000) == b"WATCHDOG=1"


def test_children_cannot_speak_for_us(environ):
    Notifier(environ)
    assert environ == {}


def test_an_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as conn:
        conn.bind(f"\0pylon-test-{os.getpid()}")
        conn.settimeout(2)
        Notifier({"NOTIFY_SOCKET": f"@pylon-test-{os.getpid()}"}).alive()
        assert conn.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ, secs", [
    ({}, 0), ({"WATCHDOG_USEC": "3000000"}, 3), ({"WATCHDOG_USEC": "x"}, 0),
    ({"WATCHDOG_USEC": "-5"}, 0), ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, 0)])
def test_the_watchdogs_wish(environ, secs):
    assert Notifier(environ).watchdog_secs == secs


def test_without_systemd_and_without_a_listener_it_is_silent(tmp_path):
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("x")
