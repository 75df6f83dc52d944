"""One process per home, decided by the kernel: flock on pylon.lock, which is never unlinked.

The lock dies with its process, so nothing stale can stand in the way. What is written into the
file and into pylon.pid is for display only; nobody is ever signalled because of it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from pylon.errors import AlreadyRunning, HomeError
from pylon.home import Home


class Lock:
    """The home's lock, held from construction to `release` or the end of the process."""

    def __init__(self, home: Home, purpose: str) -> None:
        """PURPOSE is shown to others who want the home. Raises AlreadyRunning, HomeError."""
        self.fd = _open(home)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            raise AlreadyRunning(f"{home.root} is in use by {describe_holder(home)}") from None
        if not os.path.samestat(os.fstat(self.fd), os.stat(home.lock)):
            os.close(self.fd)
            raise AlreadyRunning(f"{home.lock} was replaced at this moment; try again")
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()} {purpose}\n".encode(), 0)

    def release(self) -> None:
        if self.fd >= 0:
            os.ftruncate(self.fd, 0)
            os.close(self.fd)
        self.fd = -1


@contextmanager
def hold(home: Home, purpose: str) -> Iterator[None]:
    """Be the only one at work in a home: for commands that write while no daemon runs."""
    lock = Lock(home, purpose)
    try:
        yield
    finally:
        lock.release()


def is_held(home: Home) -> bool:
    """Whether some process holds the lock now. Asks without locking: that would disturb others."""
    return _holder_row(home) is not None


def holder_pid(home: Home) -> int | None:
    """The process that holds the lock, as the kernel says; None when nobody or unknown."""
    row = _holder_row(home)
    pid = int(row[4]) if row else 0
    return pid if pid > 0 else None


def _holder_row(home: Home) -> list[str] | None:
    """The lock's row of /proc/locks: '1: FLOCK ADVISORY WRITE 1234 fd:01:5678 0 EOF'."""
    try:
        wanted = _lock_name(home)
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                row = line.split()
                if row[1] == "FLOCK" and row[5] == wanted:      # waiters have '->' in row[1]
                    return row
    except OSError:
        return None
    return None


def _lock_name(home: Home) -> str:
    """How /proc/locks writes the lock file: device of its superblock (not st_dev) and inode."""
    fd = os.open(home.lock, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            mount = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            row = line.split()
            if row[0] == mount:
                major, minor = map(int, row[2].split(":"))
                return f"{major:02x}:{minor:02x}:{inode}"
    raise FileNotFoundError(home.lock)


def describe_holder(home: Home) -> str:
    """Who holds the lock, in words: 'pylon backup (pid 123)'."""
    try:
        with open(home.lock, "rb") as file:
            words = file.read(200).decode("ascii", "replace").split(maxsplit=1)
    except OSError:
        words = []
    pid = holder_pid(home)
    purpose = words[1].strip() if len(words) == 2 else ""
    purpose = purpose if purpose.isprintable() and purpose else "another process"
    return f"{purpose} (pid {pid})" if pid else purpose


def send_signal(home: Home, pid: int, number: signal.Signals) -> bool:
    """Signal PID only if it is, also now, the holder of the home's lock. False when it is not."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if holder_pid(home) != pid:         # checked after the pidfd pins the process
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def _open(home: Home) -> int:
    try:
        return os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise HomeError(f"cannot open {home.lock}: {err.strerror}") from err
