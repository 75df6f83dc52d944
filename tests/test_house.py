"""Rules of the house that hold for every file: sleeping, foreign words, unfinished work."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
SLEEPS = {"tests/waiting.py"}
TEXT = {".py", ".md", ".cfg", ".toml", ".1", ".5", ".7", ".8", ".service", ".timer", ".cjs", ".mjs",
        ".sh", ""}
# Words that mean something only where this was written; spelled so that they are not found here.
FOREIGN = re.compile("|".join([r"/wo" r"rk/", r"\.lib" r"rary", r"/opt/" r"pypi", r"/tmp/" r"team",
                               r"CONTR" r"ACTS\.md", r"shar" r"ed/(?:DES|STY|REL|PRO|PER)"]))
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")


def tracked():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                             check=False).stdout.split("\n")
    return [name for name in listing if name and (ROOT / name).is_file()
            and Path(name).suffix in TEXT]


FILES = tracked() or [str(p.relative_to(ROOT)) for top in ("pylon", "tests", "man", "contrib")
                      for p in (ROOT / top).rglob("*") if p.is_file() and p.suffix in TEXT]
PYTHON = [name for name in FILES if name.endswith(".py")]


def lines_matching(pattern, names):
    return [f"{name}:{number}: {line.strip()}" for name in names
            for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
            if pattern.search(line)]


def test_no_words_of_the_place_where_it_was_written():
    assert not lines_matching(FOREIGN, FILES)


def test_nothing_unfinished():
    assert not lines_matching(UNFINISHED, PYTHON)


def calls(name):
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_only_wait_for_sleeps():
    found = [f"{name}:{line}" for name in PYTHON if name.startswith("tests/") and name not in SLEEPS
             for line, function in calls(name) if function in ("time.sleep", "sleep")]
    assert not found


def test_nothing_is_skipped():
    pattern = re.compile(r"pytest\.(?:mark\.)?(?:skip|xfail|importorskip)" r"\b")
    assert not lines_matching(pattern, [n for n in PYTHON if n != "tests/test_house.py"])


def test_every_module_says_what_it_is():
    silent = [name for name in PYTHON if name.startswith("pylon/")
              and not ast.get_docstring(ast.parse((ROOT / name).read_text()))]
    assert not silent
