"""Three real relays of different make, for tests: each is a context manager with a `url`.

LocalRelay (nostr-sdk, Rust) needs nothing but the `test` extra and starts in a second; nostr-relay
(Python) and @nostr-relay (node) disagree with it usefully and need their parts (venvs.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.parts import certificates, venvs
from tests.parts.program import Program, free_port, listens

HERE = Path(__file__).parent


class Relay:
    """A running relay. `stop()` and `start()` again keep the URL; what it stored is gone."""

    def __init__(self, program: Program, port: int, url: str, says_ready: bool) -> None:
        self.program, self.port, self.url = program, port, url
        self._says_ready = says_ready
        self._starts = 0

    def start(self) -> Self:
        self._starts += 1
        self.program.start(self._ready)
        return self

    def _ready(self) -> bool:
        if self._says_ready:
            return self.program.output().count("ready ") == self._starts
        return listens(self.port)

    def stop(self) -> None:
        self.program.stop()

    def __enter__(self) -> Self:
        return self if self.program.process else self.start()

    def __exit__(self, *_: object) -> None:
        self.program.close()


class LocalRelay(Relay):
    """nostr-sdk's relay. `auth` is read, write or both; `record` names its append-only log.

    `reject` maps kinds to the message they are refused with. With `tls` (certificates.make) the
    URL is wss://localhost and clients must trust `tls.authority`.
    """

    def __init__(self, auth: str | None = None, record: Path | None = None,
                 reject: dict[int, str] | None = None, notes_per_minute: int = 1_000_000,
                 max_reqs: int = 500, min_pow: int = 0, max_filter_limit: int = 0,
                 host: str = "127.0.0.1",
                 tls: certificates.Certificates | None = None) -> None:
        port = free_port()
        words = ["--port", port, "--host", host]
        words += ["--notes-per-minute", notes_per_minute, "--max-reqs", max_reqs,
                  "--min-pow", min_pow, "--max-filter-limit", max_filter_limit]
        words += ["--auth", auth] if auth else []
        words += ["--record", record] if record else []
        words += [f"--reject={kind}:{text}" for kind, text in (reject or {}).items()]
        words += ["--tls", tls.cert, tls.key, "--behind", free_port()] if tls else []
        plain = f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"
        url = f"wss://localhost:{port}" if tls else plain
        self.record = record
        command = [sys.executable, "-m", "tests.parts.sdk_relay", *map(str, words)]
        super().__init__(Program(command, cwd=venvs.ROOT), port, url, says_ready=True)

    def recorded(self) -> list[dict[str, Any]]:
        """Every valid submission so far, in order: {"at_ms", "from", "event"}."""
        return read_log(self.record) if self.record else []


class PythonRelay(Relay):
    """PyPI's nostr-relay 1.14. With `auth` it asks at connect; whom it `admit`s may write."""

    def __init__(self, auth: bool = False) -> None:
        place, port = venvs.ensure("nostr-relay"), free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="pyrelay")
        self._command = [place / "bin/nostr-relay", "-c", Path(self.directory.name) / "relay.yaml"]
        self._command[2].write_text(python_relay_config(Path(self.directory.name), port, auth))
        program = Program([*self._command, "serve"],
                          cwd=Path(self.directory.name))
        super().__init__(program, port, f"ws://127.0.0.1:{port}", says_ready=False)

    def admit(self, pubkey: str) -> None:
        """Let a key (hex) read and write from its next AUTH on."""
        subprocess.run([*self._command, "role", "set", "-p", pubkey, "-r", "rw"], check=True,
                       capture_output=True, timeout=60)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.directory.cleanup()


class NodeRelay(Relay):
    """npm's @nostr-relay. With `auth` it wants NIP-42 before anything."""

    def __init__(self, auth: bool = False) -> None:
        place, port = venvs.ensure("node"), free_port()
        program = Program(["node", HERE / "node_relay.cjs", place / "node_modules", str(port),
                           "auth" if auth else "open"])
        super().__init__(program, port, f"ws://127.0.0.1:{port}", says_ready=True)


def python_relay_config(directory: Path, port: int, auth: bool) -> str:
    """Its YAML (JSON is YAML): one process, sqlite, nothing checked but signatures."""
    server = {"host": "127.0.0.1", "port": port, "workers": 1, "disable_compression": True}
    config = {
        "DEBUG": False, "relay_name": "test relay", "message_timeout": 1800,
        "subscription_limit": 500, "max_limit": 6000,
        "storage": {"sqlalchemy.url": f"sqlite+aiosqlite:///{directory}/nostr.sqlite3",
                    "num_concurrent_reqs": 10, "num_concurrent_adds": 2,
                    "validators": ["nostr_relay.validators.is_signed"]},
        "verification": {"nip05_verification": "disabled"},
        "gunicorn": {"bind": f"127.0.0.1:{port}", "workers": 1, "loglevel": "warning"},
        "purple": server,
        "authentication": {"enabled": auth, "relay_urls": [f"ws://127.0.0.1:{port}{end}"
                                                           for end in ("", "/")],
                           "actions": {"save": "w", "query": "r"}},
    }
    if not auth:
        config["authentication"] = {"enabled": False}
    return json.dumps(config, indent=1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a relay log; the last one may still be half written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")]
