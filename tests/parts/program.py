"""A program that runs beside the tests: started, waited for until it is ready, stopped for sure.

Everything that needs a server goes through here, so that each failure shows the end of its output.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.waiting import wait_for

STOP_SECS = 10


class Program:
    """One child process in a session of its own; its output goes to `log`, a file of its own."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None,
                 cwd: Path | None = None, log: Path | None = None) -> None:
        self.command = [str(word) for word in command]
        self.env = {**os.environ, **(env or {})}
        self.cwd = cwd
        self.log = log or Path(tempfile.mkstemp(prefix="pyprog", suffix=".log")[1])
        self._log_is_ours = log is None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], object], timeout_secs: float = 30) -> "Program":
        """Start it and wait until `ready()` is true. AssertionError with its output otherwise."""
        with open(self.log, "ab") as output:
            # Its stdin is a pipe that nobody writes to: programs of ours end when we are gone.
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=self.cwd, stdin=subprocess.PIPE, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_for(lambda: self._failed() or ready(), timeout_secs, f"{self.command[0]} ready")
            if self._failed():
                raise AssertionError(f"it ended with {self.process.returncode}")
        except AssertionError as err:
            self.stop()
            raise AssertionError(f"{' '.join(self.command)}: {err}\n{self.tail()}") from None
        return self

    def _failed(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it and all that it started, and wait for that. Stopping twice is fine."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        self._signal(process.pid, how)
        try:
            process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            pass
        self._signal(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        self.stop()
        if self._log_is_ours:
            self.log.unlink(missing_ok=True)

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return                      # gone already

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
