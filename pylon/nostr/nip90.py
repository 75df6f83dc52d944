"""NIP-90: jobs, their feedback and their results, built and parsed.

Reading is tolerant where the network is (hyphens in parameter names, a missing or `prompt` input
type, the prompt in `content`, NIP-04 or NIP-44) and strict about sizes and numbers. What was
encrypted is answered encrypted; nothing of it goes back in clear. Verify events before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pylon.errors import InvalidMessage, Refused, UsageError
from pylon.nostr import strictjson
from pylon.nostr.event import Event, check_unsigned, is_hex
from pylon.nostr.keys import Keys
from pylon.nostr.nip65 import usable
from pylon.units import parse_count

FEEDBACK, DELETION = 7000, 5
REQUESTS, RESULTS = range(5000, 6000), range(6000, 7000)
TEXT_KINDS = frozenset((5050, 5000, 5001, 5002))
INPUT_TYPES = ("text", "url", "event", "job")
ENCRYPTIONS = ("", "nip04", "nip44")

MAX_INPUTS = 32
MAX_PARAMS = 32
MAX_PARAM_NAME_CHARS, MAX_PARAM_VALUE_CHARS = 64, 1024

Input = tuple[str, str, str | None, str | None]     # data, type, relay, marker
Tags = list[list[str]]

_CODE = re.compile(r"([a-z][a-z0-9-]{0,39})(?::|\Z)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Job:
    """One job as asked for; nothing in it is believed yet."""

    event: Event
    kind: int
    inputs: list[Input] = field(repr=False)
    params: dict[str, str] = field(repr=False)      # names in lower case, with underscores
    output: str | None
    bid_msats: int | None
    relays: list[str]                               # where the customer wants the answer
    provider_pubkeys: list[str]                     # empty: anybody may serve
    encryption: str                                 # '', 'nip04' or 'nip44'
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's feedback or result, for the customer."""

    event: Event
    request_id: str
    status: str                 # '' in a result that says none
    extra: str
    amount_msats: int | None
    bolt11: str | None
    content: str = field(repr=False)


def parse_job(event: Event, keys: Keys) -> Job:
    """Raises InvalidMessage (malformed, or it cannot be decrypted) and Refused (over a limit)."""
    if event.kind not in REQUESTS:
        raise InvalidMessage("not a job's kind")
    encryption, prompt, hidden = "", event.content, []
    if event.all("encrypted"):
        encryption, prompt = _decrypt(event, keys)
        hidden = _hidden_tags(prompt)
        prompt = "" if hidden else prompt
    tags = hidden + event.tags
    inputs = _inputs(tag for tag in tags if tag[0] == "i")
    if not inputs and prompt.strip():
        inputs = [(prompt, "text", None, None)]
    return Job(event, event.kind, inputs, _params(tag for tag in tags if tag[0] == "param"),
               _first(tags, "output"), _msats(_first(tags, "bid"), "bid"),
               list(usable(url for tag in tags if tag[0] == "relays" for url in tag[1:])),
               [tag[1] for tag in event.all("p") if len(tag) > 1 and is_hex(tag[1])],
               encryption, event.expiration())


def build_request(keys: Keys, kind: int, inputs: Iterable[Sequence[str | None]],
                  params: Mapping[str, str], bid_msats: int | None, relays: Sequence[str],
                  provider: str | None, encryption: str, output: str | None, now: int,
                  extra_tags: Sequence[Sequence[str]] = ()) -> Event:
    """A job of ours; `encryption` needs a provider, and hides inputs and parameters."""
    private = [["i", *_trimmed(item)] for item in inputs]
    private += [["param", name, value] for name, value in params.items()]
    tags: Tags = []
    if output:
        tags.append(["output", output])
    if bid_msats is not None:
        tags.append(["bid", str(bid_msats)])
    if relays:
        tags.append(["relays", *relays])
    if provider:
        tags.append(["p", provider])
    tags += [list(tag) for tag in extra_tags]
    if not encryption:
        return keys.sign(kind, "", private + tags, now)
    if not provider:
        raise UsageError("an encrypted job needs one provider to be encrypted to")
    content = _encrypt(keys, provider, json.dumps(private, ensure_ascii=False), encryption)
    return keys.sign(kind, content, tags + [["encrypted"]], now)


def build_result(keys: Keys, job_event: Event, content: str, amount_msats: int | None,
                 bolt11: str | None, encryption: str, now: int,
                 extra_tags: Sequence[Sequence[str]] = ()) -> Event:
    """The result, with the request as it came (never decrypted) inside."""
    tags: list[Sequence[str]] = [["request", job_event.to_json()], ["e", job_event.id]]
    if not encryption:
        tags += job_event.all("i")
    tags.append(["p", job_event.pubkey])
    tags += _amount(amount_msats, bolt11)
    tags += extra_tags
    if encryption:
        tags.append(["encrypted"])
        content = _encrypt(keys, job_event.pubkey, content, encryption)
    return keys.sign(job_event.kind + 1000, content, tags, now)


def build_feedback(keys: Keys, job_event: Event, status: str, extra: str, content: str,
                   amount_msats: int | None, bolt11: str | None, encryption: str, now: int,
                   tags: Sequence[Sequence[str]] = ()) -> Event:
    """Feedback on a job. For an encrypted one only the status and the code stand in public; what
    there is to say beyond is in the encrypted content, as a `status` tag where there is no text.
    """
    public = [status, extra] if extra else [status]
    if encryption:
        code = _CODE.match(extra)
        public = [status, code[1]] if code else [status]
        if not content and extra:
            content = json.dumps([["status", status, extra]], ensure_ascii=False)
        if content:
            content = _encrypt(keys, job_event.pubkey, content, encryption)
    own = [["status", *public], *_amount(amount_msats, bolt11), ["e", job_event.id],
           ["p", job_event.pubkey], *tags]
    if encryption:
        own.append(["encrypted"])
    return keys.sign(FEEDBACK, content, own, now)


def build_cancel(keys: Keys, job_event: Event, now: int) -> Event:
    """Takes one's own job back (kind 5, NIP-09)."""
    return keys.sign(DELETION, "", [["e", job_event.id], ["k", str(job_event.kind)]], now)


def parse_feedback(event: Event, keys: Keys) -> Answer:
    """Raises InvalidMessage. A status that we do not know is for information only."""
    if event.kind != FEEDBACK:
        raise InvalidMessage("not feedback")
    answer = _parse_answer(event, keys)
    if not answer.status:
        raise InvalidMessage("feedback without a status")
    return answer


def parse_result(event: Event, keys: Keys) -> Answer:
    """Raises InvalidMessage."""
    if event.kind not in RESULTS:
        raise InvalidMessage("not a result")
    return _parse_answer(event, keys)


def _parse_answer(event: Event, keys: Keys) -> Answer:
    tags, content = event.tags, event.content
    if event.all("encrypted") and content:
        _, content = _decrypt(event, keys)
        # Some hide all tags in the content of feedback, and hold the text in a tag as well.
        hidden = _hidden_tags(content) if event.kind == FEEDBACK else []
        if any(tag[0] == "status" for tag in hidden):
            tags, content = hidden + tags, _first(hidden, "content") or ""
    status = next((tag for tag in tags if tag[0] == "status"), ["status", ""])
    amount = next((tag for tag in tags if tag[0] == "amount" and len(tag) > 1), None)
    request_id = event.first("e")
    if request_id is None or not is_hex(request_id):
        raise InvalidMessage("the answer does not say to which job")
    return Answer(event, request_id, status[1] if len(status) > 1 else "",
                  status[2] if len(status) > 2 else "",
                  _msats(amount[1], "amount") if amount else None, _bolt11(amount, content),
                  content)


def _bolt11(amount: list[str] | None, content: str) -> str | None:
    """In the amount tag, or, as the first Pylon's peers do, alone in the content."""
    if amount and len(amount) > 2 and amount[2]:
        return amount[2]
    if content[:4].lower() in ("lnbc", "lntb") and content.isalnum():
        return content
    return None


def _decrypt(event: Event, keys: Keys) -> tuple[str, str]:
    """(encryption, text). One error for everything: no oracle."""
    try:
        if "?iv=" in event.content:
            return "nip04", keys.nip04_decrypt(event.pubkey, event.content)
        return "nip44", keys.nip44_decrypt(event.pubkey, event.content)
    except InvalidMessage:
        raise InvalidMessage("cannot decrypt") from None


def _encrypt(keys: Keys, pubkey: str, text: str, encryption: str) -> str:
    if encryption == "nip04":
        return keys.nip04_encrypt(pubkey, text)
    return keys.nip44_encrypt(pubkey, text)


def _hidden_tags(text: str) -> Tags:
    """The tags in a decrypted content; [] where it is text. Raises InvalidMessage."""
    try:
        tags = strictjson.load(text)
    except InvalidMessage:
        return []
    if type(tags) is not list:
        return []
    check_unsigned(0, 0, tags, "")
    return tags


def _inputs(tags: Iterable[list[str]]) -> list[Input]:
    inputs = []
    for tag in tags:
        if len(tag) < 2:
            raise InvalidMessage("an input without data")
        data, type_, relay, marker = [*tag[1:5], "", "", "", ""][:4]
        type_ = {"": "text", "prompt": "text"}.get(type_, type_)
        if type_ not in INPUT_TYPES:
            raise Refused("unsupported-input", f"inputs are {', '.join(INPUT_TYPES)}")
        inputs.append((data, type_, relay or None, marker or None))
    if len(inputs) > MAX_INPUTS:
        raise Refused("too-large", f"more than {MAX_INPUTS} inputs")
    return inputs


def _params(tags: Iterable[list[str]]) -> dict[str, str]:
    """Of a parameter given twice the first one counts; several values are joined by commas."""
    params: dict[str, str] = {}
    for tag in tags:
        if len(tag) < 3:
            continue
        name, value = tag[1].strip().lower().replace("-", "_"), ",".join(tag[2:])
        if len(name) > MAX_PARAM_NAME_CHARS or len(value) > MAX_PARAM_VALUE_CHARS:
            raise Refused("bad-param", "a parameter is too long")
        params.setdefault(name, value)
    if len(params) > MAX_PARAMS:
        raise Refused("too-large", f"more than {MAX_PARAMS} parameters")
    return params


def _msats(text: str | None, what: str) -> int | None:
    if not text:
        return None
    try:
        return parse_count(text)
    except ValueError:
        raise InvalidMessage(f"the {what} is not a number of msats") from None


def _amount(msats: int | None, bolt11: str | None) -> Tags:
    if msats is None:
        return []
    return [["amount", str(msats), bolt11]] if bolt11 else [["amount", str(msats)]]


def _first(tags: Iterable[list[str]], name: str) -> str | None:
    return next((tag[1] for tag in tags if tag[0] == name and len(tag) > 1), None)


def _trimmed(item: Sequence[str | None]) -> list[str]:
    """An input's parts without the missing ones at its end."""
    parts = [part or "" for part in item]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts
