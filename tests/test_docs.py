"""The documents: links resolve, every code and event has its entry, blocks are what they say."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib

import pytest

from pylon import config as configuration
from pylon import errors
from pylon.cli import parser
from pylon.cli.commands import COMMANDS
from pylon.control import protocol
from pylon.watch import explain
from tests import manual
from tests.manual import ROOT
from tests.test_manual import SOURCES, codes_documented, codes_in

DOCS = sorted((ROOT / "docs").glob("*.md"))
FILES = [ROOT / "README.md", *DOCS]
PROMISED = {"README", "QUICKSTART", "INSTALLATION", "ARCHITECTURE", "DAEMON", "DATABASE",
            "HOST_MODE", "PROVIDER_MODE", "CLI", "CONFIGURATION", "EVENTS", "DEVELOPMENT",
            "TROUBLESHOOTING"}
TROUBLE = (ROOT / "docs/TROUBLESHOOTING.md").read_text()


def by_name(path):
    return path.name


def test_every_promised_document_is_there_and_in_the_index():
    assert PROMISED <= {path.stem for path in DOCS}
    index = (ROOT / "docs/README.md").read_text()
    listed = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert {path.name for path in DOCS} - {"README.md"} == listed


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_link_resolves(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(place.read_text()), f"{path.name}: {target}"


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_page_of_the_manual_that_is_named_exists(path):
    for name, section in re.findall(r"`?(pylon[a-z.-]*)\(([157])\)", path.read_text()):
        assert (ROOT / f"man/{name}.{section}").exists(), f"{path.name}: {name}({section})"


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_configuration_is_one(path):
    for block in fences(path.read_text(), "toml"):
        configuration.from_values(tomllib.loads(block))


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_json_is_json(path):
    for block in fences(path.read_text(), "json"):
        json.loads(block)


def fences(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


# ---- entries ------------------------------------------------------------------------------------

def entries(title: str) -> set[str]:
    """What stands in the first column of the table below a heading."""
    part = re.split(rf"^## {title}$", TROUBLE, flags=re.M)[1].split("\n## ")[0]
    return {name for cell in re.findall(r"^\| ([^|]*) \|", part, re.M)
            for name in re.findall(r"`([^`]+)`", cell)}


def test_every_code_has_its_entry():
    assert entries("All codes") == codes_documented()
    assert set().union(*(codes_in(path) for path in SOURCES)) <= entries("All codes")


def test_every_error_has_its_entry():
    assert entries("Errors of commands") == set(manual.error_classes())


def test_every_finding_of_doctor_has_its_entry():
    found = {node.args[0].value for path in (ROOT / "pylon/cli").glob("*.py")
             for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
             and isinstance(node.args[0], ast.Constant)}
    assert len(found) > 8 and found <= entries("What pylon doctor looks at")


def test_every_exit_status_has_its_word():
    part = TROUBLE.split("## Exit statuses")[1].split("\n## ")[0]
    for name, status in inspect.getmembers(errors, lambda value: type(value) is int):
        assert re.search(rf"\b{status} ", " ".join(part.split())), name


def test_every_event_has_its_entry():
    """Every type that a call of journal.add spells out, and every sentence that explain knows."""
    types = {word for path in SOURCES for word in spelled_out(path)}
    table = (ROOT / "docs/EVENTS.md").read_text()
    said = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert types and types <= said
    assert {type_ for type_ in said if type_ not in explain.SENTENCES} <= set(manual.ELSEWHERE)


def spelled_out(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "journal.add", "self._journal", "_tell"):
            for arg in node.args[:2]:
                for leaf in ast.walk(arg):
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) \
                            and manual.EVENT.fullmatch(leaf.value):
                        yield leaf.value


# ---- messages -----------------------------------------------------------------------------------

NO_COMMANDS = {"is", "has", "as", "or"}      # "pylon is running"


def test_every_command_that_a_message_names_exists():
    known = {name for name, _ in COMMANDS} | NO_COMMANDS
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) \
                    and id(node) not in silent:         # no docstring
                unknown = set(re.findall(r"\bpylon ([a-z]+)", node.value)) - known
                assert not unknown, f"{path.name}:{node.lineno}: {node.value}"


# ---- messages name their entry ------------------------------------------------------------------

@pytest.mark.parametrize("code", sorted(set(manual.error_classes()) - set(parser.UNTOLD)))
def test_an_error_of_a_command_names_its_entry(code, monkeypatch, capsys):
    def fail(argv):
        raise manual.error_classes()[code]("it did not work")
    monkeypatch.setattr(parser, "_run", fail)
    assert parser.run(["whoami"]) == manual.error_classes()[code].exit_status
    assert capsys.readouterr().err == \
        f"pylon: it did not work [{code}, pylon-troubleshooting(7)]\n"


@pytest.mark.parametrize("code", parser.UNTOLD)
def test_an_error_without_a_code_of_its_own_is_only_its_message(code, monkeypatch, capsys):
    def fail(argv):
        raise manual.error_classes()[code]("it did not work")
    monkeypatch.setattr(parser, "_run", fail)
    parser.run(["whoami"])
    assert capsys.readouterr().err == "pylon: it did not work\n"


def test_a_refusal_of_the_daemon_keeps_its_code():
    line = protocol.encode_error("the limit of a day is reached", "over-day-limit")
    assert json.loads(line) == {"Error": "the limit of a day is reached [over-day-limit]"}
    with pytest.raises(errors.ControlError, match="^the limit of a day is reached$") as caught:
        protocol.parse_reply(line, "WalletPay")
    assert caught.value.code == "over-day-limit"


@pytest.mark.parametrize("code", sorted(protocol.NO_CODES))
def test_an_error_of_the_daemon_without_a_code_is_only_its_text(code):
    line = protocol.encode_error("it did not work", code)
    assert json.loads(line) == {"Error": "it did not work"}
    with pytest.raises(errors.ControlError) as caught:
        protocol.parse_reply(line, "WalletPay")
    assert caught.value.code == errors.ControlError.code
