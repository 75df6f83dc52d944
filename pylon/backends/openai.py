"""Any server that speaks OpenAI's API: /v1/models, and /v1/chat/completions as a stream of events.

Servers differ in the shape of their answers; whatever holds the text is taken: choices with
delta, message or text, or a top-level text, delta or content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pylon.backends.backend import (DEFAULT_CONTEXT_TOKENS, PROBE_SECS, Backend, Model, Output,
                                    Prompt, failure, parse)
from pylon.backends.endpoint import JSON_BYTES
from pylon.backends.stream import Stream
from pylon.backends.wire import Wire
from pylon.errors import BackendError

FINISH_SECS = 1.0           # for usage and [DONE], after the last token
DONE = b"[DONE]"
_REASONS = ("stop", "length", "content_filter")
_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window", "n_ctx")


class OpenAI(Backend):

    type = "openai"

    def __init__(self, id: str, url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(id, url, *args, **kwargs)
        base = "" if urlsplit(url).path.rstrip("/") else "/v1"      # OpenAI's base URLs end so
        self.chat_path, self.models_path = base + "/chat/completions", base + "/models"

    def find_models(self) -> list[Model]:
        entries = {_name(entry): entry for entry in self._list_models()}
        names = self.models or tuple(name for name in entries if name)
        return [Model(name, self.context_tokens or _context(entries[name]),
                      str(entries[name].get("owned_by") or ""))
                for name in names if name in entries]

    def _list_models(self) -> list[dict[str, Any]]:
        status, answer = self._server.get(self.models_path, PROBE_SECS)
        if status == 404 and self.models:           # a server without a list: the owner's counts
            return [{"id": name} for name in self.models]
        if status != 200:
            raise failure(self.id, status, answer)
        return self._objects(answer, "data", "models")

    def body(self, prompt: Prompt, model: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model, "messages": prompt.messages, "max_tokens": prompt.max_tokens,
            "stream": True, "stream_options": {"include_usage": True},
            "temperature": prompt.temperature, "top_p": prompt.top_p, "seed": prompt.seed,
            "frequency_penalty": prompt.frequency_penalty, "stop": list(prompt.stop) or None}
        if prompt.json_schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {
                "name": "answer", "strict": True, "schema": prompt.json_schema}}
        return {key: value for key, value in body.items() if value is not None}

    def read(self, stream: Stream, output: Output) -> None:
        if stream.content_type == "application/json":       # a server that does not stream
            whole = parse(self.id, stream.read(JSON_BYTES))
            reason = self._take(whole, output, stream.wire)
            output.finish_reason = output.finish_reason or reason
            return
        lines = stream.lines()
        for line in lines:
            data = _data(line)
            if data is None:
                continue
            if data == DONE:
                return
            reason = self._take(parse(self.id, data), output, stream.wire)
            if output.full:
                stream.abandon()
                return
            if reason:
                output.finish_reason = reason
                self._read_usage(stream, lines, output)
                return
        raise BackendError(f"{self.id} ended its answer without saying that it is done")

    def _take(self, part: dict[str, Any], output: Output, wire: Wire) -> str | None:
        """Add the text of one part; the reason why the model stopped, once it has."""
        if part.get("error"):
            raise failure(self.id, 500, json.dumps(part))
        choices = part.get("choices")
        choice = choices[0] if type(choices) is list and choices else part
        if type(choice) is not dict:
            raise BackendError(f"{self.id} answers with JSON of another form")
        holder = choice.get("delta") or choice.get("message")
        if type(holder) is dict:
            text = holder.get("content")
            thought = holder.get("reasoning_content") or holder.get("reasoning")
        else:
            text, thought = holder or choice.get("text") or choice.get("content"), None
        if text or thought:
            output.add(text or "")
            wire.progress = True
        if type(part.get("usage")) is dict:
            _take_usage(part, output)
        reason = choice.get("finish_reason") or (choice.get("stop") is True and "stop")
        return (str(reason) if reason in _REASONS else "stop") if reason else None

    def _read_usage(self, stream: Stream, lines: Iterator[bytes], output: Output) -> None:
        """After the last token: usage and [DONE] come at once, or they are not waited for."""
        stream.wire.hurry(FINISH_SECS)
        try:
            for line in lines:
                data = _data(line)
                if data == DONE:
                    return
                if data is not None:
                    _take_usage(parse(self.id, data), output)
        except BackendError:
            stream.abandon()


def _data(line: bytes) -> bytes | None:
    """What a line of an event stream carries; None for comments and names of events."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    return line if line.startswith(b"{") else None


def _take_usage(part: dict[str, Any], output: Output) -> None:
    usage = part.get("usage")
    if type(usage) is dict:
        output.usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("id") or entry.get("name") or "")


def _context(entry: dict[str, Any]) -> int:
    """The context that a server tells in its list of models, each in its own word."""
    meta = entry.get("meta")
    for place in (entry, meta if isinstance(meta, dict) else {}):
        for key in _CONTEXT_KEYS:
            value = place.get(key)
            if type(value) is int and value > 0:
                return value
    return DEFAULT_CONTEXT_TOKENS
