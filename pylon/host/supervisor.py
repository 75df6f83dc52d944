"""The supervisor of one runner: starts it, talks with it line by line, and ends it for certain.

Runs in the thread of its tick. Everything that a runner sends is bounded: a line, all lines, what
it says on stderr, and its time. It gets TERM at its deadline and KILL two seconds later, and its
whole PID namespace dies with it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from pylon.errors import InvalidMessage, PylonError
from pylon.host import cage
from pylon.nostr import strictjson

MAX_LINE_BYTES = 64 * 1024
MAX_TOTAL_BYTES = 1024 * 1024
MAX_LOG_BYTES = 64 * 1024           # of one tick's stderr
MAX_LOG_FILE_BYTES = 1_000_000
TERM_SECS = 2.0
CHUNK = 16 * 1024


class RunnerFailed(PylonError):
    """A runner did not do what the protocol says; `code` says what."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Runner:
    """One running runner. `close` must be called; `deadline` is monotonic."""

    def __init__(self, argv: list[str], deadline: float, log_file: Path | None = None) -> None:
        self.deadline = deadline
        self._log_file, self._logged = log_file, 0
        self._seen = 0
        self._buffer = bytearray()
        self._open = True
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=cage.environment(), cwd="/", close_fds=True, start_new_session=True)
        except OSError as err:
            raise RunnerFailed("runner-not-started",
                               f"the runner cannot be started: {err.strerror}") from err
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout and self._process.stderr and self._process.stdin
        for pipe, what in ((self._process.stdout, "out"), (self._process.stderr, "err")):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, what)
        os.set_blocking(self._process.stdin.fileno(), False)
        self._stdin = self._process.stdin

    # -- talking --

    def send(self, message: dict[str, Any]) -> None:
        """One line to the runner. Raises RunnerFailed where it does not read."""
        data = memoryview(json.dumps(message, ensure_ascii=False,
                                     separators=(",", ":")).encode("utf-8", "replace") + b"\n")
        with selectors.DefaultSelector() as writable:
            writable.register(self._stdin, selectors.EVENT_WRITE)
            while data:
                if not writable.select(self._left()):
                    raise self._late()
                try:
                    data = data[os.write(self._stdin.fileno(), data[:CHUNK]):]
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._gone() from None

    def receive(self) -> dict[str, Any]:
        """The next line, an object. Raises RunnerFailed (exited, late, flooding, nonsense)."""
        while True:
            line, found, rest = bytes(self._buffer).partition(b"\n")
            if found:
                self._buffer = bytearray(rest)
                if line.strip():
                    return _parse(line)
                continue
            if len(self._buffer) > MAX_LINE_BYTES:
                raise RunnerFailed("runner-flood", "a line of the runner is too long")
            if not self._open:
                raise self._gone()
            self._read()

    def _read(self) -> None:
        ready = self._selector.select(self._left())
        if not ready:
            raise self._late()
        for key, _ in ready:
            data = self._chunk(key.fd)
            if data is None:
                continue
            if not data:
                self._selector.unregister(key.fileobj)
                self._open = self._open and key.data != "out"
            elif key.data == "err":
                self._write_log(data)
            else:
                self._seen += len(data)
                self._buffer += data
                if self._seen > MAX_TOTAL_BYTES:
                    raise RunnerFailed("runner-flood", "the runner sent more than 1 MB")

    def _chunk(self, fd: int) -> bytes | None:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            return None

    def _left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def _late(self) -> RunnerFailed:
        return RunnerFailed("runner-timeout", "the runner was not done at its deadline")

    def _gone(self) -> RunnerFailed:
        return RunnerFailed("runner-exited", "the runner ended before its answer")

    def note(self, text: str) -> None:
        """A line of its log that the runner sent as a message."""
        self._write_log(text.encode("utf-8", "replace")[:2000] + b"\n")

    def _write_log(self, data: bytes) -> None:
        data = data[:max(0, MAX_LOG_BYTES - self._logged)]
        self._logged += len(data)
        if self._log_file is not None and data:
            append_log(self._log_file, data)

    # -- the end --

    def abort(self) -> None:
        """End it now, from another thread; whoever listens to it hears that it has ended."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def close(self) -> int | None:
        """End it, whatever it does; its exit status where it ended by itself."""
        try:
            try:
                self._stdin.close()
            except OSError:
                status = None               # it had not read everything; it is over anyway
            status = self._end()
            self._drain_log()
            return status
        finally:
            self._selector.close()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def _end(self) -> int | None:
        try:
            return self._process.wait(0.5 if not self._open else 0.05)
        except subprocess.TimeoutExpired:
            self._terminate()
        try:
            return self._process.wait(TERM_SECS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None

    def _terminate(self) -> None:
        """TERM to the runner itself: bubblewrap would die of it and take the runner's grace."""
        inner = _grandchildren(self._process.pid)
        if not inner:
            os.killpg(self._process.pid, signal.SIGTERM)
        for pid in inner:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in _grandchildren(self._process.pid):
                    signal.pidfd_send_signal(handle, signal.SIGTERM)
            except ProcessLookupError:
                continue
            finally:
                os.close(handle)

    def _drain_log(self) -> None:
        if self._process.stderr is not None:
            data = self._chunk(self._process.stderr.fileno())
            if data:
                self._write_log(data)


def append_log(path: Path, data: bytes) -> None:
    """Add to an agent's log; a full one is kept once, as `.1`."""
    try:
        if path.exists() and path.stat().st_size > MAX_LOG_FILE_BYTES:
            os.replace(path, path.with_name(path.name + ".1"))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
                     0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError:
        return                              # a log that cannot be written harms no tick


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise RunnerFailed("runner-flood", "a line of the runner is too long")
    try:
        value = strictjson.load(line.decode("utf-8"))
    except (InvalidMessage, UnicodeDecodeError):
        raise RunnerFailed("runner-garbage", "a line of the runner is not JSON") from None
    if not isinstance(value, dict):
        raise RunnerFailed("runner-garbage", "a line of the runner is no object")
    return value


def _grandchildren(pid: int) -> list[int]:
    """Under bubblewrap: its child is the namespace's first process, whose child the runner is."""
    return [inner for child in _children(pid) for inner in _children(child)]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in
                Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []
