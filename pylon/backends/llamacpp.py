"""llama.cpp's server: OpenAI's API, and /health and /props, which tell what that API does not."""

from __future__ import annotations

from typing import Any

from pylon.backends.backend import PROBE_SECS, Model, Prompt, failure
from pylon.backends.openai import OpenAI


class LlamaCpp(OpenAI):

    type = "llamacpp"

    def __init__(self, id: str, url: str, *args: Any, **kwargs: Any) -> None:
        root = url.rstrip("/").removesuffix("/v1")
        super().__init__(id, root, *args, **kwargs)
        self.chat_path, self.models_path = "/v1/chat/completions", "/v1/models"

    def find_models(self) -> list[Model]:
        status, answer = self._server.get("/health", PROBE_SECS)
        if status not in (200, 404):                # 503: it still loads its model
            raise failure(self.id, status, answer)
        own = self.context_tokens or self._slot_context()
        return [Model(model.name, own or model.context_tokens, model.description)
                for model in super().find_models()]

    def body(self, prompt: Prompt, model: str) -> dict[str, Any]:
        body = super().body(prompt, model)
        if prompt.top_k is not None:                # OpenAI's own API does not know it
            body["top_k"] = prompt.top_k
        return body

    def _slot_context(self) -> int:
        """The context of one slot: what one prompt gets, however many are served at a time."""
        status, props = self._server.get("/props", PROBE_SECS)
        if status in (401, 403):
            raise failure(self.id, status, props)
        settings = props.get("default_generation_settings") if isinstance(props, dict) else None
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        return context if type(context) is int and context > 0 else 0
