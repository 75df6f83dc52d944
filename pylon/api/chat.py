"""OpenAI's request and response bodies, read strictly and written. Pure.

Raises BadCall with the HTTP status and the code that OpenAI's clients know.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from pylon.backends.completion import Prompt
from pylon.errors import PylonError

MAX_MESSAGES = 256
MAX_TEXT_BYTES = 256 * 1024
MAX_TOKENS = 32768
DEFAULT_MAX_TOKENS = 512
NETWORK_PREFIX = "nostr:"
ROLES = frozenset({"system", "developer", "user", "assistant"})
# Asked for with any other value than these, the answer would not be what was asked for.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1, None), "best_of": (1, None), "tools": ([], None), "functions": ([], None),
    "logprobs": (False, None, 0), "echo": (False, None), "suffix": (None, ""),
    "logit_bias": ({}, None), "audio": (None,), "modalities": (None, ["text"])}


class BadCall(PylonError):
    """A call that is answered with an error; nothing was done and nothing paid."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asked for. `chat` is False for the older text completions."""

    chat: bool
    model: str
    prompt: Prompt
    stream: bool
    usage_wanted: bool          # stream_options.include_usage

    @property
    def network_model(self) -> str | None:
        """The model's name on the market, where the caller wants it bought: `nostr:MODEL`."""
        if self.model.startswith(NETWORK_PREFIX):
            return self.model[len(NETWORK_PREFIX):]
        return None


def parse(body: bytes, chat: bool) -> Call:
    """Read the body of a POST. Raises BadCall."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise BadCall(400, "invalid_json", "the body is not JSON") from None
    if not isinstance(said, dict):
        raise BadCall(400, "invalid_json", "the body is not an object")
    for name, harmless in HARMLESS.items():
        if name in said and said[name] not in harmless:
            raise BadCall(400, "unsupported_parameter", f"{name} is not supported here")
    messages = _messages(said) if chat else [{"role": "user", "content": _prompt(said)}]
    options = said.get("stream_options") or {}
    return Call(chat, _text(said, "model", ""), _options(said, messages),
                _flag(said, "stream"), bool(isinstance(options, dict)
                                            and options.get("include_usage")))


def _options(said: dict[str, Any], messages: list[dict[str, str]]) -> Prompt:
    most = said.get("max_completion_tokens", said.get("max_tokens"))
    return Prompt(
        messages, DEFAULT_MAX_TOKENS if most is None else int(_number(
            {"max_tokens": most}, "max_tokens", 1, MAX_TOKENS, True) or 1),
        temperature=_number(said, "temperature", 0, 2), top_p=_number(said, "top_p", 0, 1),
        seed=_whole(said, "seed", -2**53, 2**53),
        frequency_penalty=_number(said, "frequency_penalty", -2, 2), stop=_stop(said),
        json_schema=_schema(said))


def _messages(said: dict[str, Any]) -> list[dict[str, str]]:
    given = said.get("messages")
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_MESSAGES:
        raise BadCall(400, "invalid_messages", f"messages must be a list of 1 to {MAX_MESSAGES}")
    found = []
    for one in given:
        if not isinstance(one, dict) or one.get("role") not in ROLES:
            raise BadCall(400, "invalid_messages", "a message has a role of "
                          f"{', '.join(sorted(ROLES))} and content")
        role = "system" if one["role"] == "developer" else one["role"]
        found.append({"role": role, "content": _content(one.get("content"))})
    return found


def _content(content: Any) -> str:
    """Text, or a list of parts that are all text."""
    if isinstance(content, list):
        parts = [part["text"] for part in content if isinstance(part, dict)
                 and part.get("type") == "text" and isinstance(part.get("text"), str)]
        content = "".join(parts) if len(parts) == len(content) else None
    if not isinstance(content, str):
        raise BadCall(400, "unsupported_content", "only text content is supported here")
    return _bounded(content)


def _prompt(said: dict[str, Any]) -> str:
    prompt = said.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadCall(400, "invalid_prompt", "prompt must be a text")
    return _bounded(prompt)


def _bounded(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadCall(400, "invalid_text", "the text has a lone surrogate") from None
    if size > MAX_TEXT_BYTES:
        raise BadCall(413, "too_large", f"a text has {MAX_TEXT_BYTES} bytes at most")
    return text


def _stop(said: dict[str, Any]) -> list[str]:
    stop = said.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or len(stop) > 4 or \
            not all(isinstance(one, str) and 0 < len(one) <= 64 for one in stop):
        raise BadCall(400, "invalid_stop", "stop is a text or a list of at most 4")
    return stop


def _schema(said: dict[str, Any]) -> dict[str, Any] | None:
    wanted = said.get("response_format")
    if wanted in (None, {"type": "text"}):
        return None
    if isinstance(wanted, dict) and wanted.get("type") == "json_object":
        return {"type": "object"}
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema")
        if isinstance(schema, dict):
            return schema
    raise BadCall(400, "unsupported_parameter", "response_format is not one that is known here")


def _number(said: dict[str, Any], name: str, low: float, high: float,
            whole: bool = False) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or \
            not low <= value <= high:
        raise BadCall(400, f"invalid_{name}", f"{name} must be a number from {low} to {high}")
    return value


def _whole(said: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = _number(said, name, low, high, whole=True)
    return None if value is None else int(value)


def _text(said: dict[str, Any], name: str, default: str) -> str:
    value = said.get(name, default)
    if not isinstance(value, str) or len(value) > 200:
        raise BadCall(400, f"invalid_{name}", f"{name} must be a short text")
    return value


def _flag(said: dict[str, Any], name: str) -> bool:
    value = said.get(name, False)
    if not isinstance(value, bool) and value is not None:
        raise BadCall(400, f"invalid_{name}", f"{name} must be true or false")
    return bool(value)


def as_one_text(messages: list[dict[str, str]]) -> str:
    """A chat as the one prompt that a NIP-90 job has."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{one['role'].capitalize()}: {one['content']}" for one in messages)


# ---- answers ------------------------------------------------------------------------------------

@dataclass(slots=True)
class Answer:
    """What a completion became; tokens None where they are not known."""

    text: str
    model: str
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_msats: int = 0


def whole(call: Call, call_id: str, answer: Answer) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish_reason}
    if call.chat:
        choice["message"] = {"role": "assistant", "content": answer.text}
    else:
        choice.update({"text": answer.text, "logprobs": None})
    return {**_head(call, call_id, answer.model, chunk=False), "choices": [choice],
            "usage": usage(answer)}


def chunk(call: Call, call_id: str, model: str, text: str, finish_reason: str | None = None,
          first: bool = False) -> dict[str, Any]:
    """One `data:` of a stream."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    if call.chat:
        delta = {"role": "assistant"} if first else {}
        choice["delta"] = {**delta, "content": text} if text or first else {}
    else:
        choice["text"] = text
    return {**_head(call, call_id, model, chunk=True), "choices": [choice]}


def usage_chunk(call: Call, call_id: str, answer: Answer) -> dict[str, Any]:
    """The last `data:` of a stream, where usage was asked for."""
    return {**_head(call, call_id, answer.model, chunk=True), "choices": [],
            "usage": usage(answer)}


def usage(answer: Answer) -> dict[str, int]:
    asked, made = answer.prompt_tokens or 0, answer.completion_tokens or 0
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made,
            "cost_msats": answer.cost_msats}


def _head(call: Call, call_id: str, model: str, chunk: bool) -> dict[str, Any]:
    name = ("chat.completion" + (".chunk" if chunk else "")) if call.chat else "text_completion"
    return {"id": call_id, "object": name, "created": int(time.time()), "model": model}


def error(message: str, code: str, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}
