"""What a connection is told by the configuration, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from pylon.relays import link


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says about every relay."""

    connect_secs: float = 10
    ping_secs: float = 30
    backoff_max_secs: float = 300
    allow_private: bool = False
    ca_file: str = ""
    limits: link.Limits = field(default_factory=link.Limits)


@dataclass(frozen=True, slots=True)
class RelayState:
    """What is known of one relay now. Texts are escaped already."""

    url: str
    own: bool                       # configured, not named by a stranger
    connected: bool
    since: int                      # wall clock, of being connected or not
    latency_ms: float | None        # of the handshake, later of the last ping
    auth: str                       # '', 'asked', 'ok' or 'refused'
    last_error: str                 # stays when the relay is connected again
    events: int                     # verified and handed on
    duplicates: int
    oddities: int                   # messages that made no sense
    received_bytes: int
    sent_bytes: int
    queued: int                     # events that this relay must still answer
    subscriptions: int
    software: str
