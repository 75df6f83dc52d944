"""Where the endpoint's answers come from: the local backends, or the market.

`Local` completes with the registry. `Market` orders through the customer, by two functions that
are the daemon's own or, for `pylon api` alone, calls over the control socket: either way the
daemon decides, reserves and pays, under the limits of [api].
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from pylon.api.chat import Answer, BadCall, Call, as_one_text
from pylon.errors import BackendError, PylonError, Refused

OnText = Callable[[str], None]
Submit = Callable[[dict[str, Any]], dict[str, Any]]
Follow = Callable[[dict[str, Any]], Iterator[dict[str, Any] | None]]
STATUS = {"model-unknown": 404, "prompt-too-long": 413, "too-large": 413, "no-backend": 503,
          "over-day-limit": 402, "over-api-limit": 402, "no-funds": 402}


class Local:
    """Completions of the backends of this machine."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def models(self) -> list[Any]:
        return list(self._registry.models())

    def has(self, model: str) -> bool:
        try:
            self._registry.choose(model or None)
            return True
        except Refused:
            return False

    def complete(self, call: Call, on_text: OnText, cancel: threading.Event) -> Answer:
        """Raises BadCall."""
        try:
            _, name = self._registry.choose(call.model or None)
            done = self._registry.complete(call.prompt, name, on_text, cancel)
        except (Refused, BackendError) as err:
            raise _as_bad_call(err) from err
        return Answer(done.text, done.model, done.finish_reason, done.prompt_tokens,
                      done.completion_tokens)


class Market:
    """Completions that are bought, up to [api] max_sats_per_call each."""

    def __init__(self, submit: Submit, follow: Follow, timeout_secs: int) -> None:
        self._submit, self._follow = submit, follow
        self._timeout_secs = timeout_secs

    def complete(self, call: Call, on_text: OnText, cancel: threading.Event) -> Answer:
        """Order, pay within the limits, wait. Raises BadCall."""
        if call.prompt.json_schema is not None:
            raise BadCall(400, "unsupported_parameter", "response_format cannot be had from the "
                          "network; ask a local model")
        wanted = call.network_model if call.network_model is not None else call.model
        try:
            order = self._submit(_order(call, wanted, self._timeout_secs))
            return self._wait(order["id"], wanted, on_text, cancel)
        except PylonError as err:
            raise _as_bad_call(err) from err

    def _wait(self, order_id: str, model: str, on_text: OnText,
              cancel: threading.Event) -> Answer:
        cost, end = 0, None
        for update in self._follow({"id": order_id, "timeout_secs": self._timeout_secs + 30}):
            if cancel.is_set():
                raise BadCall(499, "cancelled", "the client has gone")
            if update is None:
                continue
            if update["event"] == "paying":
                cost = update["amount_msats"]
            elif update["event"] == "partial":
                on_text(update["text"])
            end = update
        if end is None or end["event"] != "completed" and end.get("state") != "completed":
            why = (end or {}).get("reason") or (end or {}).get("error") or "nothing came in time"
            raise BadCall(504, "not_delivered", f"order {order_id[:16]}: {why}")
        return Answer(str(end["result"]), model or "nostr", cost_msats=cost)


def _order(call: Call, model: str, timeout_secs: int) -> dict[str, Any]:
    """The arguments of JobSubmit."""
    prompt = call.prompt
    params = {name: str(value) for name, value in (
        ("temperature", prompt.temperature), ("top_p", prompt.top_p), ("seed", prompt.seed),
        ("frequency_penalty", prompt.frequency_penalty)) if value is not None}
    return {"prompt": as_one_text(prompt.messages), "max_tokens": prompt.max_tokens,
            "params": params, "auto_pay": True, "scope": "api", "timeout_secs": timeout_secs,
            **({"model": model} if model else {})}


def _as_bad_call(err: PylonError) -> BadCall:
    if isinstance(err, BadCall):
        return err
    return BadCall(STATUS.get(err.code, 502 if isinstance(err, BackendError) else 400),
                   err.code.replace("-", "_"), str(err))
