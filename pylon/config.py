"""The configuration: how a file is read against the table of options.

Every option is optional. `load` refuses what it does not know or cannot use, and says file and
line; it never repeats a value that could be a secret.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pylon import template
from pylon.errors import ConfigError
from pylon.home import SYSTEM_CONFIG, SYSTEM_OPENAGENTS, Home
from pylon.options import BACKEND_TYPES, IGNORED, OPTIONS, SCHEMA, Option, defaults, dotted

__all__ = ["OPTIONS", "Option", "Config", "Section", "Problem", "load", "read", "from_values",
           "render", "identity_path"]

MAX_FILE_BYTES = 1_000_000          # a config of 10 MB is a mistake, not a configuration

_TYPE_NAMES = {bool: "true or false", int: "a whole number", str: "a text in quotes",
               list[str]: "a list of texts", list[int]: "a list of whole numbers",
               dict[str, str]: "a table of texts"}
_SECRET = re.compile(r"(?:^|_)(?:password|passphrase|secret|token|mnemonic|nsec|uri|key|seed)$")


class Section:
    """Read-only attributes of one table."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        object.__setattr__(self, "_values", values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no such option: {name}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a configuration does not change; load another")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Section) and self._values == other._values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries, for showing."""
        return {name: _plain(value) for name, value in self._values.items()}


class Config(Section):
    """All options. `notes`: worth telling, but no errors. `files`: what was read."""

    __slots__ = ("notes", "files")

    notes: list[str]
    files: list[Path]

    def __init__(self, values: dict[str, Any], notes: list[str], files: list[Path]) -> None:
        super().__init__(values)
        object.__setattr__(self, "notes", notes)
        object.__setattr__(self, "files", files)


class Problem(NamedTuple):
    file: str
    line: int                       # 0 where no line can be named
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


def load(home: Home, file: str | os.PathLike[str] | None = None) -> Config:
    """The configuration of a home, or of FILE in its place. Raises ConfigError, with the line."""
    config, problems = read(home, file)
    if problems:
        more = len(problems) - 1
        raise ConfigError(f"{problems[0]}" + (f" (and {more} more; see: pylon config check)"
                                              if more else ""))
    return config


def read(home: Home, file: str | os.PathLike[str] | None = None) -> tuple[Config, list[Problem]]:
    """As `load`, but every problem is returned, and what is wrong keeps its default."""
    reading = _Reading()
    for path, needed in _files(home, file):
        text = reading.text_of(path, needed)
        if text is not None:
            reading.merge(text, path)
    return reading.config(), reading.problems


def from_values(values: dict[str, Any]) -> Config:
    """A configuration from nested dictionaries, checked like a file. Raises ConfigError."""
    reading = _Reading()
    reading.take(values, SCHEMA, (), reading.values)
    reading.check_backends()
    if reading.problems:
        raise ConfigError(reading.problems[0].text)
    return reading.config()


def identity_path(home: Home, config: Config) -> Path:
    """The identity's file: in `data_dir` where that is set, else in the home."""
    if config.data_dir:
        return Path(os.path.expanduser(config.data_dir)).absolute() / home.identity.name
    return home.identity


def render(config: Config | None = None) -> str:
    """The text of a config.toml with every key and its sentence; see `template`."""
    return template.render(config.as_dict() if config is not None else {})


# ---- values -------------------------------------------------------------------------------------

def _sections(values: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Tables as Sections; tables whose names the owner chooses as a dict of Sections."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        node = schema.get(name, schema.get("*"))
        if not isinstance(node, dict):
            result[name] = value
        elif "*" in node:
            result[name] = _sections(value, node)
        else:
            result[name] = Section(_sections(value, node))
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.as_dict()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


# ---- reading ------------------------------------------------------------------------------------

def _files(home: Home, file: str | os.PathLike[str] | None) -> Iterator[tuple[Path, bool]]:
    if home.root.parent == SYSTEM_OPENAGENTS:
        yield SYSTEM_CONFIG, False
    if file is not None:
        yield Path(os.path.abspath(os.path.expanduser(file))), True
    else:
        yield home.config, False


class _Reading:
    """One reading of one or two files: what they set, and what is wrong with them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = defaults(SCHEMA)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.files: list[Path] = []
        self.file = ""                                  # the one that is read now
        self.lines: dict[tuple[str, ...], int] = {}     # where its keys stand
        self.text: list[str] = []                       # its lines

    def config(self) -> Config:
        return Config(_sections(self.values, SCHEMA), self.notes, self.files)

    def text_of(self, path: Path, needed: bool) -> str | None:
        self.file = str(path)
        try:
            with open(path, "rb") as handle:
                data = handle.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            if needed:
                self.wrong(0, "there is no such file")
            return None
        except OSError as err:
            self.wrong(0, f"cannot be read: {err.strerror}")
            return None
        if len(data) > MAX_FILE_BYTES:
            self.wrong(data.count(b"\n") + 1,
                       f"longer than {MAX_FILE_BYTES} bytes; this is no configuration")
            return None
        if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            self.wrong(1, "begins with a byte order mark; save it as UTF-8 without one")
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as err:
            self.wrong(data.count(b"\n", 0, err.start) + 1, "is not UTF-8 text")
            return None

    def merge(self, text: str, path: Path) -> None:
        self.files.append(path)
        self.text = text.replace("\r\n", "\n").split("\n")
        try:
            tree = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as err:
            self.wrong(*_syntax_error(str(err), len(self.text)))
            return
        self.lines = _lines_of_keys(self.text)
        self.take(tree, SCHEMA, (), self.values)
        self.check_backends()

    def check_backends(self) -> None:
        """What one key alone does not tell: names in the preference, and the type of a backend."""
        backends = self.values["backends"]
        for name, values in backends.items():
            if not values["type"] and name not in BACKEND_TYPES:
                self.wrong(self.line(("backends", name)), f"backends.{name} needs a type: "
                           + ", ".join(BACKEND_TYPES))
        for name in list(self.values["backend_preference"]):
            line = self.line(("backend_preference",), name)
            if name == "apple_fm":
                self.values["backend_preference"].remove(name)
                self.notes.append(str(Problem(self.file, line, "apple_fm is ignored: there are no "
                                              "Apple models on this system")))
            elif name not in backends and name not in BACKEND_TYPES:
                self.wrong(line, f"backend_preference: {name!r} is neither one of "
                           f"{', '.join(BACKEND_TYPES)} nor a [backends.{name}]")

    def wrong(self, line: int, text: str) -> None:
        self.problems.append(Problem(self.file, line, text))

    def take(self, tree: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...],
             values: dict[str, Any]) -> None:
        """Put what stands in TREE into VALUES, table by table."""
        for name, value in tree.items():
            here = path + (name,)
            key = dotted(here)
            node = schema.get(name, schema.get("*"))
            if key in IGNORED:
                self.notes.append(f"{Problem(self.file, self.line(here), f'{key} is ignored')}: "
                                  f"{IGNORED[key]}")
            elif node is None:
                self.wrong(self.line(here), _unknown(name, path, schema))
            elif isinstance(node, Option):
                self.take_option(node, here, value, values)
            elif not isinstance(value, dict):
                self.wrong(self.line(here), f"{key} must be a table: [{key}]")
            else:
                inner = values.setdefault(name, defaults(node))
                self.take(value, node, here, inner)

    def take_option(self, option: Option, path: tuple[str, ...], value: Any,
                    values: dict[str, Any]) -> None:
        key = dotted(path)
        if not _has_type(value, option.type):
            self.wrong(self.line(path), f"{key} must be {_TYPE_NAMES[option.type]}")
            return
        for item in value if isinstance(value, list) else [value]:
            problem = option.check(item) if option.check else None
            if problem:
                which = f"{key}: {item!r:.80}" if isinstance(value, list) else key
                self.wrong(self.line(path, item), f"{which} {problem}")
                return
        values[path[-1]] = value

    def line(self, path: tuple[str, ...], item: object = None) -> int:
        """The line of a key, or of its table; with ITEM, the line of this text in its list."""
        while path and path not in self.lines:
            path = path[:-1]
        start = self.lines.get(path, 0)
        if start and isinstance(item, str):
            for number in range(start, len(self.text) + 1):
                if item in self.text[number - 1]:
                    return number
        return start


def _syntax_error(message: str, last_line: int) -> tuple[int, str]:
    found = re.match(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if found is None:
        return 1, "nested too deep"
    line = int(found[2]) if found[2] else last_line
    if found[1] == "Cannot overwrite a value" or "twice" in found[1]:
        return line, "this key or table stands here for the second time"
    return line, found[1][0].lower() + found[1][1:]


_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
                         r"(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")


def _lines_of_keys(lines: list[str]) -> dict[tuple[str, ...], int]:
    """Where each key stands: good enough to point at, not a parser (tomllib has read it)."""
    table: tuple[str, ...] = ()
    found: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(lines, 1):
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header:
            table = tuple(part.strip("\"'") for part in _PART.findall(header[1]))
            found.setdefault(table, number)
        elif assignment:
            path = table + tuple(part.strip("\"'") for part in _PART.findall(assignment[1]))
            for length in range(len(table) + 1, len(path) + 1):
                found.setdefault(path[:length], number)
    return found


def _unknown(name: str, path: tuple[str, ...], schema: dict[str, Any]) -> str:
    key = dotted(path + (name,))
    if _SECRET.search(name) and name + "_file" in schema:
        return (f"{key} is not an option: a secret never stands here; put it into a file with "
                f"mode 0600 and name that in {name}_file")
    near = difflib.get_close_matches(name, [known for known in schema if known != "*"], 1)
    if near:
        return f"unknown key {key}; did you mean {dotted(path + (near[0],))}?"
    last = {option.key.rsplit(".", 1)[-1]: option.key for option in OPTIONS
            if "*" not in option.key}
    near = difflib.get_close_matches(name, last, 1, 0.8)
    if near:
        return f"unknown key {key}; did you mean {last[near[0]]}?"
    near = difflib.get_close_matches(key, [option.key for option in OPTIONS], 1, 0.4)
    return f"unknown key {key}; " + (f"the nearest known one is {near[0]}" if near else
                                     "pylon.conf(5) lists the known ones")


def _has_type(value: Any, wanted: Any) -> bool:
    if wanted is list[str] or wanted == list[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if wanted == list[int]:
        return isinstance(value, list) and all(type(item) is int for item in value)
    if wanted == dict[str, str]:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return type(value) is wanted
