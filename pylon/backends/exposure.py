"""Whether a model server of this machine listens to the whole network, where it should not.

Ollama asks nobody for a key: who reaches its port uses it for nothing, may delete its models, and
could read its memory before version 0.17.1 (CVE-2026-7482).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pylon.backends.found import is_loopback

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"


def is_exposed(url: str, tables: tuple[Path, ...] = TABLES) -> bool:
    """Whether the server at a url of this machine listens beyond the loopback.

    False also where nobody can tell: another machine's server, or no /proc to look into.
    """
    if not is_loopback(url):
        return False
    port = urlsplit(url).port
    return any(number == port and not address.is_loopback
               for table in tables for address, number in _listening(table))


def _listening(table: Path) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [_place(row[1]) for row in rows if row[3] == LISTENS]


def _place(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """0100007F:97A9: each 32 bits of the address have their bytes in reverse."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[i:i + 8])[::-1] for i in range(0, len(address), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found, int(port, 16)
