"""A model server without a model, in a process of its own: says the same at once, over and over.

`python -m tests.bench.token_server PORT TOKENS`: /api/chat in Ollama's form, /v1/chat/completions
in OpenAI's, chunk by chunk as the real ones send them, over connections that stay.
"""

from __future__ import annotations

import json
import socket
import sys
import threading


def ollama_lines(tokens: int) -> list[bytes]:
    word = {"model": "smollm2:135m", "created_at": "2026-11-22T21:33:42.674359245Z",
            "message": {"role": "assistant", "content": " word"}, "done": False}
    last = {"model": "smollm2:135m", "created_at": "2026-11-22T21:33:42.674359245Z",
            "message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True,
            "total_duration": 3182585688, "prompt_eval_count": 18, "eval_count": tokens}
    return [_compact(word) + b"\n"] * tokens + [_compact(last) + b"\n"]


def openai_lines(tokens: int) -> list[bytes]:
    about = {"created": 1795383166, "id": "chatcmpl-3NBZOlEI5TgmwusNwjcy7aLptWfbWmPa",
             "model": "smollm2:135m", "system_fingerprint": "b0-unknown",
             "object": "chat.completion.chunk"}
    word = {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}],
            **about}
    last = {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], **about}
    usage = {"choices": [], **about, "usage": {"completion_tokens": tokens, "prompt_tokens": 33}}
    return ([b"data: " + _compact(word) + b"\n\n"] * tokens +
            [b"data: " + _compact(part) + b"\n\n" for part in (last, usage)] +
            [b"data: [DONE]\n\n"])


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def whole(content_type: str, lines: list[bytes]) -> bytes:
    head = (f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(x), x) for x in lines) + b"0\r\n\r\n"


def serve(sock: socket.socket, answers: dict[str, bytes]) -> None:
    reader = sock.makefile("rb")
    while line := reader.readline():
        path, length = line.split(b" ")[1].decode(), 0
        while (header := reader.readline()) != b"\r\n":
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        reader.read(length)
        sock.sendall(answers[path])


def main(port: str, tokens: str) -> None:
    answers = {"/api/chat": whole("application/x-ndjson", ollama_lines(int(tokens))),
               "/v1/chat/completions": whole("text/event-stream", openai_lines(int(tokens)))}
    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(sock, answers), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
