"""The registry: the files of all agents in `~/.openagents/agents`, and their keys.

One file per agent, 0600; a broken one is skipped with a warning and hides no other. Files of the
first Pylon are read where they are and in their old places. Keys are opened once and stay in the
daemon; nothing here hands out words.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from pylon.errors import ConfigError, IdentityError, InvalidMessage, PylonError, UsageError
from pylon.home import Home, write_private
from pylon.host import agentfile
from pylon.host.agentfile import SEALED, AgentFile
from pylon.nostr import nip06, nip19
from pylon.nostr.keys import Keys

log = logging.getLogger(__name__)

MAX_AGENTS = 1000
UNSAFE = str.maketrans({"/": "_", "\\": "_", ":": "_"})


class Registry:
    """Agents by npub. `node_keys` open and seal the words where the identity is sealed; any
    thread may call."""

    def __init__(self, home: Home, node_keys: Keys | None, sealed: bool) -> None:
        self._place, self._node_keys, self._sealed = home.agents, node_keys, sealed
        self._lock = threading.RLock()
        self._known: dict[str, AgentFile] = {}
        self._keys: dict[str, Keys] = {}
        self.broken: dict[str, str] = {}        # file name: what is wrong with it
        self.scan()

    def scan(self) -> None:
        """Read the directory again."""
        found: dict[str, AgentFile] = {}
        broken: dict[str, str] = {}
        for path in self._files():
            try:
                agent = _read(path)
                found.setdefault(agent.npub, agent)
            except ConfigError as err:
                broken[path.name] = str(err)
        with self._lock:
            for name in broken.keys() - self.broken.keys():
                log.warning("agents: %s is left out: %s", name, broken[name])
            self._known, self.broken = found, broken

    def _files(self) -> list[Path]:
        if not self._place.is_dir():
            return []
        flat = sorted(self._place.glob("*.toml"))
        oldest = sorted(self._place.glob("*/config.json"))
        return [*flat, *oldest][:MAX_AGENTS]

    def all(self) -> list[AgentFile]:
        """The newest first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda one: (-one.created_at, one.name))

    def get(self, npub: str) -> AgentFile | None:
        with self._lock:
            return self._known.get(npub)

    def find(self, text: str) -> AgentFile:
        """By name, npub, or the beginning of one. Raises UsageError."""
        everybody = self.all()
        exact = [one for one in everybody if text in (one.npub, one.pubkey, one.name)]
        near = exact or [one for one in everybody
                         if len(text) > 8 and one.npub.startswith(text)
                         or one.name.lower() == text.lower()]
        if len(near) == 1:
            return near[0]
        if near:
            raise UsageError(f"several agents are called {text!r}; give the npub")
        raise UsageError(f"there is no agent {text[:64]!r}; see: pylon agent list")

    def create(self, name: str, words: str, now: int, **settings: Any) -> AgentFile:
        """A new agent's file. Raises UsageError, IdentityError."""
        agentfile.check_name(name)
        keys = Keys(nip06.words_to_secret(words))
        with self._lock:
            if any(one.name.lower() == name.lower() for one in self._known.values()):
                raise UsageError(f"there is an agent called {name!r} already")
            if keys.npub in self._known:
                raise UsageError("these words are another agent's already: "
                                 f"{self._known[keys.npub].name!r}")
            if len(self._known) >= MAX_AGENTS:
                raise UsageError(f"{MAX_AGENTS} agents are enough for one node")
            values = {key: agentfile.checked(key, value) for key, value in settings.items()}
            agent = AgentFile(name=name, pubkey=keys.pubkey, npub=keys.npub, created_at=now,
                              mnemonic_encrypted=self._seal(words), **values)
            self._write(agent, replace_file=False)
            self._known[agent.npub], self._keys[agent.npub] = agent, keys
        return agent

    def change(self, npub: str, name: str, value: Any) -> AgentFile:
        """Set one setting. Raises UsageError."""
        if name not in agentfile.SETTABLE:
            raise UsageError(f"{name!r} is no setting of an agent; there are: "
                             f"{', '.join(agentfile.SETTABLE)}")
        with self._lock:
            fresh = replace(self._known[npub], **{name: agentfile.checked(name, value)})
            self._write(fresh, replace_file=True)
            self._known[npub] = fresh
        return fresh

    def delete(self, npub: str, now: int) -> Path:
        """Take an agent out; its file is kept beside, under a name that is not read."""
        with self._lock:
            path = self._path(npub)
            kept = path.with_name(f"{path.name}.deleted-{now}")
            os.replace(path, kept)
            del self._known[npub]
            self._keys.pop(npub, None)
        return kept

    def keys(self, npub: str) -> Keys:
        """Raises IdentityError."""
        with self._lock:
            known = self._keys.get(npub)
            if known is None:
                agent = self._known.get(npub)
                if agent is None:
                    raise IdentityError(f"there is no agent {npub}")
                known = self._keys[npub] = self._open(agent)
            return known

    def words(self, npub: str) -> str:
        """For the owner's own backup and nothing else. Raises IdentityError."""
        with self._lock:
            return self._unseal(self._known[npub])

    # -- secrets --

    def _seal(self, words: str) -> str:
        if not self._sealed:
            return words
        keys = self._own_keys()
        return SEALED + keys.nip44_encrypt(keys.pubkey, words)

    def _unseal(self, agent: AgentFile) -> str:
        text = agent.mnemonic_encrypted
        if not text.startswith(SEALED):
            return text
        keys = self._own_keys()
        try:
            return keys.nip44_decrypt(keys.pubkey, text.removeprefix(SEALED))
        except InvalidMessage:
            raise IdentityError(f"the words of agent {agent.name!r} were sealed by another "
                                "node's identity") from None

    def _open(self, agent: AgentFile) -> Keys:
        words = self._unseal(agent)
        secret = nip19.decode_nsec(words) if words.startswith("nsec1") \
            else nip06.words_to_secret(words)
        keys = Keys(secret)
        if keys.pubkey != agent.pubkey:
            raise IdentityError(f"the words of agent {agent.name!r} are not those of its npub")
        return keys

    def _own_keys(self) -> Keys:
        if self._node_keys is None:
            raise IdentityError("the node's identity is sealed, and it is not open here; start "
                                "the daemon: pylon start")
        return self._node_keys

    # -- the disk --

    def _path(self, npub: str) -> Path:
        return self._place / f"{npub.translate(UNSAFE)}.toml"

    def _write(self, agent: AgentFile, replace_file: bool) -> None:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_private(self._path(agent.npub), agentfile.render(agent).encode(),
                          replace=replace_file)
        except FileExistsError:
            raise UsageError(f"{self._path(agent.npub)} is there already") from None
        except OSError as err:
            raise PylonError(f"the file of agent {agent.name!r} cannot be written: "
                             f"{err.strerror}") from err


def _read(path: Path) -> AgentFile:
    """One file. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if info.st_uid != os.geteuid():
                raise ConfigError(f"{path} belongs to uid {info.st_uid}, not to you")
            if info.st_mode & 0o077:
                os.fchmod(fd, 0o600)        # the first Pylon left them readable
            data = file.read(agentfile.MAX_FILE_BYTES + 1)
        if len(data) > agentfile.MAX_FILE_BYTES:
            raise ConfigError(f"{path} is too long for an agent's file")
        return agentfile.parse(data.decode("utf-8"), str(path))
    except OSError as err:
        raise ConfigError(f"{path} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text") from None
