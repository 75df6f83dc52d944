"""What the documents say to type is typed, in one shell: the quickstart from an empty home on, and
before its last section what the other documents have, as they need a node that runs.

Only installing is left out; a model server and a port stand in.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pylon.cli import relay
from tests.fakes.logged_backend import LoggedBackend
from tests.node import LAUNCHER
from tests.parts.program import free_port
from tests.test_docs import DOCS, fences
from tests.waiting import wait_for

QUICKSTART = next(path for path in DOCS if path.name == "QUICKSTART.md")
# README's blocks are what a checkout is for: make, pipx, a market, a real wallet.
OTHERS = [path for path in DOCS if path != QUICKSTART and path.name != "README.md"]


def blocks(path) -> list[str]:
    text = re.sub(r"^<!-- not run: [^\n]*-->\n```sh\n.*?^```", "", path.read_text(),
                  flags=re.M | re.S)
    return fences(text, "sh")


def empty_home(place, backend) -> dict[str, str]:
    """An environment as a new user has it, with `pylon` to call."""
    (place / "bin").mkdir()
    (place / "bin/pylon").write_text(f'#!/bin/sh\nexec {sys.executable} {LAUNCHER} "$@"\n')
    (place / "bin/pylon").chmod(0o700)
    return {"HOME": str(place), "PATH": f"{place / 'bin'}:/usr/bin:/bin", "LANG": "C.UTF-8",
            "OLLAMA_HOST": backend.url, "LLAMACPP_URL": f"http://127.0.0.1:{free_port()}"}


@pytest.fixture
def user(home):
    """A new user of a machine with a model server."""
    place = home.root.parent
    backend = LoggedBackend()
    env = empty_home(place, backend)

    def run(script: str) -> tuple[int, str]:
        """Into a file: what stays in the background would keep a pipe open."""
        with open(place / "told", "w+", encoding="utf-8") as told:
            done = subprocess.run(["/bin/sh", "-exc", script], cwd=place, env=env, stdout=told,
                                  stdin=subprocess.DEVNULL, stderr=told, timeout=100, check=False)
            told.seek(0)
            return done.returncode, told.read()
    try:
        yield run
    finally:
        backend.close()


def test_the_quickstart_and_what_the_other_documents_say_to_type(user):
    port = str(free_port())
    *first, last = blocks(QUICKSTART)
    script = "\n".join([*first, *(block for path in OTHERS for block in blocks(path)), last])
    status, told = user(script.replace("pylon relay >", f"pylon relay -p {port} >")
                        .replace("7777", port))
    assert status == 0, told
    assert re.search(r"^done in .*: 1 sat", told, re.M) and "1 sat from 1 job" in told, told
    assert "\nclean\n" in told and "ada: npub1" in told and "bob: npub1" in told
    assert told.count("pylon has stopped") == 2
    wait_for(lambda: not listening(int(port)), 5, "the relay to end")


def listening(port: int) -> bool:
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


def test_the_quickstart_says_the_port_that_the_relay_has():
    assert f"ws://127.0.0.1:{relay.PORT}" in QUICKSTART.read_text()
