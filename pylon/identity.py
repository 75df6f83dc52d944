"""The node's identity on disk: twelve words (or an nsec) in one 0600 file, sealed or plain.

A plain file is the words on one line, as the first Pylon wrote it. A sealed one begins with a
mark and the npub, so that a node can be named without its passphrase. An identity is never
overwritten without a dated copy beside it.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pylon.crypto import ciphers
from pylon.errors import IdentityError, PylonError
from pylon.home import write_private
from pylon.nostr import nip06, nip19
from pylon.nostr.keys import Keys

SEALED_MARK = "pylon-sealed-identity-1"
MAX_FILE_BYTES = 4096

AskPassphrase = Callable[[], bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    keys: Keys
    words: str | None               # None when it came from an nsec: agents need their own then
    sealed: bool = False

    def __repr__(self) -> str:
        return f"Identity({self.keys.npub})"


def parse(text: str) -> Identity:
    """An identity from 12 to 24 words or an nsec. Raises IdentityError."""
    words = " ".join(text.split())
    if not words:
        raise IdentityError("there is nothing; expected 12 to 24 words or an nsec")
    if words.lower().startswith("nsec1"):
        try:
            return Identity(Keys(nip19.decode_nsec(words)), None)
        except PylonError:
            raise IdentityError("this is not a whole nsec: a character is wrong or missing") \
                from None
    words = words.lower()
    nip06.check_words(words)
    return Identity(Keys(nip06.words_to_secret(words)), words)


def text_of(identity: Identity) -> str:
    """What `parse` takes back: the words, or the nsec."""
    return identity.words or identity.keys.nsec


def save(place: Path, identity: Identity, passphrase: bytes | None = None) -> None:
    """Write an identity where none is. Raises IdentityError when one is there."""
    try:
        write_private(place, _file_bytes(identity, passphrase), replace=False)
    except FileExistsError:
        raise IdentityError(f"{place} holds an identity already; to make a new one and keep a "
                            "copy of the old: pylon init --force") from None


def replace(place: Path, identity: Identity, passphrase: bytes | None, now: int) -> Path:
    """Write an identity over another; gives the dated copy of the old one."""
    copy = _free_name(place, now)
    os.link(place, copy, follow_symlinks=False)
    write_private(place, _file_bytes(identity, passphrase))
    return copy


def load(place: Path, ask: AskPassphrase | None = None) -> Identity:
    """Read an identity; ASK is called for the passphrase of a sealed one. Raises IdentityError."""
    head, body = _read(place)
    if head is None:
        return parse(body)
    if ask is None:
        raise IdentityError(f"{place} is sealed; give its passphrase with --passphrase-file FILE, "
                            "as the systemd credential 'passphrase', or on a terminal")
    try:
        sealed = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise IdentityError(f"{place} is damaged: not base64 after the first line") from None
    opened = parse(ciphers.unseal(ask(), sealed).decode("utf-8", "replace"))
    return Identity(opened.keys, opened.words, sealed=True)


def npub_of(place: Path) -> str:
    """Who the node is, without a passphrase. Raises IdentityError."""
    head, body = _read(place)
    return parse(body).keys.npub if head is None else head


def _file_bytes(identity: Identity, passphrase: bytes | None) -> bytes:
    text = text_of(identity)
    if passphrase is None:
        return text.encode()
    sealed = base64.b64encode(ciphers.seal(passphrase, text.encode())).decode()
    return f"{SEALED_MARK} {identity.keys.npub}\n{sealed}\n".encode()


def _read(place: Path) -> tuple[str | None, str]:
    """(npub or None when plain, the rest) of a file that nobody else could read or plant."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IdentityError(f"there is no identity at {place}; make one with: pylon init") from None
    except OSError as err:
        what = "is a symbolic link" if err.errno == errno.ELOOP else err.strerror
        raise IdentityError(f"cannot read {place}: {what}") from err
    try:
        _check_file(place, os.fstat(fd))
        data = os.read(fd, MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_FILE_BYTES or not data.isascii():
        raise IdentityError(f"{place} is damaged: it holds neither words nor an nsec")
    first, _, rest = data.decode("ascii").partition("\n")
    mark, _, npub = first.partition(" ")
    return (npub.strip(), rest.strip()) if mark == SEALED_MARK else (None, data.decode("ascii"))


def _check_file(place: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise IdentityError(f"{place} is not a file")
    if info.st_uid != os.geteuid():
        raise IdentityError(f"{place} belongs to uid {info.st_uid}, not to you")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise IdentityError(f"{place} can be read by others; mend it with: chmod 0600 '{place}'")


def _free_name(place: Path, now: int) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    for number in range(1000):
        name = place.with_name(f"{place.name}.{stamp}" + (f".{number}" if number else ""))
        if not os.path.lexists(name):
            return name
    raise IdentityError(f"there are too many copies of {place}")
