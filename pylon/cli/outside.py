"""Probes of what is outside the machine, or answers over a socket: clock, relays, backends,
wallet.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from pylon.backends import found
from pylon.backends.backend import Backend
from pylon.backends.completion import Prompt
from pylon.backends.exposure import is_exposed
from pylon.cli import counter
from pylon.cli.finding import Finding, Patient
from pylon.control import client
from pylon.errors import PylonError
from pylon.relays import address, nip11, tls
from pylon.relays.bell import Patience
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from pylon.units import format_sats

RELAY_MARGIN_SECS = 5.0             # beyond the time to connect, for an answer
CLOCK_SECS = 4.0
POLL_SECS = 0.05
BIG_SKEW_SECS = 60                  # jobs are dated; relays and customers refuse strange dates
TEST_PROMPT = "Answer with one word: yes"
TEST_TOKENS = 16
TIME_ERROR = 5                      # adjtimex(2): the clock is not synchronised


def clock(patient: Patient) -> Iterator[Finding]:
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


def relays(patient: Patient) -> Iterator[Finding]:
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


def backends(patient: Patient) -> Iterator[Finding]:
    try:
        them = [backend for _, backend in found.build(patient.config, patient.home)]
    except PylonError as err:
        yield Finding("backend", "bad", str(err), f"edit {patient.home.config}")
        return
    findings: list[Finding] = []
    _all_at_once([lambda backend=backend: findings.append(                  # type: ignore[misc]
        _backend(backend, patient.config.default_model)) for backend in them])
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


def wallet(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    if not config.enable_payments:
        if config.require_payment:
            yield Finding("wallet", "bad", "payments are off but required: every job is refused",
                          "set enable_payments = true, or require_payment = false")
        else:
            yield Finding("wallet", "warn", "payments are off: work is free", "")
        return
    if config.wallet.backend == "ledger" and config.require_payment and \
            not all(map(address.is_local, config.relays)):
        yield Finding("wallet", "warn", "play money is not quoted to the public, and payment is "
                      "required: nothing is sold on these relays", "connect a real wallet: pylon "
                      "wallet connect; or set require_payment = false, or use relays of your own")
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


def _all_at_once(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
