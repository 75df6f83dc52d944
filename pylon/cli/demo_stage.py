"""Where the demo plays: a temporary folder, and every process that was started in it.

A signal only leaves a note, which every wait looks at; so nothing is ever half started, and leaving
the `with` always ends all processes and takes the folder away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Self, TypeVar

import pylon
from pylon.errors import PylonError

T = TypeVar("T")

POLL_SECS = 0.02
STOP_SECS = 10                      # for a process that was asked to end
COMMAND_SECS = 60
LOG_LINES = 15                      # of a process that failed
LONGEST_PLACE_BYTES = 60            # sockets are made in it, and a socket's path is short
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(PylonError):
    """Somebody wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; everything is cleaned up")
        self.exit_status = 128 + number


class Stage:
    """`place` is the folder. Processes end in the reverse order of their start."""

    def __enter__(self) -> Self:
        self._signal = 0                        # written by the handler, in the main thread
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        base = tempfile.gettempdir()
        self.place = Path(tempfile.mkdtemp(
            prefix="pylon-demo-", dir=base if len(base) < LONGEST_PLACE_BYTES else "/tmp"))
        return self

    def __exit__(self, *_: object) -> None:
        for started in reversed(self._processes):
            _end(started[1])
        shutil.rmtree(self.place, ignore_errors=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    # -- processes --

    def start(self, name: str, command: Sequence[str | Path],
              talks: bool = False) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, so that Ctrl-C reaches only us.

        Its stdin is a pipe: programs of the demo end when it does, whatever becomes of us.
        """
        with open(self.place / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.PIPE, env=environment(),
                stdout=subprocess.PIPE if talks else log, stderr=log, cwd=self.place,
                start_new_session=True)
        self._processes.append((name, process))
        return process

    def start_program(self, name: str, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start `demo_NAME.py`, which talks on its stdout."""
        program = Path(__file__).with_name(f"demo_{name}.py")
        return self.start(name, [sys.executable, "-P", program, *words], talks=True)

    def serve(self, name: str, secs: float, *words: str | Path) -> str:
        """Start a server of the demo and give its URL, the first line that it prints."""
        process = self.start_program(name, *words)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said = bytearray()

        def line() -> bool:
            said.extend(process.stdout.read() or b"")           # type: ignore[union-attr]
            return b"\n" in said
        self.wait_for(line, secs, f"the {name} to start")
        return said.partition(b"\n")[0].decode().strip().rstrip("/")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One `pylon` command, whatever its exit status."""
        return subprocess.run([*PYLON, *words], env=environment(), text=True, cwd=self.place,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=COMMAND_SECS, start_new_session=True)

    # -- waiting --

    def wait_for(self, happens: Callable[[], T | None], secs: float, what: str) -> T:
        """Wait until HAPPENS() is true and give it. Raises PylonError, Interrupted."""
        until = time.monotonic() + secs
        while True:
            self.check()
            value = happens()
            if value:
                return value
            if time.monotonic() > until:
                newest = self._processes[-1][0]
                raise PylonError(f"waited {secs:g} s for {what}{self.log_of(newest)}")
            time.sleep(POLL_SECS)

    def check(self) -> None:
        """Raises Interrupted, and PylonError where a process has ended by itself."""
        if self._signal:
            raise Interrupted(self._signal)
        for name, process in self._processes:
            if process.poll() is not None:
                raise PylonError(f"the {name} ended by itself, with {process.returncode}"
                                 f"{self.log_of(name)}")

    def log_of(self, name: str) -> str:
        """The end of a process's output, as a paragraph of an error."""
        path = self.place / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "".join(f"\n  {name}: {line}" for line in lines[-LOG_LINES:])


# The same program again, wherever it was started from and whatever lies in the folder.
PYLON = (sys.executable, "-P", "-m", "pylon")


def environment() -> dict[str, str]:
    """Ours, less what would lead a throw-away node to the owner's things."""
    ours = {name: value for name, value in os.environ.items()
            if not name.startswith("PYLON_") and name not in (
                "OPENAGENTS_HOME", "NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY")}
    places = [str(Path(pylon.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**ours, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def _end(process: subprocess.Popen[bytes]) -> None:
    _close(process.stdin)
    _signal_all(process, signal.SIGTERM)
    try:
        process.wait(STOP_SECS)
    except subprocess.TimeoutExpired:
        _signal_all(process, signal.SIGKILL)
        process.wait()
    _close(process.stdout)              # last: somebody may still be reading


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        return                          # it was gone before we were


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
