"""Which backends there are: what the configuration names, and what usually runs on a machine.

Nothing is asked here; a backend that is not there shows when it is probed.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit

from pylon.backends.backend import Backend, Limits
from pylon.backends.llamacpp import LlamaCpp
from pylon.backends.ollama import Ollama
from pylon.backends.openai import OpenAI
from pylon.errors import ConfigError
from pylon.home import Home, read_secret
from pylon.log import conceal

log = logging.getLogger(__name__)

TYPES: dict[str, type[Backend]] = {"ollama": Ollama, "llamacpp": LlamaCpp, "openai": OpenAI}
OLLAMA_PORT, LLAMACPP_PORT = 11434, 8080
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


def build(config: Any, home: Home | None = None) -> list[tuple[int, Backend]]:
    """(rank, backend) for every one to use, the best rank 0; equals share the work.

    `backend_preference` orders by name or type. Types that it lists and the configuration does
    not mention are looked for at their usual place. Raises ConfigError.
    """
    limits = Limits(config.limits.first_token_secs, config.limits.between_tokens_secs,
                    config.limits.total_secs, config.limits.output_bytes)
    preference = list(config.backend_preference)
    found = [(_rank(name, section.type or name, preference), _make(name, section, limits, home))
             for name, section in config.backends.items() if section.enabled]
    mentioned = {section.type or name for name, section in config.backends.items()}
    for rank, type_ in enumerate(preference):
        if type_ in ("ollama", "llamacpp") and type_ not in mentioned:
            found.append((rank, TYPES[type_](type_, usual_url(type_), limits)))
    return sorted(found, key=lambda pair: pair[0])


def usual_url(type_: str) -> str:
    """Where a type of backend is when nobody says: the environment's word, else its own port.

    Raises ConfigError.
    """
    if type_ == "ollama":
        url = os.environ.get("OLLAMA_URL") or os.environ.get("OLLAMA_HOST")
        return _ollama_url(url) if url else f"http://127.0.0.1:{OLLAMA_PORT}"
    url = os.environ.get("LLAMACPP_URL")
    return _checked("LLAMACPP_URL", url) if url else f"http://127.0.0.1:{LLAMACPP_PORT}"


def _rank(name: str, type_: str, preference: list[str]) -> int:
    for word in (name, type_):
        if word in preference:
            return preference.index(word)
    return len(preference)


def _make(name: str, section: Any, limits: Limits, home: Home | None) -> Backend:
    type_ = section.type or name
    url = section.url
    if not url and type_ == "openai":
        raise ConfigError(f"backends.{name} needs a url")
    url = url or usual_url(type_)
    key = _read_key(name, section.key_file, home) if section.key_file else ""
    if key and url.startswith("http:") and not is_loopback(url):
        log.warning("backend %s: its key travels in clear to %s; use https", name, url)
    return TYPES[type_](name, url, limits, key, section.weight, section.models,
                        section.context_tokens)


def _read_key(name: str, key_file: str, home: Home | None) -> str:
    key = read_secret(key_file, home or Home.default())
    conceal(key)
    if not _KEY.fullmatch(key):
        raise ConfigError(f"backends.{name}.key_file: the file holds no API key (one word)")
    return key


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _ollama_url(text: str) -> str:
    """OLLAMA_HOST in all the forms that Ollama takes; it may be the address that it listens on."""
    text = text.strip().strip("\"'")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    host, slash, path = rest.partition("/")
    if host.startswith(":") and host.count(":") == 1:
        host = "127.0.0.1" + host                           # ":11434"
    elif host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"                                  # a bare IPv6 address
    if not separator and not re.search(r":[0-9]+$", host):
        host += f":{OLLAMA_PORT}"
    url = _checked("OLLAMA_HOST", f"{scheme}://{host}{slash}{path}")
    for anywhere, here in (("//0.0.0.0", "//127.0.0.1"), ("//[::]", "//[::1]")):
        url = url.replace(anywhere, here)
    return url.rstrip("/")


def _checked(variable: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        good = (parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
                and parts.username is None and not re.search(r"[\s\x00-\x1f\x7f]", url))
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"the environment's {variable} is not an address like "
                          "http://127.0.0.1:8080")
    return url
