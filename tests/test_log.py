"""Where log lines go, how they look, and what is never in one."""

import logging
import os
import stat
import threading

import pytest

from pylon import config, log

WORDS = "foil topic daring tip display found clerk cruise giraffe great prison ghost"
NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"


@pytest.fixture
def loaded(home):
    return config.from_values({"log": {"max_bytes": 10_000, "keep": 2}})


@pytest.fixture(autouse=True)
def _put_back():
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [h for h in root.handlers if h not in before]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("pylon").setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    log._concealed.clear()


@pytest.fixture
def file_log(home):
    handler = log.LogFile(home.log, 10_000, 2)
    logger = logging.getLogger("pylon.test")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_a_line_has_time_level_part_and_text(file_log, home):
    file_log.warning("job %s: late", "3fa2c1")
    assert home.log.read_text().endswith(" WARNING test: job 3fa2c1: late\n")


def test_the_log_is_private_under_any_umask(home, file_log):
    before = os.umask(0)
    try:
        log.LogFile(home.root / "other.log", 1000, 1).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(home.root / "other.log").st_mode) == 0o600


def test_a_planted_link_is_not_followed(home, tmp_path):
    home.log.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        log.LogFile(home.log, 1000, 1)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("text", [
    f"loaded {WORDS} from disk", f"key {NSEC}", f"KEY {NSEC.upper()}",
    "uri nostr+walletconnect://ab?relay=wss://r&secret=" + "c0ffee" * 8,
    "preimage=" + "ab" * 32, '{"password": "hunter2hunter2"}', "Authorization: Bearer abc.def-123",
    "Authorization: Basic dXNlcjpwYXNz", "http://user:hunter2@host/path", "api_key: sk-123456789"])
def test_what_looks_like_a_secret_is_withheld(text):
    cleaned = log.clean(text)
    assert "withheld" in cleaned
    for secret in ("daring", NSEC[6:20], NSEC[6:20].upper(), "c0ffee", "abab", "hunter2",
                   "abc.def", "dXNlcjpwYXNz", "sk-123"):
        assert secret not in cleaned


def test_a_named_secret_is_withheld_everywhere():
    log.conceal("correct horse battery")
    assert "horse" not in log.clean("pass is correct horse battery, said once")


def test_ordinary_text_stays_whole():
    text = "job 3fa2c1: answered in 2.1 s, 412 tokens; relay wss://relay.example:443/x said ok"
    assert log.clean(text) == text


def test_a_traceback_is_cleaned_and_marked(file_log, home):
    try:
        raise ValueError(f"cannot use {NSEC}\n2026-01-01 00:00:00 INFO forged: line")
    except ValueError:
        file_log.exception("failed")
    lines = home.log.read_text().splitlines()
    assert NSEC not in home.log.read_text()
    assert lines[0].endswith("failed") and all(line.startswith("  | ") for line in lines[1:])


def test_a17_strangers_text_is_cut_and_escaped():
    text = log.peer_text("\x1b[2Jhello\nworld\u202e" + "x" * 1_000_000)
    assert len(text) < 300 and "\x1b" not in text and "\n" not in text and "\u202e" not in text
    assert text.startswith("\\x1b[2Jhello\\nworld")


def test_nobody_forges_a_line(file_log, home):
    file_log.info("relay says %s", "ok\n2026-01-01 00:00:00 ERROR money: stolen\r\x00")
    assert home.log.read_text().count("\n") == 1


def test_a_lone_surrogate_does_not_stop_the_log(file_log, home):
    file_log.info("name %s", "\ud800")
    assert "\\ud800" in home.log.read_text()


def test_an_endless_line_is_cut(file_log, home):
    file_log.info("%s", "y" * 1_000_000)
    assert home.log.stat().st_size < 5000


def test_the_log_is_rotated_and_bounded(file_log, home):
    for number in range(1000):
        file_log.info("line %04d %s", number, "x" * 100)
    names = sorted(path.name for path in home.root.glob("pylon.log*"))
    assert names == ["pylon.log", "pylon.log.1", "pylon.log.2"]
    assert all(path.stat().st_size <= 10_000 for path in home.root.glob("pylon.log*"))
    assert "line 0999" in home.log.read_text()


def test_reopen_follows_a_moved_file(file_log, home):
    file_log.info("before")
    home.log.rename(home.root / "moved")
    file_log.handlers[0].reopen()
    file_log.info("after")
    assert "after" in home.log.read_text() and "after" not in (home.root / "moved").read_text()


def test_h99_a_full_disk_does_not_end_a_thread(file_log, home, monkeypatch):
    def full(fd, data):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(log.os, "write", full)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    file_log.error("lost, but nobody dies")


@pytest.mark.parametrize("spec, name, level", [
    ("warn", "pylon", logging.WARNING), ("info,pylon.relays=debug", "pylon.relays", logging.DEBUG),
    ("pylon::relays=debug", "pylon.relays", logging.DEBUG), ("trace", "pylon", logging.DEBUG),
    ("PYLON", "pylon", logging.NOTSET)])
def test_levels_are_set_by_part(spec, name, level, caplog):
    log.set_levels(spec)
    assert logging.getLogger(name).level == level
    logging.getLogger("pylon.relays").setLevel(logging.NOTSET)


def test_pylon_log_wins_over_the_configuration(home, monkeypatch):
    monkeypatch.setenv("PYLON_LOG", "error")
    log.setup(config.from_values({"log": {"level": "debug"}}), home, foreground=True)
    assert logging.getLogger("pylon").level == logging.ERROR


def test_libraries_are_heard_only_when_they_warn(home):
    log.setup(config.from_values({}), home, foreground=True)
    assert not logging.getLogger("urllib3").isEnabledFor(logging.INFO)
    assert logging.getLogger("pylon.x").isEnabledFor(logging.INFO)


def test_under_the_journal_lines_have_a_priority_and_no_time(capfd, home, monkeypatch):
    info = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
    assert log._stderr_is_journal()
    record = logging.LogRecord("pylon.x", logging.WARNING, "", 0, "careful", (), None)
    assert log.Formatter(under_journal=True).format(record) == "<4>x: careful"


def test_a_repeated_failure_is_told_at_1_10_100_and_when_it_is_over(caplog):
    caplog.set_level(logging.INFO)
    trouble = log.Repeated(logging.getLogger("pylon.test"))
    trouble.over("never failed")
    for _ in range(150):
        trouble.failed("cannot reach %s", "it")
    trouble.over("reached")
    assert [r.getMessage() for r in caplog.records] == [
        "cannot reach it", "cannot reach it (10 times in a row)",
        "cannot reach it (100 times in a row)", "reached (after 150 failures in 0 s)"]


def test_many_threads_write_whole_lines(file_log, home):
    def write(number):
        for _ in range(50):
            file_log.info("thread %d %s", number, "z" * 40)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for path in home.root.glob("pylon.log*")
             for line in path.read_text().splitlines()]
    assert all(line.endswith("z" * 40) for line in lines)
