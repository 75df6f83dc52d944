"""The probes of `pylon doctor`: each looks at one thing the node needs and says what it found.
Here are those of the machine itself; `outside` has the others.

A probe changes nothing. A finding that is not fine comes with the command, or the line of the
configuration, that mends it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from pylon import config as configuration
from pylon import identity
from pylon.cli import outside
from pylon.cli.config import explain_old_places
from pylon.cli.finding import Finding, Patient
from pylon.config import Config
from pylon.control import client
from pylon.crypto import secp
from pylon.daemon import lockfile
from pylon.errors import PylonError
from pylon.home import SYSTEM_OPENAGENTS, Home
from pylon.store.database import ReadOnly

BWRAP_TRY = ("--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc",
             "--dev", "/dev", "true")


def probes() -> list[Callable[[Patient], Iterator[Finding]]]:
    """In the order in which they are shown."""
    return [_identity, _files, _configuration, _daemon, _store, _disk, _crypto, outside.clock,
            outside.relays, outside.backends, outside.wallet, _confinement]


def examine(home: Home, config: Config, problems: list[configuration.Problem]) -> Patient:
    try:
        keys = identity.load(configuration.identity_path(home, config)).keys
    except PylonError:
        keys = None
    return Patient(home, config, problems, keys)


def _identity(patient: Patient) -> Iterator[Finding]:
    place = configuration.identity_path(patient.home, patient.config)
    try:
        npub = identity.npub_of(place)
    except PylonError as err:
        yield Finding("identity", "bad", str(err), "pylon init", {"ok": False, "npub": None})
        return
    sealed = "" if patient.keys else ", sealed with a passphrase"
    yield Finding("identity", "ok", npub + sealed, "", {"ok": True, "npub": npub})


def _files(patient: Patient) -> Iterator[Finding]:
    home = patient.home
    if not home.exists():
        yield Finding("files", "bad", f"there is no {home.root}", "pylon init")
        return
    try:
        home.check()
    except PylonError as err:
        yield Finding("files", "bad", str(err), f"chmod -R go-rwx '{home.root}'")
    loose = [place for place in _all_files(home.root) if _is_loose(place)]
    if loose:
        yield Finding("files", "bad", f"{len(loose)} files are open to others, first {loose[0]}",
                      f"chmod -R go-rwx '{home.root}'")
    for note in explain_old_places(home):
        yield Finding("files", "warn", note, "pylon init --import")
    if not loose:
        yield Finding("files", "ok", f"{home.root} is private")


def _all_files(root: Path) -> Iterator[Path]:
    try:
        yield from root.rglob("*")
    except OSError:
        return


def _is_loose(place: Path) -> bool:
    try:
        info = place.lstat()
    except OSError:
        return False
    for_group = 0 if place.is_relative_to(SYSTEM_OPENAGENTS) else 0o070
    return bool(stat.S_IMODE(info.st_mode) & (0o007 | for_group)) and \
        not stat.S_ISLNK(info.st_mode)


def _configuration(patient: Patient) -> Iterator[Finding]:
    for problem in patient.problems:
        yield Finding("config", "bad", str(problem), f"edit {problem.file}")
    for note in patient.config.notes:
        yield Finding("config", "warn", note, f"edit {patient.home.config}")
    if not patient.problems:
        files = ", ".join(map(str, patient.config.files)) or "no file: defaults"
        yield Finding("config", "ok", files)


def _daemon(patient: Patient) -> Iterator[Finding]:
    if client.answers(patient.home):
        yield Finding("daemon", "ok", f"running (pid {client.daemon_pid(patient.home)})")
    elif lockfile.is_held(patient.home):
        yield Finding("daemon", "bad", f"{lockfile.describe_holder(patient.home)} holds the home "
                      "and does not answer", "pylon restart")
    else:
        yield Finding("daemon", "warn", "not running", "pylon start")


BACKUP = "pylon stop, put a backup in its place; see store-damaged in: man pylon-troubleshooting"


def _store(patient: Patient) -> Iterator[Finding]:
    place = patient.home.database
    if not place.exists():
        yield Finding("store", "ok", "made at the first start")
        return
    try:
        store = ReadOnly(place)
        try:
            verdict = store.query("PRAGMA quick_check(1)")[0][0]
        finally:
            store.close()
    except PylonError as err:
        yield Finding("store", "bad", str(err), BACKUP)
        return
    size_mb = place.stat().st_size / 1_000_000
    if verdict == "ok":
        yield Finding("store", "ok", f"sound, {size_mb:.1f} MB")
    else:
        yield Finding("store", "bad", f"damaged: {verdict}", BACKUP)


def _disk(patient: Patient) -> Iterator[Finding]:
    place = patient.home.root if patient.home.exists() else Path.home()
    info = os.statvfs(place)
    free_mb = info.f_bavail * info.f_frsize // 1_000_000
    limits = patient.config.store
    facts = {"free_mb": free_mb}
    if info.f_flag & os.ST_RDONLY:
        yield Finding("disk", "bad", f"{place} is mounted read-only",
                      f"sudo mount -o remount,rw {place}", facts)
    elif free_mb < limits.pay_free_mb:
        yield Finding("disk", "bad", f"{free_mb} MB free: nothing is sold, nothing is paid",
                      "sudo apt clean; journalctl --vacuum-size=100M", facts)
    elif free_mb < limits.quote_free_mb:
        yield Finding("disk", "bad", f"{free_mb} MB free: no new paid work is taken",
                      "sudo apt clean; journalctl --vacuum-size=100M", facts)
    else:
        yield Finding("disk", "ok", f"{free_mb} MB free", "", facts)


def _crypto(patient: Patient) -> Iterator[Finding]:
    name = secp.backend_name()
    if name == "libsecp256k1":
        yield Finding("libsecp256k1", "ok", "signatures are checked by libsecp256k1")
    else:
        yield Finding("libsecp256k1", "warn", f"not found; {name} is used, which is about forty "
                      "times slower", "sudo apt install libsecp256k1-1   # Debian 12; -2 later")


def _confinement(patient: Patient) -> Iterator[Finding]:
    mend = "sudo apt install bubblewrap"
    tool = shutil.which("bwrap")
    if tool is None:
        yield Finding("bubblewrap", "warn", "not installed: only the built-in agent runner runs, "
                      "and none with a real wallet", mend)
        return
    try:
        done = subprocess.run([tool, *BWRAP_TRY], capture_output=True, timeout=10, text=True,
                              stdin=subprocess.DEVNULL)
        trouble = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1:]
    except (OSError, subprocess.TimeoutExpired) as err:
        trouble = [str(err)]
    if trouble == "":
        yield Finding("bubblewrap", "ok", "agents are confined by bubblewrap")
    else:
        why = trouble[0][:200] if trouble else "it failed"
        yield Finding("bubblewrap", "warn", f"installed, but it cannot confine: {why}",
                      "sudo sysctl kernel.unprivileged_userns_clone=1")
