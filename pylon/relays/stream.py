"""The bytes of one relay: a non-blocking socket, plain or TLS, between two bounded buffers.

Owned by one relay thread, which calls `fill` and `flush` when poll() says so. The methods below
the line are the face that websocket-client sees: it takes its input from the buffer and leaves
its output there, so it never waits for the network once the handshake is over. During the
handshake `recv` does wait, with the patience and the byte budget that the library lacks.
"""

from __future__ import annotations

import socket
import ssl

from pylon.errors import RelayError, RelayMisbehaved
from pylon.relays import tls
from pylon.relays.address import RelayUrl, dial
from pylon.relays.bell import READ, WRITE, Patience

READ_BYTES = 65536
MAX_UNSENT_BYTES = 1024 * 1024      # more, and the relay is not reading
_BUSY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError)


def open_stream(target: RelayUrl, patience: Patience, context: ssl.SSLContext | None,
                public_only: bool) -> Stream:
    """Connect to a relay and, for wss, shake hands. Raises RelayError."""
    sock = dial(target, patience, public_only)
    try:
        if target.secure:
            sock = tls.wrap(sock, target.host, context or tls.client_context(), patience)
    except BaseException:
        sock.close()
        raise
    return Stream(sock, patience)


class Stream:
    """One connected socket and what was read and not yet written."""

    def __init__(self, sock: socket.socket, patience: Patience | None = None) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.received_bytes = 0
        self.sent_bytes = 0
        self._patience = patience
        self._budget_bytes: int | None = None       # during the handshake: what may still come
        self._secure = isinstance(sock, ssl.SSLSocket)

    def fileno(self) -> int:
        return self.sock.fileno()

    def fill(self) -> int:
        """Read what is there, at most about READ_BYTES. Raises RelayError at the end."""
        got = 0
        while got < READ_BYTES:
            try:
                data = self.sock.recv(READ_BYTES)
            except _BUSY:
                break
            except OSError as err:
                if got:
                    break                   # first what came before the end
                raise RelayError(f"the connection broke: {err}") from err
            if not data:
                if got:
                    break
                raise RelayError("the relay closed the connection")
            self.inbox += data
            got += len(data)
            if not self._secure:            # TLS hands out one record at a time
                break
        self.received_bytes += got
        self._acknowledge_at_once()
        return got

    def flush(self) -> None:
        """Write what the socket takes now. Raises RelayError."""
        if not self.outbox:
            return
        try:
            while self.outbox:
                sent = self.sock.send(self.outbox[:READ_BYTES])
                del self.outbox[:sent]
                self.sent_bytes += sent
        except _BUSY:
            if len(self.outbox) > MAX_UNSENT_BYTES:
                raise RelayMisbehaved("the relay does not read what it is sent", 1008) from None
        except OSError as err:
            raise RelayError(f"the connection broke: {err}") from err
        self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        """Without this, a relay that leaves Nagle on answers 40 ms late. Linux forgets it."""
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except (OSError, AttributeError):       # not TCP, or not Linux
            return

    def expect_at_most(self, budget_bytes: int) -> None:
        """From here on, `recv` waits, and gives up after this many bytes."""
        self._budget_bytes = budget_bytes

    def stop_waiting(self) -> None:
        """The handshake is over: from here on, `recv` takes only what is there."""
        self._budget_bytes = self._patience = None

    def close(self) -> None:
        self.sock.close()

    # -- what websocket-client calls ---------------------------------------------------------------

    def recv(self, count: int) -> bytes:
        if not self.inbox:
            self._await_bytes()
        if self._budget_bytes is not None:
            count = min(count, self._budget_bytes)
            self._budget_bytes -= min(count, len(self.inbox))
            if count <= 0:
                raise RelayMisbehaved("the answer to the handshake has no end", 1009)
        data = bytes(self.inbox[:count])
        del self.inbox[:count]
        return data

    def send(self, data: bytes) -> int:
        self.outbox += data
        return len(data)

    def gettimeout(self) -> float:
        return 0.0                              # the library then calls recv and send directly

    def settimeout(self, timeout_secs: float | None) -> None:
        """Deadlines are the patience's."""

    def shutdown(self, how: int) -> None:
        """`close` does it all."""

    def _await_bytes(self) -> None:
        if self._patience is None:
            raise RelayMisbehaved("a frame ended before its time")
        while not self.inbox:
            self._patience.wait(self, WRITE | READ if self.outbox else READ)
            self.flush()
            self.fill()
