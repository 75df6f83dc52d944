"""The cage: the command line that starts a runner where it can reach nothing.

Bubblewrap gives it no network, its own PID, mount, IPC and user namespaces, a read-only system, an
empty private directory in memory, and an environment of four words. Limits on processes, memory,
files and CPU are set inside, by util-linux' prlimit. Nothing of the home is there to be opened,
whatever its name. Pure but for `probe`, which tries it once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pylon
from pylon.errors import ConfigError

PRIVATE_BYTES = 16_000_000          # the private directory, in memory, gone after the tick
MEMORY_BYTES = 512_000_000          # address space of each process
PROCESSES = 32
OPEN_FILES = 64
FILE_BYTES = PRIVATE_BYTES
NOBODY = "65534"
PROBE_SECS = 10
PRIVATE = "/home/agent"
_SYSTEM = ("/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf",
           "/etc/ld.so.conf.d", "/etc/localtime")
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# A process that eats the machine's memory is the first to be killed. `exec` leaves no shell.
_FIRST_TO_GO = 'echo 1000 > /proc/self/oom_score_adj; exec "$@"'
_START = ("import sys; sys.path.insert(0, '/opt/pylon'); "
          "from pylon.runner.__main__ import main; sys.exit(main())")


def runner_of(setting: str) -> str:
    """The program for an agent: its own setting, else PYLON_AGENT_RUNNER, else '' for the
    built-in one. Raises ConfigError."""
    program = setting or os.environ.get("PYLON_AGENT_RUNNER", "")
    if not program:
        return ""
    found = shutil.which(program) if "/" not in program else program
    if not found or not os.path.isfile(found) or not os.access(found, os.X_OK):
        raise ConfigError(f"the runner {program!r} is no program that can be started")
    return os.path.realpath(found)


def command(program: str, name: str, cpu_secs: int, confined: bool = True) -> list[str]:
    """How to start a runner for the agent NAME; PROGRAM '' is the built-in one."""
    first = ["/opt/runner"] if program else [_python(), "-I", "-B", "-c", _START]
    start = [*first, "--agent", name]
    limits = ["prlimit", f"--as={MEMORY_BYTES}", f"--nproc={PROCESSES}",
              f"--nofile={OPEN_FILES}", f"--fsize={FILE_BYTES}", f"--cpu={cpu_secs}",
              "--core=0", "--"]
    if not confined:
        start[0] = program or sys.executable
        start = [one.replace("/opt/pylon", str(_package().parent)) for one in start]
        limits = [word for word in limits if not word.startswith("--nproc")]
        return ["/bin/sh", "-c", _FIRST_TO_GO, "runner", *limits, *start]
    return ["/bin/sh", "-c", _FIRST_TO_GO, "runner", *_drop_root(), *_bubble(program),
            *limits, *start]


def environment() -> dict[str, str]:
    """All that a runner finds in its environment."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": PRIVATE, "TMPDIR": "/tmp"}


def _bubble(program: str) -> list[str]:
    words = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent",
             "--new-session", "--clearenv", "--hostname", "agent"]
    for place in _SYSTEM:
        words += ["--ro-bind-try", place, place]
    for link in _LINKS:
        if os.path.islink(link):
            words += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            words += ["--ro-bind", link, link]
    for name, value in environment().items():
        words += ["--setenv", name, value]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/dev/shm", "/tmp", PRIVATE):
        words += ["--size", str(PRIVATE_BYTES), "--tmpfs", place]
    words += ["--ro-bind", program, "/opt/runner"] if program else _own_files()
    return [*words, "--remount-ro", "/", "--chdir", PRIVATE]


def _own_files() -> list[str]:
    """What the built-in runner needs: an interpreter, and its own package without its parents."""
    words = []
    base = os.path.realpath(sys.base_prefix)
    if not base.startswith("/usr/") and base != "/usr":
        words += ["--ro-bind", base, base]
    package = _package()
    for name in ("__init__.py", "runner"):
        words += ["--ro-bind", str(package / name), f"/opt/pylon/pylon/{name}"]
    return words


def _package() -> Path:
    return Path(os.path.realpath(pylon.__file__)).parent


def _python() -> str:
    return os.path.realpath(sys.executable)


def _drop_root() -> list[str]:
    """Root's processes are not counted by the kernel: a runner of root's node is nobody's."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]


@cache
def probe() -> str | None:
    """Why runners cannot be confined here, in words; None when they can."""
    for tool in ("bwrap", "prlimit", *(["setpriv"] if os.geteuid() == 0 else [])):
        if shutil.which(tool) is None:
            package = "bubblewrap" if tool == "bwrap" else "util-linux"
            return f"{tool} is not installed (Debian: apt install {package})"
    try:
        done = subprocess.run([*_drop_root(), *_bubble(""), "true"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              timeout=PROBE_SECS, env=environment())
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"bubblewrap cannot be started: {err}"
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        return f"bubblewrap cannot make a sandbox here: {said}"
    return None
