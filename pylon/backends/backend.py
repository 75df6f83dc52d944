"""A backend: one server that completes prompts. What all three types share.

`complete` always streams: only so can silence, a flood and a missing end be told from work. Any
thread may call it, several at a time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from pylon.backends.completion import Completion, Limits, Model, OnText, Output, Prompt
from pylon.backends.endpoint import ERROR_BYTES, Endpoint
from pylon.backends.stream import Stream
from pylon.backends.wire import Patience
from pylon.errors import BackendError, BackendRefused, BackendUnavailable
from pylon.log import peer_text

__all__ = ["Backend", "Completion", "Limits", "Model", "OnText", "Output", "Prompt"]

PROBE_SECS = 5.0
DEFAULT_CONTEXT_TOKENS = 8192       # of a model whose server does not say
MAX_MODELS = 200
TOO_LONG = "prompt-too-long"
_TOO_LONG_WORDS = ("exceed_context_size", "context_length_exceeded", "exceeds the context",
                   "maximum context length", "exceeds the available context")


class Backend:
    """Subclasses say where to POST, what to send, how to read the answer, and how to probe."""

    type = ""
    chat_path = ""

    def __init__(self, id: str, url: str, limits: Limits = Limits(), key: str = "",
                 weight: int = 1, models: Sequence[str] = (), context_tokens: int = 0) -> None:
        self.id, self.url, self.weight = id, url, weight
        self.limits = limits
        self.models = tuple(models)             # the only ones to use; empty: all it has
        self.context_tokens = context_tokens    # the owner's word; 0: ask the server
        self._server = Endpoint(id, url, {"Authorization": f"Bearer {key}"} if key else None)

    def probe(self) -> list[Model]:
        """The models it can serve now. Raises BackendUnavailable, whatever is wrong."""
        try:
            return self.find_models()
        except BackendUnavailable:
            raise
        except BackendError as err:
            raise BackendUnavailable(str(err)) from err

    def find_models(self) -> list[Model]:
        """Ask the server. Raises BackendError."""
        raise NotImplementedError

    def complete(self, prompt: Prompt, model: str, on_text: OnText | None = None,
                 cancel: threading.Event | None = None,
                 deadline: float | None = None) -> Completion:
        """The answer; `on_text` gets it piece by piece as it comes, on the calling thread.

        `cancel`, once set, hangs up; DEADLINE is monotonic. Raises BackendUnavailable,
        BackendRefused, BackendCancelled, BackendError.
        """
        output = Output(self.id, prompt, self.limits, on_text)
        body, patience = self.body(prompt, model), self._patience(deadline)
        with self._server.stream(self.chat_path, body, patience, cancel) as stream:
            if stream.status != 200:
                raise failure(self.id, stream.status,
                              stream.read(ERROR_BYTES).decode("utf-8", "replace"))
            self.read(stream, output)
        self.check(prompt, model, output)
        return output.completion(model)

    def body(self, prompt: Prompt, model: str) -> dict[str, Any]:
        """What to POST: built from the prompt's fields alone."""
        raise NotImplementedError

    def read(self, stream: Stream, output: Output) -> None:
        """Move the answer from the stream to the output. Raises BackendError."""
        raise NotImplementedError

    def check(self, prompt: Prompt, model: str, output: Output) -> None:
        """A last look at a complete answer. Raises BackendError."""

    def close(self) -> None:
        """Hang up what is idle; calls that run are not touched."""
        self._server.close()

    def wants(self, model: str) -> bool:
        """Whether the owner lets this backend's model be used."""
        return not self.models or model in self.models

    def _patience(self, deadline: float | None) -> Patience:
        limits, total = self.limits, self.limits.total_secs
        if deadline is not None:
            total = max(0.0, min(total, deadline - time.monotonic()))
        return Patience(limits.first_token_secs, limits.between_tokens_secs, total)

    def _get(self, path: str) -> Any:
        """The JSON at a path. Raises BackendError."""
        status, answer = self._server.get(path, PROBE_SECS)
        if status != 200:
            raise failure(self.id, status, answer)
        return answer

    def _objects(self, answer: Any, *keys: str) -> list[dict[str, Any]]:
        """The list that an answer is, or holds under the first of KEYS. Raises BackendError."""
        for key in keys if isinstance(answer, dict) else ():
            if isinstance(answer.get(key), list):
                answer = answer[key]
                break
        if not isinstance(answer, list):
            raise BackendError(f"{self.id} does not answer like {self.type}; is {self.url} right?")
        return [entry for entry in answer[:MAX_MODELS] if isinstance(entry, dict)]


def parse(name: str, data: bytes) -> dict[str, Any]:
    """One JSON object of an answer. Raises BackendError."""
    try:
        part = json.loads(data.decode())
    except UnicodeDecodeError:
        raise BackendError(f"{name} answers with something that is not UTF-8") from None
    except (ValueError, RecursionError):
        raise BackendError(f"{name} answers with something that is not JSON") from None
    if type(part) is not dict:
        raise BackendError(f"{name} answers with JSON of another form")
    return part


def failure(name: str, status: int, text: str) -> BackendError:
    """What an HTTP status other than 200, and its text, mean."""
    said = error_text(text)
    if status in (401, 403):
        return BackendUnavailable(f"{name} rejects our key ({status}); see its key_file")
    if status in (429, 503):
        return BackendUnavailable(f"{name} is busy: {said}")
    if 300 <= status < 400:
        return BackendUnavailable(f"{name} redirects ({status}), which is not followed; "
                                  "give the address it redirects to")
    if any(words in text for words in _TOO_LONG_WORDS):
        return too_long(f"{name}: {said}")
    if status in (400, 404, 405, 413, 422):
        return BackendRefused(f"{name} refuses ({status}): {said}")
    return BackendError(f"{name} failed ({status}): {said}")


def too_long(message: str) -> BackendRefused:
    """A refusal with the code that customers see for a prompt that does not fit."""
    err = BackendRefused(message)
    err.code = TOO_LONG
    return err


def error_text(text: str) -> str:
    """The sentence inside {"error": "..."} or {"error": {"message": "..."}}, fit for a log."""
    try:
        error = json.loads(text).get("error")
    except (ValueError, AttributeError, RecursionError):
        return peer_text(text.strip() or "no reason given")
    if isinstance(error, dict):
        error = error.get("message")
    return peer_text(error or "no reason given")
