"""A key pair: signs, encrypts, and never shows its secret.

repr, str and pickle of `Keys` hold no secret; `nsec` is for the identity file and its backup, and
for nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from pylon.crypto import secp
from pylon.errors import IdentityError, InvalidMessage
from pylon.nostr import nip04, nip19, nip44
from pylon.nostr.event import Event, check_unsigned, event_id, is_hex


class Keys:
    """The keys of one identity; `pubkey` is x-only hex."""

    __slots__ = ("_secret", "pubkey")

    def __init__(self, secret32: bytes) -> None:
        self._secret = secret32
        self.pubkey = secp.pubkey(secret32).hex()

    @property
    def npub(self) -> str:
        return nip19.encode_npub(self.pubkey)

    @property
    def nsec(self) -> str:
        """The secret itself."""
        return nip19.encode_nsec(self._secret)

    def sign(self, kind: int, content: str, tags: Sequence[Sequence[str]],
             created_at: int) -> Event:
        """A signed event. Raises InvalidMessage for what cannot be one."""
        own = [list(tag) for tag in tags]
        check_unsigned(created_at, kind, own, content)
        id_ = event_id(self.pubkey, created_at, kind, own, content)
        sig = secp.sign_schnorr(self._secret, bytes.fromhex(id_)).hex()
        return Event(id_, self.pubkey, created_at, kind, own, content, sig)

    def nip04_encrypt(self, pubkey: str, text: str) -> str:
        return nip04.encrypt(self._shared_x(pubkey), text)

    def nip04_decrypt(self, pubkey: str, payload: str) -> str:
        return nip04.decrypt(self._shared_x(pubkey), payload)

    def nip44_encrypt(self, pubkey: str, text: str) -> str:
        return nip44.encrypt(nip44.conversation_key(self._shared_x(pubkey)), text)

    def nip44_decrypt(self, pubkey: str, payload: str) -> str:
        return nip44.decrypt(nip44.conversation_key(self._shared_x(pubkey)), payload)

    def _shared_x(self, pubkey: str) -> bytes:
        if not is_hex(pubkey):
            raise InvalidMessage("a public key is 64 digits of lower-case hex")
        return secp.ecdh_x(self._secret, bytes.fromhex(pubkey))

    def __repr__(self) -> str:
        return f"Keys({self.pubkey[:8]}…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and other.pubkey == self.pubkey

    def __hash__(self) -> int:
        return hash(self.pubkey)

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not to be pickled or copied")


def generate() -> Keys:
    """Fresh random keys."""
    while True:
        try:
            return Keys(os.urandom(32))
        except IdentityError:           # one chance in 2**128
            continue
