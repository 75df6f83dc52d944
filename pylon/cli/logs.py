"""pylon logs: the daemon's log, its end or as it grows."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pylon.errors import EXIT_OK, PylonError, UsageError
from pylon.units import parse_count

POLL_SECS = 0.2
_BLOCK_BYTES = 65536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    parser.add_argument("-n", "--lines", metavar="N", default="50",
                        help="how many of the last lines (default 50)")


def run(args: argparse.Namespace) -> int:
    try:
        count = parse_count(args.lines)
    except ValueError:
        raise UsageError(f"-n {args.lines!r} is not a number") from None
    try:
        with open(args.home.log, "rb") as file:
            _write(tail(file.fileno(), count))
            if args.follow:
                for data in follow(args.home.log, file.fileno()):
                    _write(data)
    except FileNotFoundError:
        raise PylonError(f"there is no {args.home.log} yet; a daemon in the foreground logs to "
                         "stderr, and a systemd service to the journal: journalctl -u pylon") \
            from None
    except PermissionError:
        raise PylonError(f"you may not read {args.home.log}") from None
    return EXIT_OK


def tail(fd: int, count: int) -> bytes:
    """The last COUNT lines; the descriptor stands at the end afterwards."""
    end = os.lseek(fd, 0, os.SEEK_END)
    data, start = b"", end
    while start > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK_BYTES, start)
        start -= size
        data = os.pread(fd, size, start) + data
    return b"".join(data.splitlines(keepends=True)[-count:] if count else [])


def follow(path: Path, fd: int) -> Iterator[bytes]:
    """What is appended, also past a rotation. Ends by an interrupt only."""
    fd = os.dup(fd)
    while True:
        data = os.read(fd, _BLOCK_BYTES)
        if data:
            yield data
        elif _was_replaced(path, fd):
            os.close(fd)
            fd = os.open(path, os.O_RDONLY)
        else:
            time.sleep(POLL_SECS)


def _was_replaced(path: Path, fd: int) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _write(data: bytes) -> None:
    if sys.stdout is not None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
