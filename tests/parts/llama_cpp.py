"""llama.cpp's HTTP server with one model, until stdin ends; for the Python of the part `llama`.

    python llama_cpp.py MODEL.gguf NAME PORT CONTEXT SLOTS [API_KEY]
"""

import sys

import xllamacpp


def main(model, name, port, context, slots, *keys):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}
    params.port = int(port)
    params.n_ctx, params.n_parallel = int(context) * int(slots), int(slots)
    # Two threads are slower than one where cores are few.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if keys:
        params.api_keys = list(keys)
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
