"""The file of one agent, `<npub>.toml`: who it is and what it may do. Parse and render; pure.

The form is the first Pylon's; older ones are read, too: JSON, `[network] bitcoin`, `[relays] urls`,
and states and autonomies that are no more. `mnemonic_encrypted` holds the words, or, where the
node's identity is sealed, `nip44:` and the words encrypted to the node's own key.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field, fields
from typing import Any

from pylon.errors import ConfigError, PylonError, UsageError
from pylon.nostr import nip19
from pylon.options import check_relay_url
from pylon.units import parse_count

SEALED = "nip44:"
AUTONOMIES = ("supervised", "bounded", "autonomous")
TRIGGERS = ("mention", "dm", "zap")
SOURCES = ("auto", "market", "local")
NETWORKS = ("regtest", "signet", "testnet", "mainnet")
MAX_FILE_BYTES = 256 * 1024
_OLD_AUTONOMY = {"full": "autonomous", "restricted": "supervised", "read_only": "supervised"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z", re.ASCII)
_NODE = re.compile(r"node:0[23][0-9a-f]{64}\Z", re.ASCII)
_ADDRESS = re.compile(r"[a-z0-9._+-]{1,64}@[a-z0-9.-]{1,253}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class AgentFile:
    """One agent's settings. Amounts in sats, as people write them; times in seconds."""

    name: str
    pubkey: str
    npub: str
    mnemonic_encrypted: str = field(repr=False)
    network: str = "regtest"
    relays: list[str] = field(default_factory=list)     # [] means the node's own
    created_at: int = 0
    state: str = "spawning"         # of an old file: where a life goes on from
    tick_count: int = 0             # of an old file
    # [profile]
    about: str = "A sovereign AI agent"
    picture: str = ""
    lud16: str = ""
    autonomy: str = "bounded"
    capabilities: list[str] = field(default_factory=lambda: ["general"])
    version: str = "1.0.0"
    # [schedule]
    heartbeat_seconds: int = 900
    triggers: list[str] = field(default_factory=lambda: list(TRIGGERS))
    active: bool = True
    author_per_hour: int = 6
    triggers_per_hour: int = 30
    # [runway]
    low_balance_days: int = 7
    daily_burn_sats: int = 1000
    hibernate_threshold_sats: int = 1000
    daily_limit_sats: int = 10000
    per_tick_limit_sats: int = 1000
    # [runner]
    runner: str = ""                # empty: PYLON_AGENT_RUNNER, else the built-in one
    timeout_secs: int = 300
    max_actions: int = 5
    # [thinking]
    source: str = "auto"
    model: str = ""
    max_tokens: int = 400
    max_infers: int = 6
    # [payees]
    allow: list[str] = field(default_factory=list)
    zap_authors: bool = False
    zap_author_daily_sats: int = 100


SECTIONS: dict[str, tuple[str, ...]] = {
    "profile": ("name", "about", "picture", "lud16", "autonomy", "capabilities", "version"),
    "schedule": ("heartbeat_seconds", "triggers", "active", "author_per_hour",
                 "triggers_per_hour"),
    "runway": ("low_balance_days", "daily_burn_sats", "hibernate_threshold_sats",
               "daily_limit_sats", "per_tick_limit_sats"),
    "runner": ("runner", "timeout_secs", "max_actions"),
    "thinking": ("source", "model", "max_tokens", "max_infers"),
    "payees": ("allow", "zap_authors", "zap_author_daily_sats"),
}
SECTION_OF = {name: section for section, names in SECTIONS.items() for name in names
              if name != "name"}
TOP = ("name", "pubkey", "npub", "mnemonic_encrypted", "network", "relays", "created_at",
       "state", "tick_count")
SETTABLE = (*SECTION_OF, "relays")
_LEAST = {"heartbeat_seconds": 10, "max_tokens": 16, "timeout_secs": 5}
_MOST = {"heartbeat_seconds": 30 * 86400, "timeout_secs": 3600, "max_actions": 20,
         "max_infers": 50, "max_tokens": 8192, "low_balance_days": 3650, "author_per_hour": 1000,
         "triggers_per_hour": 1000}
MAX_SATS = 2_100_000_000_000_000


def check_name(name: str) -> str:
    """Raises UsageError."""
    if not _NAME.match(name) or name.startswith("npub1") or name.endswith((".", " ")):
        raise UsageError(f"{name[:64]!r} is no name for an agent: up to 64 letters, digits, "
                         "spaces, dots, hyphens and underscores")
    return name


def payee(text: str) -> str:
    """A payee of the allow-list in its one form: npub, `node:KEY` or name@domain. Raises
    UsageError."""
    text = text.strip()
    lower = text.lower()
    if _NODE.match(lower) or _ADDRESS.match(lower):
        return lower
    if re.fullmatch(r"0[23][0-9a-f]{64}", lower):
        return f"node:{lower}"
    try:
        return nip19.encode_npub(nip19.decode_pubkey(text))
    except PylonError:
        raise UsageError(f"{text[:80]!r} is no payee: give an npub, a Lightning node's key "
                         "(66 digits, node:KEY) or a Lightning address (name@domain)") from None


def checked(name: str, value: Any) -> Any:
    """One setting's value as it is stored. Raises UsageError."""
    kind = next((f.type for f in fields(AgentFile) if f.name == name), None)
    if kind is None:
        raise UsageError(f"an agent has no setting {name!r}; it has: {', '.join(SETTABLE)}")
    value = _typed(name, str(kind), value)
    if name == "autonomy":
        value = _OLD_AUTONOMY.get(value, value)
        _one_of(name, value, AUTONOMIES)
    elif name == "source":
        _one_of(name, value, SOURCES)
    elif name == "network":
        _one_of(name, value, NETWORKS)
    elif name == "triggers":
        value = ["mention" if one == "reply" else one for one in value]
        for one in value:
            _one_of(name, one, TRIGGERS)
    elif name == "relays":
        for url in value:
            wrong = check_relay_url(url)
            if wrong:
                raise UsageError(f"relay {url[:80]!r} {wrong}")
    elif name == "allow":
        value = list(dict.fromkeys(payee(one) for one in value))
    return value


def _typed(name: str, kind: str, value: Any) -> Any:
    if kind == "int":
        low, high = _LEAST.get(name, 0), _MOST.get(name, MAX_SATS)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise UsageError(f"{name} must be a whole number from {low} to {high}")
    elif kind == "bool":
        if type(value) is not bool:
            raise UsageError(f"{name} must be true or false")
    elif kind == "str":
        if not isinstance(value, str) or len(value) > 2000 or not value.isprintable():
            raise UsageError(f"{name} must be a printable text of at most 2000 characters")
    elif not isinstance(value, list) or len(value) > 200 or not all(
            isinstance(one, str) and len(one) <= 300 and one.isprintable() for one in value):
        raise UsageError(f"{name} must be a list of texts")
    return value


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} {value[:40]!r} is not one of {', '.join(known)}")


def from_words(name: str, text: str) -> Any:
    """What a person typed for a setting, as its value: lists are separated by commas."""
    kind = next((str(f.type) for f in fields(AgentFile) if f.name == name), "")
    if kind == "int":
        try:
            return parse_count(text)
        except ValueError:
            raise UsageError(f"{name} must be a whole number, not {text!r}") from None
    if kind == "bool":
        if text.lower() not in ("true", "false", "on", "off", "yes", "no"):
            raise UsageError(f"{name} must be true or false")
        return text.lower() in ("true", "on", "yes")
    if kind.startswith("list"):
        return [word.strip() for word in text.split(",") if word.strip()]
    return text


def parse(text: str, place: str) -> AgentFile:
    """A file's text, TOML or the oldest JSON. Raises ConfigError, which repeats no value."""
    try:
        tree = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{place} is not read: {str(err)[:100]}") from None
    found = _flatten(tree)
    try:
        pubkey = nip19.decode_pubkey(str(found.get("npub") or found.get("pubkey", "")))
        found |= {"pubkey": pubkey, "npub": nip19.encode_npub(pubkey)}
        words = found.pop("mnemonic_encrypted", None) or found.pop("mnemonic", None)
        if not isinstance(words, str) or not words.strip():
            raise ConfigError(f"{place} holds no words for its agent's key")
        values = {name: checked(name, value) for name, value in found.items()
                  if name in AgentFile.__slots__}
        return AgentFile(mnemonic_encrypted=words.strip(),
                         **{**values, "name": check_name(values["name"])})
    except (UsageError, KeyError) as err:
        raise ConfigError(f"{place}: {err}") from None


def _flatten(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {}
    found = {name: tree[name] for name in TOP if name in tree}
    for section in SECTIONS:
        table = tree.get(section)
        if isinstance(table, dict):
            found |= {name: value for name, value in table.items() if name in SECTIONS[section]}
    if isinstance(found.get("network"), dict):              # [network] bitcoin = "regtest"
        found["network"] = found["network"].get("bitcoin", "regtest")
    if isinstance(found.get("relays"), dict):               # [relays] urls = [...]
        found["relays"] = found["relays"].get("urls", [])
    if isinstance(found.get("created_at"), str):
        found.pop("created_at")
    return found


def render(agent: AgentFile) -> str:
    """The file's text."""
    lines = [f"{name} = {_toml(getattr(agent, name))}" for name in TOP]
    for section, names in SECTIONS.items():
        lines += ["", f"[{section}]"]
        lines += [f"{name} = {_toml(getattr(agent, name))}" for name in names]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def public(agent: AgentFile) -> dict[str, Any]:
    """Everything but the secret, for --json."""
    return {name: getattr(agent, name) for name in AgentFile.__slots__
            if name not in ("mnemonic_encrypted", "state", "tick_count")}
