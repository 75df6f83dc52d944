"""What a probe of `pylon doctor` looks at, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pylon import config as configuration
from pylon.config import Config
from pylon.home import Home
from pylon.nostr.keys import Keys


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `level` is ok, warn or bad; `facts` go into --json."""

    subject: str
    level: str
    text: str
    mend: str = ""
    facts: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"subject": self.subject, "level": self.level, "text": self.text,
                "mend": self.mend, **(self.facts or {})}


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. `keys` is None where the identity is missing or sealed."""

    home: Home
    config: Config
    problems: list[configuration.Problem]
    keys: Keys | None
