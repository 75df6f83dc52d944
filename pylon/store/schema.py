"""The tables, and the migrations that lead to them, in order.

The names 001 and 002 and their tables are the first Pylon's: its database opens and keeps its
rows. Everything from 101 on is ours. A migration is one transaction; none is ever edited once
released.
"""

from __future__ import annotations

from pylon.states import EDGES, PUBLIC_STATUS

FIRST_PYLON_ONLY = ("003_neobank",)         # its tables are tolerated and left alone

INITIAL = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind INTEGER NOT NULL,
    customer_pubkey TEXT NOT NULL,
    status TEXT NOT NULL
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    price_msats INTEGER NOT NULL DEFAULT 0,
    input_hash TEXT,
    output_hash TEXT,
    error_message TEXT,
    started_at INTEGER NOT NULL,
    completed_at INTEGER,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE INDEX idx_jobs_status ON jobs(status);
CREATE INDEX idx_jobs_customer ON jobs(customer_pubkey);
CREATE INDEX idx_jobs_created ON jobs(created_at);
CREATE TABLE earnings (
    id TEXT PRIMARY KEY,
    job_id TEXT REFERENCES jobs(id),
    amount_msats INTEGER NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('job', 'tip', 'other')),
    payment_hash TEXT,
    preimage TEXT,
    earned_at INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE INDEX idx_earnings_job ON earnings(job_id);
CREATE INDEX idx_earnings_date ON earnings(earned_at);
CREATE TABLE agents (
    npub TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    lifecycle_state TEXT NOT NULL
        CHECK (lifecycle_state IN ('embryonic', 'active', 'dormant', 'terminated')),
    balance_sats INTEGER NOT NULL DEFAULT 0,
    tick_count INTEGER NOT NULL DEFAULT 0,
    last_tick_at INTEGER,
    memory_json TEXT,
    goals_json TEXT,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    updated_at INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE INDEX idx_agents_state ON agents(lifecycle_state);
CREATE TABLE tick_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_npub TEXT NOT NULL REFERENCES agents(npub),
    tick_number INTEGER NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    actions_json TEXT,
    cost_sats INTEGER,
    duration_ms INTEGER,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE INDEX idx_tick_history_agent ON tick_history(agent_npub);
CREATE INDEX idx_tick_history_date ON tick_history(created_at);
"""

INVOICES = """
CREATE TABLE invoices (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs(id),
    bolt11 TEXT NOT NULL,
    amount_msats INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'paid', 'expired', 'cancelled')),
    paid_amount_msats INTEGER,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    paid_at INTEGER
);
CREATE INDEX idx_invoices_job ON invoices(job_id);
CREATE INDEX idx_invoices_status ON invoices(status);
CREATE INDEX idx_invoices_created ON invoices(created_at);
"""

# Jobs get their finer stage; invoices may also be the owner's or an agent's; the rest is new.
STAGES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE edges (
    machine TEXT NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL,
    PRIMARY KEY (machine, old, new)
) WITHOUT ROWID;

ALTER TABLE jobs ADD COLUMN stage TEXT NOT NULL DEFAULT 'failed';
ALTER TABLE jobs ADD COLUMN payment TEXT NOT NULL DEFAULT 'none';
ALTER TABLE jobs ADD COLUMN code TEXT;
ALTER TABLE jobs ADD COLUMN event_json TEXT;
ALTER TABLE jobs ADD COLUMN inputs_json TEXT;
ALTER TABLE jobs ADD COLUMN answer_relays TEXT NOT NULL DEFAULT '[]';
ALTER TABLE jobs ADD COLUMN encryption TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN model TEXT;
ALTER TABLE jobs ADD COLUMN bid_msats INTEGER;
ALTER TABLE jobs ADD COLUMN deadline_at INTEGER;
ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lease TEXT;
ALTER TABLE jobs ADD COLUMN ready_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN hold_preimage TEXT;
ALTER TABLE jobs ADD COLUMN result_event_id TEXT;
ALTER TABLE jobs ADD COLUMN backend TEXT;
ALTER TABLE jobs ADD COLUMN prompt_tokens INTEGER;
ALTER TABLE jobs ADD COLUMN completion_tokens INTEGER;
ALTER TABLE jobs ADD COLUMN duration_ms INTEGER;
ALTER TABLE jobs ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET stage = CASE status
    WHEN 'completed' THEN 'delivered' WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END;
UPDATE jobs SET status = 'failed', error_message = coalesce(error_message,
    'left unfinished by an earlier version') WHERE status IN ('pending', 'processing');
DROP INDEX idx_jobs_status;                     -- each index costs every job that is stored
CREATE INDEX idx_jobs_stage ON jobs(stage, created_at);

CREATE INDEX idx_jobs_to_settle ON jobs(stage) WHERE payment = 'hold' AND stage = 'delivered';

CREATE TABLE invoices_new (
    id TEXT PRIMARY KEY,
    job_id TEXT REFERENCES jobs(id),
    bolt11 TEXT NOT NULL,
    amount_msats INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'paid', 'expired', 'cancelled')),
    paid_amount_msats INTEGER,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    paid_at INTEGER,
    payment_hash TEXT UNIQUE,
    account TEXT NOT NULL DEFAULT 'provider',
    wallet TEXT NOT NULL DEFAULT '',
    hold INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER,
    watch_until INTEGER,
    preimage TEXT
);
INSERT INTO invoices_new (id, job_id, bolt11, amount_msats, status, paid_amount_msats, created_at,
    paid_at) SELECT id, job_id, bolt11, amount_msats, CASE status WHEN 'pending' THEN 'expired'
    ELSE status END, paid_amount_msats, created_at, paid_at FROM invoices;
DROP TABLE invoices;
ALTER TABLE invoices_new RENAME TO invoices;
CREATE INDEX idx_invoices_job ON invoices(job_id);
CREATE INDEX idx_invoices_status ON invoices(status);
CREATE INDEX idx_invoices_created ON invoices(created_at);
CREATE INDEX idx_invoices_watch ON invoices(watch_until) WHERE watch_until IS NOT NULL;
CREATE UNIQUE INDEX idx_earnings_hash ON earnings(payment_hash, id) WHERE payment_hash IS NOT NULL;

CREATE TABLE seen (event_id BLOB PRIMARY KEY, seen_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX idx_seen_at ON seen(seen_at);

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    ref TEXT NOT NULL,
    account TEXT NOT NULL,
    amount_msats INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (kind, ref, account)
);
CREATE INDEX idx_entries_account ON entries(account, amount_msats);
CREATE TRIGGER entries_keep BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the books are append-only'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the books are append-only'); END;

CREATE TABLE payments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action_key TEXT NOT NULL,
    account TEXT NOT NULL,
    purpose TEXT NOT NULL,
    scope TEXT,
    counterparty TEXT,
    wallet TEXT NOT NULL,
    bolt11 TEXT NOT NULL,
    payment_hash TEXT NOT NULL,
    payee TEXT,
    amount_msats INTEGER NOT NULL CHECK (amount_msats > 0),
    fee_cap_msats INTEGER NOT NULL CHECK (fee_cap_msats >= 0),
    state TEXT NOT NULL,
    prepared TEXT,
    counts_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    ended_at INTEGER,
    fee_msats INTEGER,
    preimage TEXT,
    reason TEXT
);
CREATE UNIQUE INDEX idx_payments_action ON payments(action_key) WHERE state <> 'failed';
CREATE UNIQUE INDEX idx_payments_hash ON payments(payment_hash) WHERE state <> 'failed';
CREATE INDEX idx_payments_open ON payments(state) WHERE state IN ('reserved', 'sent', 'unknown');
CREATE INDEX idx_payments_account ON payments(account, counts_at);
CREATE INDEX idx_payments_scope ON payments(scope) WHERE scope IS NOT NULL;

CREATE TABLE owed (
    id TEXT PRIMARY KEY,
    job_id TEXT REFERENCES jobs(id),
    customer_pubkey TEXT NOT NULL,
    payment_hash TEXT,
    amount_msats INTEGER NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'settling', 'refunded', 'waived')),
    created_at INTEGER NOT NULL,
    settled_at INTEGER
);
CREATE INDEX idx_owed_open ON owed(state) WHERE state IN ('open', 'settling');

CREATE TABLE outbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT,      -- never used again: the publisher reads on from it
    event_id TEXT NOT NULL UNIQUE,
    event_json TEXT NOT NULL,
    purpose TEXT NOT NULL,
    ref TEXT NOT NULL,
    relays TEXT NOT NULL DEFAULT '[]',
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    accepted_at INTEGER,
    settled INTEGER NOT NULL DEFAULT 0,
    UNIQUE (purpose, ref)
);
CREATE INDEX idx_outbox_unsettled ON outbox(settled) WHERE settled = 0;
CREATE INDEX idx_outbox_expiry ON outbox(expires_at);
CREATE TABLE outbox_acks (
    event_id TEXT NOT NULL REFERENCES outbox(event_id) ON DELETE CASCADE,
    relay TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    message TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (event_id, relay)
) WITHOUT ROWID;

CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX idx_journal_subject ON journal(subject, id);

CREATE TRIGGER jobs_stage BEFORE UPDATE OF stage ON jobs
    WHEN OLD.stage <> NEW.stage AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'job' AND old = OLD.stage AND new = NEW.stage)
    BEGIN SELECT RAISE(ABORT, 'illegal step of a job'); END;
CREATE TRIGGER jobs_completed AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status
    BEGIN
        UPDATE totals SET value = value + (NEW.status = 'completed') - (OLD.status = 'completed')
            WHERE name = 'jobs_completed';
    END;
CREATE TRIGGER payments_state BEFORE UPDATE OF state ON payments
    WHEN OLD.state <> NEW.state AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'payment' AND old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'illegal step of a payment'); END;
CREATE TRIGGER payments_born BEFORE INSERT ON payments WHEN NEW.state <> 'reserved'
    BEGIN SELECT RAISE(ABORT, 'illegal step of a payment'); END;
CREATE TRIGGER payments_fixed BEFORE UPDATE OF id, action_key, account, purpose, scope,
        counterparty, wallet, bolt11, payment_hash, payee, amount_msats, fee_cap_msats, counts_at,
        created_at ON payments
    BEGIN SELECT RAISE(ABORT, 'an intent is append-only'); END;
CREATE TRIGGER payments_stay BEFORE DELETE ON payments
    BEGIN SELECT RAISE(ABORT, 'an intent is append-only'); END;
CREATE TRIGGER owed_state BEFORE UPDATE OF state ON owed
    WHEN OLD.state IN ('refunded', 'waived') AND OLD.state <> NEW.state
    BEGIN SELECT RAISE(ABORT, 'illegal step of what is owed'); END;
CREATE TRIGGER earnings_total AFTER INSERT ON earnings
    BEGIN
        UPDATE totals SET value = value + NEW.amount_msats WHERE name = 'earnings_msats';
    END;
INSERT INTO totals SELECT 'jobs_completed', count(*) FROM jobs WHERE status = 'completed';
INSERT INTO totals SELECT 'earnings_msats', coalesce(sum(amount_msats), 0) FROM earnings;
"""

# What we buy. A dealing is all that passed between one order and one provider.
ORDERS = """
CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    kind INTEGER NOT NULL,
    pubkey TEXT NOT NULL,
    account TEXT NOT NULL,
    state TEXT NOT NULL,
    prompt TEXT,
    model TEXT,
    details TEXT NOT NULL,
    encryption TEXT NOT NULL DEFAULT '',
    target TEXT,
    targets TEXT NOT NULL DEFAULT '[]',
    relays TEXT NOT NULL DEFAULT '[]',
    policy TEXT NOT NULL,
    bid_msats INTEGER,
    max_msats INTEGER NOT NULL CHECK (max_msats >= 0),
    first INTEGER NOT NULL,
    quote_secs INTEGER NOT NULL,
    timeout_secs INTEGER NOT NULL,
    quote_until INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    provider TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    result_event_id TEXT UNIQUE,
    code TEXT,
    error_message TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE INDEX idx_orders_created ON orders(created_at);
CREATE INDEX idx_orders_open ON orders(state) WHERE state IN ('new', 'sent', 'accepted', 'paid');
CREATE INDEX idx_orders_served ON orders(provider) WHERE state = 'completed';
CREATE TABLE order_events (
    event_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders(id) ON DELETE CASCADE,
    provider TEXT,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idx_order_events_order ON order_events(order_id);
CREATE TABLE dealings (
    order_id TEXT NOT NULL REFERENCES orders(id) ON DELETE CASCADE,
    provider TEXT NOT NULL,
    source TEXT NOT NULL DEFAULT 'relay' CHECK (source IN ('relay', 'internal')),
    asked_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    offered_at INTEGER,
    quoted_at INTEGER,
    quote_event_id TEXT,
    amount_msats INTEGER,
    bolt11 TEXT,
    payment_hash TEXT,
    expires_at INTEGER,
    paid_at INTEGER,
    paid_msats INTEGER,
    delivered_at INTEGER,
    result TEXT,
    result_event_id TEXT,
    ended_at INTEGER,
    code TEXT,
    reason TEXT,
    PRIMARY KEY (order_id, provider)
) WITHOUT ROWID;
CREATE INDEX idx_dealings_provider ON dealings(provider, asked_at);
CREATE TRIGGER orders_born BEFORE INSERT ON orders WHEN NEW.state <> 'new'
    BEGIN SELECT RAISE(ABORT, 'illegal step of an order'); END;
CREATE TRIGGER orders_state BEFORE UPDATE OF state ON orders
    WHEN OLD.state <> NEW.state AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'order' AND old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'illegal step of an order'); END;
CREATE TRIGGER dealings_one_quote BEFORE UPDATE OF payment_hash ON dealings
    WHEN OLD.payment_hash IS NOT NULL AND NEW.payment_hash IS NOT OLD.payment_hash
    BEGIN SELECT RAISE(ABORT, 'illegal step of an order'); END;
"""

# Hosted agents: the first Pylon's two tables grow, triggers and approvals join them.
AGENTS = """
ALTER TABLE agents ADD COLUMN state TEXT NOT NULL DEFAULT 'spawning';
ALTER TABLE agents ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN next_tick_at INTEGER;
ALTER TABLE agents ADD COLUMN listen_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN quarantined_until INTEGER;
ALTER TABLE agents ADD COLUMN trouble TEXT;
ALTER TABLE agents ADD COLUMN published_at INTEGER;
UPDATE agents SET state = CASE lifecycle_state
    WHEN 'embryonic' THEN 'spawning' WHEN 'active' THEN 'active' ELSE 'dormant' END,
    paused = lifecycle_state = 'terminated';

ALTER TABLE tick_history ADD COLUMN tick_id TEXT;
ALTER TABLE tick_history ADD COLUMN state TEXT NOT NULL DEFAULT 'succeeded';
ALTER TABLE tick_history ADD COLUMN trigger TEXT NOT NULL DEFAULT 'heartbeat';
ALTER TABLE tick_history ADD COLUMN trigger_id TEXT;
ALTER TABLE tick_history ADD COLUMN summary TEXT;
ALTER TABLE tick_history ADD COLUMN code TEXT;
ALTER TABLE tick_history ADD COLUMN reason TEXT;
ALTER TABLE tick_history ADD COLUMN cost_msats INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tick_history ADD COLUMN ended_at INTEGER;
UPDATE tick_history SET tick_id = 'old-' || id, cost_msats = coalesce(cost_sats, 0) * 1000,
    ended_at = created_at;
CREATE UNIQUE INDEX idx_tick_history_id ON tick_history(tick_id);
CREATE UNIQUE INDEX idx_tick_history_running ON tick_history(agent_npub) WHERE state = 'started';

CREATE TABLE tick_actions (
    tick_id TEXT NOT NULL REFERENCES tick_history(tick_id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    type TEXT NOT NULL,
    outcome TEXT NOT NULL,
    event_id TEXT,
    code TEXT,
    amount_msats INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tick_id, number)
) WITHOUT ROWID;

CREATE TABLE triggers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_npub TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('mention', 'dm', 'zap', 'manual')),
    author TEXT NOT NULL,
    text TEXT,
    amount_msats INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL,
    tick_id TEXT,
    dropped TEXT,
    UNIQUE (agent_npub, event_id)
);
CREATE INDEX idx_triggers_waiting ON triggers(agent_npub) WHERE tick_id IS NULL
    AND dropped IS NULL;
CREATE INDEX idx_triggers_author ON triggers(agent_npub, at);

CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    agent_npub TEXT NOT NULL,
    tick_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decided_at INTEGER,
    outcome TEXT
);
CREATE INDEX idx_approvals_waiting ON approvals(agent_npub) WHERE state = 'waiting';

CREATE TRIGGER agents_state BEFORE UPDATE OF state ON agents
    WHEN OLD.state <> NEW.state AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'agent' AND old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'illegal step of an agent'); END;
CREATE TRIGGER ticks_born BEFORE INSERT ON tick_history WHEN NEW.state <> 'started'
    BEGIN SELECT RAISE(ABORT, 'illegal step of a tick'); END;
CREATE TRIGGER ticks_state BEFORE UPDATE OF state ON tick_history
    WHEN OLD.state <> NEW.state AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'tick' AND old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'illegal step of a tick'); END;
CREATE TRIGGER approvals_state BEFORE UPDATE OF state ON approvals
    WHEN OLD.state <> NEW.state AND NOT EXISTS
        (SELECT 1 FROM edges WHERE machine = 'approval' AND old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'illegal step of an approval'); END;
"""

MIGRATIONS: tuple[tuple[str, str], ...] = (
    ("001_initial_schema", INITIAL),
    ("002_invoices", INVOICES),
    ("101_stages", STAGES),
    ("102_orders", ORDERS),
    ("103_agents", AGENTS),
)


def edge_rows() -> list[tuple[str, str, str]]:
    """Every legal step, as rows for the `edges` table that the triggers consult."""
    return [(machine, old.value, new.value) for machine, edges in EDGES.items()
            for old, news in edges.items() for new in news]


def public_status(stage: str) -> str:
    """The word of the first Pylon's `jobs.status` column for one of our stages."""
    return next(word for known, word in PUBLIC_STATUS.items() if known.value == stage)
