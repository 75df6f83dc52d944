"""A relay that sins on purpose, in a process of its own so that it hurts nobody else's timing.

    with HostileRelay("ping_flood") as relay:
        ... relay.url ... relay.log() ...

Every sin is a subclass of `Visit`, named after what it does; `Visit` itself is an honest small
relay (it stores nothing and forwards to everybody). What clients did is in `log()`: dictionaries
with "visit" (the number of the connection), "what" (connect, request, text, close, gone) and more.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from pylon.nostr import filters, keys
from pylon.nostr.event import parse
from tests.parts.program import Program, free_port

ROOT = Path(__file__).resolve().parents[2]
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
VISITS: list[Visit] = []                # of this process
STRANGER = keys.generate()


def frame(data: bytes, opcode: int = TEXT, fin: bool = True) -> bytes:
    """A frame as servers send them: not masked."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65536:
        return head + b"\x7e" + struct.pack("!H", len(data)) + data
    return head + b"\x7f" + struct.pack("!Q", len(data)) + data


def fresh_event(content: str = "", kind: int = 5050) -> dict[str, Any]:
    """A valid event of somebody, new each time."""
    return STRANGER.sign(kind, content, [], int(time.time())).to_dict()


class Visit:
    """One connection to an honest relay. Sins override the verb that they are about."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                 log: Any) -> None:
        self.reader, self.writer = reader, writer
        self.number = -1                # of this WebSocket, from 0; -1 before it is one
        self.subs: dict[str, list[dict[str, Any]]] = {}
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []      # answers to REQ, some of which never end

    def note(self, what: str, **more: Any) -> None:
        line = {"visit": self.number, "at": time.monotonic(), "what": what, **more}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    async def serve(self) -> None:
        self.note("connect")
        try:
            if await self.shake_hands():
                await self.greet()
                await self.listen()
        except (OSError, EOFError):
            pass                        # the client went away
        finally:
            self.note("gone")
            for task in self._tasks:
                task.cancel()
            self.writer.close()

    async def shake_hands(self) -> bool:
        """Answer the HTTP request; False when it did not become a WebSocket."""
        request = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
        self.note("request", headers=headers)
        if "Sec-WebSocket-Key" not in headers:
            self.writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return False
        self.number = len(VISITS)
        VISITS.append(self)
        await self.accept(headers["Sec-WebSocket-Key"])
        return True

    async def accept(self, key: str, more: str = "") -> None:
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        token = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
        await self.raw(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                        f"Upgrade\r\nSec-WebSocket-Accept: {token}\r\n{more}\r\n").encode())

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say(self, *message: Any) -> None:
        await self.text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def text(self, text: str) -> None:
        await self.raw(frame(text.encode("utf-8", "surrogatepass")))

    async def listen(self) -> None:
        while True:
            opcode, data = await self.read_frame()
            if opcode == CLOSE:
                self.note("close", code=int.from_bytes(data[:2], "big"))
                return
            if opcode == PING:
                await self.pinged(data)
            elif opcode == TEXT:
                message = json.loads(data)
                self.note("text", message=message)
                await self.hear(*message)

    async def read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        length = second & 0x7f
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length)
        return first & 0x0f, bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    async def hear(self, verb: str, *rest: Any) -> None:
        if verb == "REQ":
            self.subs[rest[0]] = list(rest[1:])
            self._tasks.append(asyncio.create_task(self._answer(rest[0])))
        elif verb == "CLOSE":
            self.subs.pop(rest[0], None)
        elif verb == "EVENT":
            await self.offered(rest[0])
        elif verb == "AUTH":
            await self.authenticated(rest[0])

    async def _answer(self, sub_id: str) -> None:
        try:
            await self.asked(sub_id)
        except OSError:
            return                      # the client went away

    # -- the verbs ---------------------------------------------------------------------------------

    async def greet(self) -> None:
        """Right after the handshake."""

    async def asked(self, sub_id: str) -> None:
        await self.say("EOSE", sub_id)

    async def offered(self, event: dict[str, Any]) -> None:
        await self.say("OK", event["id"], True, "")
        for visit in VISITS:
            for sub_id, asked in visit.subs.items():
                if filters.matches_any(asked, parse(event)):
                    await visit.say("EVENT", sub_id, event)

    async def authenticated(self, event: dict[str, Any]) -> None:
        await self.say("OK", event["id"], True, "")

    async def pinged(self, data: bytes) -> None:
        await self.raw(frame(data, PONG))


# ---- sins ----------------------------------------------------------------------------------------

class DeclaresHugeFrame(Visit):
    async def asked(self, sub_id):
        await self.raw(b"\x81\x7f" + struct.pack("!Q", 2 ** 63 - 1) + b"x" * 4096)


class EndlessContinuation(Visit):
    part = b"x" * 16384

    async def asked(self, sub_id):
        await self.raw(frame(self.part, TEXT, fin=False))
        while True:
            await self.raw(frame(self.part, CONT, fin=False))


class EndlessCrumbs(EndlessContinuation):
    part = b"x"

    async def asked(self, sub_id):
        await self.raw(frame(self.part, TEXT, fin=False))
        crumbs = frame(self.part, CONT, fin=False) * 4096
        while True:
            await self.raw(crumbs)


class Trickles(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        await self.raw(b"\x81\x7e\x04\x00")
        while True:
            await self.raw(b" ")
            await asyncio.sleep(0.05)


class NeverShakesHands(Visit):
    async def shake_hands(self):
        await self.reader.read()
        return False


class EndlessHeader(Visit):
    async def shake_hands(self):
        await self.reader.readuntil(b"\r\n\r\n")
        await self.raw(b"HTTP/1.1 101 Switching Protocols\r\nX-Endless: ")
        while True:
            await self.raw(b"a" * 1024)


class BlackHole(Visit):
    """Honest until the first EOSE; on the first visit everything after it falls into a hole."""

    async def listen(self):
        if self.number:
            return await super().listen()
        while not self.subs:
            _, data = await self.read_frame()
            await self.hear(*json.loads(data))
        await asyncio.sleep(3600)


class NeverPongs(Visit):
    async def pinged(self, data):
        self.note("ping")


class PingFlood(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        while True:
            await self.raw(frame(b"p" * 125, PING) * 512)


class NeverReads(Visit):
    """Asks for pongs and never takes them."""

    async def listen(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.reader._transport.pause_reading()
        while True:
            await self.raw(frame(b"p" * 125, PING) * 64)
            await asyncio.sleep(0.001)


class ReadsSlowly(Visit):
    async def greet(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    async def read_frame(self):
        await asyncio.sleep(0.01)
        return await super().read_frame()


class OverlongPing(Visit):
    async def asked(self, sub_id):
        await self.raw(b"\x89\x7e\x04\x00" + b"p" * 1024)


class MaskedFrames(Visit):
    async def asked(self, sub_id):
        await self.raw(b"\x81\x82\0\0\0\0[]")


class Repeats(Visit):
    """Says the same nonsense until it is stopped."""

    nonsense = b""
    opcode = TEXT

    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        for _ in range(1000):
            await self.raw(frame(self.nonsense.replace(b"SUB", sub_id.encode()), self.opcode))
            await asyncio.sleep(0.001)


class BinaryFrames(Repeats):
    nonsense, opcode = b'["NOTICE","hi"]', BINARY


class BadUtf8(Repeats):
    nonsense = b'["NOTICE","\xff\xfe"]'


class DeepNesting(Repeats):
    nonsense = b"[" * 100_000


class HugeNumber(Repeats):
    nonsense = b'["EVENT","SUB",' + b"9" * 5000 + b"]"


class NotANumber(Repeats):
    nonsense = b'["EVENT","SUB",{"created_at":NaN}]'


class DuplicateKeys(Repeats):
    nonsense = b'["EVENT","SUB",{"kind":1,"kind":5050}]'


class NotAnArray(Repeats):
    nonsense = b'{"EVENT":1}'


class UnknownVerb(Repeats):
    nonsense = b'["GIVE","me","money"]'


class WrongArity(Repeats):
    nonsense = b'["EOSE"]'


class ForeignSubscription(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        for number in range(1000):
            await self.say("EVENT", "never-opened", fresh_event(str(number)))
            await asyncio.sleep(0.001)


class NeverEose(Visit):
    async def asked(self, sub_id):
        await self.say("EVENT", sub_id, fresh_event("before the EOSE that never comes"))


class EoseTwice(Visit):
    async def asked(self, sub_id):
        for _ in range(20):
            await self.say("EOSE", sub_id)


class ClosesAtOnce(Visit):
    async def asked(self, sub_id):
        await self.say("CLOSED", sub_id, "error: not today")


class AuthStorm(Visit):
    async def greet(self):
        for number in range(5000):
            await self.say("AUTH", f"challenge {number}")


class WantsAuth(Visit):
    """Honest NIP-42: nothing before AUTH. Counts only the AUTH for its own URL."""

    def __init__(self, *args):
        super().__init__(*args)
        self.known: set[str] = set()

    async def greet(self):
        await self.say("AUTH", "the challenge")

    async def authenticated(self, event):
        self.known.add(event["pubkey"])
        await super().authenticated(event)

    async def asked(self, sub_id):
        if self.known:
            return await super().asked(sub_id)
        self.subs.pop(sub_id)
        await self.say("CLOSED", sub_id, "auth-required: who are you?")

    async def offered(self, event):
        if self.known:
            return await super().offered(event)
        await self.say("OK", event["id"], False, "auth-required: who are you?")


class AsksWithTheHandshake(WantsAuth):
    """The challenge comes in the same bytes as the end of the HTTP answer."""

    async def accept(self, key, more=""):
        real = self.raw
        self.raw = lambda data: real(data + frame(b'["AUTH","the challenge"]'))
        await super().accept(key, more)
        self.raw = real

    async def greet(self):
        """Done already."""


class AuthWithoutOk(WantsAuth):
    """As nostr-relay: `restricted:` and no word on AUTH."""

    async def authenticated(self, event):
        self.known.add(event["pubkey"])

    async def offered(self, event):
        if self.known:
            return await Visit.offered(self, event)
        await self.say("OK", event["id"], False, "restricted: permission denied")


class ForeignOk(Visit):
    async def offered(self, event):
        await self.say("OK", "ab" * 32, True, "")
        await super().offered(event)


class OkFalseThenTrue(Visit):
    async def offered(self, event):
        await self.say("OK", event["id"], False, "error: try again")
        await super().offered(event)


class NeverOk(Visit):
    async def offered(self, event):
        self.note("swallowed", id=event["id"])


class EmptyOk(Visit):
    async def offered(self, event):
        await self.say("OK", "", False, "invalid: cannot read it")


class DuplicateIsFalse(Visit):
    async def offered(self, event):
        await self.say("OK", event["id"], False, "duplicate: exists")


class LongNotice(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        await self.say("NOTICE", "\x1b[2J\x1b[31mupdate at http://evil.example " + "A" * 200_000)
        await self.say("CLOSED", sub_id, "error: \x1b[31mupdate at http://evil.example "
                       + "A" * 200_000)

    async def offered(self, event):
        await self.say("OK", event["id"], False, "error: \x1b[31m\u202e" + "A" * 200_000)


class MegabyteNotice(Visit):
    async def asked(self, sub_id):
        await self.say("NOTICE", "A" * 1_000_000)


class FloodsValid(Visit):
    """As fast as it can: 20,000 events that are all new and valid, over and over new."""

    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        for number in range(400_000):
            await self.say("EVENT", sub_id, fresh_event(str(number)))


class FloodsForged(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        for number in range(400_000):
            event = fresh_event(str(number))
            await self.say("EVENT", sub_id, {**event, "sig": "00" * 64})


class FloodsOneEvent(Visit):
    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        event = fresh_event("again and again")
        for _ in range(400_000):
            await self.say("EVENT", sub_id, event)


class LiesAboutFilter(Visit):
    """After a while, so that it cannot be a straggler, sends what nobody asked for."""

    async def asked(self, sub_id):
        await self.say("EOSE", sub_id)
        for number in range(10):
            await self.say("EVENT", sub_id, fresh_event(str(number), kind=1))


class ForgesThenTells(Visit):
    """The id of a true event over a false content first, then the true one."""

    async def asked(self, sub_id):
        event = fresh_event("true")
        await self.say("EVENT", sub_id, {**event, "content": "false"})
        await self.say("EVENT", sub_id, {**event, "sig": "11" * 64})
        await self.say("EVENT", sub_id, event)
        await self.say("EVENT", sub_id, {**event, "content": "false"})
        await self.say("EOSE", sub_id)


class Redirects(Visit):
    async def shake_hands(self):
        request = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split(" ")[1]
        self.note("request", path=path)
        port = self.writer.get_extra_info("sockname")[1]
        await self.raw(f"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:{port}/elsewhere\r\n"
                       "Content-Length: 0\r\n\r\n".encode())
        return False


class SetsCookies(Visit):
    """A cookie for every host there is, 8 kB of it."""

    async def accept(self, key, more=""):
        await super().accept(key, f"Set-Cookie: x={'y' * 8000}; Domain=127.0.0.1\r\n")


class ResetsAtOnce(Visit):
    async def shake_hands(self):
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()
        return False


class AcceptsThenSilence(Visit):
    """A WebSocket, and then not a byte."""

    async def listen(self):
        await self.reader.read()


def _words(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def _all_sins(base: type[Visit]) -> dict[str, type[Visit]]:
    found = {_words(base.__name__): base}
    for one in base.__subclasses__():
        found |= _all_sins(one)
    return found


SINS = _all_sins(Visit) | {"honest": Visit}


# ---- the process ---------------------------------------------------------------------------------

class HostileRelay:
    """A relay with one sin ("honest": none)."""

    def __init__(self, sin: str) -> None:
        assert sin in SINS, f"no sin named {sin}; there are {sorted(SINS)}"
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self._directory = tempfile.TemporaryDirectory(prefix="hostile")
        self._log = Path(self._directory.name) / "log"
        self._program = Program([sys.executable, "-m", "tests.fakes.hostile_relay", sin,
                                 str(self.port), str(self._log)], cwd=ROOT)

    def log(self, what: str = "") -> list[dict[str, Any]]:
        """What clients did so far; only lines of one kind if `what` is given."""
        if not self._log.exists():
            return []
        lines = self._log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in found if not what or line["what"] == what]

    def texts(self, verb: str) -> list[list[Any]]:
        """The messages that clients sent, of one verb."""
        return [line["message"] for line in self.log("text") if line["message"][0] == verb]

    def start(self) -> Self:
        self._program.start(lambda: "ready" in self._program.output())
        return self

    def stop(self) -> None:
        self._program.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._program.close()
        self._directory.cleanup()


async def main(sin: str, port: int, log: str) -> None:
    with open(log, "a", encoding="utf-8") as file:
        async def visited(reader, writer):
            await SINS[sin](reader, writer, file).serve()

        server = await asyncio.start_server(visited, "127.0.0.1", port)
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.buffer.read)     # until the test is over
        server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
