"""Checks: what must be true of the books by themselves, whatever a wallet says. Changes nothing.

Each function looks at one rule and yields what breaks it. In a database that only this program
has written there is nothing to find; `wallets.audit` adds what the wallet says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pylon.states import PaymentState
from pylon.store import books, meta, payments
from pylon.store.database import Database, ReadOnly
from pylon.store.payments import PaymentRow

P = PaymentState
PAYMENT_KINDS = ("reserve", "paid", "release", "trade")
PAID_FOR = ("'paid', 'running', 'done', 'delivered', 'settled', 'owed', 'refunded', 'waived'")
EARNING_KINDS = ("received", "owed", "waived", "refund-rest")


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: a stable code, what it is about (a hash, an account, an id), and why."""

    code: str
    subject: str
    text: str


def all_findings(db: Database) -> list[Finding]:
    """Every rule, in the order of this file; at one moment, and in nobody's way."""
    reader = ReadOnly(db.path)
    try:
        with reader.snapshot():
            return _all(reader)
    finally:
        reader.close()


def _all(db: ReadOnly) -> list[Finding]:
    rules = (whole, balanced, receipts, unpaid_work, intents, one_live_row, reserved, owed_money,
             earned, totals, agents)
    return [finding for rule in rules for finding in rule(db)]


def whole(db: ReadOnly) -> Iterator[Finding]:
    """The file itself: every row is in its indexes, which the check at the start leaves out."""
    for row in db.query("PRAGMA integrity_check(3)"):
        if row[0] != "ok":
            yield Finding("store-damaged", "store", row[0][:200])


def balanced(db: ReadOnly) -> Iterator[Finding]:
    for kind, ref, msats in books.lopsided(db):
        yield Finding("not-balanced", ref, f"the booking {kind} {ref} is off by {msats} msats")


def receipts(db: ReadOnly) -> Iterator[Finding]:
    """Every paid invoice is booked once, with the amount that came, and nothing else is."""
    booked = books.bookings(db, ("received",))
    paid = {row["payment_hash"]: row for row in db.query(
        "SELECT payment_hash, account, paid_amount_msats FROM invoices "
        "WHERE status = 'paid' AND payment_hash IS NOT NULL")}
    for payment_hash, row in paid.items():
        msats, moves = row["paid_amount_msats"], booked.pop(("received", payment_hash), {})
        if moves != {books.EXTERNAL: -msats, row["account"]: msats}:
            yield Finding("receipt-differs", payment_hash, f"{msats} msats came for "
                          f"{row['account']}; the books have {moves}")
    for (_, ref), moves in booked.items():
        yield Finding("receipt-differs", ref, f"{moves} are booked for an invoice that was not "
                      "paid")


def unpaid_work(db: ReadOnly) -> Iterator[Finding]:
    for row in db.query(
            f"SELECT id, stage FROM jobs WHERE payment = 'invoice' AND stage IN ({PAID_FOR}) "
            "AND id NOT IN (SELECT job_id FROM invoices WHERE status = 'paid' "
            "AND job_id IS NOT NULL)"):
        yield Finding("unpaid-work", row["id"], f"the job is {row['stage']}, and no invoice of it "
                      "was paid")


def intents(db: ReadOnly) -> Iterator[Finding]:
    """Every payment is booked as its state says, and every booking has its payment."""
    booked = books.bookings(db, PAYMENT_KINDS)
    for row in db.query("SELECT * FROM payments ORDER BY id"):
        yield from _intent(PaymentRow.of(row), booked)
    for kind, ref in booked:
        yield Finding("payment-missing", ref, f"{kind} is booked, and there is no such payment")


def _intent(row: PaymentRow, booked: dict[tuple[str, str], dict[str, int]]) -> Iterator[Finding]:
    done = {P.SUCCEEDED: "trade" if row.wallet == payments.INTERNAL else "paid",
            P.FAILED: "release"}.get(row.state)
    moves = {kind: booked.pop((kind, f"payment-{row.id}"), {}) for kind in PAYMENT_KINDS}
    for kind in PAYMENT_KINDS:
        expected = {"reserve": row.cost_msats, done: -row.cost_msats}.get(kind, 0)
        if moves[kind].get(books.RESERVED, 0) != expected:
            yield Finding("payment-differs", row.payment_hash, f"{kind} should have moved "
                          f"{expected} msats of reserved money; the books have {moves[kind]}")
    if done == "paid" and (moves["paid"].get(books.EXTERNAL), moves["paid"].get(books.FEES, 0)) \
            != (row.amount_msats, row.fee_msats):
        yield Finding("payment-differs", row.payment_hash, f"{row.amount_msats} msats and fee "
                      f"{row.fee_msats} were paid; the books have {moves['paid']}")
    if moves["reserve"].get(row.account, 0) > -row.amount_msats:
        yield Finding("payment-differs", row.payment_hash, f"{row.account} did not pay for it")
    if row.preimage is not None and not payments.proves(row.preimage, row.payment_hash):
        yield Finding("bad-preimage", row.payment_hash, "its preimage is of another hash")


def one_live_row(db: ReadOnly) -> Iterator[Finding]:
    for column in ("action_key", "payment_hash"):
        for row in db.query(f"SELECT {column} AS name, count(*) AS n FROM payments "
                            f"WHERE state <> 'failed' GROUP BY {column} HAVING n > 1"):
            yield Finding("paid-twice", row["name"], f"{row['n']} payments of one {column}")


def reserved(db: ReadOnly) -> Iterator[Finding]:
    row = db.one("SELECT coalesce(sum(amount_msats + fee_cap_msats), 0) AS n FROM payments "
                 "WHERE state IN ('reserved', 'sent', 'unknown')")
    yield from _account(db, books.RESERVED, row["n"] if row else 0, "open payments")


def owed_money(db: ReadOnly) -> Iterator[Finding]:
    """What is owed stands in its account, what a refund has reserved of it excepted."""
    row = db.one("SELECT coalesce(sum(o.amount_msats - CASE o.state WHEN 'settling' THEN "
                 "(SELECT coalesce(sum(p.amount_msats), 0) FROM payments p WHERE p.scope = o.id "
                 "AND p.purpose = 'refund' AND p.state IN ('reserved', 'sent', 'unknown')) "
                 "ELSE 0 END), 0) AS n FROM owed o WHERE o.state IN ('open', 'settling')")
    yield from _account(db, books.OWED, row["n"] if row else 0, "what is owed")
    for job in db.query("SELECT id FROM jobs WHERE stage = 'owed' AND NOT EXISTS "
                        "(SELECT 1 FROM owed o WHERE o.job_id = jobs.id)"):
        yield Finding("owed-missing", job["id"], "the job is owed, and nothing says what")


def _account(db: ReadOnly, account: str, expected: int, what: str) -> Iterator[Finding]:
    there = books.balance(db, account)
    if there != expected:
        yield Finding("account-differs", account, f"{account} has {there} msats; {what} make "
                      f"{expected}")


def earned(db: ReadOnly) -> Iterator[Finding]:
    """Earnings of our invoices are what the provider's account was booked, hash by hash."""
    kinds = ",".join(f"'{kind}'" for kind in EARNING_KINDS)
    for row in db.query(
            "WITH ours AS (SELECT payment_hash FROM invoices WHERE payment_hash IS NOT NULL AND "
            "job_id IS NOT NULL), "
            "refs(ref, hash) AS (SELECT payment_hash, payment_hash FROM ours UNION "
            "SELECT job_id, payment_hash FROM invoices WHERE payment_hash IS NOT NULL "
            "AND job_id IS NOT NULL UNION SELECT id, payment_hash FROM owed), "
            "booked AS (SELECT refs.hash, sum(e.amount_msats) AS n FROM entries e JOIN refs "
            f"ON refs.ref = e.ref WHERE e.account = 'provider' AND e.kind IN ({kinds}) "
            "GROUP BY refs.hash), "
            "earned AS (SELECT payment_hash AS hash, sum(amount_msats) AS n FROM earnings "
            "WHERE payment_hash IN ours GROUP BY payment_hash) "
            "SELECT o.payment_hash AS hash, coalesce(b.n, 0) AS booked, coalesce(a.n, 0) AS earned "
            "FROM ours o LEFT JOIN booked b ON b.hash = o.payment_hash "
            "LEFT JOIN earned a ON a.hash = o.payment_hash WHERE booked <> earned"):
        yield Finding("earnings-differ", row["hash"], f"earned {row['earned']} msats, booked "
                      f"{row['booked']}")


def totals(db: ReadOnly) -> Iterator[Finding]:
    """The running totals are what the rows make; finished jobs may have been forgotten."""
    earned_msats, done = meta.total(db, "earnings_msats"), meta.total(db, "jobs_completed")
    counted = db.one("SELECT (SELECT coalesce(sum(amount_msats), 0) FROM earnings) AS msats, "
                     "(SELECT count(*) FROM jobs WHERE status = 'completed') AS jobs")
    if counted is None or counted["msats"] != earned_msats:
        yield Finding("total-differs", "earnings_msats", f"the total says {earned_msats}, the rows "
                      f"make {counted['msats'] if counted else None}")
    if counted is None or counted["jobs"] > done:
        yield Finding("total-differs", "jobs_completed", f"the total says {done}, there are "
                      f"{counted['jobs'] if counted else None}")


def agents(db: ReadOnly) -> Iterator[Finding]:
    for account, msats in books.balances(db).items():
        if account.startswith("agent:") and msats < 0:
            yield Finding("account-negative", account, f"{account} has {msats} msats")


# ---- for the comparison with a wallet -----------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Ours:
    """One hash of ours as the store has it: an invoice that we made, or a payment."""

    payment_hash: str
    incoming: bool
    wallet: str
    state: str                      # of an invoice: paid or unpaid; of a payment: its state
    amount_msats: int               # of a paid invoice: what came
    fee_msats: int | None
    watched: bool                   # the wallet is still asked about it
    created_at: int


def our_hashes(db: Database) -> list[Ours]:
    """Everything that we made or paid over a wallet, oldest first, as it stands now.

    Of a hash that was paid after it failed only the row that did not fail.
    """
    made = [Ours(row["payment_hash"], True, row["wallet"], row["state"], row["n"], None,
                 bool(row["watched"]), row["created_at"])
            for row in db.query(
                "SELECT payment_hash, wallet, CASE status WHEN 'paid' THEN 'paid' ELSE 'unpaid' "
                "END AS state, coalesce(paid_amount_msats, amount_msats) AS n, "
                "watch_until IS NOT NULL AS watched, created_at FROM invoices "
                "WHERE payment_hash IS NOT NULL ORDER BY created_at")]
    paid = [Ours(row["payment_hash"], False, row["wallet"], row["state"], row["amount_msats"],
                 row["fee_msats"], False, row["created_at"])
            for row in db.query(
                "SELECT * FROM payments p WHERE wallet <> ? AND id = (SELECT id FROM payments q "
                "WHERE q.payment_hash = p.payment_hash ORDER BY q.state = 'failed', q.id DESC "
                "LIMIT 1) ORDER BY id", (payments.INTERNAL,))]
    return made + paid
