"""`python -m tests.bench [PART...]`: measure, print the table; exit 1 where a goal is missed far.

The comparison with other NIP-90 providers is not part of it: they need environments of their own.
"""

from __future__ import annotations

import importlib
import sys

from tests.bench.goal import Result, table

PARTS = ("crypto", "relays", "store", "backends", "cli", "jobs", "paid", "node")


def main(words: list[str]) -> int:
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        print(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for part in words or PARTS:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        results += importlib.import_module(f"tests.bench.bench_{part}").run()
    print(table(results))
    return 1 if any(result.verdict == "MISSED" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
