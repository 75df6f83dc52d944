"""The listening end of the control socket, and who it is that knocks."""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import stat
import struct
from dataclasses import dataclass
from typing import Any

from pylon.home import SYSTEM_OPENAGENTS, Home

log = logging.getLogger(__name__)

MAX_OPTION_BYTES = 1024             # what Python's getsockopt takes: 256 groups
SO_PEERGROUPS = 59                  # socket(7), Linux 4.13; not in Python's socket module


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    uid: int
    pid: int
    may_change: bool                # False: a member of the group, who may only ask
    request_id: str = ""


class Listener(socketserver.UnixStreamServer):
    """Binds under a temporary name and renames, so that nobody meets a half-made socket."""

    request_queue_size = 1024       # the kernel cuts it to net.core.somaxconn

    def __init__(self, home: Home) -> None:
        self.home = home
        self.group_may_ask = home.root.parent == SYSTEM_OPENAGENTS
        super().__init__(str(home.root / f".ctl{os.getpid()}"), socketserver.BaseRequestHandler,
                         bind_and_activate=False)
        try:
            self.server_bind()
            os.chmod(str(self.server_address), 0o660 if self.group_may_ask else 0o600)
            self.server_activate()
            os.rename(str(self.server_address), home.socket)
        except BaseException:
            self.server_close()
            raise
        self.inode = os.stat(home.socket).st_ino
        self.socket.setblocking(False)

    def get_request(self) -> tuple[socket.socket, Any]:
        conn, address = self.socket.accept()
        conn.setblocking(False)
        return conn, address

    def peer_of(self, conn: socket.socket) -> Peer | None:
        """None for somebody who has no business here."""
        creds = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, gid = struct.unpack("3i", creds)
        if uid in (0, os.geteuid()):
            return Peer(uid, pid, may_change=True)
        if self.group_may_ask and os.getegid() in (gid, *_peer_groups(conn)):
            return Peer(uid, pid, may_change=False)
        return None

    def remove(self) -> None:
        """Unlink the socket if it is still ours."""
        self.server_close()
        try:
            info = os.lstat(self.home.socket)
            if stat.S_ISSOCK(info.st_mode) and info.st_ino == self.inode:
                os.unlink(self.home.socket)
        except FileNotFoundError:
            log.debug("the socket was already gone")


def _peer_groups(conn: socket.socket) -> tuple[int, ...]:
    try:
        data = conn.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_OPTION_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)
