"""A real relay in a process of its own: nostr-sdk's LocalRelay (Rust, in memory).

`python -m tests.parts.sdk_relay --port N [--auth read|write|both] [--record FILE] ...` prints one
line, `ready URL`, when it accepts connections, and ends when its stdin does. `--record` appends
each event that anybody publishes, and whose signature holds, to FILE as one JSON line {"at_ms":,
"from":, "event":} before its OK goes out; a resent event appears again. `--tls CERT KEY` puts a
TLS end in front of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from typing import TextIO

import nostr_sdk as sdk
from nostr_sdk.nostr_sdk import uniffi_set_event_loop


class Recorder(sdk.WritePolicy):
    """Sees every valid event before the relay stores it, and writes it down."""

    def __init__(self, file: TextIO | None, rejects: dict[int, str]) -> None:
        self.file, self.rejects = file, rejects

    async def admit_event(self, event: sdk.Event, socket_addr: str) -> sdk.WritePolicyResult:
        message = self.rejects.get(event.kind().as_u16())
        if message is not None:
            return sdk.WritePolicyResult.REJECT(message)
        if self.file:
            line = {"at_ms": int(time.time() * 1000), "from": socket_addr,
                    "event": json.loads(event.as_json())}
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.file.flush()
        return sdk.WritePolicyResult.ACCEPT()


def build(args: argparse.Namespace, port: int) -> sdk.LocalRelay:
    builder = sdk.LocalRelayBuilder().addr(args.host).port(port).rate_limit(
        sdk.RateLimit(max_reqs=args.max_reqs, notes_per_minute=args.notes_per_minute))
    if args.auth:
        mode = getattr(sdk.LocalRelayBuilderNip42Mode, args.auth.upper())
        builder = builder.nip42(sdk.LocalRelayBuilderNip42(mode=mode))
    if args.min_pow:
        builder = builder.min_pow(args.min_pow)
    if args.max_filter_limit:
        builder = builder.max_filter_limit(args.max_filter_limit)
    if args.record or args.reject:
        rejects = {int(kind): text for kind, _, text in
                   (word.partition(":") for word in args.reject)}
        file = open(args.record, "a", encoding="utf-8") if args.record else None
        builder = builder.write_policy(Recorder(file, rejects))
    return builder.build()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass                            # either side went away: close the other one too
    finally:
        writer.close()


async def tls_front(port: int, behind: int, cert: str, key: str) -> None:
    """Take TLS connections on `port` and hand their bytes to the relay on port `behind`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)


async def main(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    uniffi_set_event_loop(loop)         # the policy is called from Rust's threads
    relay = build(args, args.behind if args.tls else args.port)
    await relay.run()
    url = f"ws://[{args.host}]:{args.port}" if ":" in args.host else \
        f"ws://{args.host}:{args.port}"
    if args.tls:
        await tls_front(args.port, args.behind, *args.tls)
        url = f"wss://localhost:{args.port}"
    print(f"ready {url}", flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    relay.shutdown()


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--auth", choices=("read", "write", "both"))
    parser.add_argument("--max-reqs", type=int, default=500)
    parser.add_argument("--notes-per-minute", type=int, default=1_000_000)
    parser.add_argument("--min-pow", type=int, default=0)
    parser.add_argument("--max-filter-limit", type=int, default=0)
    parser.add_argument("--record")
    parser.add_argument("--reject", action="append", default=[], metavar="KIND:MESSAGE")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--behind", type=int, default=0, help="the relay's own port behind --tls")
    return parser.parse_args(words)


if __name__ == "__main__":
    asyncio.run(main(parse(sys.argv[1:])))
