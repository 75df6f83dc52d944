"""A database as the first Pylon left it: its three migrations, and rows of every kind."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pylon.store import schema

NEOBANK = """
CREATE TABLE neobank_wallets (id TEXT PRIMARY KEY, currency TEXT NOT NULL, mint_url TEXT NOT NULL,
    balance_sats INTEGER NOT NULL DEFAULT 0);
INSERT INTO neobank_wallets VALUES ('w1', 'btc', 'https://mint.example', 5);
"""
AT = 1_700_000_000


def create(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("CREATE TABLE migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT "
                     "NULL UNIQUE, applied_at INTEGER NOT NULL DEFAULT (unixepoch()));")
    for name, sql in (("001_initial_schema", schema.INITIAL), ("002_invoices", schema.INVOICES),
                      ("003_neobank", NEOBANK)):
        db.executescript(sql)
        db.execute("INSERT INTO migrations(name) VALUES (?)", (name,))
    rows = [("job-done", "completed", 5000), ("job-waiting", "pending", 1000),
            ("job-running", "processing", 1000), ("job-failed", "failed", 0),
            ("job-cancelled", "cancelled", 0)]
    db.executemany("INSERT INTO jobs(id, kind, customer_pubkey, status, price_msats, started_at, "
                   "created_at) VALUES (?, 5050, 'abc', ?, ?, ?, ?)",
                   [(name, status, price, AT, AT) for name, status, price in rows])
    db.execute("INSERT INTO earnings(id, job_id, amount_msats, source, earned_at) VALUES "
               "('earn-1b0e', 'job-done', 5000, 'job', ?)", (AT,))
    db.execute("INSERT INTO invoices(id, job_id, bolt11, amount_msats, status, paid_amount_msats) "
               "VALUES ('inv1', 'job-done', 'spark1', 5000, 'paid', 5000)")
    db.execute("INSERT INTO invoices(id, job_id, bolt11, amount_msats) VALUES "
               "('inv2', 'job-waiting', 'spark2', 1000)")
    db.execute("INSERT INTO agents(npub, name, lifecycle_state, balance_sats) VALUES "
               "('npub1old', 'scribe', 'active', 12)")
    db.execute("INSERT INTO tick_history(agent_npub, tick_number, cost_sats) VALUES "
               "('npub1old', 1, 3)")
    db.close()
    path.chmod(0o600)
