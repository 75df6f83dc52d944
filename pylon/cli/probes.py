"""The probes of `pylon doctor`: each looks at one thing the node needs and says what it found.

A probe changes nothing. A finding that is not fine comes with the command, or the line of the
configuration, that mends it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from pylon import config as configuration
from pylon import identity
from pylon.backends import found
from pylon.backends.backend import Backend
from pylon.backends.completion import Prompt
from pylon.backends.exposure import is_exposed
from pylon.cli import counter
from pylon.cli.config import explain_old_places
from pylon.config import Config
from pylon.control import client
from pylon.crypto import secp
from pylon.daemon import lockfile
from pylon.errors import PylonError
from pylon.home import SYSTEM_OPENAGENTS, Home
from pylon.nostr.keys import Keys
from pylon.relays import nip11, tls
from pylon.relays.bell import Patience
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from pylon.store.database import ReadOnly
from pylon.units import format_sats

RELAY_MARGIN_SECS = 5.0             # beyond the time to connect, for an answer
CLOCK_SECS = 4.0
POLL_SECS = 0.05
BIG_SKEW_SECS = 60                  # jobs are dated; relays and customers refuse strange dates
TEST_PROMPT = "Answer with one word: yes"
TEST_TOKENS = 16
TIME_ERROR = 5                      # adjtimex(2): the clock is not synchronised
BWRAP_TRY = ("--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc",
             "--dev", "/dev", "true")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `level` is ok, warn or bad; `facts` go into --json."""

    subject: str
    level: str
    text: str
    mend: str = ""
    facts: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"subject": self.subject, "level": self.level, "text": self.text,
                "mend": self.mend, **(self.facts or {})}


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. `keys` is None where the identity is missing or sealed."""

    home: Home
    config: Config
    problems: list[configuration.Problem]
    keys: Keys | None


def probes() -> list[Callable[[Patient], Iterator[Finding]]]:
    """In the order in which they are shown."""
    return [_identity, _files, _configuration, _daemon, _store, _disk, _crypto, _clock, _relays,
            _backends, _wallet, _confinement]


def examine(home: Home, config: Config, problems: list[configuration.Problem]) -> Patient:
    try:
        keys = identity.load(configuration.identity_path(home, config)).keys
    except PylonError:
        keys = None
    return Patient(home, config, problems, keys)


# ---- what is on this machine --------------------------------------------------------------------

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
        yield Finding("store", "bad", str(err), "pylon restore FILE")
        return
    size_mb = place.stat().st_size / 1_000_000
    if verdict == "ok":
        yield Finding("store", "ok", f"sound, {size_mb:.1f} MB")
    else:
        yield Finding("store", "bad", f"damaged: {verdict}", "pylon restore FILE")


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


def _clock(patient: Patient) -> Iterator[Finding]:
    now, built = time.time(), Path(__file__).stat().st_mtime
    mend = "sudo timedatectl set-ntp true"
    if now < built - 86400:
        yield Finding("clock", "bad", f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}, "
                      "which is before this program was installed", mend)
        return
    skews = _skews(list(patient.config.relays), patient.config.relay.ca_file)
    if skews:
        skew = sorted(skews, key=abs)[len(skews) // 2]
        facts = {"skew_secs": round(skew)}
        level = "bad" if abs(skew) > BIG_SKEW_SECS else "ok"
        yield Finding("clock", level, f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} "
                      f"the relays' clocks", mend if level == "bad" else "", facts)
    elif ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == TIME_ERROR:
        yield Finding("clock", "warn", "not synchronised, and no relay says what time it is", mend)
    else:
        yield Finding("clock", "ok", "synchronised")


def _skews(urls: list[str], ca_file: str) -> list[float]:
    """How far our clock is ahead of each relay's Date header."""
    skews: list[float] = []

    def ask(url: str) -> None:
        try:
            context = tls.client_context(ca_file) if url.startswith("wss") else None
            date = nip11.fetch(url, Patience(CLOCK_SECS), context).date
            skews.append(time.time() - parsedate_to_datetime(date).timestamp())
        except (PylonError, ValueError, TypeError, OSError):
            return                          # no date: the relay's probe tells what is wrong
    _all_at_once([lambda url=url: ask(url) for url in urls])     # type: ignore[misc]
    return skews


# ---- what is outside ----------------------------------------------------------------------------

def _relays(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    if not config.relays:
        yield Finding("relays", "warn", "none is configured: nobody can reach this node",
                      f"set relays in {patient.home.config}")
        return
    answered: dict[str, str] = {}

    def note(url: str, what: str) -> None:
        answered.setdefault(url, what)
    pool = Pool(config, lambda: [patient.keys] if patient.keys else [])
    pool.subscribe(Subscription(
        "doctor", [{"kinds": list(config.provider.kinds), "limit": 1}], lambda url, events: None,
        on_eose=lambda url: note(url, "answers"),
        on_closed=lambda url, message: note(url, f"refuses: {message}")))
    try:
        pool.start(config.relays)
        _await_relays(pool, answered, config.relay.connect_secs + RELAY_MARGIN_SECS)
        for state in pool.states():
            yield _relay(state, answered.get(state.url, ""))
    finally:
        pool.stop()


def _await_relays(pool: Pool, answered: dict[str, str], secs: float) -> None:
    """Until each relay has answered or failed once."""
    deadline = time.monotonic() + secs
    while time.monotonic() < deadline:
        if all(state.url in answered or (state.last_error and not state.connected)
               for state in pool.states()):
            return
        time.sleep(POLL_SECS)


def _relay(state: Any, answer: str) -> Finding:
    facts = {"url": state.url, "ok": answer == "answers", "latency_ms": state.latency_ms,
             "auth": state.auth}
    auth = {"": "", "asked": ", asks who we are", "ok": ", authenticated",
            "refused": ", refuses our identity"}.get(state.auth, "")
    if answer == "answers":
        latency = f" in {state.latency_ms:.0f} ms" if state.latency_ms is not None else ""
        level = "warn" if state.auth == "refused" else "ok"
        return Finding("relay", level, f"{state.url} answers{latency}{auth}",
                       "ask its owner for access, or use another relay" if level != "ok" else "",
                       facts)
    what = answer or state.last_error or "does not answer"
    return Finding("relay", "bad", f"{state.url}: {what}{auth}",
                   "check the network, or take it out of `relays` and: pylon reload", facts)


def _backends(patient: Patient) -> Iterator[Finding]:
    try:
        backends = [backend for _, backend in found.build(patient.config, patient.home)]
    except PylonError as err:
        yield Finding("backend", "bad", str(err), f"edit {patient.home.config}")
        return
    findings: list[Finding] = []
    _all_at_once([lambda backend=backend: findings.append(                  # type: ignore[misc]
        _backend(backend, patient.config.default_model)) for backend in backends])
    yield from sorted(findings, key=lambda finding: finding.level != "ok")
    if not any((finding.facts or {}).get("available") for finding in findings):
        yield Finding("backends", "bad", "no backend answers: nothing can be sold",
                      "start one, for example: sudo systemctl start ollama")


def _backend(backend: Backend, default_model: str) -> Finding:
    facts: dict[str, Any] = {"id": backend.id, "endpoint": backend.url, "available": False}
    try:
        names = [model.name for model in backend.probe()]
        if not names:
            return Finding("backend", "warn", f"{backend.id} at {backend.url} has no model",
                           f"ollama pull {default_model}" if backend.type == "ollama" else
                           "load a model into it", facts)
        model = default_model if default_model in names else names[0]
        facts["models"] = names
        begun = time.monotonic()
        backend.complete(Prompt([{"role": "user", "content": TEST_PROMPT}], TEST_TOKENS), model)
    except PylonError as err:
        return Finding("backend", "warn", f"{backend.id} at {backend.url}: {err}",
                       f"start it, or set enabled = false in [backends.{backend.id}]", facts)
    finally:
        backend.close()
    facts["available"] = True
    facts["completion_secs"] = round(time.monotonic() - begun, 2)
    if backend.type == "ollama" and is_exposed(backend.url):
        return Finding("backend", "warn", f"{backend.id}: it works, but listens beyond this "
                       "machine and asks nobody for a key",
                       "set OLLAMA_HOST=127.0.0.1 for Ollama's service", facts)
    return Finding("backend", "ok", f"{backend.id}: {len(names)} models; {model} answered in "
                   f"{facts['completion_secs']:g} s", "", facts)


def _wallet(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    if not config.enable_payments:
        if config.require_payment:
            yield Finding("wallet", "bad", "payments are off but required: every job is refused",
                          "set enable_payments = true, or require_payment = false")
        else:
            yield Finding("wallet", "warn", "payments are off: work is free", "")
        return
    if config.wallet.backend == "ledger" and not client.answers(patient.home) and \
            not any(patient.home.secrets.glob("ledger*")):
        yield Finding("wallet", "ok", "play money; the account is made at the first start")
        return
    try:
        facts = _ask_wallet(patient)
    except (PylonError, OSError) as err:
        yield Finding("wallet", "bad", f"{config.wallet.backend}: {err}",
                      f"pylon wallet connect {config.wallet.backend}", {"ok": False})
        return
    yield Finding("wallet", "ok", f"{facts['wallet']} on {facts['network']}, "
                  f"{format_sats(facts['balance_msats'])}", "", {"ok": True, **facts})
    if not facts.get("lud16"):
        yield Finding("wallet", "ok", "it has no lightning address: zap triggers are not to be "
                      "had for agents")


def _ask_wallet(patient: Patient) -> dict[str, Any]:
    """From the daemon where it runs; else the wallet itself. Raises PylonError, OSError."""
    if client.answers(patient.home):
        facts = client.call(patient.home, "WalletStatus", timeout_secs=counter.ASK_SECS)
        if not facts.get("connected"):
            raise PylonError(str(facts.get("trouble") or "not connected"))
        address = client.call(patient.home, "WalletAddress", timeout_secs=counter.ASK_SECS)
        return {"wallet": facts["wallet"], "network": facts["network"],
                "balance_msats": facts["balance_msats"], "lud16": address.get("lud16")}
    purse = counter.Purse(patient.home, patient.config)
    try:
        wallet = purse.open()
        return {"wallet": wallet.name, "network": wallet.network,
                "balance_msats": wallet.balance(), "lud16": wallet.info().get("lud16")}
    finally:
        purse.close()


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


def _all_at_once(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
