"""sd_notify(3): telling systemd how the service is, without its library.

Silent when systemd did not start us. `start` takes the addresses out of the environment, so that
children cannot speak for us.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """Where to notify, and how often the watchdog wants a sign of life (0: never)."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.pop("NOTIFY_SOCKET", "")
        self.watchdog_secs = _watchdog_secs(environ.pop("WATCHDOG_USEC", ""),
                                            environ.pop("WATCHDOG_PID", ""))

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        now_usecs = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_usecs}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend(self, secs: float) -> None:
        """Ask for more time to stop (or start) than the unit grants."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(secs * 1_000_000)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as conn:
                conn.setblocking(False)
                conn.sendto(message.encode(), address)
        except OSError:
            return                      # systemd restarts a service it does not hear of


def _watchdog_secs(usecs: str, pid: str) -> float:
    if not usecs.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usecs) / 1_000_000
