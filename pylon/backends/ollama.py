"""Ollama: /api/chat streamed, /api/tags and /api/show for what there is.

Ollama shortens a prompt that does not fit its context and says nothing, so the context is set
with every call, newer versions are told not to shorten, and the count that comes back is compared.
"""

from __future__ import annotations

import re
from typing import Any

from pylon.backends import tokens
from pylon.backends.backend import (DEFAULT_CONTEXT_TOKENS, PROBE_SECS, Backend, Model, Output,
                                    Prompt, error_text, parse, too_long)
from pylon.backends.stream import Stream
from pylon.errors import BackendError

# The key-value cache grows with the context: models that could take 128k would need more memory
# than the machines this runs on have. A model's own num_ctx, or the owner's word, goes above it.
MAX_CONTEXT_TOKENS = 8192
_NUM_CTX = re.compile(r"^num_ctx\s+([0-9]{1,8})\s*$", re.MULTILINE)


class Ollama(Backend):

    type = "ollama"
    chat_path = "/api/chat"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.models = tuple(plain(name) for name in self.models)
        self._contexts: dict[str, int] = {}                 # by model; written by probes
        self._shown: dict[tuple[str, str], Model | None] = {}       # by name and digest

    def find_models(self) -> list[Model]:
        listed = self._get("/api/tags")
        found: dict[tuple[str, str], Model | None] = {}
        for entry in self._objects(listed, "models"):
            name, digest = plain(str(entry.get("name"))), str(entry.get("digest"))
            if self.wants(name) and not self._is_remote(entry, name):
                known = self._shown.get((name, digest))
                found[name, digest] = known or self._show(name, entry)
        self._shown = found
        models = [model for model in found.values() if model is not None]
        self._contexts = {model.name: model.context_tokens for model in models}
        return models

    def body(self, prompt: Prompt, model: str) -> dict[str, Any]:
        options: dict[str, Any] = {
            "num_ctx": self.context_of(model), "num_predict": prompt.max_tokens,
            "temperature": prompt.temperature, "top_p": prompt.top_p, "top_k": prompt.top_k,
            "seed": prompt.seed, "frequency_penalty": prompt.frequency_penalty,
            "stop": list(prompt.stop) or None}
        body: dict[str, Any] = {
            "model": model, "messages": prompt.messages, "stream": True, "truncate": False,
            "shift": False, "options": {k: v for k, v in options.items() if v is not None}}
        if prompt.json_schema is not None:
            body["format"] = prompt.json_schema
        return body

    def read(self, stream: Stream, output: Output) -> None:
        wire = stream.wire
        for line in stream.lines():
            part = parse(self.id, line)
            message = part.get("message")
            if type(message) is dict:
                piece = message.get("content")
                if piece or message.get("thinking"):
                    output.add(piece or "")
                    wire.progress = True
                    if output.full:
                        stream.abandon()
                        return
            if part.get("done") is True:
                if part.get("done_reason") == "length":
                    output.finish_reason = "length"
                output.usage(part.get("prompt_eval_count"), part.get("eval_count"))
                return
            if "error" in part:
                raise BackendError(f"{self.id} failed: {error_text(line.decode())}")
        raise BackendError(f"{self.id} ended its answer without saying that it is done")

    def check(self, prompt: Prompt, model: str, output: Output) -> None:
        """The prompt must have reached the model whole."""
        count, context = output.prompt_tokens, self.context_of(model)
        if count is not None and (count >= context or count < tokens.at_least(prompt.messages)):
            raise too_long(f"{self.id} shortened the prompt to {count} tokens; {model} "
                           f"has a context of {context}")

    def context_of(self, model: str) -> int:
        """The num_ctx of every call for this model: changing it would load the model anew."""
        return self._contexts.get(model) or self.context_tokens or MAX_CONTEXT_TOKENS

    def _is_remote(self, entry: dict[str, Any], name: str) -> bool:
        """A model that would run in somebody's cloud: only when the owner names it."""
        remote = entry.get("remote_host") or name.endswith(("-cloud", ":cloud"))
        return bool(remote) and not self.models

    def _show(self, name: str, entry: dict[str, Any]) -> Model | None:
        """The model's context, or None where it cannot complete (an embedder)."""
        status, shown = self._server.post("/api/show", {"model": name}, PROBE_SECS)
        if status != 200 or type(shown) is not dict:
            return Model(name, self.context_tokens or MAX_CONTEXT_TOKENS)
        abilities = shown.get("capabilities")
        if isinstance(abilities, list) and abilities and "completion" not in abilities:
            return None
        details = entry.get("details")
        family = details.get("family") if isinstance(details, dict) else None
        return Model(name, self.context_tokens or _context(shown), str(family or ""))


def plain(name: str) -> str:
    """The name as people say it: Ollama adds a tag where there is none."""
    return name.removesuffix(":latest")


def _context(shown: dict[str, Any]) -> int:
    """The Modelfile's num_ctx, else what the model was made for, within reason."""
    parameters, info = shown.get("parameters"), shown.get("model_info")
    chosen = _NUM_CTX.search(parameters) if isinstance(parameters, str) else None
    if chosen and int(chosen[1]) > 0:
        return int(chosen[1])
    lengths = [value for key, value in (info.items() if isinstance(info, dict) else ())
               if key.endswith(".context_length") and type(value) is int and value > 0]
    return min([MAX_CONTEXT_TOKENS, *lengths]) if lengths else DEFAULT_CONTEXT_TOKENS
