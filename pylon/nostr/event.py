"""Events (NIP-01): parsed strictly, their id recomputed, their signature checked.

`parse` looks at types, ranges and sizes and costs no hash; nothing may act on its event before
`verify` has passed. The canonical form that the id is the hash of is JSON without spaces, with
the escapes of JSON.stringify: control characters as \\n, \\r, \\t, \\b, \\f or \\u00xx in lower
case, everything else verbatim, in UTF-8. Text with a lone surrogate has no such form and is
refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from pylon.crypto import secp
from pylon.errors import InvalidMessage
from pylon.nostr import strictjson
from pylon.units import parse_count

MAX_TAGS = 200
MAX_BYTES = 65_536                  # of content and tags together; strfry's limit for an event
MAX_KIND = 65_535
MAX_CREATED_AT = 2**53              # beyond it, JSON numbers are not exact (and SQLite has 2**63)

load_json = strictjson.load

_quote = json.encoder.encode_basestring
_LISTS = {list}


@dataclass(frozen=True, slots=True)
class Event:
    """One signed event; hex in lower case. Treat the tags as frozen, too.

    Its repr has no tags and no content: prompts stay out of logs.
    """

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: list[list[str]] = field(repr=False)
    content: str = field(repr=False)
    sig: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "pubkey": self.pubkey, "created_at": self.created_at,
                "kind": self.kind, "tags": self.tags, "content": self.content, "sig": self.sig}

    def to_json(self) -> str:
        """The event as it goes over the wire, compact."""
        return (f'{{"id":"{self.id}","pubkey":"{self.pubkey}","created_at":{self.created_at},'
                f'"kind":{self.kind},"tags":{_dump(self.tags)},"content":{_quote(self.content)},'
                f'"sig":"{self.sig}"}}')

    def first(self, name: str) -> str | None:
        """The value of the first tag of that name, None without one."""
        for tag in self.tags:
            if tag[0] == name and len(tag) > 1:
                return tag[1]
        return None

    def all(self, name: str) -> list[list[str]]:
        """Every whole tag of that name."""
        return [tag for tag in self.tags if tag[0] == name]

    def expiration(self) -> int | None:
        """When the event ends (NIP-40), in Unix seconds; None without a readable tag."""
        value = self.first("expiration")
        try:
            return None if value is None else parse_count(value)
        except ValueError:
            return None


_new = object.__new__
(_set_id, _set_pubkey, _set_created_at, _set_kind, _set_tags, _set_content, _set_sig) = (
    getattr(Event, one.name).__set__ for one in fields(Event))


def parse(obj: object) -> Event:
    """An event from decoded JSON, not verified. Raises InvalidMessage."""
    if type(obj) is not dict:
        raise InvalidMessage("an event is an object")
    try:
        id_, pubkey, sig = obj["id"], obj["pubkey"], obj["sig"]
        created_at, kind = obj["created_at"], obj["kind"]
        tags, content = obj["tags"], obj["content"]
    except KeyError as err:
        raise InvalidMessage(f"the event has no {err.args[0]}") from None
    _check_hex(id_, pubkey, sig)
    check_unsigned(created_at, kind, tags, content)
    event = _new(Event)                 # as Event(...) does it, in half the time
    _set_id(event, id_)
    _set_pubkey(event, pubkey)
    _set_created_at(event, created_at)
    _set_kind(event, kind)
    _set_tags(event, tags)
    _set_content(event, content)
    _set_sig(event, sig)
    return event


def check_unsigned(created_at: object, kind: object, tags: object, content: object) -> None:
    """Types, ranges and sizes of what an author chooses. Raises InvalidMessage."""
    # type() and not isinstance: True is an int to Python, and not to anybody else.
    if type(created_at) is not int or not 0 <= created_at <= MAX_CREATED_AT:
        raise InvalidMessage("created_at is not a time")
    if type(kind) is not int or not 0 <= kind <= MAX_KIND:
        raise InvalidMessage("kind is not a number from 0 to 65535")
    if type(content) is not str:
        raise InvalidMessage("content is not a string")
    if type(tags) is not list or len(tags) > MAX_TAGS:
        raise InvalidMessage(f"tags are not a list of at most {MAX_TAGS}")
    if tags and (set(map(type, tags)) != _LISTS or not all(tags)):
        raise InvalidMessage("a tag is not a list with something in it")
    try:
        size = len("".join((content, *chain.from_iterable(tags))).encode())
    except TypeError:
        raise InvalidMessage("a tag holds something else than strings") from None
    except UnicodeEncodeError:
        raise InvalidMessage("the text has a lone surrogate") from None
    if size > MAX_BYTES:
        raise InvalidMessage(f"the event is larger than {MAX_BYTES} bytes")


def event_id(pubkey: str, created_at: int, kind: int, tags: list[list[str]],
             content: str) -> str:
    """The id (hex) of an event with these fields. Raises InvalidMessage."""
    return _digest(pubkey, created_at, kind, tags, content).hex()


def verify(event: Event) -> None:
    """Recompute the id and check the signature. Raises InvalidMessage."""
    digest = _digest(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    if digest.hex() != event.id:
        raise InvalidMessage("the id is not the hash of the event")
    if not secp.verify_schnorr(bytes.fromhex(event.pubkey), digest, bytes.fromhex(event.sig)):
        raise InvalidMessage("the signature does not hold")


def is_hex(text: object, length: int = 64) -> bool:
    """Whether `text` is lower-case hex of that many digits (32 bytes unless told)."""
    return type(text) is str and len(text) == length and text.isascii() and _all_hex(text)


def _check_hex(id_: object, pubkey: object, sig: object) -> None:
    try:
        joined = id_ + pubkey + sig                     # type: ignore[operator]
        good = (len(id_) == 64 and len(pubkey) == 64 and len(sig) == 128    # type: ignore
                and _all_hex(joined))
    except (TypeError, AttributeError, ValueError):     # not strings, or with lone surrogates
        good = False
    if not good:
        raise InvalidMessage("id, pubkey or sig is not lower-case hex of its length")


def _all_hex(text: str) -> bool:
    # The quickest of many ways, and the strict one: fromhex takes spaces and capitals.
    return not text.encode().translate(None, b"0123456789abcdef")


def _digest(pubkey: str, created_at: int, kind: int, tags: list[list[str]],
            content: str) -> bytes:
    text = f'[0,"{pubkey}",{created_at},{kind},{_dump(tags)},{_quote(content)}]'
    try:
        return hashlib.sha256(text.encode()).digest()
    except UnicodeEncodeError:
        raise InvalidMessage("the text has a lone surrogate") from None


def _make_dump() -> Any:
    """One encoder for good: JSONEncoder builds a new one for each call, which costs more than
    the encoding itself."""
    plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
    try:
        make = getattr(json.encoder, "c_make_encoder")       # None on some interpreters
        encode = make(None, plain.default, _quote, None, ":", ",", False, False, False)
        if "".join(encode([["a", "\n"]], 0)) != '[["a","\\n"]]':
            return plain.encode
    except (AttributeError, TypeError):         # an interpreter without it, or with another one
        return plain.encode
    return lambda tags: "".join(encode(tags, 0))


_dump = _make_dump()
