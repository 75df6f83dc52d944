"""pylon stop: end the daemon gracefully, within a bound."""

from __future__ import annotations

import argparse
import os
import select
import signal
import time

from pylon.cli import terminal
from pylon.control import client
from pylon.control.protocol import MAX_STOP_SECS, STOP_SECS
from pylon.daemon import lockfile
from pylon.errors import EXIT_FAILED, EXIT_OK, ControlError, NotRunning, UsageError
from pylon.home import Home
from pylon.units import parse_duration

MARGIN_SECS = 4.0                   # beyond the daemon's own deadline, before it is killed
KILL_WAIT_SECS = 5.0
POLL_SECS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="kill it at once")
    parser.add_argument("-t", "--timeout", metavar="SECS", default=f"{STOP_SECS:g}",
                        help=f"time for what is under way (default {STOP_SECS:g})")


def run(args: argparse.Namespace) -> int:
    secs = parse_duration(args.timeout)
    if secs > MAX_STOP_SECS:
        raise UsageError(f"a stop may take {MAX_STOP_SECS} s at most")
    return stop(args.home, secs, args.force)


def stop(home: Home, secs: float, force: bool) -> int:
    """End the daemon of a home; says what happened."""
    pid = client.daemon_pid(home) or lockfile.holder_pid(home)
    if pid is None and not lockfile.is_held(home):
        _heal(home)
        terminal.say("pylon is not running")
        return EXIT_OK
    if force:
        return _kill(home, pid, "killed")
    _ask_to_stop(home, pid, secs)
    if _gone(home, pid, secs + MARGIN_SECS):
        terminal.say("pylon has stopped")
        return EXIT_OK
    return _kill(home, pid, f"did not stop within {secs:g} s and was killed")


def _ask_to_stop(home: Home, pid: int | None, secs: float) -> None:
    """Over the socket; where that is of no use, by a signal to the process that the kernel
    names as the holder of the home's lock."""
    try:
        client.call(home, "Shutdown", {"timeout_secs": secs})
    except (NotRunning, ControlError) as err:
        terminal.tell(f"the daemon's socket is of no use ({err}); sending it SIGTERM")
        if pid is not None:
            lockfile.send_signal(home, pid, signal.SIGTERM)


def _gone(home: Home, pid: int | None, secs: float) -> bool:
    """Wait until the lock is free; on the process itself where it can be named."""
    deadline = time.monotonic() + secs
    if pid is not None:
        _wait_for_process(home, pid, secs)
    while lockfile.is_held(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECS)
    return True


def _wait_for_process(home: Home, pid: int, secs: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if lockfile.holder_pid(home) == pid:
            select.select([pidfd], [], [], secs)
    finally:
        os.close(pidfd)


def _kill(home: Home, pid: int | None, what: str) -> int:
    if pid is None or not lockfile.send_signal(home, pid, signal.SIGKILL):
        if lockfile.is_held(home):
            terminal.tell(f"pylon: cannot tell which process runs {home.root}; end it by hand")
            return EXIT_FAILED
    if not _gone(home, pid, KILL_WAIT_SECS):
        terminal.tell(f"pylon: process {pid} does not die; it is stuck in the kernel")
        return EXIT_FAILED
    _heal(home)
    terminal.say(f"pylon {what}; nothing is lost, open work goes on at the next start")
    return EXIT_OK


def _heal(home: Home) -> None:
    """Take away what a daemon that was killed has left; the lock proves that none runs."""
    if not home.exists():
        return
    with lockfile.hold(home, "pylon stop"):
        for place in (home.socket, home.pid):
            place.unlink(missing_ok=True)
