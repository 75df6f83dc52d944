"""`python -m tests.bench.null_node ...`: the `pylon` command with a backend that takes no time.

What is left of a job is the node's own work.
"""

from __future__ import annotations

import sys
import threading

from pylon import cli
from pylon.backends import found
from pylon.backends.backend import Backend
from pylon.backends.completion import Completion, Model, OnText, Prompt

MODEL = Model("null", 100_000)


class NullBackend(Backend):
    """Knows the answer before the question."""

    type = "null"

    def find_models(self) -> list[Model]:
        return [MODEL]

    def complete(self, prompt: Prompt, model: str, on_text: OnText | None = None,
                 cancel: threading.Event | None = None,
                 deadline: float | None = None) -> Completion:
        return Completion("four", model, 12, 1, "stop", self.id)


if __name__ == "__main__":
    found.build = lambda config, home=None: [(0, NullBackend("null", "http://127.0.0.1:1"))]
    sys.exit(cli.main())
