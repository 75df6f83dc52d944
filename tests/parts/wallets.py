"""Real wallets for tests: an LNbits server (FakeWallet) and Alby's NWC wallet service before it.

FakeWallet makes genuine `lnbc` invoices with preimages and settles them among its own wallets, so
what is configured with these has network = "mainnet". No bitcoin is moved anywhere.
"""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.parts import venvs
from tests.parts.program import Program, free_port
from tests.waiting import wait_for

HERE = Path(__file__).parent
ADMIN = {"username": "admin", "password": "supersecret1"}
READY_SECS = 60


class Keys(NamedTuple):
    """One wallet of an LNbits server."""

    admin: str
    invoice: str
    wallet_id: str

    @property
    def file_text(self) -> str:
        """What `[wallet.lnbits] key_file` holds."""
        return f"{self.admin} {self.invoice}\n"


class LnbitsServer:
    """A fresh server with no wallet; `wallet(name, sats)` makes them. `log` is its output."""

    def __init__(self) -> None:
        place, port = venvs.ensure("lnbits"), free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="pylnbits")
        self.url = f"http://127.0.0.1:{port}"
        env = {"LNBITS_DATA_FOLDER": self.directory.name, "LNBITS_ADMIN_UI": "true",
               "LNBITS_BACKEND_WALLET_CLASS": "FakeWallet", "FAKE_WALLET_SECRET": "play money",
               "LNBITS_EXTENSIONS_DEFAULT_INSTALL": "", "LNBITS_EXTENSIONS_MANIFESTS": "[]",
               "LNBITS_CALLBACK_URL_RULES": "[]", "LNBITS_RATE_LIMIT_NO": "1000000",
               "LNBITS_ALLOWED_CURRENCIES": "USD", "DEBUG": "false"}
        # Its templates and static files are found relative to here.
        self.program = Program([place / "bin/lnbits", "--host", "127.0.0.1", "--port", str(port)],
                               env=env, cwd=venvs.site_packages(place))
        self._token = ""

    def __enter__(self) -> Self:
        self.program.start(lambda: self._call("GET", "/api/v1/health")[0], READY_SECS)
        self._call("PUT", "/api/v1/auth/first_install",
                   {**ADMIN, "password_repeat": ADMIN["password"]})
        self._token = wait_for(lambda: self._call("POST", "/api/v1/auth", ADMIN)[1]
                               .get("access_token"), READY_SECS, "a token of LNbits")
        return self

    def __exit__(self, *_: object) -> None:
        self.program.close()
        self.directory.cleanup()

    def wallet(self, name: str, sats: int = 0) -> Keys:
        made = self._call("POST", "/api/v1/wallet", {"name": name})[1]
        keys = Keys(made["adminkey"], made["inkey"], made["id"])
        if sats:
            self.fund(keys, sats)
        return keys

    def fund(self, keys: Keys, sats: int) -> None:
        status, answer = self._call("PUT", "/users/api/v1/balance",
                                    {"id": keys.wallet_id, "amount": sats})
        assert status == 200, answer

    def decode(self, invoice: str) -> dict[str, Any]:
        """What its own decoder (PyPI's bolt11) reads."""
        status, answer = self._call("POST", "/api/v1/payments/decode", {"data": invoice})
        assert status == 200, answer
        return answer

    def _call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Status and answer; (0, {}) while nobody answers."""
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        call = urllib.request.Request(self.url + path, method=method, headers=headers,
                                      data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(call, timeout=30) as answer:
                return answer.status, _object(answer.read())
        except urllib.error.HTTPError as err:
            with err:
                return err.code, _object(err.read())
        except OSError:
            return 0, {}


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class NwcService:
    """Alby's NWCWalletService over one wallet of an LNbits server; `uri` connects to it."""

    def __init__(self, relay_url: str, lnbits: LnbitsServer, keys: Keys) -> None:
        place = venvs.ensure("node")
        self.program = Program(["node", HERE / "nwc_service.cjs", place / "node_modules",
                                relay_url, lnbits.url, keys.admin, keys.invoice])
        self.uri = ""

    def __enter__(self) -> Self:
        self.program.start(self._ready, READY_SECS)
        return self

    def _ready(self) -> bool:
        for line in self.program.output().splitlines():
            if line.startswith("ready "):
                self.uri = line.removeprefix("ready ")
        return bool(self.uri)

    def __exit__(self, *_: object) -> None:
        self.program.close()
