"""What `pylon status` tells, as facts and as text.

The daemon renders the text itself, so that the command needs neither json nor any module of ours.
The facts keep the names that users of the first Pylon know.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from pylon import __version__
from pylon.units import format_duration, format_sats

log = logging.getLogger(__name__)


def facts(daemon: Any) -> dict[str, Any]:
    """Everything, from a running Daemon (not named as a type: it imports this module)."""
    config = daemon.config
    known = {
        "daemon": {"running": True, "pid": os.getpid(),
                   "uptime_secs": int(time.monotonic() - daemon.started_mono),
                   "provider_active": daemon.mode in ("provider", "both"),
                   "host_active": daemon.mode in ("host", "both"),
                   "version": __version__, "mode": daemon.mode, "stopping": daemon.stopping,
                   "started_at": daemon.started_at, "home": str(daemon.home.root),
                   "config_file": daemon.config_file, "foreground": daemon.foreground},
        "stats": {"jobs_completed": 0, "earnings_msats": 0},
        "identity": {"configured": True, "npub": daemon.keys.npub},
        "backends": [], "default_backend": None, "relays": list(config.relays),
        "network": config.network,
    }
    for name, ask in list(daemon.facts.items()):
        try:
            known[name] = ask()
        except Exception as err:                # one part in trouble must not hide the others
            log.warning("status: %s: %s", name, err)
            known[name] = None
    return known


def facts_when_down(home: str, has_identity: bool, relays: list[str],
                    backends: list[str]) -> dict[str, Any]:
    """The same shape where no daemon runs. Who the node is takes a curve to find out: whoami."""
    return {
        "daemon": {"running": False, "pid": None, "uptime_secs": None, "provider_active": None,
                   "host_active": None, "version": __version__, "mode": None, "stopping": False,
                   "started_at": None, "home": home, "config_file": "",
                   "foreground": None},
        "stats": {"jobs_completed": 0, "earnings_msats": 0},
        "identity": {"configured": has_identity, "npub": None},
        "backends": backends, "default_backend": None, "relays": relays,
    }


def first_pylon_form(known: dict[str, Any]) -> dict[str, Any]:
    """The answer to "Status", as the first Pylon gave it."""
    daemon = known["daemon"]
    stats = known["stats"] or {"jobs_completed": 0, "earnings_msats": 0}
    return {"running": True, "uptime_secs": daemon["uptime_secs"],
            "provider_active": daemon["provider_active"], "host_active": daemon["host_active"],
            "jobs_completed": stats["jobs_completed"],
            "earnings_msats": stats["earnings_msats"]}


def render(known: dict[str, Any]) -> str:
    """For a person. Lines of 'Name: value', details indented."""
    lines = [*_daemon(known["daemon"]), *_stats(known.get("stats")),
             *_identity(known["identity"]), *_provider(known.get("provider")),
             *_wallet(known.get("wallet")), *_backends(known), *_relays(known),
             *_trouble(known), *_extra(known)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """The text without what JSON would escape, but for newlines: read back without a parser."""
    return "".join("'" if char == '"' else "/" if char == "\\" else char
                   if char == "\n" or (char.isprintable() and char.isascii()) else "?"
                   for char in text)


def _daemon(daemon: dict[str, Any]) -> list[str]:
    if not daemon["running"]:
        return ["Daemon:    stopped (start it with: pylon start)"]
    lines = [f"Daemon:    {'stopping' if daemon['stopping'] else 'running'} "
             f"(pid {daemon['pid']}, version {daemon['version']})",
             f"Uptime:    {format_duration(daemon['uptime_secs'])}"]
    modes = [name for name, key in (("provider", "provider_active"), ("host", "host_active"))
             if daemon[key]]
    return [*lines, f"Modes:     {', '.join(modes)}"]


def _stats(stats: dict[str, Any] | None) -> list[str]:
    if stats is None:
        return ["Jobs:      unknown"]
    return [f"Jobs:      {stats['jobs_completed']} completed, "
            f"{format_sats(stats['earnings_msats'])} earned"]


def _identity(identity: dict[str, Any]) -> list[str]:
    if not identity["configured"]:
        return ["Identity:  none (make one with: pylon init)"]
    return [f"Identity:  {identity['npub'] or 'configured (pylon whoami tells who it is)'}"]


def _provider(provider: dict[str, Any] | None) -> list[str]:
    if not provider:
        return []
    closed = provider.get("closed")
    return [f"Provider:  {provider.get('running', 0)} running, {provider.get('queued', 0)} queued, "
            f"{provider.get('quoted', 0)} quoted"
            + (f"; takes no jobs: {closed}" if closed else "")]


def _wallet(wallet: dict[str, Any] | None) -> list[str]:
    if not wallet:
        return []
    if wallet.get("ok"):
        return [f"Wallet:    {wallet['backend']} on {wallet.get('network')}"]
    return [f"Wallet:    {wallet.get('backend')} is not to be had: {wallet.get('trouble')}"]


def _trouble(known: dict[str, Any]) -> list[str]:
    """What is not as it should be, and nobody would ask about."""
    lines = []
    store = known.get("store")
    if store and store.get("trouble"):
        lines.append(f"Store:     the disk refuses to write: {store['trouble']}")
    if known.get("crypto") == "ecdsa":
        lines.append("Crypto:    libsecp256k1 is missing, signatures are slow (see: pylon doctor)")
    return lines


def _backends(known: dict[str, Any]) -> list[str]:
    states = known.get("backend_states")
    if states:
        return ["Backends:", *(_state_line(state, known["default_backend"]) for state in states)]
    names = [name + (" (default)" if name == known["default_backend"] else "")
             for name in known["backends"] or []]
    return [f"Backends:  {', '.join(names) or 'none'}"]


def _state_line(state: dict[str, Any], default: str | None) -> str:
    name = str(state.get("id", "?")) + (" (default)" if state.get("id") == default else "")
    if state.get("available"):
        models = state.get("models") or []
        return f"  {name:<20} {len(models)} model{'' if len(models) == 1 else 's'}" + \
            (f": {', '.join(map(str, models[:4]))}" if models else "")
    return f"  {name:<20} not available: {state.get('error') or 'no answer'}"


def _relays(known: dict[str, Any]) -> list[str]:
    states = known.get("relay_states")
    if states is None:
        return ["Relays:    " + (", ".join(known["relays"]) or "none")]
    return ["Relays:", *(_relay_line(state) for state in states)]


def _relay_line(state: dict[str, Any]) -> str:
    if state.get("connected"):
        latency = state.get("latency_ms")
        return f"  {state['url']:<36} connected" + \
            (f", {latency:.0f} ms" if latency is not None else "")
    return f"  {state['url']:<36} down: {state.get('last_error') or 'connecting'}"


def _extra(known: dict[str, Any]) -> list[str]:
    """One line for every other part that has one to give: {'line': ...}."""
    lines = []
    for name, value in known.items():
        if isinstance(value, dict) and isinstance(value.get("line"), str):
            lines.append(f"{name.capitalize() + ':':<10} {value['line']}")
    return lines
