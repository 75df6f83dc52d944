"""What a process that holds secrets does to itself first."""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4                 # linux/prctl.h


def harden() -> None:
    """Files private from the first byte, no core dump, and no other process of this user may
    read our memory or environment. RLIMIT_CORE alone does not stop cores that are piped."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
