"""The text of a config.toml with every key and its sentence. Pure.

What differs from the defaults is set; the rest stands there as comments.
"""

from __future__ import annotations

import json
from typing import Any

from pylon.options import SCHEMA, SECTION_TEXTS, Option, dotted


def render(values: dict[str, Any]) -> str:
    """VALUES are nested dictionaries; what is missing has its default."""
    lines = ["# Configuration of Pylon. Every key is optional; a key behind '#' shows its default.",
             "# Secrets do not belong here: keys that end in _file name a file that holds one.",
             "# See pylon.conf(5). Check with: pylon config check", ""]
    _render_table(lines, (), SCHEMA, values)
    return "\n".join(lines).rstrip() + "\n"


def _render_table(lines: list[str], path: tuple[str, ...], schema: dict[str, Any],
                  values: dict[str, Any]) -> None:
    tables = {name: node for name, node in schema.items() if isinstance(node, dict)}
    maps = {name: node for name, node in schema.items()
            if isinstance(node, Option) and node.type == dict[str, str]}
    for name, node in schema.items():
        if name not in tables and name not in maps:
            _render_option(lines, node, name, values.get(name, node.default))
    for name, node in maps.items():
        _render_map(lines, path + (name,), node, values.get(name, {}))
    for name, node in tables.items():
        if "*" in node:
            _render_named(lines, path + (name,), node, values.get(name, {}))
        if any(inner != "*" for inner in node):
            _render_header(lines, path + (name,), SECTION_TEXTS[".".join(path + (name,))])
            _render_table(lines, path + (name,),
                          {inner: leaf for inner, leaf in node.items() if inner != "*"},
                          values.get(name, {}))


def _render_header(lines: list[str], path: tuple[str, ...], text: str, mark: str = "") -> None:
    if lines[-1]:
        lines.append("")
    lines.extend([f"# ---- {text}", f"{mark}[{dotted(path)}]"])


def _render_option(lines: list[str], option: Option, name: str, value: Any,
                   mark: str = "") -> None:
    shown = f"{name} = {_toml(value)}"
    lines.append(f"# {option.text}")
    lines.append(mark + shown if value != option.default else f"#{shown}")


def _render_map(lines: list[str], path: tuple[str, ...], option: Option,
                values: dict[str, str]) -> None:
    _render_header(lines, path, option.text)
    lines.extend(f"{dotted((name,))} = {_toml(value)}" for name, value in values.items())
    lines.append('#"gpt-3.5-turbo" = "llama3.2"')


def _render_named(lines: list[str], path: tuple[str, ...], node: dict[str, Any],
                  values: dict[str, Any]) -> None:
    """Tables with names of the owner's choice; one in comments shows the keys."""
    text = SECTION_TEXTS[".".join(path) + ".*"]
    for name, inner in values.items():
        _render_header(lines, path + (name,), text)
        for key, option in node["*"].items():
            _render_option(lines, option, key, inner.get(key, option.default))
    _render_header(lines, path + ("NAME",), text, "#")
    for key, option in node["*"].items():
        _render_option(lines, option, key, option.default)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
