"""A relay that answers every REQ with the same prepared frames, as fast as the socket takes them.

`python -m tests.bench.blaster PORT FILE`: FILE holds the bytes of all WebSocket frames, EOSE
included. Prints `ready`; ends when its stdin does.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import sys
import threading

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(text: str) -> bytes:
    """One text frame of a server."""
    data = text.encode()
    head = b"\x81" + (bytes([len(data)]) if len(data) < 126 else b"\x7e"
                      + struct.pack("!H", len(data)))
    return head + data


def serve(sock: socket.socket, answer: bytes) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += sock.recv(4096)
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n") if b": " in line)
    key = lines.get(b"Sec-WebSocket-Key")
    if key is None:
        sock.close()
        return
    token = base64.b64encode(hashlib.sha1(key + GUID).digest())
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
                 b"\r\nSec-WebSocket-Accept: " + token + b"\r\n\r\n")
    while message := read_frame(sock):
        if b'["REQ"' in message:
            sock.sendall(answer)


def read_frame(sock: socket.socket) -> bytes:
    """The payload of one masked frame of less than 64 kB; b'' at the end."""
    head = sock.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:
        return b""
    length = head[1] & 0x7f
    if length == 126:
        length, = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))
    mask = sock.recv(4, socket.MSG_WAITALL)
    data = sock.recv(length, socket.MSG_WAITALL)
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


def main(port: int, file: str) -> None:
    with open(file, "rb") as frames:
        answer = frames.read()
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


def accept(listener: socket.socket, answer: bytes) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, answer), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
