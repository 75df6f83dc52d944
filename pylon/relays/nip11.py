"""NIP-11: what a relay says of itself and of its limits, fetched with limits of our own.

The document is a claim of the relay. A wrong one harms only that relay: it is asked less, or
offered less.
"""

from __future__ import annotations

import http.client
import io
import ssl
from dataclasses import dataclass, fields
from typing import Any

from pylon.errors import InvalidMessage, RelayError
from pylon.nostr import nip13
from pylon.nostr.event import load_json
from pylon.relays.address import RelayUrl, parse_url
from pylon.relays.bell import READ, WRITE, Patience
from pylon.relays.stream import Stream, open_stream

MAX_DOCUMENT_BYTES = 64 * 1024
FETCH_SECS = 5.0
_MAX_NUMBER = 2 ** 53
_EVENT_FRAME_BYTES = 12             # ["EVENT",...]


@dataclass(frozen=True, slots=True)
class Limits:
    """The `limitation` of the document; None where nothing (or nonsense) is said."""

    max_message_length: int | None = None
    max_subscriptions: int | None = None
    max_filters: int | None = None
    max_limit: int | None = None
    max_subid_length: int | None = None
    max_event_tags: int | None = None
    max_content_length: int | None = None
    min_pow_difficulty: int | None = None
    created_at_lower_limit: int | None = None
    created_at_upper_limit: int | None = None
    auth_required: bool = False
    payment_required: bool = False
    restricted_writes: bool = False

    def refusal(self, event_id: str, event_json: str) -> str | None:
        """Why this relay would not take the event, in the words of an OK message; None if it may.

        Only what costs the connection or is certain is looked at here; the rest the relay says.
        """
        frame_bytes = len(event_json.encode()) + _EVENT_FRAME_BYTES
        if self.max_message_length is not None and frame_bytes > self.max_message_length:
            return f"invalid: {frame_bytes} bytes, the relay takes {self.max_message_length}"
        if self.min_pow_difficulty and nip13.difficulty(event_id) < self.min_pow_difficulty:
            return f"pow: the relay wants {self.min_pow_difficulty} bits of work"
        if self.max_event_tags is not None or self.max_content_length is not None:
            return self._refusal_of_parts(load_json(event_json))
        return None

    def _refusal_of_parts(self, event: Any) -> str | None:
        tags, content = len(event["tags"]), len(event["content"])
        if self.max_event_tags is not None and tags > self.max_event_tags:
            return f"invalid: {tags} tags, the relay takes {self.max_event_tags}"
        if self.max_content_length is not None and content > self.max_content_length:
            return f"invalid: {content} characters, the relay takes {self.max_content_length}"
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """What a relay says of itself. Texts are the relay's: escape them before showing."""

    name: str = ""
    software: str = ""
    version: str = ""
    supported_nips: tuple[int, ...] = ()
    limits: Limits = Limits()
    date: str = ""                  # the HTTP header: what the relay's clock says


def fetch(url: str, patience: Patience | None = None, context: ssl.SSLContext | None = None,
          public_only: bool = False) -> Document:
    """Ask a relay for its document. Raises RelayError."""
    target = parse_url(url)
    patience = patience or Patience(FETCH_SECS)
    stream = open_stream(target, patience, context, public_only)
    try:
        return parse_answer(_ask(stream, target, patience))
    finally:
        stream.close()


def _ask(stream: Stream, target: RelayUrl, patience: Patience) -> bytes:
    stream.outbox += (f"GET {target.resource} HTTP/1.1\r\nHost: {target.host_header}\r\n"
                      "Accept: application/nostr+json\r\nUser-Agent: Pylon\r\n"
                      "Connection: close\r\n\r\n").encode("ascii")
    try:
        while True:
            stream.flush()
            patience.wait(stream, READ | WRITE if stream.outbox else READ)
            stream.fill()
            if len(stream.inbox) > MAX_DOCUMENT_BYTES:
                raise RelayError("the relay's description is too long")
    except RelayError:
        # The end, or a relay that answers and then keeps the connection: judge what has come.
        if not stream.inbox or len(stream.inbox) > MAX_DOCUMENT_BYTES:
            raise
    return bytes(stream.inbox)


class _Answer:
    """Bytes in the place of a socket, for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *args: Any, **kwargs: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def parse_answer(data: bytes) -> Document:
    """A whole HTTP answer as a document. Raises RelayError."""
    answer = http.client.HTTPResponse(_Answer(data))        # type: ignore[arg-type]
    try:
        answer.begin()
        body = answer.read(MAX_DOCUMENT_BYTES)
        if answer.status != 200:
            raise RelayError(f"the relay does not describe itself: HTTP {answer.status}")
        found = load_json(body.decode("utf-8"))
    except (http.client.HTTPException, InvalidMessage, ValueError, OSError) as err:
        raise RelayError(f"the relay does not describe itself: {type(err).__name__}") from err
    if not isinstance(found, dict):
        raise RelayError("the relay does not describe itself: no JSON object")
    return _document(found, answer.getheader("Date") or "")


def _document(found: dict[str, Any], date: str) -> Document:
    nips = found.get("supported_nips")
    said = found.get("limitation")
    return Document(_short(found.get("name")), _short(found.get("software")),
                    _short(found.get("version")),
                    tuple(n for n in nips[:200] if type(n) is int) if isinstance(nips, list)
                    else (),
                    _limits(said) if isinstance(said, dict) else Limits(), date)


def _limits(said: dict[str, Any]) -> Limits:
    known: dict[str, Any] = {}
    for one in fields(Limits):
        value = said.get(one.name)
        if type(one.default) is bool:
            known[one.name] = value is True
        elif type(value) is int and 0 <= value < _MAX_NUMBER:
            known[one.name] = value
    return Limits(**known)


def _short(text: object) -> str:
    return text[:200] if isinstance(text, str) else ""
