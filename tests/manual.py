"""The parts of the manual that are made from the code, so that no fact stands in two places.

`python -m tests.manual` writes them anew between their marks; `tests/test_manual.py` fails when
that would change anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pylon.options import OPTIONS, SECTION_TEXTS, Option
from pylon.provider.admission import REFUSALS as PROVIDER_REFUSALS
from pylon.provider.admission import SILENT
from pylon.states import JOB_EDGES, ORDER_EDGES, PAYMENT_EDGES
from pylon.wallets.payer import REFUSALS as PAYER_REFUSALS

ROOT = Path(__file__).parent.parent


# ---- mdoc ---------------------------------------------------------------------------------------

def mdoc(text: str) -> list[str]:
    """Running text, a sentence a line, as mdoc wants it."""
    sentences = re.split(r"(?<=[.;]) (?=[A-Z0-9a-z`\[])", text)
    return [_safe(line) for line in _joined(sentences)]


def _joined(sentences: list[str]) -> Iterator[str]:
    """Only a full stop ends a line; and no line gets too long."""
    line = ""
    for sentence in sentences:
        line = f"{line} {sentence}".strip()
        if line.endswith("."):
            yield from _wrapped(line)
            line = ""
    if line:
        yield from _wrapped(line)


def _wrapped(line: str) -> Iterator[str]:
    while len(line) > 78:
        cut = line.rfind(" ", 0, 78)
        if cut < 0:
            break
        yield line[:cut]
        line = line[cut + 1:]
    yield line


def _safe(line: str) -> str:
    line = line.replace("\\", "\\e")
    return "\\&" + line if line.startswith((".", "'")) else line


def options() -> Iterator[str]:
    """Every key, table by table."""
    table = None
    for option in OPTIONS:
        here, _, name = option.key.rpartition(".")
        if here != table:
            if table is not None:
                yield ".El"
            table = here
            yield from _table_head(here)
        yield from _option(option, name)
    yield ".El"


def table_name(dotted: str) -> str:
    """How a table is written in the file."""
    return f"[{dotted.replace('*', 'NAME')}]" if dotted else "Before the first table"


def _table_head(dotted: str) -> Iterator[str]:
    text = SECTION_TEXTS.get(dotted) or "The node itself."
    title, _, rest = text.partition(". ")
    yield f".Ss {table_name(dotted)}: {title[0].lower()}{title[1:].rstrip('.')}"
    if rest:
        yield from mdoc(rest)
    yield ".Bl -tag -width Ds"


def _option(option: Option, name: str) -> Iterator[str]:
    default = json.dumps(option.default, ensure_ascii=False)
    yield f'.It Li "{name} = {_safe(default).replace(chr(34), chr(92) + "(dq")}"'
    yield from mdoc(option.text)


def codes(table: Mapping[str, str], quiet: frozenset[str] = frozenset()) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for code, text in table.items():
        yield f".It Er {code}"
        said = text.rstrip(".")
        yield from mdoc(said[0].upper() + said[1:] + ".")
        if code in quiet:
            yield "The customer is not told."
    yield ".El"


# ---- markdown -----------------------------------------------------------------------------------

def edges(table: Mapping[Any, tuple[Any, ...]]) -> Iterator[str]:
    yield "| from | to |"
    yield "|---|---|"
    for state, targets in table.items():
        yield f"| `{state}` | {', '.join(f'`{one}`' for one in targets) or 'the end'} |"


# ---- the files ----------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Callable[[], Iterator[str]]]] = {
    "man/pylon.conf.5": {"options": options},
    "man/pylon-explain.1": {"refusals": lambda: codes(PROVIDER_REFUSALS, SILENT)},
    "man/pylon-wallet.1": {"refusals": lambda: codes(PAYER_REFUSALS)},
    "docs/MONEY.md": {"being-paid": lambda: edges(JOB_EDGES),
                      "paying": lambda: edges(PAYMENT_EDGES),
                      "buying": lambda: edges(ORDER_EDGES)},
}


def marks(file: str, name: str) -> tuple[str, str]:
    """The lines before and behind a part."""
    if file.endswith(".md"):
        return f"<!-- made by python -m tests.manual: {name} -->", f"<!-- end: {name} -->"
    return f'.\\" made by python -m tests.manual: {name}', f'.\\" end: {name}'


def fresh(file: str) -> str:
    """The text of a file with its parts made anew. AssertionError where a mark is missing."""
    text = (ROOT / file).read_text()
    for name, make in PARTS[file].items():
        begin, end = marks(file, name)
        head, found, rest = text.partition(begin + "\n")
        _, found_end, tail = rest.partition(end + "\n")
        assert found and found_end, f"{file} lacks the marks of {name}"
        text = head + begin + "\n" + "".join(line + "\n" for line in make()) + end + "\n" + tail
    return text


# ---- reading pages ------------------------------------------------------------------------------

PAGES = sorted((ROOT / "man").glob("*.[1-8]"))


def sections(page: Path) -> dict[str, list[str]]:
    """The lines below each .Sh and .Ss, by title."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in page.read_text().splitlines():
        if line.startswith((".Sh ", ".Ss ")):
            lines = found.setdefault(line[4:], [])
        else:
            lines.append(line)
    return found


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Each literal block, and each line shown alone, as it is read."""
    block: list[str] | None = None
    for line in lines:
        if line.startswith(".Bd -literal"):
            block = []
        elif line == ".Ed" and block is not None:
            yield block
            block = None
        elif block is not None:
            block.append(_plain(line))
        elif line.startswith(".Dl "):
            yield [_plain(line[4:])]


def _plain(line: str) -> str:
    return line.replace("\\(dq", '"').replace("\\&", "").replace("\\e", "\\")


if __name__ == "__main__":
    for each in PARTS:
        (ROOT / each).write_text(fresh(each))
