"""Talking to the person or program that ran a command: data on stdout, talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pylon.errors import UsageError

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "dim": "2"}


def say(text: str = "") -> None:
    """A line for a person, on stdout."""
    if sys.stdout is not None:
        print(text)


def mention(text: str) -> None:
    """A line on stdout that nobody needs: where stdout is gone, the command goes on."""
    try:
        say(text)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tell(text: str) -> None:
    """A line that is no data, on stderr."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One object, keys in the order given."""
    say(json.dumps(value, ensure_ascii=False, indent=2 if is_terminal() else None))


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def can_ask() -> bool:
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def printable(text: str) -> str:
    """A stranger's text without what could steer the terminal, where there is one."""
    if not is_terminal():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def colour(text: str, name: str) -> str:
    """TEXT in a colour, on a terminal and without NO_COLOR."""
    if not is_terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def ask_passphrase(question: str) -> bytes:
    """Read a passphrase without showing it. Raises UsageError where nobody can be asked."""
    if not can_ask():
        raise UsageError("there is no terminal to ask for the passphrase; give "
                         "--passphrase-file FILE")
    import getpass                          # late: only when somebody is asked
    return getpass.getpass(question).encode()


def ask_new_passphrase() -> bytes:
    first = ask_passphrase("New passphrase: ")
    if not first:
        raise UsageError("an empty passphrase protects nothing")
    if ask_passphrase("Once more: ") != first:
        raise UsageError("the two passphrases differ; nothing was written")
    return first


def confirm(question: str) -> bool:
    """A yes or no; no where nobody can be asked."""
    if not can_ask():
        return False
    tell(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text, the last one free to be long."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells])
              for column in range(len(head))]
    lines = []
    for row in [list(head), *cells]:
        padded = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
