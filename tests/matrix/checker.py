"""The judge of every crash test: a pure look at the database, the wallet's log and the relay's log.

It returns what is wrong, as sentences; an empty list is a pass. It knows nothing of how the node
got there.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path

ANSWERED = ("delivered", "settled")
SETTLED_DEBT = ("owed", "refunded", "waived")


def check(database: Path, ledger: Path, node: str, relay_log: list[dict],
          pubkey: str) -> list[str]:
    """Judge one provider. `node` is its account in the ledger, `pubkey` its Nostr key (hex);
    `relay_log` is every event that the relay accepted."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    money = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    money.row_factory = sqlite3.Row
    try:
        paid = {row["payment_hash"]: row["amount_msats"] for row in money.execute(
            "SELECT payment_hash, amount_msats FROM invoice WHERE account = ? AND state = 'paid'",
            (node,))}
        return [*_paid_is_delivered(db, paid, relay_log, pubkey), *_once(relay_log, pubkey),
                *_books(db, paid), *_payments(db, money, node), *_nothing_left(db)]
    finally:
        db.close()
        money.close()


def _paid_is_delivered(db: sqlite3.Connection, paid: dict[str, int], relay_log: list[dict],
                       pubkey: str) -> list[str]:
    """Promise 1: paid means delivered, or owed."""
    wrong = []
    results = _answers(relay_log, pubkey)
    for payment_hash in paid:
        row = db.execute("SELECT j.id, j.stage FROM invoices i LEFT JOIN jobs j ON j.id = i.job_id "
                         "WHERE i.payment_hash = ?", (payment_hash,)).fetchone()
        if row is None:
            wrong.append(f"paid hash {payment_hash[:8]} is unknown to the node")
        elif row["id"] is None:
            continue                                    # an invoice of the owner's
        elif row["stage"] in ANSWERED:
            if not results[row["id"]]:
                wrong.append(f"job {row['id'][:8]} is {row['stage']} without a result on the relay")
        elif row["stage"] in SETTLED_DEBT:
            if not db.execute("SELECT 1 FROM owed WHERE job_id = ?", (row["id"],)).fetchone():
                wrong.append(f"job {row['id'][:8]} is {row['stage']} without a debt")
        else:
            wrong.append(f"job {row['id'][:8]} is paid and stands in {row['stage']}")
    for row in db.execute("SELECT j.id, j.stage, i.payment_hash FROM jobs j JOIN invoices i ON "
                          "i.job_id = j.id WHERE j.payment <> 'none' AND j.stage IN "
                          "('delivered', 'settled', 'done', 'paid')"):
        if row["payment_hash"] not in paid:
            wrong.append(f"job {row['id'][:8]} is {row['stage']}, but nobody paid")
    return wrong


def _answers(relay_log: list[dict], pubkey: str) -> dict[str, set[str]]:
    results: dict[str, set[str]] = defaultdict(set)
    for event in relay_log:
        if event["pubkey"] == pubkey and 6000 <= event["kind"] <= 6999:
            results[_request(event)].add(event["id"])
    return results


def _request(event: dict) -> str:
    return next((t[1] for t in event["tags"] if t[0] == "e"), "")


def _once(relay_log: list[dict], pubkey: str) -> list[str]:
    """Promise 2: one request, one published invoice, one result."""
    quotes: dict[str, set[str]] = defaultdict(set)
    for event in relay_log:
        if (event["pubkey"] == pubkey and event["kind"] == 7000
                and ["status", "payment-required"] in [t[:2] for t in event["tags"]]):
            quotes[_request(event)].add(event["id"])
    return [f"job {job[:8]} has {len(ids)} {what}" for what, found in
            (("quotes", quotes), ("results", _answers(relay_log, pubkey)))
            for job, ids in found.items() if len(ids) > 1]


def _books(db: sqlite3.Connection, paid: dict[str, int]) -> list[str]:
    """Promises 6 and 7: booked once, from the wallet's word, and in balance."""
    wrong = []
    total = db.execute("SELECT coalesce(sum(amount_msats), 0) FROM entries").fetchone()[0]
    if total:
        wrong.append(f"the books sum to {total} msats")
    booked = {row["ref"]: row["amount_msats"] for row in db.execute(
        "SELECT ref, amount_msats FROM entries WHERE kind = 'received' AND account <> 'external'")}
    if booked != paid:
        wrong.append(f"booked {booked}, but the wallet received {paid}")
    earned = {row["payment_hash"]: row["amount_msats"] for row in db.execute(
        "SELECT payment_hash, amount_msats FROM earnings WHERE id LIKE 'earn-%'")}
    jobs = {h: m for h, m in paid.items() if db.execute(
        "SELECT 1 FROM invoices WHERE payment_hash = ? AND job_id IS NOT NULL", (h,)).fetchone()}
    if earned != jobs:
        wrong.append(f"earned {earned}, but jobs brought {jobs}")
    counter = db.execute("SELECT value FROM totals WHERE name = 'earnings_msats'").fetchone()[0]
    rows = db.execute("SELECT coalesce(sum(amount_msats), 0) FROM earnings").fetchone()[0]
    if counter != rows:
        wrong.append(f"the running total is {counter}, the rows say {rows}")
    return wrong


def _payments(db: sqlite3.Connection, money: sqlite3.Connection, node: str) -> list[str]:
    """Promise 3: no action and no hash is paid twice, and every payment made is known."""
    wrong = []
    sent = [row["payment_hash"] for row in money.execute(
        "SELECT payment_hash FROM payment WHERE account = ? AND state IN ('paid', 'pending')",
        (node,))]
    if len(sent) != len(set(sent)):
        wrong.append("a hash was paid twice")
    known = {row["payment_hash"]: row["state"] for row in db.execute(
        "SELECT payment_hash, state FROM payments WHERE state <> 'failed'")}
    for payment_hash in sent:
        if known.get(payment_hash) != "succeeded":
            wrong.append(f"{payment_hash[:8]} was paid, the node says {known.get(payment_hash)}")
    for payment_hash, state in known.items():
        if state == "succeeded" and payment_hash not in sent:
            wrong.append(f"{payment_hash[:8]} is succeeded, the wallet never paid it")
    reserved = db.execute("SELECT coalesce(sum(amount_msats), 0) FROM entries WHERE "
                          "account = 'reserved'").fetchone()[0]
    live = db.execute("SELECT coalesce(sum(amount_msats + fee_cap_msats), 0) FROM payments WHERE "
                      "state IN ('reserved', 'sent', 'unknown')").fetchone()[0]
    if reserved != live:
        wrong.append(f"{reserved} msats are reserved, live intents need {live}")
    return wrong


def _nothing_left(db: sqlite3.Connection) -> list[str]:
    """After the dust has settled nothing is half done."""
    return [f"job {row['id'][:8]} is left in {row['stage']}" for row in db.execute(
        "SELECT id, stage FROM jobs WHERE stage IN ('received', 'gathering', 'invoicing', 'free', "
        "'paid', 'held', 'running', 'done', 'settling', 'cancelling')")] + [
        f"payment {row['action_key']} is left {row['state']}" for row in db.execute(
            "SELECT action_key, state FROM payments WHERE state IN ('reserved', 'sent', "
            "'unknown')")]
