"""A page of the manual out of a document of docs/, so that both say the same.

It knows the little Markdown that those documents use: headings, paragraphs, lists, tables, fenced
blocks, and in the text `code`, *emphasis* and [links](elsewhere).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DATE = "November 23, 2026"
# What a link to another document is, where there is nothing to click.
BESIDE = [".Ss Other documents", "Names in capitals are documents that come with the source, in",
          ".Pa docs/ ."]


def page(name: str, section: int, title: str, see: list[tuple[str, int]], text: str) -> str:
    """The whole page; TEXT is the document without its first heading."""
    lines = [f".Dd {DATE}", f".Dt {name.upper()} {section}", ".Os", ".Sh NAME", f".Nm {name}",
             f".Nd {title}", ".Sh DESCRIPTION", *body(text), ".Sh SEE ALSO"]
    lines[-1:-1] = BESIDE if ".md)" in text else []
    lines += [f".Xr {page} {number} ,".removesuffix(" ," if (page, number) == see[-1] else "")
              for page, number in see]
    return "\n".join(lines) + "\n"


def body(text: str) -> list[str]:
    """The document's blocks; .Pp stands between two that would run together."""
    text = re.sub(r"^# .*\n", "", text)
    text = re.sub(r"<!--.*?-->\n?", "", text)
    lines: list[str] = []
    for block in _blocks(text):
        made = list(_block(block))
        if lines and not made[0].startswith((".Ss", ".Bl", ".Bd")) \
                and not lines[-1].startswith(".Ss"):
            lines.append(".Pp")
        lines += made
    return lines


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    fenced = False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fenced = not fenced
        if line.strip() or fenced:
            block.append(line)
        elif block:
            yield block
            block = []


def _block(lines: list[str]) -> Iterator[str]:
    first = lines[0]
    if first.startswith("#"):
        yield ".Ss " + _inline(first.lstrip("# "))
        if lines[1:]:
            yield from _block(lines[1:])
    elif first.startswith("```"):
        yield ".Bd -literal -offset indent"
        yield from (_literal(line) for line in lines[1:-1])
        yield ".Ed"
    elif first.startswith("|"):
        yield from _table(lines)
    elif re.match(r"(-|[0-9]+\.) ", first):
        yield ".Bl -bullet" if first[0] == "-" else ".Bl -enum"
        for item in re.split(r"\n(?=(?:-|[0-9]+\.) )", "\n".join(lines)):
            yield ".It"
            yield from _text(re.sub(r"^(-|[0-9]+\.) ", "", item))
        yield ".El"
    else:
        yield from _text(" ".join(lines))


def _table(lines: list[str]) -> Iterator[str]:
    """The first column is the tag, the others are sentences."""
    yield ".Bl -tag -width Ds"
    for line in lines[2:]:
        tag, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        yield f'.It Sy "{_inline(tag)}"'
        for cell in cells:
            if cell:
                yield from _text(cell if cell.endswith((".", "?")) else cell + ".")
    yield ".El"


def _text(text: str) -> Iterator[str]:
    """A sentence a line, none too long."""
    for sentence in re.split(r"(?<=[.?]) +(?=[A-Z0-9`\[*])", " ".join(text.split())):
        line = _inline(sentence)
        while len(line) > 78 and (cut := line.rfind(" ", 0, 78)) > 0:
            yield _safe(line[:cut])
            line = line[cut + 1:]
        yield _safe(line)


def _inline(text: str) -> str:
    text = text.replace("\\|", "|").replace("\\", "\\e")
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*?([^*`]+)\*\*?", r"\1", text)
    text = text.replace('"', "\\(dq")
    return re.sub(r"`([^`]*)`", r"\\(oq\1\\(cq", text)


def _literal(line: str) -> str:
    return _safe(line.replace("\\", "\\e"))


def _safe(line: str) -> str:
    return "\\&" + line if line.startswith((".", "'")) else line
