"""pylon doctor: probe everything the node needs, and say how to mend what is broken."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from pylon import config as configuration
from pylon.cli import terminal
from pylon.config import Config
from pylon.errors import EXIT_FAILED, EXIT_OK
from pylon.home import Home
from pylon.units import format_sats

if TYPE_CHECKING:
    from pylon.cli.finding import Finding, Patient

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("BAD", "red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="also show main settings")
    parser.add_argument("--strict", action="store_true", help="exit 1 unless all is well")
    parser.add_argument("-c", "--config", metavar="FILE", help="this file instead of the home's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from pylon.cli import probes            # late: --help needs none of what is probed
    logging.getLogger("pylon").setLevel(logging.CRITICAL)    # findings tell all, and only once
    config, problems = configuration.read(args.home, args.config)
    patient = probes.examine(args.home, config, problems)
    findings: list[Finding] = []
    for probe in probes.probes():
        for finding in _survive(probe, patient):
            findings.append(finding)
            if not args.json:
                _show(finding)
    well = all(finding.level == "ok" for finding in findings)
    if args.json:
        terminal.print_json(_as_json(findings))
    else:
        if args.verbose:
            _show_settings(args.home, config)
        bad = sum(finding.level == "bad" for finding in findings)
        terminal.say("ready" if not bad else f"{bad} thing{'' if bad == 1 else 's'} to mend; "
                     "more: man pylon-troubleshooting")
    return EXIT_FAILED if args.strict and not well else EXIT_OK


def _survive(probe: object, patient: Patient) -> list[Finding]:
    """A probe that breaks is itself a finding, and does not hide the others."""
    try:
        return list(probe(patient))                 # type: ignore[operator]
    except Exception as err:
        name = getattr(probe, "__name__", "probe").strip("_")
        from pylon.cli.finding import Finding       # late: as above
        return [Finding(name, "bad", f"the probe failed: {type(err).__name__}: {err}",
                        "please report this")]


def _show(finding: Finding) -> None:
    word, colour = _MARKS[finding.level]
    terminal.say(f"{terminal.colour(word.ljust(5), colour)} {finding.subject + ':':<14}"
                 f"{finding.text}")
    if finding.mend:
        terminal.say(f"{'':<20}mend: {finding.mend}")


def _show_settings(home: Home, config: Config) -> None:
    for name, value in (("configuration", home.config), ("data directory", config.data_dir
                                                         or home.root),
                        ("least price", format_sats(config.min_price_msats)),
                        ("default model", config.default_model),
                        ("network", config.network)):
        terminal.say(f"{name + ':':<20}{value}")


def _as_json(findings: list[Finding]) -> dict[str, object]:
    """The first Pylon's documented shape, and every finding beside it."""
    def of(subject: str) -> list[dict[str, object]]:
        return [f.facts for f in findings if f.subject == subject and f.facts]
    identity = of("identity")[0] if of("identity") else {"ok": False, "npub": None}
    return {"ok": not any(f.level == "bad" for f in findings), "identity": identity,
            "backends": of("backend"), "relays": of("relay"),
            "wallet": of("wallet")[0] if of("wallet") else None,
            "warnings": [f.text for f in findings if f.level != "ok"],
            "findings": [f.as_dict() for f in findings]}
