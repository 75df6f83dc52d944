"""The database: the one writing connection, its transactions, its migrations and its damage.

Any thread may call; `lock` is held for the length of a transaction or a query. WAL, foreign keys
on. `synchronous` is FULL for a transaction that money hangs on and NORMAL for the rest; it is
switched between transactions, since SQLite refuses to switch it inside one. No other connection
writes or checkpoints (SQLite before 3.51.3 can corrupt a WAL that two connections checkpoint);
readers of other processes open the file with mode=ro.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

from pylon.errors import IllegalTransition, StoreDamaged, StoreFull
from pylon.store import schema

log = logging.getLogger(__name__)

BUSY_TIMEOUT_SECS = 5
CHECKPOINT_PAGES = 8000             # 32 MB: a checkpoint costs syncs, so it should be rare
JOURNAL_SIZE_LIMIT_BYTES = CHECKPOINT_PAGES * 4096
_DAMAGE = ("malformed", "not a database", "corrupt", "could not decode")
_NO_SPACE = ("full", "disk i/o", "readonly", "unable to open")


class Database:
    """One open store. Close it with `close()`; a closed one raises on use."""

    def __init__(self, path: str | os.PathLike[str], backups: Path | None = None) -> None:
        self.path = Path(path)
        self.lock = threading.Lock()
        self.trouble: str | None = None      # set when the disk refused a write; see `status`
        self._holder: int | None = None      # the thread inside a transaction
        self._full: bool | None = None       # what `synchronous` is now
        existed = self.path.exists() and self.path.stat().st_size > 0
        with _explained(self.path):
            self._db = self._connect()
            if existed:
                self._quick_check()
            self._migrate(backups if existed else None)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECS, isolation_level=None,
                             check_same_thread=False, cached_statements=256)
        os.chmod(self.path, 0o600)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}")
        return db

    def _quick_check(self) -> None:
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreDamaged(f"{self.path} is damaged ({found}); nothing was changed. "
                               "Put a backup in its place")

    def _migrate(self, backups: Path | None) -> None:
        db = self._db
        db.execute("CREATE TABLE IF NOT EXISTS migrations (id INTEGER PRIMARY KEY, "
                   "name TEXT NOT NULL UNIQUE, applied_at INTEGER NOT NULL DEFAULT (unixepoch()))")
        applied = {row["name"] for row in db.execute("SELECT name FROM migrations")}
        known = {name for name, _ in schema.MIGRATIONS}
        newer = sorted(applied - known - set(schema.FIRST_PYLON_ONLY))
        if newer:
            raise StoreDamaged(f"{self.path} was written by a newer Pylon (it has {newer[0]}); "
                               "install that version again, or restore an older backup")
        pending = [(name, sql) for name, sql in schema.MIGRATIONS if name not in applied]
        if pending and applied and backups is not None:
            self._backup(backups, pending[0][0])
        for name, sql in pending:
            self._apply(name, sql)
        self._refresh_edges()

    def _backup(self, backups: Path, before: str) -> None:
        backups.mkdir(mode=0o700, exist_ok=True)
        target = backups / f"{self.path.name}.before-{before}.{int(time.time())}"
        self._db.execute("VACUUM INTO ?", (str(target),))
        os.chmod(target, 0o600)
        log.info("store: backed up to %s before migration %s", target, before)

    def _apply(self, name: str, sql: str) -> None:
        db = self._db
        db.execute("PRAGMA foreign_keys=OFF")           # tables are rebuilt; refused inside a tx
        db.execute("PRAGMA synchronous=FULL")
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(sql):
                db.execute(statement)
            db.execute("INSERT INTO migrations(name) VALUES (?)", (name,))
            if db.execute("PRAGMA foreign_key_check").fetchone():
                raise StoreDamaged(f"{self.path}: migration {name} would break references")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        finally:
            db.execute("PRAGMA foreign_keys=ON")

    def _refresh_edges(self) -> None:
        rows = schema.edge_rows()
        have = {tuple(row) for row in self._db.execute("SELECT machine, old, new FROM edges")}
        if have == set(rows):
            return
        with self.transaction(durable=True) as tx:
            tx.execute("DELETE FROM edges")
            tx.executemany("INSERT INTO edges VALUES (?, ?, ?)", rows)

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT under the lock; durable=True survives a power cut.

        Rolls back on any exception. Raises StoreFull, StoreDamaged, IllegalTransition.
        """
        if self._holder == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction")
        with self.lock:
            self._holder = threading.get_ident()
            try:
                with _explained(self.path, self):
                    yield from self._run(durable)
            finally:
                self._holder = None

    def _run(self, durable: bool) -> Iterator[sqlite3.Connection]:
        if durable is not self._full:
            self._db.execute("PRAGMA synchronous=" + ("FULL" if durable else "NORMAL"))
            self._full = durable
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.trouble = None

    def query(self, sql: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of one SELECT, outside a transaction."""
        if self._holder == threading.get_ident():
            return self._db.execute(sql, params).fetchall()
        with self.lock, _explained(self.path):
            return self._db.execute(sql, params).fetchall()

    def one(self, sql: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """The first row of one SELECT, or None."""
        rows = self.query(sql, params)
        return rows[0] if rows else None

    def close(self) -> None:
        with self.lock:
            self._db.close()


class ReadOnly:
    """The store as the command line sees it while a daemon may be writing: mode=ro, no locks."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        uri = f"file:{quote(os.fspath(path))}?mode=ro"
        with _explained(Path(path)):
            self._db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECS,
                                       isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def query(self, sql: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        return self._db.execute(sql, params).fetchall()

    def one(self, sql: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> sqlite3.Row | None:
        return self._db.execute(sql, params).fetchone()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside is of one moment."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()


@contextmanager
def _explained(path: Path, database: Database | None = None) -> Iterator[None]:
    """Turn SQLite's errors into ours, and remember that the disk refused a write."""
    try:
        yield
    except sqlite3.IntegrityError as err:
        if "illegal step" in str(err) or "append-only" in str(err):
            raise IllegalTransition(str(err)) from err
        raise
    except UnicodeDecodeError as err:               # SQLite names a damaged piece of the schema
        raise StoreDamaged(f"{path} is damaged; nothing was recreated. Put a backup "
                           "in its place") from err
    except (sqlite3.DatabaseError, OSError) as err:
        text = str(err).lower()
        if any(word in text for word in _DAMAGE):
            raise StoreDamaged(f"{path} is damaged: {err}. Nothing was recreated; put a "
                               "backup in its place") from err
        if isinstance(err, OSError) or any(word in text for word in _NO_SPACE):
            if database is not None:
                database.trouble = str(err)
            raise StoreFull(f"{path} cannot be written ({err}); free some space on the disk, "
                            "nothing that was recorded is lost") from err
        raise


def _statements(sql: str) -> Iterator[str]:
    """Split a script at the semicolons that end statements (triggers contain some)."""
    pending = ""
    for line in sql.strip().splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
