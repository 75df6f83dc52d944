"""A provider that we did not write: PyPI's nostr-dvm, free or paid over LNbits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Self

from tests.parts import venvs
from tests.parts.program import Program
from tests.parts.wallets import Keys, LnbitsServer

READY_SECS = 90


class NostrDvm:
    """One provider on one relay; `pubkey` is its key. It answers in capitals."""

    def __init__(self, relay_url: str, price_sats: int = 0, lnbits: LnbitsServer | None = None,
                 keys: Keys | None = None) -> None:
        place = venvs.ensure("nostr-dvm")
        self.directory = tempfile.TemporaryDirectory(prefix="pydvm")
        (Path(self.directory.name) / "db").mkdir()
        words = [relay_url, str(price_sats)]
        if lnbits is not None and keys is not None:
            words += [lnbits.url, keys.invoice, keys.admin]
        # What its helpers would otherwise look up on the internet.
        env = {"LNBITS_HOST": lnbits.url if lnbits else "", "LNBITS_ADMIN_KEY": "",
               "LNBITS_WALLET_ID": "", "HOME": self.directory.name}
        self.program = Program([place / "bin/python", Path(__file__).with_name(
            "nostr_dvm_provider.py"), *words], env=env, cwd=Path(self.directory.name))
        self.pubkey = ""

    def __enter__(self) -> Self:
        self.program.start(self._ready, READY_SECS)
        return self

    def _ready(self) -> bool:
        """It hears its first job only some seconds after it has said its name."""
        text = self.program.output()
        for line in text.splitlines():
            if line.startswith("ready "):
                self.pubkey = line.removeprefix("ready ")
        return bool(self.pubkey) and ("eartbeat" in text or "Heartbeat" in text)

    def __exit__(self, *_: object) -> None:
        self.program.close()
        self.directory.cleanup()
