"""The two small C files of the measurements, compiled where they are needed (gcc, only here)."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from pylon.crypto.libsecp import SONAMES

HERE = Path(__file__).parent


def build(source: str, directory: Path, *more: str) -> Path:
    """A shared library from a .c file beside this one."""
    target = directory / source.replace(".c", ".so")
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", target, HERE / source, *more],
                   check=True)
    return target


def soname() -> str:
    """The libsecp256k1 that the node opens here. Raises RuntimeError without one."""
    for name in SONAMES:
        try:
            ctypes.CDLL(name)
            return name
        except OSError:
            continue
    raise RuntimeError("no libsecp256k1 on this machine: apt-get install libsecp256k1-1")


class VerifyLoop:
    """The C loop, on a context of its own."""

    def __init__(self, directory: Path) -> None:
        name = soname()
        secp = ctypes.CDLL(name)
        secp.secp256k1_context_create.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(secp.secp256k1_context_create(0x301))
        self._loop = ctypes.CDLL(str(build("verify_loop.c", directory, f"-l:{name}"))).verify_loop

    def run(self, records: bytes) -> None:
        """Verify all 128-byte records (key, message, signature)."""
        count = len(records) // 128
        good = self._loop(self._context, records, count)
        if good != count:
            raise AssertionError(f"{good} of {count} signatures hold")
