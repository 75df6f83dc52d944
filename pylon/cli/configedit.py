"""Setting a few keys in the home's config.toml while the owner's other lines stay as they are."""

from __future__ import annotations

import json
import re
import tomllib

from pylon import config as configuration
from pylon.errors import ConfigError
from pylon.home import Home, write_private


def set_keys(home: Home, values: dict[str, str]) -> None:
    """Write dotted keys with text values. Raises ConfigError; then the file is unchanged."""
    old = home.config.read_text(encoding="utf-8") if home.config.exists() else ""
    new = with_keys(old, values)
    written = tomllib.loads(new)
    for key, value in values.items():
        node = written
        for part in key.split("."):
            node = node.get(part, {})
        if node != value:
            raise ConfigError(f"{home.config} could not be edited; set {key} = "
                              f"{json.dumps(value)} there by hand")
    write_private(home.config, new.encode())
    try:
        configuration.load(home)
    except ConfigError:
        if old:
            write_private(home.config, old.encode())
        else:
            home.config.unlink()
        raise


def with_keys(text: str, values: dict[str, str]) -> str:
    """The text with these keys set: in the place of the old line, or of its commented default."""
    lines = text.splitlines()
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        _set(lines, table, name, f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _set(lines: list[str], table: str, name: str, line: str) -> None:
    start, end = _table(lines, table)
    if start is None:
        lines += ["", f"[{table}]", line]
        return
    for pattern in (rf"\s*{re.escape(name)}\s*=", rf"#\s*{re.escape(name)}\s*="):
        for number in range(start, end):
            if re.match(pattern, lines[number]):
                lines[number] = line
                return
    lines.insert(start, line)


def _table(lines: list[str], table: str) -> tuple[int | None, int]:
    """The lines that belong to a table: from behind its header to before the next one."""
    headers = [(number, match[1].replace(" ", "")) for number, line in enumerate(lines)
               if (match := re.match(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$", line))]
    if not table:
        return 0, headers[0][0] if headers else len(lines)
    for index, (number, name) in enumerate(headers):
        if name == table:
            end = headers[index + 1][0] if index + 1 < len(headers) else len(lines)
            return number + 1, end
    return None, len(lines)
