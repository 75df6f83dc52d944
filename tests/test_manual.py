"""The manual says what the program does: options, keys, codes, commands, and it is well formed."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shutil
import subprocess
import tomllib

import pytest

from pylon import config as configuration
from pylon import options
from pylon.cli import parser as front
from pylon.cli.commands import COMMANDS
from pylon.host import agentfile
from tests import manual
from tests.manual import PAGES, ROOT

ORDER = ["NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES",
         "DIAGNOSTICS", "SEE ALSO", "STANDARDS", "HISTORY", "AUTHORS", "CAVEATS", "BUGS"]
NEEDED = {"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"}
GUIDES_NEED = {"NAME", "DESCRIPTION", "SEE ALSO"}
EVERYWHERE = {"-h", "--help", "--home"}             # said once, in pylon(1)
# Variables that only tests or the system itself set.
UNSAID = {"PYLON_FAILPOINT", "PYLON_FAILPOINT_MARK", "JOURNAL_STREAM", "PYTHONPATH"}
SOURCES = [path for path in (ROOT / "pylon").rglob("*.py")]


@pytest.mark.parametrize("file", [*manual.PARTS, *manual.WHOLE])
def test_what_is_made_from_the_code_is_fresh(file):
    """Otherwise: python -m tests.manual"""
    assert manual.fresh(file) == (ROOT / file).read_text()


# ---- form ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_well_formed(page):
    titles = [title for title in manual.sections(page) if title.isupper()]
    needed = GUIDES_NEED if f"man/{page.name}" in manual.WHOLE else NEEDED
    assert titles == [title for title in ORDER if title in titles] and needed <= set(titles)
    if shutil.which("mandoc") is None:
        return                          # the order is ours; the rest needs mandoc's word
    done = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines()
                  if "referenced manual not found" not in line and "mandoc.db" not in line]
    assert complaints == []


def test_pages_of_ours_that_are_referred_to_exist():
    names = {page.name for page in PAGES}
    for page in PAGES:
        for name, section in re.findall(r"^\.Xr (pylon[a-z.-]*) ([0-9])", page.read_text(), re.M):
            assert f"{name}.{section}" in names, f"{page.name} refers to {name}({section})"


# ---- options ------------------------------------------------------------------------------------

def parsers(parser: argparse.ArgumentParser, title: str):
    """(title, parser) of a command and of each of its actions; aliases are left out."""
    yield title, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            seen = set()
            for name, inner in action.choices.items():
                if id(inner) not in seen:
                    seen.add(id(inner))
                    yield from parsers(inner, f"{title} {name}")


def options_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Option string -> what its value is called, '' where it takes none or a choice."""
    found = {}
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        value = action.metavar if isinstance(action.metavar, str) else ""
        for name in action.option_strings:
            if name not in EVERYWHERE:
                found[name] = value.lower().removesuffix("|-")
    return found


def options_in(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        if line.startswith(".It Fl "):
            names, _, value = line[len(".It "):].partition(" Ar ")
            for part in names.split(","):
                found["-" + part.split()[1]] = value
    return found


def documented(title: str) -> dict[str, str] | None:
    """The options that the manual has for a command; None where it has no section for it."""
    for page in PAGES:
        found = manual.sections(page)
        if title in found:
            return options_in(found[title])
        if page.name == title.replace(" ", "-") + ".1" and not any(
                name.startswith("pylon ") for name in found):
            return options_in(found["DESCRIPTION"])
    return None


ALL = [pair for name, _ in COMMANDS
       for pair in parsers(front.build(name, importlib.import_module(f"pylon.cli.{name}")),
                           f"pylon {name}")]


@pytest.mark.parametrize("title, parser", ALL, ids=[title for title, _ in ALL])
def test_help_and_manual_name_the_same_options(title, parser):
    ours, said = options_of(parser), documented(title)
    if said is None:
        assert not ours and any(inner.startswith(title + " ") for inner, _ in ALL), \
            f"the manual lacks: {title}"
        return
    assert sorted(said) == sorted(ours)
    assert {name: said[name] for name, value in ours.items() if value} == \
        {name: value for name, value in ours.items() if value}


def test_the_overview_names_every_command():
    page = (ROOT / "man/pylon.1").read_text()
    listed = " ".join(re.findall(r"^\.It Cm (.*)$", page, re.M)).replace(",", " ").split()
    assert {name for name, _ in COMMANDS} <= set(listed)


# ---- keys, variables, codes ---------------------------------------------------------------------

def test_every_key_stands_in_pylon_conf():
    found = manual.sections(ROOT / "man/pylon.conf.5")
    for option in options.OPTIONS:
        table, _, name = option.key.rpartition(".")
        lines = next(lines for title, lines in found.items()
                     if title.startswith(manual.table_name(table) + ":"))
        assert any(line.startswith(f'.It Li "{name} = ') for line in lines), option.key


def test_every_setting_of_an_agent_stands_in_its_page():
    page = (ROOT / "man/pylon-agent.1").read_text().replace("\\(dq", '"')
    defaults = agentfile.AgentFile("", "", "", "")
    for name in agentfile.SETTABLE:
        assert f'"{name} = {json.dumps(getattr(defaults, name))}"' in page, name


def test_every_variable_of_the_environment_is_documented():
    pages = "\n".join(page.read_text() for page in PAGES)
    for path in SOURCES:
        for name in re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', path.read_text()):
            assert name in UNSAID or name in pages, f"{path.name} reads {name}"


def codes_in(path) -> set[str]:
    """Codes that a module gives to a refusal, or to a step of an order."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else \
            getattr(node.func, "attr", "")
        words = node.args[:1] if name in ("Refused", "RunnerFailed", "Cap") else \
            node.args[2:3] if name == "Step" else []
        words += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        found |= {word.value for word in words
                  if isinstance(word, ast.Constant) and isinstance(word.value, str)}
    return found - {""}


def codes_documented() -> set[str]:
    lines = [line for page in PAGES for line in page.read_text().splitlines()]
    return {code for line in lines if line.startswith(".It Er ")
            for code in line[len(".It Er "):].replace(",", " ").split()}


@pytest.mark.parametrize("area", sorted({path.relative_to(ROOT).parts[1] for path in SOURCES}))
def test_every_code_is_documented(area):
    said = codes_documented()
    missing = {code: str(path.relative_to(ROOT)) for path in SOURCES
               if path.relative_to(ROOT).parts[1] == area for code in codes_in(path) - said}
    assert missing == {}


def test_every_error_of_the_http_endpoint_is_documented():
    said, found = codes_documented(), set()
    for path in (ROOT / "pylon/api").glob("*.py"):
        found |= set(re.findall(r'BadCall\([0-9]+, "([a-z_]+)"', path.read_text()))
    assert found and found <= said


def test_every_finding_of_the_audit_is_documented():
    said = codes_documented()
    for file in ("pylon/wallets/audit.py", "pylon/store/checks.py"):
        names = re.findall(r'Finding\("([a-z-]+)"', (ROOT / file).read_text())
        assert names and set(names) <= said


# ---- what README and docs say to type -----------------------------------------------------------

def typed(text: str) -> set[str]:
    """Every `pylon ...` in a code block or span."""
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [line.split("#")[0].strip() for block in fenced for line in block.splitlines()]
    spans = re.findall(r"`(pylon [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return {line for line in lines + spans if line.startswith("pylon ")}


@pytest.mark.parametrize("file", ["README.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))])
def test_what_the_documents_say_to_type_exists(file):
    known = {title: set(options_of(parser)) for title, parser in ALL}
    for line in typed((ROOT / file).read_text()):
        words = re.sub(r"^pylon --home \S+", "pylon", line).split()
        title = " ".join(words[:3]) if " ".join(words[:3]) in known else " ".join(words[:2])
        assert title in known, f"{file}: {line}"
        options = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert options <= known[title], f"{file}: {line}"


def test_the_toml_of_the_readme_is_a_configuration():
    for block in re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(),
                            re.M | re.S):
        configuration.from_values(tomllib.loads(block))
