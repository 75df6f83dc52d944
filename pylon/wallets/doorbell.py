"""A doorbell between processes: an empty datagram that means "look".

The thread waits on the socket and on a pipe of our own, and for the time that `look` returns. A
lost ring loses nothing: it is lost only where others are still unread, and `look` runs after the
last of them. `close` stops the thread and takes the socket away.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from pylon.errors import WalletError

log = logging.getLogger(__name__)

RETRY_SECS = 5.0


class Doorbell:
    """`look()` runs in the thread at every ring; it returns the seconds after which it wants to
    run anyway, or None."""

    def __init__(self, name: str, path: Path, look: Callable[[], float | None]) -> None:
        self._look = look
        self._path = path
        self._stopping = False
        self._socket = _bind(path)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ring from inside this process."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            log.debug("doorbell: rung often enough already")

    def close(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._socket.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        readable = [self._socket.fileno(), self._wake_read]
        while not self._stopping:
            try:
                wait_secs = self._look()
            except WalletError as err:
                log.warning("%s: looking failed, again in %s s: %s", self._thread.name,
                            RETRY_SECS, err)
                wait_secs = RETRY_SECS
            select.select(readable, [], [], wait_secs)
            _drain(lambda: self._socket.recv(64))
            _drain(lambda: os.read(self._wake_read, 4096))


def ring(path: str | None) -> None:
    """Ring another home's doorbell. Nobody at home is no error; this never blocks."""
    if path is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"", path)
        except OSError as err:
            log.debug("doorbell: %s: %s", path, err)


def _bind(path: Path) -> socket.socket:
    """A socket that was never open to others: it gets its mode before it gets its name."""
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    fresh = path.with_name(f".{os.getpid()}.bell")
    try:
        bell.setblocking(False)
        fresh.unlink(missing_ok=True)
        bell.bind(str(fresh))
        os.chmod(fresh, 0o600)
        os.rename(fresh, path)
    except OSError as err:
        bell.close()
        raise WalletError(f"cannot make the doorbell {path}: {err}") from err
    return bell


def _drain(read: Callable[[], bytes]) -> None:
    try:
        while True:
            read()
    except BlockingIOError:
        return
