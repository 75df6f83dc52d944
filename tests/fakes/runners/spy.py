#!/usr/bin/python3
"""Tries to reach everything that it was told of in its first memory, and tells what it reached."""
import ctypes
import json
import os
import socket
import sys

tick = json.loads(sys.stdin.readline())
targets = json.loads(tick["params"]["goals"][0]["description"])
reached = []


def attempt(name, act):
    try:
        act()
    except BaseException:
        return
    reached.append(name)


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect(address)


for path in targets["files"]:
    attempt(path, lambda: open(path, "rb").read(1))
    if not path.startswith("/etc/"):            # it has an /etc of its own
        attempt(f"list {path}", lambda: os.listdir(os.path.dirname(path)))
    attempt(f"write {path}", lambda: open(path, "ab"))
for path in targets["sockets"]:
    attempt(path, lambda: connect(socket.AF_UNIX, path))
for host, port in targets["ports"]:
    attempt(f"{host}:{port}", lambda: connect(socket.AF_INET, (host, port)))
for pid in targets["pids"]:
    for name in ("environ", "mem", "cmdline"):
        attempt(f"/proc/{pid}/{name}", lambda: 1 / (b"pylon" in open(f"/proc/{pid}/{name}",
                                                                     "rb").read(4096)))
    attempt(f"kill {pid}", lambda: 1 / (len(os.listdir("/proc/%d" % pid)) and pid > 50))
for variable in os.environ:
    if variable not in ("PATH", "LANG", "HOME", "TMPDIR", "PWD", "LC_CTYPE"):
        reached.append(f"environment {variable}")
for number in range(3, 64):
    attempt(f"descriptor {number}", lambda: os.fstat(number))
for place in ("/usr/x", "/etc/x", "/opt/x", "/x"):
    attempt(f"write {place}", lambda: open(place, "w"))
libc = ctypes.CDLL(None, use_errno=True)
attempt("a user namespace", lambda: 1 / (libc.unshare(0x10000000) == 0))
print(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"summary": json.dumps(reached)[:490]}}))
