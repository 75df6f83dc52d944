"""The daemon's log: where lines go, how they look, and what must never be in one.

Every line of the program and of its libraries passes one formatter, which escapes control
characters and takes out everything that looks like a secret or was named as one by `conceal`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from pylon.config import Config
from pylon.home import Home

PEER_TEXT_CHARS = 200
LINE_CHARS = 4000                   # a longer line is cut: nobody reads it, strangers may cause it

_LEVELS = {"off": logging.CRITICAL + 10, "error": logging.ERROR, "warn": logging.WARNING,
           "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG,
           "trace": logging.DEBUG}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WORDS = re.compile(r"(?:\b[a-z]{3,8} ){11,23}[a-z]{3,8}\b")
_HINTS = ("nsec1", "secret", "preimage", "private", "pass", "token", "api", "bearer", "basic", "@")
_SECRETS = (                        # looked for only where a hint stands: this is on every line
    (re.compile(r"nsec1[02-9ac-hj-np-z]{20,}", re.IGNORECASE), "nsec1[withheld]"),
    (re.compile(r"(secret=)[0-9a-fA-F]{16,}"), r"\1[withheld]"),
    (re.compile(r"((?:preimage|private.key|secret|password|passphrase|token|api.key)"
                r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]{6,}", re.IGNORECASE), r"\1[withheld]"),
    (re.compile(r"(Bearer |Basic )[A-Za-z0-9._~+/=-]{6,}"), r"\1[withheld]"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), r"\1[withheld]@"),
)

_concealed: set[str] = set()
_handler: logging.Handler | None = None


def setup(config: Config, home: Home, foreground: bool) -> None:
    """Send the log to pylon.log, or to stderr in the foreground. May be called again (reload)."""
    global _handler
    handler = _to_stderr() if foreground else LogFile(home.log, config.log.max_bytes,
                                                      config.log.keep, take_stderr=True)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    _handler = handler
    logging.raiseExceptions = False       # a full disk or a closed stderr must not end a thread
    logging.captureWarnings(True)
    _reset_levels()
    set_levels("pylon=info")
    set_levels(config.log.level)
    set_levels(os.environ.get("PYLON_LOG") or os.environ.get("RUST_LOG") or "")


def setup_for_command() -> None:
    """Warnings of a command go to stderr, one line each; PYLON_LOG may ask for more."""
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(_to_stderr("pylon: "))
    set_levels("pylon=warn")
    set_levels(os.environ.get("PYLON_LOG") or os.environ.get("RUST_LOG") or "")


def reopen() -> None:
    """Open pylon.log anew, after something moved it away."""
    if isinstance(_handler, LogFile):
        _handler.reopen()


def set_levels(spec: str) -> None:
    """'warn', 'info,pylon.relays=debug' or a RUST_LOG of the same form; rubbish is skipped."""
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        name, _, word = part.rpartition("=")
        level = _LEVELS.get(word.lower())
        if level is None:
            logging.getLogger(__name__).warning("log level %s is not understood", peer_text(part))
        else:
            logging.getLogger(name.replace("::", ".") or "pylon").setLevel(level)


def _reset_levels() -> None:
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith("pylon"):
            logger.setLevel(logging.NOTSET)


def conceal(secret: str) -> None:
    """Never write this text; for secrets that no pattern can recognise."""
    if len(secret) >= 6:
        _concealed.add(secret)


def clean(text: str) -> str:
    """Without secrets, and with control characters escaped."""
    for secret in _concealed:
        if secret in text:
            text = text.replace(secret, "[withheld]")
    if text.count(" ") > 10:
        text = _WORDS.sub("[words withheld]", text)
    lower = text.lower()
    if any(hint in lower for hint in _HINTS):
        for pattern, replacement in _SECRETS:
            text = pattern.sub(replacement, text)
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def short(event_id: str) -> str:
    """The first 8 characters of an id or key: enough to find it again."""
    return event_id[:8]


def peer_text(text: object) -> str:
    """What a stranger wrote, fit for a line: 200 characters at most, escaped."""
    shown = str(text)
    cut = shown[:PEER_TEXT_CHARS] + ("..." if len(shown) > PEER_TEXT_CHARS else "")
    return _CONTROL.sub(_escape, cut)


class Repeated:
    """A failure that goes on: told at the 1st, 10th, 100th time, and when it is over."""

    def __init__(self, logger: logging.Logger, level: int = logging.WARNING) -> None:
        self.logger = logger
        self.level = level
        self.count = 0
        self._since = 0.0                   # monotonic

    def failed(self, message: str, *args: Any) -> None:
        self.count += 1
        if self.count == 1:
            self._since = time.monotonic()
            self.logger.log(self.level, message, *args)
        elif set(str(self.count)[1:]) == {"0"} and str(self.count)[0] == "1":
            self.logger.log(self.level, message + " (%d times in a row)", *args, self.count)

    def over(self, message: str, *args: Any) -> None:
        """It works (again); silent when it had not failed."""
        if self.count:
            secs = time.monotonic() - self._since
            self.logger.info(message + " (after %d failures in %d s)", *args, self.count, secs)
        self.count = 0


class Formatter(logging.Formatter):
    """One record, one line; a traceback follows in lines that begin with a bar."""

    def __init__(self, under_journal: bool = False, lead: str | None = None) -> None:
        """UNDER_JOURNAL: with a priority and without the time. LEAD: instead of all that."""
        super().__init__()
        self.under_journal = under_journal
        self.lead = lead

    def format(self, record: logging.LogRecord) -> str:
        text = clean(record.getMessage())
        if len(text) > LINE_CHARS:
            text = text[:LINE_CHARS] + "..."
        name = record.name.removeprefix("pylon.")
        if self.lead is not None:
            lines = [self.lead + text]
        elif self.under_journal:
            lines = [f"{name}: {text}"]
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            lines = [f"{stamp} {record.levelname:<7} {name}: {text}"]
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
            lines.extend("  | " + clean(line) for line in trace.splitlines())
        mark = f"<{_priority(record.levelno)}>" if self.under_journal else ""
        return "\n".join(mark + line for line in lines)


def _priority(level: int) -> int:
    return 3 if level >= logging.ERROR else 4 if level >= logging.WARNING else \
        6 if level >= logging.INFO else 7


class LogFile(logging.Handler):
    """pylon.log, 0600, rotated by size into pylon.log.1, .2, ..."""

    def __init__(self, path: Path, max_bytes: int, keep: int, take_stderr: bool = False) -> None:
        """TAKE_STDERR: what libraries and a dying interpreter print goes into the log, too."""
        super().__init__()
        self.take_stderr = take_stderr
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep
        self.setFormatter(Formatter())
        self._fd = -1
        self._size = 0
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            if self._fd < 0:
                self._open()
            if self._size and self._size + len(data) > self.max_bytes:
                self._rotate()
            self._size += os.write(self._fd, data)
        except Exception:                       # a log that cannot be written ends nothing
            self.handleError(record)

    def reopen(self) -> None:
        self.acquire()
        try:
            self._close()
            self._open()
        finally:
            self.release()

    def close(self) -> None:
        self._close()
        super().close()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                           | os.O_NOFOLLOW, 0o600)
        if self.take_stderr:
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)
        self._size = os.fstat(self._fd).st_size

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _rotate(self) -> None:
        self._close()
        for number in range(self.keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else older.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                os.replace(newer, older)
        if not self.keep:
            os.unlink(self.path)
        self._open()


def _to_stderr(lead: str | None = None) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(_stderr_is_journal() and lead is None, lead))
    return handler


def _stderr_is_journal() -> bool:
    """systemd names the device and inode of the journal's stream in the environment."""
    try:
        info = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"
