"""TLS towards relays: certificates are always verified, and one context serves all relays.

A context that holds the system's certificates costs close to a megabyte and 17 ms, so it is
shared. It is made by hand, because `ssl.create_default_context` would write session keys to the
file that SSLKEYLOGFILE in the environment names.
"""

from __future__ import annotations

import functools
import socket
import ssl
import threading

from pylon.errors import ConfigError, RelayError
from pylon.relays.bell import READ, WRITE, Patience


_building = threading.Lock()        # twenty threads that start at once must not build twenty


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """The shared context; `ca_file` adds certificates to the system's. Raises ConfigError."""
    with _building:
        return _context(ca_file)


@functools.lru_cache(maxsize=4)
def _context(ca_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)       # verifies host and certificate
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as err:
            raise ConfigError(f"relay.ca_file: cannot use {ca_file}: {err}") from err
    return context


def wrap(sock: socket.socket, host: str, context: ssl.SSLContext,
         patience: Patience) -> ssl.SSLSocket:
    """Shake hands on a connected, non-blocking socket. Raises RelayError."""
    try:
        secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        while True:
            try:
                secure.do_handshake()
                return secure
            except ssl.SSLWantReadError:
                patience.wait(secure, READ)
            except ssl.SSLWantWriteError:
                patience.wait(secure, WRITE)
    except ssl.SSLCertVerificationError as err:
        raise RelayError(f"the certificate of {host} is not valid: {err.verify_message}") from err
    except (OSError, ValueError) as err:
        raise RelayError(f"TLS with {host} failed: {err}") from err
