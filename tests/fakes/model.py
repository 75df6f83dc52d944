"""A model that says what the test says: an Ollama-shaped backend whose answers are scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "scripted:1b"


def acting(**action) -> str:
    """An answer of the built-in runner's form."""
    return json.dumps({"thought": "so be it", "action": action})


class ScriptedModel:
    """`answer(prompt)` makes each answer; `prompts` are those that were asked."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer, self.prompts = answer, []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="model",
                                        kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._send({"models": [{"name": MODEL, "model": MODEL, "details": {}}],
                            "version": "0.9.3"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/api/chat":
                    self._send({"model_info": {"llama.context_length": 8192}})
                    return
                prompt = "\n".join(one["content"] for one in body["messages"])
                model.prompts.append(prompt)
                self._send({"model": MODEL, "done": True, "done_reason": "stop",
                            "message": {"role": "assistant", "content": model.answer(prompt)},
                            "prompt_eval_count": len(prompt.split()) + 20, "eval_count": 9})

            def _send(self, value: dict) -> None:
                data = json.dumps(value).encode() + b"\n"
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
        return Handler
