"""A TLS end in front of any local server: wss:// for a relay, https:// for a wallet.

    with TlsProxy(port, certificates) as proxy:
        ... proxy.url("wss") ...

Runs in threads of the test's process, one per connection, and ends with the block.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import Self

from tests.parts.certificates import Certificates

CHUNK_BYTES = 65536


class TlsProxy:
    """Listens on a port of 127.0.0.1 and passes what it decrypts to `behind`."""

    def __init__(self, behind: int, certificates: Certificates, host: str = "localhost") -> None:
        self.behind = behind
        self.host = host
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.cert, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._cut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """End every connection that there is."""
        while self._sockets:
            self._cut(self._sockets.pop())

    def _spawn(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="tls-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:             # the listener was closed
                return
            self._sockets.add(near)
            self._spawn(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        try:
            secure = self._context.wrap_socket(near, server_side=True)
            far = socket.create_connection(("127.0.0.1", self.behind))
        except OSError:                 # no handshake (a client may refuse us), or nobody behind
            self._cut(near)
            return
        self._sockets |= {secure, far}
        try:
            self._pass_on(secure, far)
        except OSError:
            pass                        # either side went away
        finally:
            self._cut(secure)
            self._cut(far)

    def _pass_on(self, secure: ssl.SSLSocket, far: socket.socket) -> None:
        """Both ways in one thread: two threads on one TLS socket race."""
        while True:
            ready = [secure] if secure.pending() else select.select([secure, far], [], [])[0]
            for source, target in ((secure, far), (far, secure)):
                if source in ready:
                    data = source.recv(CHUNK_BYTES)
                    if not data:
                        return
                    target.sendall(data)

    @staticmethod
    def _cut(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass                        # not connected any more
        sock.close()
