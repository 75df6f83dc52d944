"""The control server: one thread accepts and reads, a few threads serve.

The reading thread (`control`) selects over the listener and the clients that have not finished
their first line; it alone reads from them, so a silent or trickling client costs no thread. It
has 2 seconds for its line, and when too many wait the one that waited longest is shed. A ping is
answered at once; other commands go to 8 serving threads, of which one is kept for what must be
prompt; a stream gets one of 8 threads of its own. Started and stopped by the daemon.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import selectors
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pylon.control.listener import Listener, Peer
from pylon.control.protocol import MAX_LINE_BYTES, encode_error, encode_reply, parse_command
from pylon.errors import InvalidMessage, PylonError
from pylon.home import Home
from pylon.log import Repeated

log = logging.getLogger(__name__)

SERVING_THREADS = 8
MAX_STREAMS = 8
MAX_WAITING_CLIENTS = 64            # connected, line not complete; beyond it the oldest is shed
MAX_QUEUED_COMMANDS = 64
FIRST_LINE_SECS = 2.0
SEND_SECS = 5.0
REMEMBERED_REPLIES = 512            # of commands with a request_id
ACCEPT_PAUSE_SECS = 0.5             # when no descriptor is left


class NotReady(PylonError):
    """The daemon answers, but takes no command now."""

    code = "not-ready"


Handler = Callable[[dict[str, Any], Peer], object]
Stream = Callable[[dict[str, Any], Peer], Iterator[object]]


@dataclass(slots=True)
class _Client:
    conn: socket.socket
    peer: Peer
    deadline: float                 # monotonic
    data: bytearray


@dataclass(frozen=True, slots=True)
class _Command:
    conn: socket.socket
    name: str
    args: dict[str, Any]
    peer: Peer


class Server:
    """`handlers` answer once, `streams` answer with an iterator: each item is a line, and None
    only asks whether the client is still there. `asking` names what changes nothing."""

    def __init__(self, home: Home, handlers: Mapping[str, Handler],
                 streams: Mapping[str, Stream] | None = None,
                 asking: Collection[str] = ()) -> None:
        self.handlers: dict[str, Handler] = dict(handlers)
        self.streams: dict[str, Stream] = dict(streams or {})
        self.asking = {"Ping", *asking}
        self._listener = Listener(home)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiting: OrderedDict[int, _Client] = OrderedDict()    # by fd; reading thread only
        self.prompt = {"Ping"}
        self.refusal: str | None = None         # said to every command, while it stands
        self._commands: queue.Queue[_Command | None] = queue.Queue(MAX_QUEUED_COMMANDS)
        self._prompt_commands: queue.Queue[_Command | None] = queue.Queue(MAX_QUEUED_COMMANDS)
        self._replies = _Replies()
        self._streaming = threading.Semaphore(MAX_STREAMS)
        self._stream_conns: set[socket.socket] = set()              # guarded by _streams_lock
        self._streams_lock = threading.Lock()
        self._stopping = False
        self._trouble = Repeated(log)
        self._threads: list[threading.Thread] = []

    # -- for the daemon --

    def add(self, name: str, handler: Handler, asking: bool = False, prompt: bool = False) -> None:
        """Take on a command, also while serving: parts come up after the socket. ASKING: it
        changes nothing. PROMPT: it never takes long and must not wait for those that do."""
        if asking:
            self.asking.add(name)
        if prompt:
            self.prompt.add(name)
        self.handlers[name] = handler

    def add_stream(self, name: str, stream: Stream, asking: bool = False) -> None:
        if asking:
            self.asking.add(name)
        self.streams[name] = stream

    def start(self) -> None:
        self._begin("control", self._read_clients)
        self._begin("control-1", self._serve, self._prompt_commands)
        for number in range(2, SERVING_THREADS + 1):
            self._begin(f"control-{number}", self._serve, self._commands)

    def _begin(self, name: str, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self, timeout_secs: float = 3.0) -> None:
        """Remove the socket, let running commands answer, end the threads."""
        if self._stopping:
            return
        self._stopping = True
        os.write(self._wake_write, b"x")
        deadline = time.monotonic() + timeout_secs
        with self._streams_lock:
            for conn in self._stream_conns:
                _shutdown(conn)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._listener.remove()
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._wake_read)
            os.close(self._wake_write)

    # -- the reading thread --

    def _read_clients(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self._listener.socket, selectors.EVENT_READ)
            while not self._stopping:
                try:
                    self._look_around(selector)
                except Exception:                       # a bug of ours must not make us deaf
                    log.exception("control: the reading thread stumbled")
                    for client in list(self._waiting.values()):
                        self._drop(selector, client)
            for client in list(self._waiting.values()):
                self._drop(selector, client)
        self._prompt_commands.put(None)
        for _ in range(SERVING_THREADS - 1):
            self._commands.put(None)

    def _look_around(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(self._next_deadline()):
            client: _Client | None = key.data
            if key.fileobj is self._listener.socket:
                self._accept_some(selector)
            elif client is not None and self._waiting.get(key.fd) is client:
                self._read(selector, client)            # else it was shed since the select
        self._shed_late(selector)

    def _next_deadline(self) -> float | None:
        for client in self._waiting.values():           # oldest first, all get the same time
            return max(0.0, client.deadline - time.monotonic())
        return None

    def _accept_some(self, selector: selectors.BaseSelector) -> None:
        for _ in range(MAX_WAITING_CLIENTS):            # then the others are read again
            if not self._accept(selector):
                return

    def _accept(self, selector: selectors.BaseSelector) -> bool:
        """Take one client in; False when nobody knocks (or nobody can be let in now)."""
        try:
            conn, _ = self._listener.get_request()
        except BlockingIOError:
            return False
        except OSError as err:                          # EMFILE, ENFILE, ENOMEM: make room
            self._trouble.failed("control: cannot accept: %s", err.strerror)
            for client in list(self._waiting.values()):
                self._drop(selector, client)
            select.select([self._wake_read], [], [], ACCEPT_PAUSE_SECS)
            return False
        self._trouble.over("control: accepts again")
        peer = self._listener.peer_of(conn)
        if peer is None:
            _send_and_close(conn, encode_error("this daemon belongs to another user"), 0.0)
            return True
        if len(self._waiting) >= MAX_WAITING_CLIENTS:
            self._shed_oldest(selector)
        client = _Client(conn, peer, time.monotonic() + FIRST_LINE_SECS, bytearray())
        self._waiting[conn.fileno()] = client
        selector.register(conn, selectors.EVENT_READ, client)
        return True

    def _shed_oldest(self, selector: selectors.BaseSelector) -> None:
        """Make room by the client that waits longest; what it has sent meanwhile is taken."""
        oldest = next(iter(self._waiting.values()))
        self._read(selector, oldest)
        if self._waiting.get(oldest.conn.fileno()) is oldest:
            self._drop(selector, oldest)

    def _read(self, selector: selectors.BaseSelector, client: _Client) -> None:
        try:
            data = client.conn.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.data += data
        end = client.data.find(b"\n")
        if 0 <= end <= MAX_LINE_BYTES:
            self._release(selector, client)
            self._take(client, bytes(client.data[:end]))
        elif len(client.data) > MAX_LINE_BYTES:
            self._release(selector, client)
            _send_and_close(client.conn, encode_error("the line is too long"), 0.0)
        elif not data:
            self._drop(selector, client)

    def _take(self, client: _Client, line: bytes) -> None:
        """Parse one line (64 KiB at most) and pass it on; refusals are sent from here."""
        try:
            name, args = parse_command(line)
            if self.refusal is not None:
                raise NotReady(self.refusal)
            command = _Command(client.conn, name, args, self._admit(name, args, client.peer))
        except PylonError as err:
            _send_and_close(client.conn, encode_error(str(err)), 0.0)
            return
        if name == "Ping":
            _send_and_close(client.conn, encode_reply(name, "Pong"), 0.0)
            return
        try:
            (self._prompt_commands if name in self.prompt else self._commands).put_nowait(command)
        except queue.Full:
            _send_and_close(client.conn, encode_error("busy; ask again in a moment"), 0.0)

    def _shed_late(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for client in list(self._waiting.values()):
            if client.deadline > now:
                return
            self._release(selector, client)
            _send_and_close(client.conn, encode_error("no command came in time"), 0.0)

    def _release(self, selector: selectors.BaseSelector, client: _Client) -> None:
        del self._waiting[client.conn.fileno()]
        selector.unregister(client.conn)

    def _drop(self, selector: selectors.BaseSelector, client: _Client) -> None:
        self._release(selector, client)
        client.conn.close()

    # -- the serving threads --

    def _serve(self, commands: queue.Queue[_Command | None]) -> None:
        while (command := commands.get()) is not None:
            if command.name in self.streams:
                self._open_stream(command)
            else:
                reply = self._replies.once(command.peer, lambda: self._run(command))
                _send_and_close(command.conn, reply, SEND_SECS)

    def _admit(self, name: str, args: dict[str, Any], peer: Peer) -> Peer:
        if name != "Ping" and name not in self.handlers and name not in self.streams:
            raise InvalidMessage(f"unknown command {name}")
        if not peer.may_change and name not in self.asking:
            raise InvalidMessage("members of the group may ask, but not change")
        request_id = args.pop("request_id", "")
        if not isinstance(request_id, str) or len(request_id) > 128:
            raise InvalidMessage("request_id must be a text of at most 128 characters")
        return Peer(peer.uid, peer.pid, peer.may_change, request_id)

    def _run(self, command: _Command) -> bytes:
        try:
            handler = self.handlers[command.name]
            return encode_reply(command.name, handler(command.args, command.peer))
        except PylonError as err:
            return encode_error(str(err), err.code)
        except Exception:
            log.exception("control: %s failed", command.name)
            return encode_error("internal error; see the log")

    def _open_stream(self, command: _Command) -> None:
        if not self._streaming.acquire(blocking=False):
            _send_and_close(command.conn, encode_error("too many long commands at once"),
                            SEND_SECS)
            return
        threading.Thread(target=self._stream, args=(command,), name=f"control-{command.name}",
                         daemon=True).start()

    def _stream(self, command: _Command) -> None:
        conn, name = command.conn, command.name
        with self._streams_lock:
            self._stream_conns.add(conn)
        try:
            conn.settimeout(SEND_SECS)
            self._send_items(conn, name, self.streams[name](command.args, command.peer))
        except PylonError as err:
            _send_and_close(conn, encode_error(str(err), err.code), SEND_SECS)
        except OSError as err:
            log.debug("control: the reader of %s is gone: %s", name, err)
        except Exception:
            log.exception("control: %s failed", name)
            _send_and_close(conn, encode_error("internal error; see the log"), SEND_SECS)
        finally:
            with self._streams_lock:
                self._stream_conns.discard(conn)
            conn.close()
            self._streaming.release()

    def _send_items(self, conn: socket.socket, name: str, items: Iterator[object]) -> None:
        try:
            for item in items:
                if self._stopping or _is_gone(conn):
                    return
                if item is not None:
                    conn.sendall(encode_reply(name, item))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()                             # a generator runs its finally at once


class _Replies:
    """Answers of commands that carry a request_id: asked again, they are given again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, str], _Reply] = OrderedDict()

    def once(self, peer: Peer, run: Callable[[], bytes]) -> bytes:
        if not peer.request_id:
            return run()
        key = (peer.uid, peer.request_id)
        with self._lock:
            mine = key not in self._known
            reply = self._known.setdefault(key, _Reply(threading.Event()))
            while len(self._known) > REMEMBERED_REPLIES:
                self._known.popitem(last=False)
        if mine:
            reply.line = run()
            reply.done.set()
        else:
            reply.done.wait()
        return reply.line


@dataclass(slots=True)
class _Reply:
    done: threading.Event
    line: bytes = b""


def _is_gone(conn: socket.socket) -> bool:
    """Whether a streaming client has hung up (it has nothing more to say)."""
    poll = select.poll()
    poll.register(conn, select.POLLIN)
    return bool(poll.poll(0)) and conn.recv(1, socket.MSG_PEEK) == b""


def _send_and_close(conn: socket.socket, line: bytes, timeout_secs: float) -> None:
    try:
        conn.settimeout(timeout_secs)               # 0: what does not fit at once is lost
        conn.sendall(line)
        _shutdown(conn)
    except OSError as err:
        log.debug("control: a client left before its answer: %s", err)
    finally:
        conn.close()


def _shutdown(conn: socket.socket) -> None:
    try:
        conn.shutdown(socket.SHUT_RDWR)
    except OSError as err:
        log.debug("control: %s", err)
