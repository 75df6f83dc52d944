"""The node as an owner has it: installed in an environment of its own, with a daemon running.

An editable checkout starts slower than an installed package, so it would be the wrong thing to
time. What is installed here is this tree, fresh each time, under .parts/installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.parts import venvs
from tests.waiting import wait_for

NEEDED = ("pylon", "man", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def install() -> Path:
    """The bin/ of an environment that holds nothing but Pylon and what it needs."""
    place = venvs.PARTS / "installed"
    if not (place / "bin/python").exists():
        venvs.run(venvs.PYTHON, "-m", "venv", place)
    with tempfile.TemporaryDirectory() as directory:
        for name in NEEDED:
            source, target = venvs.ROOT / name, Path(directory) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        pip = (str(place / "bin/python"), "-m", "pip", "install", "-q",
               "--disable-pip-version-check")
        # The launcher that Debian 12's pip writes imports re, which the package's does not.
        venvs.run(*pip, "pip>=24")
        venvs.run(*pip, directory)
        venvs.run(*pip, "--no-deps", "--force-reinstall", directory)
    return place / "bin"


class Installed:
    """A throw-away home with its daemon; a context manager."""

    def __init__(self, config: str, bin_dir: Path | None = None) -> None:
        self.bin = bin_dir or install()
        self.openagents = Path(tempfile.mkdtemp(prefix="pyb", dir="/tmp"))
        self.home = self.openagents / "pylon"
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("PYTHON", "PYLON_", "OPENAGENTS_"))}
        self.env = {**clean, "OPENAGENTS_HOME": str(self.openagents), "HOME": str(self.openagents)}
        self._config = config
        self.pid = 0

    def pylon(self, *words: str, check: bool = True) -> str:
        done = subprocess.run([self.bin / "pylon", *words], env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False)
        if check and done.returncode:
            raise AssertionError(f"pylon {' '.join(words)}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def seconds(self, *words: str | Path) -> float:
        """Wall time of a whole process, from spawn to its end."""
        argv = [str(word) for word in words]
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        started = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, self.env, file_actions=null)
        os.waitpid(pid, 0)
        return time.perf_counter() - started

    def __enter__(self) -> "Installed":
        self.pylon("init")
        (self.home / "config.toml").write_text(self._config)
        self.pylon("start")
        self.pid = int((self.home / "pylon.pid").read_text())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None
                 ) -> None:
        if kind is not None:
            print(self.pylon("logs", "-n", "30", check=False))
        self.pylon("stop", check=False)
        wait_for(lambda: not os.path.exists(f"/proc/{self.pid}"), 30, "the daemon's end")
        shutil.rmtree(self.openagents, ignore_errors=True)
