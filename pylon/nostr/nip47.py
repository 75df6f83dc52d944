"""NIP-47, Nostr Wallet Connect: both sides of the conversation with a wallet service.

Nothing counts that the wallet's own key did not sign: every reader takes that key and refuses
other authors. NIP-44 where the wallet offers it, else NIP-04. Amounts are msats; what a result
means is checked by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from pylon.errors import ConfigError, InvalidMessage
from pylon.nostr import strictjson
from pylon.nostr.event import Event, is_hex
from pylon.nostr.keys import Keys
from pylon.nostr.nip65 import usable

INFO, CALL, RESPONSE = 13194, 23194, 23195
NOTIFICATION_NIP04, NOTIFICATION_NIP44 = 23196, 23197
SCHEME = "nostr+walletconnect:"

RATE_LIMITED, NOT_IMPLEMENTED = "RATE_LIMITED", "NOT_IMPLEMENTED"
INSUFFICIENT_BALANCE, QUOTA_EXCEEDED = "INSUFFICIENT_BALANCE", "QUOTA_EXCEEDED"
RESTRICTED, UNAUTHORIZED, INTERNAL = "RESTRICTED", "UNAUTHORIZED", "INTERNAL"
UNSUPPORTED_ENCRYPTION, OTHER = "UNSUPPORTED_ENCRYPTION", "OTHER"
PAYMENT_FAILED, NOT_FOUND = "PAYMENT_FAILED", "NOT_FOUND"
# More codes are in use; a reader passes them on as they are.
ERROR_CODES = frozenset((RATE_LIMITED, NOT_IMPLEMENTED, INSUFFICIENT_BALANCE, QUOTA_EXCEEDED,
                         RESTRICTED, UNAUTHORIZED, INTERNAL, UNSUPPORTED_ENCRYPTION, OTHER,
                         PAYMENT_FAILED, NOT_FOUND))

_ENCRYPTION_NAMES = {"nip44_v2": "nip44", "nip04": "nip04"}
_MAX_CODE_CHARS, _MAX_MESSAGE_CHARS = 64, 500


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection URI says; `secret` is ours to sign with, and can spend."""

    wallet_pubkey: str
    relays: tuple[str, ...]
    secret: bytes = field(repr=False)
    lud16: str | None = None


@dataclass(frozen=True, slots=True)
class Info:
    methods: frozenset[str]
    notifications: frozenset[str]
    encryption: str                     # 'nip44' where the wallet has it, else 'nip04'


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    params: dict[str, Any] = field(repr=False)
    encryption: str


@dataclass(frozen=True, slots=True)
class Response:
    """`result` is None exactly when there is an error."""

    call_id: str
    result_type: str
    result: dict[str, Any] | None = field(repr=False)
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class Notification:
    type: str
    data: dict[str, Any] = field(repr=False)


def parse_uri(text: str) -> Connection:
    """Raises ConfigError, never with the secret in it."""
    text = text.strip()
    if not text.lower().startswith(SCHEME):
        raise ConfigError("a wallet connection begins with nostr+walletconnect://")
    pubkey, _, query = text[len(SCHEME):].removeprefix("//").partition("?")
    pubkey = unquote(pubkey).rstrip("/").lower()
    fields = parse_qs(query)
    relays = usable(fields.get("relay", []))
    secret = fields.get("secret", [""])[0].lower()
    if not is_hex(pubkey):
        raise ConfigError("the wallet connection has no public key of 64 hex digits")
    if not relays:
        raise ConfigError("the wallet connection names no relay (relay=wss://…)")
    if not is_hex(secret):
        raise ConfigError("the wallet connection has no secret of 64 hex digits")
    return Connection(pubkey, relays, bytes.fromhex(secret), fields.get("lud16", [None])[0])


def build_info(keys: Keys, methods: Iterable[str], notifications: Iterable[str],
               encryptions: Iterable[str], now: int) -> Event:
    """A wallet service's own description; `encryptions` in the NIP's names."""
    tags = [["encryption", " ".join(encryptions)], ["notifications", " ".join(notifications)]]
    return keys.sign(INFO, " ".join(methods), [tag for tag in tags if tag[1]], now)


def parse_info(event: Event, wallet_pubkey: str) -> Info:
    """What the wallet can. Raises InvalidMessage."""
    _check(event, wallet_pubkey, INFO)
    offered = (event.first("encryption") or "nip04").replace(",", " ").split()
    return Info(frozenset(event.content.replace(",", " ").split()),
                frozenset((event.first("notifications") or "").replace(",", " ").split()),
                "nip44" if "nip44_v2" in offered else "nip04")


def build_call(keys: Keys, wallet_pubkey: str, method: str, params: Mapping[str, Any],
               encryption: str, now: int, expires_at: int | None = None) -> Event:
    """A command to the wallet. A paying one is stored before it is sent, and only it is resent."""
    tags = [["p", wallet_pubkey]]
    if encryption == "nip44":
        tags.append(["encryption", "nip44_v2"])
    if expires_at is not None:
        tags.append(["expiration", str(expires_at)])
    content = _encrypt(keys, wallet_pubkey, {"method": method, "params": params}, encryption)
    return keys.sign(CALL, content, tags, now)


def parse_call(event: Event, keys: Keys) -> Call:
    """A command, as the wallet reads it. Raises InvalidMessage."""
    if event.kind != CALL or event.first("p") != keys.pubkey:
        raise InvalidMessage("not a command to this wallet")
    encryption = _ENCRYPTION_NAMES.get(event.first("encryption") or "nip04")
    if encryption is None:
        raise InvalidMessage("an encryption that this wallet does not have")
    value = _decrypt(keys, event, encryption)
    method, params = value.get("method"), value.get("params", {})
    if type(method) is not str or type(params) is not dict:
        raise InvalidMessage("a command has a method and parameters")
    return Call(method, params, encryption)


def build_response(keys: Keys, call: Event, result_type: str, result: Mapping[str, Any] | None,
                   encryption: str, now: int, error_code: str = "",
                   error_message: str = "") -> Event:
    """A wallet's answer to one command."""
    error = {"code": error_code, "message": error_message} if error_code else None
    value = {"result_type": result_type, "error": error, "result": None if error else result}
    return keys.sign(RESPONSE, _encrypt(keys, call.pubkey, value, encryption),
                     [["p", call.pubkey], ["e", call.id]], now)


def parse_response(event: Event, keys: Keys, wallet_pubkey: str) -> Response:
    """Raises InvalidMessage, for an answer by anybody but the wallet, too."""
    _check(event, wallet_pubkey, RESPONSE)
    call_id = event.first("e")
    if call_id is None or not is_hex(call_id) or event.first("p") not in (None, keys.pubkey):
        raise InvalidMessage("the wallet's answer does not say to what")
    value = _decrypt(keys, event)
    error, result, type_ = value.get("error"), value.get("result"), value.get("result_type")
    type_ = type_ if type(type_) is str else ""         # some leave it out of errors
    if error is not None:
        return Response(call_id, type_, None, *_error(error))
    if type(result) is not dict:
        raise InvalidMessage("the wallet's answer has neither a result nor an error")
    return Response(call_id, type_, result, "", "")


def build_notification(keys: Keys, client_pubkey: str, type_: str, data: Mapping[str, Any],
                       encryption: str, now: int) -> Event:
    kind = NOTIFICATION_NIP44 if encryption == "nip44" else NOTIFICATION_NIP04
    value = {"notification_type": type_, "notification": data}
    return keys.sign(kind, _encrypt(keys, client_pubkey, value, encryption),
                     [["p", client_pubkey]], now)


def parse_notification(event: Event, keys: Keys, wallet_pubkey: str) -> Notification:
    """Raises InvalidMessage. A notification is a doorbell: ask the wallet before booking."""
    _check(event, wallet_pubkey, NOTIFICATION_NIP44, NOTIFICATION_NIP04)
    value = _decrypt(keys, event, "nip44" if event.kind == NOTIFICATION_NIP44 else "nip04")
    type_, data = value.get("notification_type"), value.get("notification")
    if type(type_) is not str or type(data) is not dict:
        raise InvalidMessage("a misshapen notification")
    return Notification(type_, data)


def _check(event: Event, wallet_pubkey: str, *kinds: int) -> None:
    if event.kind not in kinds:
        raise InvalidMessage("not the wallet's kind of event")
    if event.pubkey != wallet_pubkey:
        raise InvalidMessage("not by the wallet")


def _error(error: object) -> tuple[str, str]:
    if type(error) is not dict:
        raise InvalidMessage("the wallet's error is misshapen")
    code, message = error.get("code"), error.get("message", "")
    if type(code) is not str or not code:
        raise InvalidMessage("the wallet's error has no code")
    text = str(message)[:_MAX_MESSAGE_CHARS].encode(errors="replace").decode()
    return code[:_MAX_CODE_CHARS].encode(errors="replace").decode(), text


def _encrypt(keys: Keys, pubkey: str, value: object, encryption: str) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if encryption == "nip44":
        return keys.nip44_encrypt(pubkey, text)
    return keys.nip04_encrypt(pubkey, text)


def _decrypt(keys: Keys, event: Event, encryption: str = "") -> dict[str, Any]:
    """The object inside; the form of the payload says the encryption where nothing else does."""
    if encryption == "nip04" or not encryption and "?iv=" in event.content:
        value = strictjson.load(keys.nip04_decrypt(event.pubkey, event.content))
    else:
        value = strictjson.load(keys.nip44_decrypt(event.pubkey, event.content))
    if type(value) is not dict:
        raise InvalidMessage("not an object")
    return value
