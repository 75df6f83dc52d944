"""An Ollama-shaped backend that answers at once and writes every call to an append-only log.

For crash tests, where a real model would only be slow: real models are used everywhere else.
`gate` holds answers back until it is set; `failing` makes calls fail.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "fake:1b"


def answer_to(prompt: str) -> str:
    return f"the answer to {prompt}"


def words_in(body: dict) -> int:
    """About what a tokenizer would count of a chat."""
    return sum(len(message["content"].split()) + 8 for message in body["messages"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle of an answer is no error here."""


class LoggedBackend:
    """Listens on a free port of loopback; `calls` are the prompts that were asked, in order."""

    def __init__(self, tokens: int = 5) -> None:
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False
        self.tokens = tokens
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="backend",
                                        kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                if self.path == "/api/tags":
                    self._json({"models": [{"name": MODEL, "model": MODEL, "details": {}}]})
                elif self.path == "/api/version":
                    self._json({"version": "0.9.3"})
                else:
                    self._json({"error": "not found"}, 404)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/show":
                    self._json({"model_info": {"general.architecture": "fake",
                                               "fake.context_length": 8192},
                                "capabilities": ["completion"]})
                elif self.path == "/api/chat":
                    self._chat(body)
                else:
                    self._json({"error": "not found"}, 404)

            def _chat(self, body: dict) -> None:
                prompt = body["messages"][-1]["content"]
                backend.calls.append(prompt)
                backend.gate.wait(60)
                if backend.failing:
                    self._json({"error": "it fails"}, 500)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Connection", "close")
                self.end_headers()
                words = answer_to(prompt)
                for line in ({"message": {"role": "assistant", "content": words}, "done": False},
                             {"message": {"role": "assistant", "content": ""}, "done": True,
                              "done_reason": "stop", "prompt_eval_count": words_in(body),
                              "eval_count": backend.tokens}):
                    self.wfile.write(json.dumps({"model": MODEL, **line}).encode() + b"\n")
                self.close_connection = True

            def _json(self, answer: dict, status: int = 200) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler
