"""A real node for black-box tests: a home, its config, its daemon, its command line.

`Node.start` runs `pylon start -f` as a child, so that a test can kill it and see how it ended;
it waits for the control socket's answer, never for time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pylon.control import client
from pylon.home import Home
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ROOT / "pylon.py"
START_SECS = 30


class Node:
    """One home and, between start and stop, its daemon."""

    def __init__(self, openagents: Path, config: str, name: str = "pylon") -> None:
        self.openagents = openagents
        self.home = Home(openagents / name)
        self._config = config
        self.daemon: subprocess.Popen[str] | None = None
        self.log = openagents / f"{name}.stderr"

    def init(self) -> "Node":
        self.run("init", "--json")
        self.configure(self._config)
        return self

    def configure(self, text: str) -> None:
        self.home.config.write_text(text)
        self.home.config.chmod(0o600)

    def run(self, *words: str, check: bool = True, text_in: str | None = None,
            timeout_secs: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """One `pylon` command."""
        done = subprocess.run(self._command(*words), env=self._env(env), text=True, input=text_in,
                              stdin=None if text_in is not None else subprocess.DEVNULL,
                              capture_output=True, timeout=timeout_secs)
        if check and done.returncode:
            raise AssertionError(f"pylon {' '.join(words)}: exit {done.returncode}\n"
                                 f"{done.stdout}{done.stderr}{self.tail()}")
        return done

    def json(self, *words: str, **env: str) -> dict:
        return json.loads(self.run(*words, "--json", **env).stdout)

    def start(self, ready: bool = True, **env: str) -> "Node":
        """Start the daemon; with ready=False don't wait (it may be meant to die at once)."""
        with open(self.log, "a", encoding="utf-8") as log:
            self.daemon = subprocess.Popen(self._command("start", "-f"), env=self._env(env),
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           text=True)
        if ready:
            wait_for(self.answers, START_SECS, f"the daemon of {self.home.root}")
        return self

    def answers(self) -> bool:
        """True once the daemon answers; AssertionError when it has died."""
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.daemon.returncode}\n{self.tail()}")
        return client.answers(self.home)

    def status(self) -> dict:
        """The daemon's facts, asked in this process: a command would cost 0.1 s."""
        return dict(client.call(self.home, "StatusJson"))

    def kill(self) -> None:
        """SIGKILL, the power of fate."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait(10)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.daemon is None:
            return 0
        if self.daemon.poll() is None:
            self.daemon.terminate()
        code = self.daemon.wait(40)
        self.daemon = None
        return code

    def ended(self, timeout_secs: float = 30) -> int:
        """Wait for the daemon's own end."""
        assert self.daemon is not None
        return self.daemon.wait(timeout_secs)

    def tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, str(LAUNCHER), "--home", str(self.home.root), *words]

    def _env(self, extra: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "OPENAGENTS_HOME": str(self.openagents), "PYTHONUNBUFFERED": "1",
                **extra}
