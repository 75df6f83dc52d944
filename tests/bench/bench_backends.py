"""G9: what a call to a backend and a streamed token cost the client, in processor time."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pylon.backends.backend import Backend, Limits, Prompt
from pylon.backends.llamacpp import LlamaCpp
from pylon.backends.ollama import Ollama
from tests.bench import token_server
from tests.bench.goal import Result, interleave, ratio
from tests.parts.program import Program, free_port, listens

ROUNDS = 9
CALLS = 200
TOKENS = 4000
ROOT = Path(__file__).parents[2]
LIMITS = Limits(output_bytes=10_000_000)
PROMPT = Prompt([{"role": "user", "content": "What is the capital of France?"}],
                max_tokens=2 * TOKENS)


def run() -> list[Result]:
    return [calls(), tokens("NDJSON", Ollama, token_server.ollama_lines(TOKENS)),
            tokens("SSE", LlamaCpp, token_server.openai_lines(TOKENS))]


def calls() -> Result:
    """Whole calls with an answer of one token, kept-alive on both sides of the comparison."""
    with server(1) as program:
        ours = Ollama("bench", url_of(program), LIMITS)
        body = json.dumps(ours.body(PROMPT, "m"), separators=(",", ":")).encode()
        plain = http.client.HTTPConnection("127.0.0.1", port_of(program))

        def bare() -> None:
            for _ in range(CALLS):
                plain.request("POST", "/api/chat", body, {"Content-Type": "application/json"})
                for line in plain.getresponse().read().splitlines():
                    json.loads(line)

        def full() -> None:
            for _ in range(CALLS):
                ours.complete(PROMPT, "m")

        times = interleave(ROUNDS, bare=lambda: cpu(bare), ours=lambda: cpu(full))
        plain.close()
        ours.close()
    return Result("G9", "a call, of http.client's processor time", ratio(times["ours"],
                  times["bare"]), 2.2, note=f"{min(times['ours']) / CALLS * 1e6:.0f} us a call")


def tokens(form: str, kind: type[Backend], lines: list[bytes]) -> Result:
    """A long stream, against nothing but json.loads of what each of its lines carries."""
    texts = [line.removeprefix(b"data: ").decode() for line in lines if b"{" in line]
    with server(TOKENS) as program:
        ours = kind("bench", url_of(program), LIMITS)
        heard: list[str] = []
        times = interleave(ROUNDS, bare=lambda: cpu(lambda: [json.loads(t) for t in texts]),
                           ours=lambda: cpu(lambda: ours.complete(PROMPT, "m", heard.append)))
        assert len(heard) == ROUNDS * TOKENS
        ours.close()
    return Result("G9", f"a streamed token ({form}), of json.loads's processor time",
                  ratio(times["ours"], times["bare"]), 2.5,
                  note=f"{min(times['ours']) / TOKENS * 1e6:.1f} us a token")


def cpu(run_it: Callable[[], object]) -> float:
    """Seconds of processor time of this thread, the kernel's share for it included."""
    started = time.thread_time()
    run_it()
    return time.thread_time() - started


def server(count: int) -> Program:
    port = free_port()
    return Program([sys.executable, "-m", "tests.bench.token_server", str(port), str(count)],
                   cwd=ROOT).start(lambda: listens(port))


def port_of(program: Program) -> int:
    return int(program.command[-2])


def url_of(program: Program) -> str:
    return f"http://127.0.0.1:{port_of(program)}"
