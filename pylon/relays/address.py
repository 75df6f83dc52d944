"""Where a relay is: its URL taken apart, its addresses looked up, and a socket connected.

A URL that a stranger named may lead only to public addresses. The socket is connected to the
very address that was checked, so that a name which changes its mind gains nothing. Proxies in
the environment are not looked at.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pylon.errors import RelayError
from pylon.relays.bell import WRITE, Patience

MAX_URL_CHARS = 512
MAX_ADDRESSES = 6
_PLAIN = re.compile(r"[!-~]+\Z", re.ASCII)      # no space and no control: it goes into a header
_DEFAULT_PORT = {"ws": 80, "wss": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_ODD_V6 = [ipaddress.ip_network(n) for n in ("64:ff9b:1::/48", "fec0::/10", "2001::/23")]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """A relay's address, taken apart; `url` is its one spelling."""

    url: str
    host: str
    port: int
    secure: bool
    resource: str               # path and query, as the HTTP line has them

    @property
    def name(self) -> str:
        """For thread names and logs."""
        return self.host if self.port in _DEFAULT_PORT.values() else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT["wss" if self.secure else "ws"] \
            else f"{host}:{self.port}"


def parse_url(text: str) -> RelayUrl:
    """Take a ws:// or wss:// URL apart. Raises RelayError."""
    if len(text) > MAX_URL_CHARS or not _PLAIN.match(text):
        raise RelayError("not a relay URL: too long, or with characters that no URL has")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as err:
        raise RelayError(f"not a relay URL: {text}") from err
    if parts.scheme not in _DEFAULT_PORT or not host or port == 0 or "@" in parts.netloc:
        raise RelayError(f"not a relay URL (ws:// or wss:// and a host): {text}")
    standard = _DEFAULT_PORT[parts.scheme]
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{shown}" + ("" if port in (None, standard) else f":{port}")
    return RelayUrl(url + ("" if resource == "/" else resource), host, port or standard,
                    parts.scheme == "wss", resource)


def normalise(text: str) -> str:
    """The one spelling of a relay's URL: lower-case host, no default port, no bare slash."""
    return parse_url(text).url


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also inside its disguises."""
    ip: IpAddress = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped
        if ip in _NAT64:
            hidden = ipaddress.IPv4Address(int(ip) & 0xffffffff)
        elif ip in _SIX_TO_FOUR:
            hidden = ip.sixtofour
        if hidden is not None:
            return is_public(str(hidden))
        if any(ip in network for network in _ODD_V6):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def check_stranger(target: RelayUrl) -> None:
    """What a URL from a stranger must be before anything is looked up. Raises RelayError."""
    name = target.host.rstrip(".")
    if not target.secure:
        raise RelayError("a relay that a stranger names must be wss://")
    if name.endswith((".onion", ".local", ".localhost", ".internal")) or name == "localhost":
        raise RelayError("a relay that a stranger names must be on the open internet")


def resolve(target: RelayUrl, public_only: bool) -> list[tuple[Any, ...]]:
    """The addresses of a relay, as getaddrinfo has them. Raises RelayError."""
    # getaddrinfo has no deadline. It holds up only this relay's thread, for as long as the
    # resolver's own patience (some ten seconds); nobody joins that thread without a deadline.
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM,
                                   proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as err:
        raise RelayError(f"the name {target.host} was not found: {err}") from err
    if public_only:
        found = [info for info in found if is_public(str(info[4][0]))]
        if not found:
            raise RelayError(f"{target.host} has no public address")
    return list(found)


def dial(target: RelayUrl, patience: Patience, public_only: bool) -> socket.socket:
    """A connected, non-blocking TCP socket. Raises RelayError.

    Every address gets its share of the patience, so that one that swallows everything (IPv6 on
    many home networks) does not hide those after it.
    """
    found = resolve(target, public_only)[:MAX_ADDRESSES]
    reason: Exception | None = None
    for number, (family, kind, proto, _, where) in enumerate(found):
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
        try:
            _connect(sock, where, patience.share(len(found) - number))
            return sock
        except (OSError, RelayError) as err:
            sock.close()
            reason = err
        if patience.over():
            break
    raise RelayError(f"cannot connect to {target.name}: {reason}") from reason


def _connect(sock: socket.socket, where: Any, patience: Patience) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    code = sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        patience.wait(sock, WRITE)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, errno.errorcode.get(code, "error"))


def is_local(relay: str) -> bool:
    """Whether a relay is on this machine or its own network, by its address or name."""
    host = parse_url(relay).host
    try:
        return not is_public(host)
    except ValueError:                      # a name, not an address
        return host == "localhost" or host.endswith((".localhost", ".local", ".lan", ".internal"))
