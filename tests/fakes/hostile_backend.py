"""A backend that sins on purpose, and is an honest small model server where it has no sin.

    with HostileBackend() as backend:           # speaks Ollama and OpenAI's API at one url
        backend.sin = "never_ends"              # from now on; None: honest again
        ... backend.url ... backend.requests    # what clients sent: (method, path, body)

Every sin is a method of `Visit` named after what it does; all but those in PROBE_SINS show only
when something is to be completed. It answers over bare sockets, because most sins are no HTTP.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any, Self

MODEL = "tiny:1b"
WORDS = ["The", " capital", " of", " France", " is", " Paris", "."]
CONTEXT = 2048
MB = 1 << 20
PROBE_SINS = ("is_no_model_server", "lists_for_ever", "lists_garbage", "redirects", "wants_a_key",
              "is_loading", "trickles_heads", "accepts_and_says_nothing", "says_goodbye")


class HostileBackend:
    """Listens on a free port of the loopback. `sin` may change between two calls."""

    def __init__(self, sin: str | None = None, context: ssl.SSLContext | None = None) -> None:
        assert sin is None or hasattr(Visit, sin), f"there is no sin {sin}"
        self.sin = sin
        self.models = [MODEL]
        self.words = list(WORDS)
        self.prompt_tokens: object = 9
        self.content_type: str | None = None        # of streams; None: the usual one
        self.requests: list[tuple[str, str, Any]] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.gone = threading.Event()               # a client has hung up on us in mid-answer
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self, context)
        scheme = "https" if context else "http"
        self.port = self._server.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="hostile-backend",
                                        kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def completions(self) -> list[Any]:
        """The bodies of all calls that wanted a completion."""
        return [body for _, path, body in self.requests
                if path.endswith(("/api/chat", "/chat/completions"))]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):

    allow_reuse_address = True
    daemon_threads = False              # server_close joins them: none outlives a test
    block_on_close = True

    def __init__(self, address: tuple[str, int], backend: HostileBackend,
                 context: ssl.SSLContext | None) -> None:
        self.backend, self.context = backend, context
        self._open: set[socket.socket] = set()
        super().__init__(address, Visit)

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:            # the handshake is made by the visit's first read
            sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue                # it has closed meanwhile
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on sinners; that is what the tests are about."""


class Visit(socketserver.BaseRequestHandler):
    """One connection. The honest answers, then the sins."""

    server: _Server

    def handle(self) -> None:
        self.backend = self.server.backend
        self.backend.connections += 1
        reader = self.request.makefile("rb")
        try:
            while self._serve_one(reader):
                continue
        except (OSError, ValueError):
            self.backend.gone.set()
        finally:
            reader.close()

    def _serve_one(self, reader: Any) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline(65536)
            if not line:
                return False
            head += line
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), 0)
        body = json.loads(reader.read(length)) if length else None
        self.backend.heads.append(head)
        self.backend.requests.append((method, path, body))
        return self._route(path, body)

    def _route(self, path: str, body: Any) -> bool:
        completes = path.endswith(("/api/chat", "/chat/completions"))
        self.ollama = path.startswith("/api/")
        sin = self.backend.sin
        if sin is not None and (completes or sin in PROBE_SINS):
            getattr(self, sin)()
            return False
        if completes:
            self.answer()
        else:
            self.json(*self._probe_answer(path))
        return True

    def _probe_answer(self, path: str) -> tuple[Any, int]:
        models = self.backend.models
        if path == "/api/tags":
            return {"models": [{"name": m, "digest": m, "details": {"family": "fake"}}
                               for m in models]}, 200
        if path == "/api/show":
            return {"model_info": {"fake.context_length": CONTEXT},
                    "capabilities": ["completion"]}, 200
        if path == "/health":
            return {"status": "ok"}, 200
        if path == "/props":
            return {"default_generation_settings": {"n_ctx": CONTEXT}, "total_slots": 1}, 200
        if path.endswith("/models"):
            return {"object": "list", "data": [{"id": m, "owned_by": "us"} for m in models]}, 200
        return {"error": "not found"}, 404

    # -- how to answer --

    def head(self, status: int, *headers: str) -> None:
        self.send("\r\n".join([f"HTTP/1.1 {status} Whatever", *headers, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self.request.sendall(data)

    def json(self, answer: Any, status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.head(status, "Content-Type: application/json", f"Content-Length: {len(data)}")
        self.send(data)

    def start_stream(self) -> None:
        usual = "application/x-ndjson" if self.ollama else "text/event-stream"
        self.head(200, f"Content-Type: {self.backend.content_type or usual}",
                  "Transfer-Encoding: chunked")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def part(self, answer: Any) -> None:
        """One line of a stream, in the dialect that was asked for."""
        text = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
        self.chunk(text + b"\n" if self.ollama else b"data: " + text + b"\n\n")

    def token(self, word: str) -> None:
        if self.ollama:
            self.part({"message": {"role": "assistant", "content": word}, "done": False})
        else:
            self.part({"choices": [{"index": 0, "delta": {"content": word},
                                    "finish_reason": None}]})

    def done(self, reason: str = "stop") -> None:
        count = self.backend.prompt_tokens
        if self.ollama:
            self.part({"message": {"role": "assistant", "content": ""}, "done": True,
                       "done_reason": reason, "prompt_eval_count": count, "eval_count": 7})
        else:
            self.part({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            self.part({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 7}})
            self.part(b"[DONE]")

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def answer(self) -> None:
        self.start_stream()
        for word in self.backend.words:
            self.token(word)
        self.done()
        self.end()

    def hang(self, secs: float = 60) -> None:
        """Say nothing more until the client hangs up or the test is over."""
        self.request.settimeout(0.02)
        while not self.backend.closing.is_set() and secs > 0:
            try:
                if not self.request.recv(65536):
                    break
            except TimeoutError:
                secs -= 0.02
        self.backend.gone.set()

    def for_ever(self) -> Iterator[int]:
        """Numbers until the test is over; sending to a client that is gone ends it too."""
        number = 0
        while not self.backend.closing.is_set():
            yield number
            number += 1

    # -- sins before or instead of an answer --

    def accepts_and_says_nothing(self) -> None:
        self.hang()

    def says_goodbye(self) -> None:
        """The connection ends, without a word."""

    def resets_at_once(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()

    def is_no_model_server(self) -> None:
        page = b"<!DOCTYPE html><html><body>It works!</body></html>"
        self.head(200, "Content-Type: text/html", f"Content-Length: {len(page)}")
        self.send(page)

    def speaks_something_else(self) -> None:
        self.send(b"220 mail.example ESMTP\r\n")
        self.hang()

    def redirects(self) -> None:
        self.head(307, "Location: http://127.0.0.1:1/elsewhere", "Content-Length: 0")

    def wants_a_key(self) -> None:
        self.json({"error": {"message": "Invalid API Key", "code": 401}}, 401)

    def is_loading(self) -> None:
        self.json({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)

    def queue_is_full(self) -> None:
        self.json({"error": "server busy, please try again. maximum pending requests exceeded"},
                  503)

    def is_out_of_memory(self) -> None:
        self.json({"error": "model requires more system memory (5.6 GiB) than is available"}, 500)

    def has_lost_the_model(self) -> None:
        self.json({"error": 'model "tiny:1b" not found, try pulling it first'}, 404)

    def refuses_long_prompts(self) -> None:
        self.json({"error": {"code": 400, "type": "exceed_context_size_error", "message":
                             "request (3031 tokens) exceeds the available context size"}}, 400)

    def lists_for_ever(self) -> None:
        self.head(200, "Content-Type: application/json", f"Content-Length: {1 << 30}")
        self.send(b'{"models": [')
        for _ in self.for_ever():
            self.send(b'{"name": "x"},' * 5000)

    def lists_garbage(self) -> None:
        self.json({"models": "none", "data": {"id": 1}})

    def trickles_heads(self) -> None:
        """Slow loris, the other way round: a header that grows by a byte now and then."""
        self.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in self.for_ever():
            self.send(b"s")
            self.backend.closing.wait(0.02)

    def heads_without_end(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\n")
        for number in self.for_ever():
            self.send(b"X-%d: %s\r\n" % (number, b"x" * 60000))

    # -- sins of a stream --

    def trickles_bytes(self) -> None:
        """A byte now and then, never a whole line."""
        self.start_stream()
        for _ in self.for_ever():
            self.chunk(b" ")
            self.backend.closing.wait(0.02)

    def stalls_mid_stream(self) -> None:
        self.start_stream()
        self.token("The")
        self.hang()

    def keeps_alive_without_tokens(self) -> None:
        self.start_stream()
        self.token("The")
        for _ in self.for_ever():
            self.chunk(b"\n" if self.ollama else b": still here\n\n")
            self.backend.closing.wait(0.02)

    def never_ends(self) -> None:
        self.start_stream()
        for _ in self.for_ever():
            self.token(" and")

    def thinks_for_ever(self) -> None:
        self.start_stream()
        for _ in self.for_ever():
            if self.ollama:
                self.part({"message": {"content": "", "thinking": "hmm"}, "done": False})
            else:
                self.part({"choices": [{"delta": {"reasoning_content": "hmm"}}]})

    def ends_without_done(self) -> None:
        self.start_stream()
        self.token("The")
        self.end()

    def resets_mid_stream(self) -> None:
        self.start_stream()
        self.token("The")
        self.reset()

    def closes_mid_chunk(self) -> None:
        self.start_stream()
        self.token("The")
        self.send(b'ff\r\n{"message": {"con')

    def announces_more_than_it_sends(self) -> None:
        self.head(200, "Content-Type: application/x-ndjson", "Content-Length: 100000")
        self.send(json.dumps({"message": {"content": "The"}, "done": False}).encode() + b"\n")

    def announces_less_than_it_sends(self) -> None:
        lines = [{"message": {"content": w}, "done": False} for w in self.backend.words]
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self.head(200, "Content-Type: application/x-ndjson", f"Content-Length: {len(data) // 2}")
        self.send(data)

    def lies_about_chunks(self) -> None:
        self.start_stream()
        self.send(b"-5\r\nhello\r\n0\r\n\r\n")

    def sends_a_chunk_of_exabytes(self) -> None:
        self.start_stream()
        self.send(b"fffffffffffffff\r\n")
        self.hang()

    def sends_a_line_without_end(self) -> None:
        self.start_stream()
        for _ in self.for_ever():
            self.chunk(b"x" * 60000)

    def floods(self) -> None:
        """100 MB of valid tokens."""
        self.start_stream()
        for _ in range(100):
            self.token("x" * MB)
        self.done()
        self.end()

    def floods_around_tokens(self) -> None:
        """Valid lines whose bulk is not in the text."""
        self.start_stream()
        for _ in self.for_ever():
            self.part({"junk": "x" * 500_000})

    def answers_with_nothing(self) -> None:
        self.start_stream()
        self.done()
        self.end()

    def answers_with_blanks(self) -> None:
        self.start_stream()
        for word in (" ", "\n", "\t"):
            self.token(word)
        self.done()
        self.end()

    def sends_broken_utf8(self) -> None:
        self.start_stream()
        self.token("The")
        self.part(b'{"message": {"content": "\xff\xfe"}, "choices": [{"delta": {"content": '
                  b'"\xff\xfe"}}]}')
        self.done()
        self.end()

    def sends_half_characters(self) -> None:
        self.start_stream()
        self.token("\ud83d")            # json.dumps makes the escape of a lone surrogate of it
        self.done()
        self.end()

    def sends_no_json(self) -> None:
        self.start_stream()
        self.part(b"{nonsense")
        self.end()

    def nests_deep(self) -> None:
        self.start_stream()
        self.part(b'{"message":' + b"[" * 100_000)
        self.end()

    def sends_a_number_of_5000_digits(self) -> None:
        self.start_stream()
        self.part(b'{"done": false, "x": ' + b"9" * 5000 + b"}")
        self.end()

    def sends_numbers_as_text(self) -> None:
        self.start_stream()
        self.part({"message": {"content": 42}, "choices": [{"delta": {"content": 42}}]})
        self.done()
        self.end()

    def sends_lists(self) -> None:
        self.start_stream()
        self.part(["message", "content"])
        self.end()

    def fails_mid_stream(self) -> None:
        self.start_stream()
        self.token("The")
        self.part({"error": "llama runner process has terminated: signal: killed"})
        self.end()

    def shortens_the_prompt(self) -> None:
        """Ollama's habit: it drops what does not fit, and only the count tells."""
        self.backend.prompt_tokens = CONTEXT
        self.answer()

    def drops_messages(self) -> None:
        """Ollama's other habit, with several messages: whole ones are left out."""
        self.backend.prompt_tokens = 3
        self.answer()

    def answers_then_lingers(self) -> None:
        """All is said, and the body does not end."""
        self.start_stream()
        for word in self.backend.words:
            self.token(word)
        self.done()
        self.hang()

    def finishes_without_usage(self) -> None:
        """A server that ends with a reason and neither usage nor [DONE], and stays connected."""
        self.start_stream()
        for word in self.backend.words:
            self.token(word)
        if self.ollama:
            self.done()
        else:
            self.part({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.hang()

    def answers_then_hangs_up(self) -> None:
        """Honest, but every connection is good for one answer only, and it does not say so."""
        self.answer()

    # -- no sins: other shapes of an honest answer --

    def thinks_first(self) -> None:
        self.start_stream()
        for word in ("Hmm", ", let me see"):
            if self.ollama:
                self.part({"message": {"content": "", "thinking": word}, "done": False})
            else:
                self.part({"choices": [{"delta": {"content": None, "reasoning_content": word}}]})
        for word in self.backend.words:
            self.token(word)
        self.done()
        self.end()

    def answers_in_one_json(self) -> None:
        """What asks for a stream gets it in one piece."""
        text = "".join(self.backend.words)
        if self.ollama:
            self.json({"message": {"content": text}, "done": True, "prompt_eval_count": 9,
                       "eval_count": 7})
        else:
            self.json({"choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                       "usage": {"prompt_tokens": 9, "completion_tokens": 7}})

    def answers_in_one_text(self) -> None:
        self.json({"text": "".join(self.backend.words), "model": MODEL, "finish_reason": "stop"})

    def answers_in_choices_of_text(self) -> None:
        self.json({"choices": [{"text": "".join(self.backend.words), "finish_reason": "length"}]})

    def streams_choices_of_text(self) -> None:
        self.start_stream()
        for word in self.backend.words:
            self.part({"choices": [{"text": word, "finish_reason": None}]})
        self.part({"choices": [{"text": "", "finish_reason": "stop"}]})
        self.part(b"[DONE]")
        self.end()

    def streams_bare_deltas(self) -> None:
        self.start_stream()
        for word in self.backend.words:
            self.part({"delta": word})
        self.part(b"[DONE]")
        self.end()

    def streams_native_llama_cpp(self) -> None:
        self.start_stream()
        for word in self.backend.words:
            self.part({"content": word, "stop": False})
        self.part({"content": "", "stop": True})
        self.end()

    def streams_in_other_clothes(self) -> None:
        """Events as the standard also allows them: comments, names, CRLF, no blank after data:."""
        self.start_stream()
        self.chunk(b": welcome\r\n\r\nretry: 1000\r\n")
        for word in self.backend.words:
            data = json.dumps({"choices": [{"delta": {"content": word}}]}).encode()
            self.chunk(b"event: message\r\nid: 1\r\ndata:" + data + b"\r\n\r\n")
        self.chunk(b"data:  [DONE] \r\n\r\n")
        self.end()
