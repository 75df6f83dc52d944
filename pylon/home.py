"""Where everything lives on disk, and how a file of the home is written.

`Home` only names places; `create`, `check` and `write_private` are the only ones that touch them.
Nothing is ever readable by others, from its first byte on.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pylon.errors import ConfigError, HomeError

SYSTEM_CONFIG = Path("/etc/pylon/config.toml")
SYSTEM_OPENAGENTS = Path("/var/lib/pylon")
MAX_SOCKET_PATH_BYTES = 107         # sun_path is 108 bytes with its NUL
MAX_SECRET_BYTES = 65536


class Home:
    """The files of one node. `root` is the pylon home; agents live beside it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(root)))
        self.agents = self.root.parent / "agents"
        self.config = self.root / "config.toml"
        self.identity = self.root / "identity.mnemonic"
        self.database = self.root / "pylon.db"
        self.socket = self.root / "control.sock"
        self.pid = self.root / "pylon.pid"
        self.lock = self.root / "pylon.lock"
        self.log = self.root / "pylon.log"
        self.secrets = self.root / "secrets"          # wallet and backend credentials, 0600 each
        self.backups = self.root / "backups"

    @classmethod
    def default(cls) -> "Home":
        """`$OPENAGENTS_HOME/pylon`, else `~/.openagents/pylon`. Raises HomeError without either."""
        base = os.environ.get("OPENAGENTS_HOME")
        if base:
            return cls(Path(base) / "pylon")
        user_home = os.path.expanduser("~")
        if user_home == "~" or not os.path.isabs(user_home):
            raise HomeError("there is no HOME; set OPENAGENTS_HOME or give --home DIR")
        return cls(Path(user_home) / ".openagents" / "pylon")

    def exists(self) -> bool:
        return self.root.is_dir()

    def create(self) -> None:
        """Make the home and the agents' directory, 0700. Raises HomeError."""
        try:
            self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for place in (self.root, self.agents, self.secrets):
                place.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            raise HomeError(f"cannot create {self.root}: {err.strerror}; "
                            "give another place with --home DIR or OPENAGENTS_HOME") from err

    def check(self) -> None:
        """Refuse a home that others could read, write or have planted. Raises HomeError."""
        self._check_place(self.root, directory=True)
        if self.agents.exists():
            self._check_place(self.agents, directory=True)
        for place in (self.identity, self.config, self.database, self.lock, self.pid):
            if place.is_symlink() or place.exists():
                self._check_place(place, directory=False)
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH_BYTES:
            raise HomeError(f"{self.socket} is too long for a socket (107 bytes at most); "
                            "give a shorter home with --home DIR or OPENAGENTS_HOME")

    def _check_place(self, place: Path, directory: bool) -> None:
        info = place.lstat()
        if stat.S_ISLNK(info.st_mode):
            raise HomeError(f"{place} is a symbolic link; replace it by the real file")
        if info.st_uid != os.geteuid():
            raise HomeError(f"{place} belongs to uid {info.st_uid}, not to you (uid "
                            f"{os.geteuid()}); run pylon as that user, or chown it")
        # The system's node lets its group pass through to the socket, and no further.
        passage = 0o010 if directory and self.root.parent == SYSTEM_OPENAGENTS else 0
        loose = stat.S_IMODE(info.st_mode) & 0o077 & ~passage
        if loose:
            want = "0700" if directory else "0600"
            raise HomeError(f"{place} has mode {stat.S_IMODE(info.st_mode):04o}: others on this "
                            f"machine can reach it; mend it with: chmod {want} '{place}'")


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a 0600 file atomically and durably; with replace=False an existing file stays.

    Raises FileExistsError (replace=False), OSError.
    """
    name = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(name, path)
        else:
            os.link(name, path)
            os.unlink(name)
    except BaseException:
        if os.path.lexists(name):
            os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_secret(name: str, home: Home) -> str:
    """The secret in the file that an option `*_file` names, without white space around it.

    A bare NAME is a systemd credential where there is one, else a file in the home's `secrets`;
    anything else is a path. The file must be ours or root's, and 0600. Raises ConfigError, which
    never repeats what the file holds.
    """
    path = _secret_path(name, home)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            _check_secret(path, os.fstat(fd))
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode("utf-8").strip()
    except OSError as err:
        raise ConfigError(f"the secret in {path} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError:
        raise ConfigError(f"{path} holds no text") from None
    if not text or len(data) > MAX_SECRET_BYTES:
        raise ConfigError(f"{path} is empty or too long for a secret")
    return text


def _secret_path(name: str, home: Home) -> Path:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if "/" not in name:
        if credentials and (Path(credentials) / name).exists():
            return Path(credentials) / name
        return home.secrets / name
    return home.root / os.path.expanduser(name)         # an absolute path stays what it is


def _check_secret(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"{path} is no regular file")
    if str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY"):
        return                              # systemd guards these itself, by ownership and ACL
    if info.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path} belongs to uid {info.st_uid}, not to you")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"{path} has mode {stat.S_IMODE(info.st_mode):04o}: others can read "
                          f"this secret; mend it with: chmod 0600 '{path}'")
