"""Fixtures for every test: a home of its own, and proof that nothing was left behind.

Each test starts without the developer's PYLON_* and proxy variables and with a HOME that is
nobody's. It fails when it leaves a thread, a child process, a daemon, or a touched real home.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pylon.home import Home
from tests import waiting

REAL_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
GUARDED = (".openagents", ".pylon", ".config/pylon")
FOREIGN = ("OPENAGENTS_HOME", "OLLAMA_HOST", "LLAMACPP_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL",
           "RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "NO_COLOR",
           "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
           "SSLKEYLOGFILE")
# A slow machine is no fault of the example that happens to meet it.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
GOODBYE_SECS = 5        # what a stopped thread or child may take to be gone


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What a test has logged may be no UTF-8, but reports are sent from process to process."""
    report = (yield).get_result()
    report.sections = [(name, text.encode(errors="replace").decode())
                       for name, text in report.sections]


@pytest.fixture
def wait_for():
    return waiting.wait_for


@pytest.fixture
def openagents():
    """A short temporary OPENAGENTS_HOME (socket paths end at 107 bytes), made 0700."""
    place = Path(tempfile.mkdtemp(prefix="py", dir="/tmp"))
    before = os.environ.get("OPENAGENTS_HOME")
    os.environ["OPENAGENTS_HOME"] = str(place)
    yield place
    if before is None:
        os.environ.pop("OPENAGENTS_HOME", None)
    else:
        os.environ["OPENAGENTS_HOME"] = before
    left = processes_naming(place)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place, ignore_errors=True)
    assert not left, f"processes of {place} outlived the test: {left}"


@pytest.fixture
def home(openagents):
    """A Home with its directories and nothing in them."""
    home = Home(openagents / "pylon")
    home.create()
    return home


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    for name in [*FOREIGN, *(n for n in os.environ if n.startswith("PYLON_"))]:
        monkeypatch.delenv(name, raising=False)
    nobody = tmp_path_factory.getbasetemp() / "nobody"
    nobody.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(nobody))
    before = guarded_state()
    yield
    assert guarded_state() == before, f"the test touched {REAL_HOME}"


@pytest.fixture(autouse=True)
def _plain_logging():
    """What a test before this one did to our loggers is no business of this one."""
    root = logging.getLogger()
    before = root.level
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "pylon" and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.disabled, logger.propagate = False, True
    yield
    root.setLevel(before)


@pytest.fixture(autouse=True)
def _no_leaks(_clean_environment):
    threads, children = set(threading.enumerate()), child_pids()
    yield
    try:
        waiting.wait_for(lambda: set(threading.enumerate()) <= threads, GOODBYE_SECS)
    except AssertionError:
        left = sorted(t.name for t in set(threading.enumerate()) - threads)
        pytest.fail(f"threads outlived the test: {left}")
    try:
        waiting.wait_for(lambda: child_pids() <= children, GOODBYE_SECS)
    except AssertionError:
        left = {pid: command_of(pid) for pid in child_pids() - children}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        pytest.fail(f"children outlived the test: {left}")


def guarded_state() -> dict[str, int]:
    """Inode change times of the places of the real home that Pylon could touch."""
    return {name: (REAL_HOME / name).stat().st_mtime_ns
            for name in GUARDED if (REAL_HOME / name).exists()}


def child_pids() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:             # a thread that ended meanwhile
            continue
    return found


def processes_naming(place: Path) -> list[int]:
    """Processes, ours excepted, whose arguments or environment name `place`."""
    needle, found = os.fsencode(place), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:             # gone, or not ours to read
            continue
        if needle in text:
            found.append(int(entry.name))
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone"
