"""The events that a provider answers with: quote, progress, error, result. Pure: signs, no I/O."""

from __future__ import annotations

from pylon.errors import InvalidMessage
from pylon.nostr import nip90
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.store.invoices import InvoiceRow

RESULT_KEEP_SECS = 7 * 86400        # how long a result is offered to relays that don't take it
ERROR_KEEP_SECS = 3600
TRUNCATION_MARK = "…"


def quote(keys: Keys, request: Event, encryption: str, invoice: InvoiceRow, now: int) -> Event:
    """payment-required, with amount and bolt11 (NIP-90), gone when the invoice is."""
    return nip90.build_feedback(keys, request, "payment-required", "", "", invoice.amount_msats,
                                invoice.bolt11, encryption, now,
                                [["expiration", str(invoice.expires_at)]])


def progress(keys: Keys, request: Event, encryption: str, status: str, extra: str, content: str,
             now: int) -> Event:
    """processing, partial or success; nothing hangs on its arrival."""
    return nip90.build_feedback(keys, request, status, extra, content, None, None, encryption,
                                now, [["expiration", str(now + ERROR_KEEP_SECS)]])


def error(keys: Keys, request: Event, encryption: str, code: str, reason: str,
          now: int) -> Event:
    """An error with its code first: `code: reason`."""
    return nip90.build_feedback(keys, request, "error", f"{code}: {reason}", "", None, None,
                                encryption, now, [["expiration", str(now + ERROR_KEEP_SECS)]])


def result(keys: Keys, request: Event, encryption: str, text: str, invoice: InvoiceRow | None,
           now: int) -> Event:
    """The result (kind + 1000), in the request's own encryption."""
    return nip90.build_result(keys, request, text, invoice.amount_msats if invoice else None,
                              invoice.bolt11 if invoice else None, encryption, now,
                              [["status", "success"]])


def fit(text: str, room_bytes: int) -> str:
    """The longest head of `text` whose JSON form takes at most `room_bytes`, never half a
    character; raises InvalidMessage where nothing fits."""
    if _json_bytes(text) <= room_bytes:
        return text
    low, high = 0, min(len(text), room_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        if _json_bytes(text[:middle]) <= room_bytes - len(TRUNCATION_MARK.encode()):
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise InvalidMessage("the answer does not fit one event")
    return text[:low] + TRUNCATION_MARK


def _json_bytes(text: str) -> int:
    """Bytes of a string inside JSON (NIP-01's escapes)."""
    escapes = sum(text.count(c) for c in '"\\\n\r\t\b\f')
    controls = sum(1 for c in text if c < " " and c not in "\n\r\t\b\f")
    return len(text.encode()) + escapes + 5 * controls
