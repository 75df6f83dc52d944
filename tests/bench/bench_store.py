"""G10: what it costs to keep a job, here and on a disk that takes 20 ms to sync."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pylon.states import JobStage
from pylon.store import jobs, seen
from pylon.store.database import Database
from pylon.store.jobs import JobRow
from tests.bench import compiled
from tests.bench.goal import Result, interleave, percentile, ratio, seconds

ROUNDS = 5
ROWS = 4000
BATCH = 64                  # what the relay thread hands over at most
SLOW_ROWS = 3000            # under the shim; long enough for several checkpoints
SLOW_FULL_ROWS = 30
QUERIES = 200
NOW = 1_760_000_000
CUSTOMER = "c" * 64
BARE = ("CREATE TABLE jobs(id TEXT PRIMARY KEY, status TEXT, kind INTEGER, customer TEXT, "
        "price INTEGER, created_at INTEGER, event TEXT);"
        "CREATE INDEX a ON jobs(status, created_at); CREATE INDEX b ON jobs(created_at);")
EVENT = json.dumps({"content": "x" * 560})


def run() -> list[Result]:
    return [inserts(), *on_a_slow_disk(), *queries()]


def job(number: int, stage: JobStage = JobStage.FREE) -> JobRow:
    return JobRow(f"{number:064x}", 5050, CUSTOMER, stage, "none", 0, "m", None, "", [], 0, 0,
                  EVENT, None, None, NOW + number, None, None)


def insert_ours(db: Database, first: int, count: int) -> list[float]:
    """Store jobs as intake does, a batch per transaction; the seconds of each transaction."""
    took = []
    for start in range(first, first + count, BATCH):
        began = time.perf_counter()
        with db.transaction(durable=False) as tx:
            for number in range(start, min(start + BATCH, first + count)):
                row = job(number)
                seen.add(tx, row.id, NOW)
                jobs.add(tx, row, NOW + number)
        took.append(time.perf_counter() - began)
    return took


def open_bare(path: Path, synchronous: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; {BARE}")
    return db


def insert_bare(db: sqlite3.Connection, first: int, count: int) -> None:
    """The loop that anybody would write: one row, one transaction."""
    for number in range(first, first + count):
        db.execute("INSERT INTO jobs VALUES (?, 'pending', 5050, ?, 0, ?, ?)",
                   (f"{number:064x}", CUSTOMER, NOW + number, EVENT))


def inserts() -> Result:
    with tempfile.TemporaryDirectory() as directory:
        ours, bare = Database(Path(directory) / "a.db"), open_bare(Path(directory) / "b.db",
                                                                   "NORMAL")
        firsts = iter(range(0, 10**9, ROWS))
        times = interleave(
            ROUNDS, ours=lambda: seconds(lambda: insert_ours(ours, next(firsts), ROWS)),
            bare=lambda: seconds(lambda: insert_bare(bare, next(firsts), ROWS)))
        ours.close()
        bare.close()
    return Result("G10", "jobs stored (seen + job + journal), of a bare WAL loop's speed",
                  ratio(times["bare"], times["ours"]), 0.80, at_least=True,
                  note=f"{ROWS / min(times['ours']):,.0f} jobs/s")


def on_a_slow_disk() -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        shim = compiled.build("slow_sync.c", Path(directory), "-ldl")
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_store", directory], check=True,
            env={**os.environ, "LD_PRELOAD": str(shim)}, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    return [Result("G10", "the same with a 20 ms sync, of a loop that syncs each row",
                   figures["ratio"], 50, at_least=True,
                   note=f"{figures['rows_per_sec']:,.0f} jobs/s"),
            Result("G10", "one transaction there, 99th percentile", figures["p99_ms"], 1.0,
                   unit="ms")]


def measure_slow(directory: Path) -> dict[str, float]:
    """In the child, under the shim."""
    ours, bare = Database(directory / "a.db"), open_bare(directory / "b.db", "FULL")
    full = seconds(lambda: insert_bare(bare, 0, SLOW_FULL_ROWS)) / SLOW_FULL_ROWS
    commits: list[float] = []
    began = time.perf_counter()
    for number in range(SLOW_ROWS):         # one job at a time is the slower way
        commits += insert_ours(ours, number, 1)
    each = (time.perf_counter() - began) / SLOW_ROWS
    return {"ratio": full / each, "rows_per_sec": 1 / each,
            "p99_ms": percentile(commits, 99) * 1000}


def queries() -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        small, large = (filled(Path(directory) / f"{rows}.db", rows) for rows in (10_000, 100_000))
        times = interleave(ROUNDS, small_next=lambda: next_job(small),
                           large_next=lambda: next_job(large),
                           small_latest=lambda: latest(small), large_latest=lambda: latest(large))
        small.close()
        large.close()
    return [Result("G10", "next queued job at 100,000 rows, of 10,000 rows",
                   ratio(times["large_next"], times["small_next"]), 1.5,
                   note=f"{min(times['large_next']) / QUERIES * 1e3:.3f} ms"),
            Result("G10", "latest 20 jobs at 100,000 rows, of 10,000 rows",
                   ratio(times["large_latest"], times["small_latest"]), 1.5)]


def filled(path: Path, rows: int) -> Database:
    """A store with a long past, and a queue."""
    db = Database(path)
    insert_ours(db, 0, rows)
    with db.transaction(durable=False) as tx:
        for stage in ("running", "done", "delivered"):
            tx.execute("UPDATE jobs SET stage = ?, status = 'completed' WHERE created_at < ?",
                       (stage, NOW + rows - 20))
    return db


def next_job(db: Database) -> float:
    """Claim and put back."""
    def claim() -> None:
        for _ in range(QUERIES):
            row = jobs.claim(db, "bench", NOW + 10**6)
            assert row is not None
            with db.transaction(durable=False) as tx:
                jobs.put_back(tx, row, "bench", NOW)
    return seconds(claim)


def latest(db: Database) -> float:
    return seconds(lambda: [jobs.latest(db, 20) for _ in range(QUERIES)])


if __name__ == "__main__":
    print(json.dumps(measure_slow(Path(sys.argv[1]))))
