"""The demo's model server: llama.cpp's own HTTP server over one file, out of PyPI's xllamacpp.

A program of its own; imports nothing of ours: `demo_model.py FILE.gguf NAME`. Prints its URL when
it answers; ends when its stdin does.
"""

from __future__ import annotations

import os
import socket
import sys

import xllamacpp

CONTEXT_TOKENS = 2048


def main(file: str, name: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.model_alias = {name}
    params.port = _free_port()
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS, 1
    # A model this small is slower on two threads than on one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    os.dup2(2, 1)                       # nobody reads more than this line
    sys.stdin.buffer.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
