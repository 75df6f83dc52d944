"""The one writing connection: transactions, modes, damage, and what the disk refuses."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from pylon.errors import IllegalTransition, PylonError, StoreDamaged, StoreFull
from pylon.store import books, checks, journal, meta, schema
from pylon.store.database import Database, ReadOnly
from tests.store import first_pylon
from tests.store.conftest import NOW, Filler


def test_the_file_is_private_and_in_wal_with_foreign_keys(db, home):
    assert stat.S_IMODE(home.database.stat().st_mode) == 0o600
    assert db.one("PRAGMA journal_mode")[0] == "wal"
    assert db.one("PRAGMA foreign_keys")[0] == 1
    assert db.one("PRAGMA trusted_schema")[0] == 0


@pytest.mark.parametrize("durable, synchronous", [(True, 2), (False, 1), (True, 2)])
def test_money_is_written_with_full_sync_and_the_rest_without(db, durable, synchronous):
    with db.transaction(durable=durable) as tx:
        assert tx.execute("PRAGMA synchronous").fetchone()[0] == synchronous


def test_an_exception_rolls_everything_back(db):
    with pytest.raises(KeyError):
        with db.transaction(durable=True) as tx:
            meta.put(tx, "a", "1")
            raise KeyError("no")
    assert meta.get(db, "a") is None
    with db.transaction(durable=True) as tx:
        meta.put(tx, "a", "2")
    assert meta.get(db, "a") == "2"


def test_a_transaction_inside_a_transaction_is_a_bug_that_raises(db):
    with db.transaction(durable=False):
        with pytest.raises(RuntimeError):
            with db.transaction(durable=False):
                raise AssertionError("entered")


def test_a_query_inside_a_transaction_sees_its_own_writes(db):
    with db.transaction(durable=False) as tx:
        meta.put(tx, "a", "1")
        assert meta.get(db, "a") == "1"


def test_threads_take_turns_and_none_is_lost(db):
    def add(number):
        for step in range(50):
            with db.transaction(durable=False) as tx:
                journal.add(tx, "Test", str(number), {"step": step}, NOW)
    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.latest(db, 1000)) == 400


def test_a_reader_of_another_process_sees_what_is_committed_and_cannot_write(db, home):
    with db.transaction(durable=True) as tx:
        meta.put(tx, "a", "1")
    reader = ReadOnly(home.database)
    assert reader.one("SELECT value FROM meta WHERE key = 'a'")["value"] == "1"
    with pytest.raises(sqlite3.OperationalError):
        reader.query("DELETE FROM meta")
    reader.close()


def test_a_closed_database_raises(home):
    db = Database(home.database)
    db.close()
    with pytest.raises(sqlite3.ProgrammingError):
        db.query("SELECT 1")


# ---- damage -------------------------------------------------------------------------------------

def test_h100_a_truncated_file_stops_the_start_and_is_not_recreated(home):
    Database(home.database).close()
    data = home.database.read_bytes()
    home.database.write_bytes(data[:len(data) // 2])
    with pytest.raises(StoreDamaged) as raised:
        Database(home.database)
    assert raised.value.exit_status == 70
    assert home.database.read_bytes()[:100] == data[:100]
    assert home.database.stat().st_size == len(data) // 2


def test_h100_a_file_that_is_no_database_stops_the_start(home):
    home.database.write_bytes(b"once upon a time " * 500)
    with pytest.raises(StoreDamaged):
        Database(home.database)
    assert home.database.read_bytes().startswith(b"once upon a time")


def test_h100_a_newer_schema_is_refused_by_name(home):
    db = Database(home.database)
    with db.transaction(durable=True) as tx:
        tx.execute("INSERT INTO migrations(name) VALUES ('999_future')")
    db.close()
    with pytest.raises(StoreDamaged, match="999_future"):
        Database(home.database)


def test_h100_flipped_bytes_never_pass_unnoticed(home, tmp_path):
    """Damage is refused at the start, found by the checks, or has changed nothing that counts."""
    db = Database(home.database)
    fill = Filler(db)
    for number in range(1, 30):
        fill.fund("owner", 1000 + number)
        fill.quoted(number)
    before = everything(db)
    db.close()
    data = home.database.read_bytes()
    unharmed = 0
    for seed in range(150):
        dice = random.Random(seed)
        harmed = bytearray(data)
        for _ in range(dice.choice((1, 8, 64))):
            harmed[dice.randrange(len(harmed))] ^= 1 << dice.randrange(8)
        copy = tmp_path / f"{seed}.db"
        copy.write_bytes(harmed)
        unharmed += starts_unnoticed(copy, before)
        copy.unlink()
    assert unharmed < 150


def starts_unnoticed(path, before) -> bool:
    """True where the copy opened and is whole. Fails where it opened with other books."""
    try:
        db = Database(path)
    except PylonError:
        return False
    try:
        noticed = bool(checks.all_findings(db))
        assert noticed or everything(db)["entries"] == before["entries"]
        return True
    except (PylonError, sqlite3.DatabaseError, ValueError, TypeError):
        return False
    finally:
        db.close()


def everything(db):
    return {"entries": sorted(map(tuple, db.query("SELECT kind, ref, account, amount_msats "
                                                  "FROM entries")))}


# ---- a disk that refuses ------------------------------------------------------------------------

@pytest.mark.parametrize("error", [
    sqlite3.OperationalError("database or disk is full"),
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.OperationalError("attempt to write a readonly database"),
    OSError(errno.EIO, "Input/output error")])
def test_h99_a_refused_write_is_store_full_remembered_and_forgotten_by_the_next(db, error):
    with pytest.raises(StoreFull):
        with db.transaction(durable=True) as tx:
            meta.put(tx, "a", "1")
            raise error
    assert db.trouble
    assert meta.get(db, "a") is None
    with db.transaction(durable=True) as tx:
        meta.put(tx, "a", "2")
    assert db.trouble is None


def test_h99_a_disk_that_is_full_in_truth_loses_nothing_recorded(home):
    """A file-size limit makes the kernel refuse; what was committed stands, and writing goes on
    once there is room."""
    db = Database(home.database)
    fill = Filler(db)
    fill.fund("owner", 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room = (home.database.with_name("pylon.db-wal").stat().st_size // 4096 + 2) * 4096
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(StoreFull):
            for number in range(1000):
                fill.fund("owner", 1, f"more-{number}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    stood = books.balance(db, "owner")
    fill.fund("owner", 1, "after")
    assert books.balance(db, "owner") == stood + 1
    db.close()
    again = Database(home.database)
    assert books.balance(again, "owner") == stood + 1
    assert books.lopsided(again) == []
    again.close()


def test_a_directory_that_cannot_be_written_is_explained(home):
    if os.geteuid() == 0:
        path = home.root / "not-there" / "pylon.db"
        with pytest.raises(StoreFull):
            Database(path)
        return
    home.root.chmod(0o500)
    with pytest.raises(StoreFull):
        Database(home.database)
    home.root.chmod(0o700)


# ---- migrations ---------------------------------------------------------------------------------

def test_a_migration_keeps_a_backup_first(home):
    first_pylon.create(home.database)
    Database(home.database, home.backups).close()
    backups = list(home.backups.iterdir())
    assert [b.name.startswith("pylon.db.before-101_stages.") for b in backups] == [True]
    assert stat.S_IMODE(backups[0].stat().st_mode) == 0o600
    old = sqlite3.connect(backups[0])
    assert old.execute("SELECT count(*) FROM jobs WHERE status = 'pending'").fetchone()[0] == 1
    old.close()


def test_opening_again_migrates_nothing(home):
    Database(home.database, home.backups).close()
    Database(home.database, home.backups).close()
    assert not home.backups.exists() or not list(home.backups.iterdir())


PARTS = len(schema.STAGES.strip().split("\n\n"))


@pytest.mark.parametrize("cut", range(PARTS + 1))
def test_p24_a_migration_that_fails_at_any_statement_leaves_the_old_database(home, monkeypatch,
                                                                             cut):
    """The failing statement is put into the migration; what stood before stands after."""
    first_pylon.create(home.database)
    before = dump(home.database)
    broken = list(schema.MIGRATIONS)
    name, sql = broken[2]
    lines = sql.strip().split("\n\n")
    broken[2] = (name, "\n\n".join(lines[:cut]) + "\nINSERT INTO no_such_table VALUES (1);\n")
    monkeypatch.setattr(schema, "MIGRATIONS", tuple(broken))
    with pytest.raises(sqlite3.OperationalError):
        Database(home.database)
    assert dump(home.database) == before
    monkeypatch.undo()
    Database(home.database).close()


def test_p24_a_migration_killed_at_any_instant_is_done_or_not_done(home):
    """SIGKILL in the middle: the next start does the whole of it."""
    for millisecs in range(0, 60, 6):
        home.database.unlink(missing_ok=True)
        for rest in home.root.glob("pylon.db*"):
            rest.unlink()
        first_pylon.create(home.database)
        child = subprocess.Popen([sys.executable, "-c", (
            "import sys; from pylon.store.database import Database; print('go', flush=True); "
            "Database(sys.argv[1]).close(); print('done', flush=True)"), str(home.database)],
            stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(millisecs / 1000)
        except subprocess.TimeoutExpired:
            child.kill()
        child.communicate()
        db = Database(home.database)
        assert db.one("SELECT count(*) AS n FROM jobs")["n"] == 5
        assert db.one("SELECT count(*) AS n FROM migrations WHERE name = '101_stages'")["n"] == 1
        db.close()


def dump(path):
    db = sqlite3.connect(path)
    lines = [line for line in db.iterdump() if "sqlite_sequence" not in line]
    db.close()
    return lines


def test_an_unwritten_wal_of_a_dead_process_is_read(home, tmp_path):
    """A copy of database and WAL taken while open holds what was committed."""
    db = Database(home.database)
    Filler(db).fund("owner", 77)
    for name in ("pylon.db", "pylon.db-wal"):
        shutil.copy(home.root / name, tmp_path / name)
    db.close()
    again = Database(tmp_path / "pylon.db")
    assert books.balance(again, "owner") == 77
    again.close()


def test_the_store_refuses_an_illegal_step_with_its_own_error(db, fill):
    job = fill.job()
    with pytest.raises(IllegalTransition):
        with db.transaction(durable=False) as tx:
            tx.execute("UPDATE jobs SET stage = 'settled' WHERE id = ?", (job.id,))
