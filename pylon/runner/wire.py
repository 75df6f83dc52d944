"""JSON-RPC 2.0, one object a line: calls to the host, and the one `tick` that it asks for."""

from __future__ import annotations

import itertools
import json
from typing import Any, TextIO


class HostRefused(Exception):
    """The host said no; `code` is its stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class HostGone(Exception):
    """The host closed the pipe."""


class Wire:
    """The two pipes. One call at a time."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source, self._sink = source, sink
        self._numbers = itertools.count(1)

    def wait_for_tick(self) -> tuple[Any, dict[str, Any]]:
        """(id, params) of the tick."""
        while True:
            message = self._receive()
            if message.get("method") == "tick":
                return message.get("id"), dict(message.get("params") or {})

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the host. Raises HostRefused."""
        number = next(self._numbers)
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while True:
            answer = self._receive()
            if answer.get("id") == number and "method" not in answer:
                break
        error = answer.get("error")
        if error:
            raise HostRefused(str((error.get("data") or {}).get("code", "error")),
                              str(error.get("message", "")))
        return dict(answer.get("result") or {})

    def log(self, text: str) -> None:
        self._send({"jsonrpc": "2.0", "method": "log", "params": {"text": text}})

    def answer(self, number: Any, result: dict[str, Any]) -> None:
        self._send({"jsonrpc": "2.0", "id": number, "result": result})

    def _send(self, message: dict[str, Any]) -> None:
        self._sink.write(json.dumps(message, ensure_ascii=True) + "\n")
        self._sink.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._source.readline()
        if not line:
            raise HostGone
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
