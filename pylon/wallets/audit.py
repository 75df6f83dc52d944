"""The audit: proves that the books balance and that they say what the wallet says (promise 6).

Every hash that Pylon made or paid is held against the wallet's history, and what the history does
not list is looked up by hash. The owner's own movements are booked as external on the way, and are
no difference. A wallet that covers too little is one, and stops all spending; a clean audit takes
away the stop that a restored home has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pylon.errors import WalletError
from pylon.store import books, checks, external, payments, spending
from pylon.store.checks import Finding, Ours
from pylon.store.database import Database
from pylon.store.external import Cover, Moved
from pylon.store.payments import PaymentRow
from pylon.units import format_sats
from pylon.wallets.external import LOOK_TRIES, View, finished, look, take
from pylon.wallets.wallet import Wallet

ARRIVING_SECS = 60                  # what came so short ago is being booked at this moment
MARGIN_SECS = 86400                 # clocks of wallets and ours need not agree

Seen = dict[tuple[str, bool], list[Moved]]      # (hash, incoming) -> what the wallet lists


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found; `clean` where nothing differs."""

    at: int
    findings: list[Finding]
    balances: dict[str, int]
    pending: list[PaymentRow]       # payments that are not decided
    cover: Cover | None             # None: the wallet could not be read
    external: list[Moved]           # the owner's movements that were new
    checked: dict[str, int]

    @property
    def clean(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """For --json; amounts in msats."""
        cover = self.cover
        return {
            "clean": self.clean, "at": self.at, "balances": self.balances,
            "wallet_msats": cover.wallet_msats if cover else None,
            "needed_msats": cover.needed_msats if cover else None,
            "underfunded": cover.underfunded if cover else None,
            "findings": [{"code": f.code, "subject": f.subject, "text": f.text}
                         for f in self.findings],
            "external": [{"ref": m.ref, "incoming": m.incoming, "amount_msats": m.amount_msats,
                          "fee_msats": m.fee_msats, "at": m.at} for m in self.external],
            "pending": [{"payment_hash": p.payment_hash, "state": p.state.value,
                         "amount_msats": p.amount_msats, "created_at": p.created_at}
                        for p in self.pending],
            "checked": self.checked}


@dataclass(slots=True)
class _Compared:
    """What comparing with the wallet gave."""

    findings: list[Finding]
    cover: Cover | None = None
    booked: list[Moved] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)


def audit(db: Database, wallet: Wallet | None, network: str, now: int) -> Report:
    """Look at everything. Changes nothing but external bookings and the stop on spending."""
    try:
        compared = _compare(db, wallet, network, now)
    except WalletError as err:
        compared = _Compared([Finding("wallet-unreadable", "wallet", str(err))])
    findings = compared.findings + checks.all_findings(db)
    if not findings and spending.RESTORED in spending.frozen(db):
        with db.transaction(durable=True) as tx:
            spending.thaw(tx, spending.RESTORED, now)
    return Report(now, findings, books.balances(db), payments.open_intents(db), compared.cover,
                  compared.booked, compared.checked)


def _compare(db: Database, wallet: Wallet | None, network: str, now: int) -> _Compared:
    """The store against the wallet, again where one of them moved meanwhile."""
    if wallet is None:
        return _Compared([Finding("no-wallet", "wallet", "no wallet is open to compare with")])
    if wallet.network != network:
        return _Compared([Finding("wrong-network", "wallet", f"the wallet is on {wallet.network}, "
                                  f"the node on {network}")])
    compared = _Compared([])
    for _ in range(LOOK_TRIES):
        view = look(db, wallet, _from(db, now))
        cover = take(db, wallet.name, view, now) or external.cover(db, view.balance_msats)
        compared.booked += cover.booked
        compared.cover = cover
        version = books.version(db)
        ours = checks.our_hashes(db)
        compared.findings = [*_covered(cover), *_differences(db, wallet, ours, view, now)]
        compared.checked = _counts(ours, wallet, view)
        if view.quiet and books.version(db) == version:
            break
    return compared


def _from(db: Database, now: int) -> int:
    """Where the history must begin to have every hash of ours and every external movement."""
    ours = [one.created_at for one in checks.our_hashes(db)]
    opened = external.opened_at(db)
    return max(0, min(ours + [now if opened is None else opened]) - MARGIN_SECS)


def _counts(ours: list[Ours], wallet: Wallet, view: View) -> dict[str, int]:
    here = [one for one in ours if one.wallet == wallet.name]
    return {"invoices": sum(one.incoming for one in here),
            "payments": sum(not one.incoming for one in here),
            "movements": len(view.movements),
            "of_other_wallets": len(ours) - len(here)}


def _covered(cover: Cover) -> Iterator[Finding]:
    if cover.underfunded:
        yield Finding("underfunded", "wallet", f"the wallet has {format_sats(cover.wallet_msats)}; "
                      f"{format_sats(cover.needed_msats)} belong to agents, customers and payments "
                      "under way: spending is stopped")


def _differences(db: Database, wallet: Wallet, ours: list[Ours], view: View,
                 now: int) -> Iterator[Finding]:
    seen: Seen = {}
    for moved in finished(view.movements):
        seen.setdefault((moved.payment_hash, moved.incoming), []).append(moved)
    for one in ours:
        if one.wallet == wallet.name:
            there = seen.get((one.payment_hash, one.incoming), [])
            check = _receipt if one.incoming else _payment
            yield from check(wallet, one, there, now)
    yield from _externals(db, seen)


def _receipt(wallet: Wallet, ours: Ours, there: list[Moved], now: int) -> Iterator[Finding]:
    """An invoice of ours."""
    name = ours.payment_hash
    if ours.state == "paid" and not there:
        receipt = wallet.lookup(name)
        if receipt.state != "paid":
            yield Finding("not-in-wallet", name, f"{ours.amount_msats} msats are booked; the "
                          f"wallet says {receipt.state}")
        elif receipt.received_msats != ours.amount_msats:
            yield _amount(name, ours.amount_msats, receipt.received_msats)
    elif ours.state == "paid" and there[0].amount_msats != ours.amount_msats:
        yield _amount(name, ours.amount_msats, there[0].amount_msats)
    elif ours.state != "paid" and there:
        if not (ours.watched and now - there[0].at < ARRIVING_SECS):
            yield Finding("arrived-not-booked", name, f"{there[0].amount_msats} msats came to the "
                          "wallet and are not booked; is the node running?")


def _payment(wallet: Wallet, ours: Ours, there: list[Moved], now: int) -> Iterator[Finding]:
    """A payment of ours; an open one is the reconciler's, whatever the wallet says."""
    name = ours.payment_hash
    if len(there) > 1:
        yield Finding("paid-twice", name, f"the wallet paid it {len(there)} times")
    if ours.state == "failed" and there:
        yield Finding("paid-but-failed", name, f"the books say that it failed; the wallet paid "
                      f"{there[0].amount_msats} msats")
    elif ours.state == "succeeded" and not there:
        outcome = wallet.lookup_payment(name)
        if outcome.state != "paid":
            yield Finding("not-in-wallet", name, f"{ours.amount_msats} msats are booked as paid; "
                          f"the wallet says {outcome.state}")
    elif ours.state == "succeeded":
        if there[0].amount_msats != ours.amount_msats:
            yield _amount(name, ours.amount_msats, there[0].amount_msats)
        if there[0].fee_msats != ours.fee_msats:
            yield Finding("fee-differs", name, f"the books have a fee of {ours.fee_msats} msats, "
                          f"the wallet {there[0].fee_msats}")


def _amount(payment_hash: str, booked: int, in_wallet: int) -> Finding:
    return Finding("amount-differs", payment_hash, f"the books have {booked} msats, the wallet "
                   f"{in_wallet}")


def _externals(db: Database, seen: Seen) -> Iterator[Finding]:
    """Every external booking of a movement must stand in the wallet's history."""
    listed = {moved.ref: moved for moves in seen.values() for moved in moves}
    for ref, msats in external.booked(db).items():
        if ref.startswith(("in:", "out:")):
            moved = listed.get(ref)
            if moved is None or msats != moved.signed_msats:
                yield Finding("external-differs", ref, f"{msats} msats are booked as the owner's "
                              "own movement; the wallet's history has "
                              f"{moved.signed_msats if moved else 'nothing'}")


def describe(report: Report) -> Iterable[str]:
    """The report in lines for people."""
    if report.cover is not None:
        yield (f"wallet {format_sats(report.cover.wallet_msats)}, of which "
               f"{format_sats(report.cover.needed_msats)} belong to agents, customers and payments "
               "under way")
    if report.checked:
        yield (f"compared {report.checked['invoices']} invoices and "
               f"{report.checked['payments']} payments with {report.checked['movements']} "
               "movements of the wallet")
        if report.checked["of_other_wallets"]:
            yield f"{report.checked['of_other_wallets']} of another wallet could not be compared"
    for moved in report.external:
        sign = "+" if moved.incoming else "-"
        yield f"external: {sign}{format_sats(moved.amount_msats)} (booked as your own)"
    for row in report.pending:
        yield (f"pending: payment {row.payment_hash[:16]}, {format_sats(row.amount_msats)}, "
               f"{row.state}")
    for finding in report.findings:
        yield f"DIFFERENCE {finding.code} {finding.subject}: {finding.text}"
    count = len(report.findings)
    yield "clean" if report.clean else f"{count} difference{'s' * (count > 1)}"
