"""NIP-06: keys from BIP-39 words, m/44'/1237'/account'/0/0, no passphrase.

One backup serves many identities: each account is a key of its own. English words only.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import unicodedata
from typing import Any

from pylon.crypto import secp
from pylon.errors import IdentityError

N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
LENGTHS = (12, 15, 18, 21, 24)
MAX_ACCOUNT = 2**31 - 1
_HARDENED = 2**31


def generate_words() -> str:
    """Twelve fresh words (128 bits)."""
    return str(_wordlist().generate(128))


def check_words(words: str) -> None:
    """Raises IdentityError, which names the place of a wrong word but repeats no other."""
    given = normalise(words).split(" ")
    book = _wordlist()
    known = set(book.wordlist)
    for place, word in enumerate(given, 1):
        if word not in known:
            near = difflib.get_close_matches(word, book.wordlist, 1)
            raise IdentityError(f"word {place} is not of the BIP-39 list"
                                + (f"; did you mean {near[0]!r}?" if near else ""))
    if len(given) not in LENGTHS:
        raise IdentityError(f"there are {len(given)} words; 12, 15, 18, 21 or 24 are wanted")
    if not book.check(" ".join(given)):
        raise IdentityError("the words are no seed phrase: the checksum is wrong; look for a word "
                            "out of order or exchanged for another")


def words_to_secret(words: str, account: int = 0) -> bytes:
    """The secret key of an account. Raises IdentityError."""
    check_words(words)
    if not 0 <= account <= MAX_ACCOUNT:
        raise IdentityError(f"there is no account {account}")
    return derive(seed_of(words), [44 + _HARDENED, 1237 + _HARDENED, account + _HARDENED, 0, 0])


def seed_of(words: str) -> bytes:
    """The BIP-39 seed, 64 bytes; the words are not checked here."""
    return hashlib.pbkdf2_hmac("sha512", normalise(words).encode(), b"mnemonic", 2048)


def derive(seed: bytes, path: list[int]) -> bytes:
    """The BIP-32 private key at `path`; hardened steps have 2**31 added."""
    digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
    secret, chain = digest[:32], digest[32:]
    for step in path:
        data = b"\0" + secret if step >= _HARDENED else secp.pubkey_compressed(secret)
        digest = hmac.digest(chain, data + step.to_bytes(4, "big"), "sha512")
        number, chain = int.from_bytes(digest[:32], "big"), digest[32:]
        child = (number + int.from_bytes(secret, "big")) % N
        if number >= N or child == 0:       # BIP-32: one chance in 2**127
            raise IdentityError("these words have no key at this account; take another account")
        secret = child.to_bytes(32, "big")
    return secret


def normalise(words: str) -> str:
    """As BIP-39 wants it: NFKD, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKD", words).lower().split())


def _wordlist() -> Any:
    from mnemonic import Mnemonic  # late: only where words are read or made
    return Mnemonic("english")
