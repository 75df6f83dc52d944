#!/usr/bin/python3
"""Writes wherever it may until it cannot."""
import json
import os
import sys

sys.stdin.readline()
total = 0
for place in ("/tmp", "/dev/shm", os.environ["HOME"]):
    for number in range(100):
        try:
            with open(f"{place}/{number}", "wb") as file:
                total += file.write(b"x" * 1_000_000)
        except OSError:
            break
print(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"summary": str(total)}}))
