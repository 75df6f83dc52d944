"""The words between Pylon and its backends: a prompt, a completion, a model, the limits.

Pure. `Output` collects an answer, and is where it is cut or found to be no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pylon.errors import BackendError

MAX_TOKENS_COUNTED = 10_000_000     # a backend that reports more lies

OnText = Callable[[str], None]


class Limits(NamedTuple):
    """What one completion may take; `[limits]` of the configuration."""

    first_token_secs: float = 120
    between_tokens_secs: float = 60
    total_secs: float = 600
    output_bytes: int = 65536


class Prompt(NamedTuple):
    """Messages {role, content} and how to answer; None leaves a choice to the model.

    `max_bytes` of answer may be fewer than the limits allow, never more.
    """

    messages: list[dict[str, str]]
    max_tokens: int = 512
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    stop: Sequence[str] = ()
    json_schema: dict[str, Any] | None = None
    max_bytes: int | None = None


class Completion(NamedTuple):
    """An answer, never empty. `finish_reason` is "stop", or "length" where it was cut."""

    text: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    backend: str


class Model(NamedTuple):
    """A model of a backend; `context_tokens` is what a prompt and its answer share."""

    name: str
    context_tokens: int
    description: str = ""


class Output:
    """The answer so far; cuts it at its limits, on the border of a character."""

    def __init__(self, name: str, prompt: Prompt, limits: Limits, on_text: OnText | None) -> None:
        self._name = name
        self._on_text = on_text
        self._parts: list[str] = []
        self._room = min(limits.output_bytes, prompt.max_bytes or limits.output_bytes)
        self._pieces_left = prompt.max_tokens
        self.full = False                           # nothing more is wanted
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    def add(self, piece: str) -> None:
        """Take one token's text; "" for a token that shows none (a thought)."""
        if type(piece) is not str:
            raise BackendError(f"{self._name} answers with something that is not text")
        if self._pieces_left == 0:
            self._fill()                            # a backend that ignores max_tokens
            return
        self._pieces_left -= 1
        try:
            self._room -= len(piece) if piece.isascii() else len(piece.encode())
        except UnicodeEncodeError:
            raise BackendError(f"{self._name} answers with half characters") from None
        if self._room < 0:
            piece = piece.encode()[:self._room].decode("utf-8", "ignore")
            self._fill()
        if piece:
            self._parts.append(piece)
            if self._on_text is not None:
                self._on_text(piece)

    def _fill(self) -> None:
        self.full, self.finish_reason = True, "length"

    def usage(self, prompt_tokens: object, completion_tokens: object) -> None:
        """What the backend counted, where it can be believed."""
        self.prompt_tokens = _count(prompt_tokens)
        self.completion_tokens = _count(completion_tokens)

    def completion(self, model: str) -> Completion:
        """Raises BackendError where there is nothing."""
        text = "".join(self._parts)
        if not text.strip():
            raise BackendError(f"{self._name} answered with nothing")
        return Completion(text, model, self.prompt_tokens,
                          self.completion_tokens or len(self._parts),
                          self.finish_reason or "stop", self._name)


def _count(number: object) -> int | None:
    good = type(number) is int and 0 < number <= MAX_TOKENS_COUNTED
    return number if good else None                     # type: ignore[return-value]
