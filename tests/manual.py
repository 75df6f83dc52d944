"""The parts of the manual that are made from the code, so that no fact stands in two places.

`python -m tests.manual` writes them anew between their marks; `tests/test_manual.py` fails when
that would change anything.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pylon import errors
from pylon.cli.commands import COMMANDS
from pylon.host.rules import ACTIONS
from pylon.options import OPTIONS, SECTION_TEXTS, Option
from pylon.provider.admission import REFUSALS as PROVIDER_REFUSALS
from pylon.provider.admission import SILENT
from pylon.states import JOB_EDGES, ORDER_EDGES, PAYMENT_EDGES
from pylon.store.database import Database
from pylon.wallets.payer import REFUSALS as PAYER_REFUSALS
from pylon.watch.explain import SENTENCES
from tests import mdoc as pages

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


def commands() -> Iterator[str]:
    """Every command, and the page that tells all of it."""
    text = (ROOT / "man/pylon.1").read_text()
    said = re.findall(r"^\.It Cm (.*)\n((?:(?!\.It|\.El).*\n)*)", text, re.M)
    homes = {name: (re.findall(r"^\.Xr (\S+) 1", lines, re.M) or ["pylon"])[0]
             for names, lines in said for name in names.replace(",", " ").split()}
    yield "| command | what it does | page |"
    yield "|---|---|---|"
    for name, does in COMMANDS:
        yield f"| `pylon {name}` | {does} | `{homes[name]}(1)` |"


def settings() -> Iterator[str]:
    """Every key with its default; what each means stands in the page and in the file."""
    yield "| table | key | default |"
    yield "|---|---|---|"
    for option in OPTIONS:
        table, _, name = option.key.rpartition(".")
        default = json.dumps(option.default, ensure_ascii=False).replace("|", "\\|")
        yield f"| {f'`{table_name(table)}`' if table else ''} | `{name}` | `{default}` |"


TABLES = {
    "migrations": "which changes of form this file has seen",
    "jobs": "what strangers ordered: the public `status`, the finer `stage`, price, result",
    "earnings": "money that the node earned, one row an arrival",
    "agents": "agents of this node: state, goals, memory",
    "tick_history": "the first Pylon's form of what an agent did",
    "invoices": "invoices that this node made, and what became of them",
    "meta": "facts of the file itself: epoch, wallet, when it was last checked",
    "totals": "sums that `pylon status` shows, kept by triggers",
    "edges": "the legal steps of every state machine; triggers refuse the others",
    "seen": "ids of events that had an effect, so that none has it twice",
    "entries": "the books: double entry, append only",
    "payments": "what this node paid, or may have paid",
    "owed": "money that arrived for work that was not delivered",
    "outbox": "signed events that must still reach relays",
    "outbox_acks": "what each relay said to each of them",
    "journal": "what happened, for `pylon explain`; see [EVENTS](EVENTS.md)",
    "orders": "what this node ordered from others",
    "order_events": "the events that an order was made of",
    "dealings": "all that passed between one order and one provider",
    "tick_actions": "what an agent proposed in a tick, what was decided, and what became of it",
    "triggers": "what woke or will wake an agent",
    "approvals": "actions that wait for the owner",
    "providers": "who sells, and what we know of them",
}


def tables() -> Iterator[str]:
    """Every table of a new database with its columns."""
    with tempfile.TemporaryDirectory() as place:
        Database(Path(place) / "pylon.db").close()
        with sqlite3.connect(Path(place) / "pylon.db") as db:
            names = [row[0] for row in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
                "ORDER BY rowid")]
            columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
                       for name in names}
        db.close()
    yield "| table | holds | columns |"
    yield "|---|---|---|"
    for name in names:
        yield f"| `{name}` | {TABLES[name]} | {', '.join(f'`{one}`' for one in columns[name])} |"


ACTS = {
    "post": "a note, kind 1",
    "direct_message": "a private message, NIP-17",
    "zap": "a zap, NIP-57, from its own money",
    "pay_invoice": "a payment of its own money",
    "request_payment": "a private message with an invoice",
    "update_goal": "how far it got with a goal of yours",
    "add_memory": "what it will be told at the next tick",
    "none": "nothing, on purpose",
}


def actions() -> Iterator[str]:
    """What an agent can propose, and with which fields."""
    yield "| action | is | fields |"
    yield "|---|---|---|"
    for name, fields in ACTIONS.items():
        said = ", ".join(f"`{field}`" + ("" if rule[1] else "?") for field, rule in fields.items())
        yield f"| `{name}` | {ACTS[name]} | {said or 'none'} |"


# ---- events -------------------------------------------------------------------------------------

# What the story of a job, order or tick does not tell, as its subject is something else.
ELSEWHERE = {
    "WentOnline": "the daemon serves; `relays` are those of the configuration",
    "WentOffline": "the daemon stops",
    "RelayConnected": "a relay of the node is connected",
    "RelayDisconnected": "the connection to a relay is lost",
    "BackendAvailable": "a backend answers again",
    "BackendUnavailable": "a backend does not answer",
    "BackendsRegistered": "the backends that the node found",
    "ModelsRefreshed": "the models of a backend are others than before",
    "PaymentReserved": "money is set apart for a payment",
    "PaymentSent": "the intent is stored, and the wallet is called",
    "PaymentSucceeded": "the wallet says that it paid",
    "PaymentFailed": "the wallet says that it did not pay; the money is free again",
    "PaymentUnknown": "nobody can say yet whether it was paid; the money stays reserved",
    "MoneyMoved": "money went from one account of the books to another",
    "OwedRefunded": "what was owed is paid back",
    "OwedWaived": "what was owed is kept, by agreement",
    "ExternalMovement": "the wallet moved money that this node did not ask for",
    "PlayMoney": "the owner made play money",
    "SpendingResumed": "spending goes on",
    "Alarm": "the owner should look",
    "AgentDeleted": "an agent is gone from this node",
}
# Fields that a type always has, where the call does not spell them out.
ALWAYS = {"ModelsRefreshed": {"backend_id", "models"}, "BackendAvailable": {"backend_id"},
          "BackendUnavailable": {"backend_id", "reason"}, "BackendsRegistered": {"backend_ids"},
          **{f"Payment{how}": {"action_key", "scope", "amount_msats"} for how in (
              "Reserved", "Sent", "Succeeded", "Failed", "Unknown")}}
EVENT = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+|Alarm")
JOURNALS = {"add", "_tell", "_journal"}


def journalled() -> dict[str, set[str]]:
    """Type of event -> fields that the code gives it, out of the source."""
    found = {type_: set(fields) for type_, fields in ALWAYS.items()}
    for path in sorted((ROOT / "pylon").rglob("*.py")):
        text = path.read_text()
        if "journal" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                _note_call(node, found)
    return found


def _note_call(node: ast.Call, found: dict[str, set[str]]) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name not in JOURNALS:
        return
    types = {leaf.value for arg in node.args if not isinstance(arg, (ast.Call, ast.Dict))
             for leaf in ast.walk(arg) if isinstance(leaf, ast.Constant)
             and isinstance(leaf.value, str) and EVENT.fullmatch(leaf.value)}
    fields = {key.value for arg in node.args for leaf in ast.walk(arg)
              if isinstance(leaf, ast.Dict) for key in leaf.keys
              if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    for type_ in types & (SENTENCES.keys() | ELSEWHERE.keys()):
        found.setdefault(type_, set()).update(fields)


def events() -> Iterator[str]:
    """Every type of event, what it means, and its fields."""
    fields = journalled()
    yield "| type | it means | fields of `data` |"
    yield "|---|---|---|"
    for type_ in sorted(fields):
        means = SENTENCES.get(type_, ELSEWHERE.get(type_, ""))
        means = re.sub(r"\{(\w+)(?::\w+)?\}", r"`\1`", means).replace("|", "\\|")
        given = ", ".join(f"`{name}`" for name in sorted(fields[type_]))
        yield f"| `{type_}` | {means} | {given or 'none'} |"


# ---- codes --------------------------------------------------------------------------------------

def documented_codes() -> dict[str, list[tuple[str, str]]]:
    """Code -> (page, text) out of every `.It Er` of the manual."""
    found: dict[str, list[tuple[str, str]]] = {}
    for page in sorted((ROOT / "man").glob("*.[1-8]")):
        for names, lines in re.findall(r"^\.It Er (.*)\n((?:(?!\.It|\.El|\.Sh|\.Ss).*\n)*)",
                                       page.read_text(), re.M):
            for name in names.replace(",", " ").split():
                found.setdefault(name, []).append((page.stem, _prose(lines)))
    return found


def _prose(lines: str) -> str:
    """mdoc as plain text, good enough for the little that stands below a code."""
    words = []
    for line in lines.splitlines():
        if line.startswith(".Xr "):
            name, number, *rest = line[4:].split()
            line = f"`{name}({number})`" + "".join(rest)
        elif line.startswith((".Cm ", ".Va ", ".Ql ", ".Pa ", ".Fl ", ".Ar ", ".Nm", ".Ev ")):
            macro, _, rest = line[1:].partition(" ")
            rest = rest.replace("\\&", "")
            tail = rest[-2:] if re.search(r" [.,;]$", rest) else ""
            rest = rest.removesuffix(tail) if tail else rest
            dash = "-" if macro == "Fl" else ""
            line = f"`{dash}{rest or 'pylon'}`{tail.strip()}"
        elif line.startswith("."):
            continue
        words.append(line.replace("\\(dq", '"').replace("\\&", "").replace("\\e", "\\"))
    return " ".join(words).replace("|", "\\|")


def code_table() -> Iterator[str]:
    """Every code that a refusal, an order, a payment, a finding or the HTTP endpoint gives."""
    yield "| code | it means | told in |"
    yield "|---|---|---|"
    for code, places in sorted(documented_codes().items()):
        texts = list(dict.fromkeys(text for _, text in places))
        told = ", ".join(dict.fromkeys(f"`{page}({'7' if page.endswith('runner') else '1'})`"
                                       for page, _ in places))
        yield f"| `{code}` | {' '.join(texts)} | {told} |"


# Errors that a command ends with: what to do about each.
MENDS = {
    "error": "the line says what failed; where it does not help, look into `pylon logs`",
    "usage": "the command line makes no sense: ask with `--help`, or read its page",
    "not-running": "`pylon start`; if it does not stay up, `pylon logs` has its last words",
    "config": "`pylon config check` names file, line and the nearest known key",
    "identity": "`pylon init` makes one, `pylon init --import` takes your words; a sealed one asks "
                "for its passphrase",
    "home": "the home must be yours, mode 0700, its files 0600: `chmod -R go-rwx DIR`; see "
            "`pylon doctor`",
    "already-running": "one daemon runs for each home: `pylon status`, `pylon stop`",
    "store-damaged": "the file is kept as it is; put a backup in its place, see "
                     "[DATABASE](DATABASE.md); if it is *newer*, install the newer Pylon",
    "store-full": "make room on the disk, or mount it writable; the node goes on by itself",
    "illegal-transition": "a bug of ours, stopped before it did harm; please report it with "
                          "`pylon explain ID`",
    "invalid": "somebody sent what the protocol does not have; nothing to do",
    "relay": "`pylon doctor` tries every relay; check the address and the network",
    "relay-misbehaved": "the relay broke the protocol and is left alone for a while; take it out "
                        "of `relays` if it goes on",
    "backend": "the model server failed: its own log says why; `pylon infer test` tries it",
    "backend-unavailable": "start the model server, or name its address in `[backends.NAME]`",
    "backend-refused": "the model server does not know the model or the parameter: `pylon compute` "
                       "lists what it has",
    "cancelled": "who asked no longer wants the answer; nothing to do",
    "wallet": "the wallet said no; the line has its words",
    "wallet-unreachable": "what it did is not known, and asked for until it is: `pylon wallet "
                          "status`; start the wallet, check the network",
    "wallet-denied": "the wallet does not take our key any more: `pylon wallet connect`",
    "wallet-mismatch": "the wallet answered something else than was asked; do not use it before "
                       "you know why",
    "control": "the daemon's own words; for `you may not`, ask its user",
}


def error_table() -> Iterator[str]:
    """Every error that ends a command, with its exit status."""
    yield "| code | exit | it means | what to do |"
    yield "|---|---|---|---|"
    for code, kind in error_classes().items():
        means = (kind.__doc__ or "").splitlines()[0].replace("|", "\\|")
        yield f"| `{code}` | {kind.exit_status} | {means} | {MENDS[code]} |"


def error_classes() -> dict[str, type[errors.PylonError]]:
    """Code -> the class that has it as its own; Refused brings a code of the tables above."""
    return {kind.code: kind for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, errors.PylonError)
            and kind is not errors.Refused}


# ---- the files ----------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Callable[[], Iterator[str]]]] = {
    "man/pylon.conf.5": {"options": options},
    "man/pylon-explain.1": {"refusals": lambda: codes(PROVIDER_REFUSALS, SILENT)},
    "man/pylon-wallet.1": {"refusals": lambda: codes(PAYER_REFUSALS)},
    "docs/MONEY.md": {"being-paid": lambda: edges(JOB_EDGES),
                      "paying": lambda: edges(PAYMENT_EDGES),
                      "buying": lambda: edges(ORDER_EDGES)},
    "docs/CLI.md": {"commands": commands},
    "docs/CONFIGURATION.md": {"settings": settings},
    "docs/DATABASE.md": {"tables": tables},
    "docs/HOST_MODE.md": {"actions": actions},
    "docs/EVENTS.md": {"events": events},
    "docs/TROUBLESHOOTING.md": {"errors": error_table, "codes": code_table},
}

# Pages that are documents of docs/: a node has its manual, and not the repository.
WHOLE: dict[str, tuple[str, str, list[tuple[str, int]]]] = {
    "man/pylon-tutorial.7": ("docs/QUICKSTART.md",
                             "from an empty machine to a paid job and an agent",
                             [("pylon", 1), ("pylon-demo", 1), ("pylon-relay", 1),
                              ("pylon-troubleshooting", 7)]),
    "man/pylon-events.7": ("docs/EVENTS.md", "what the journal of a node says",
                           [("pylon-explain", 1), ("pylon-control", 7)]),
    "man/pylon-troubleshooting.7": ("docs/TROUBLESHOOTING.md",
                                    "what to do when something does not work",
                                    [("pylon", 1), ("pylon-doctor", 1), ("pylon-explain", 1)]),
}


def marks(file: str, name: str) -> tuple[str, str]:
    """The lines before and behind a part."""
    if file.endswith(".md"):
        return f"<!-- made by python -m tests.manual: {name} -->", f"<!-- end: {name} -->"
    return f'.\\" made by python -m tests.manual: {name}', f'.\\" end: {name}'


def fresh(file: str) -> str:
    """The text of a file with its parts made anew. AssertionError where a mark is missing."""
    if file in WHOLE:
        document, title, see = WHOLE[file]
        stem = Path(file).stem
        return pages.page(stem, 7, title, see, (ROOT / document).read_text())
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
    for each in (*PARTS, *WHOLE):
        (ROOT / each).write_text(fresh(each))
