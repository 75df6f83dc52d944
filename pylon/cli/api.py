"""`pylon api`: an OpenAI-compatible endpoint over the local backends, and the market."""

from __future__ import annotations

import argparse
import secrets
import signal
from collections.abc import Iterator
from typing import Any

from pylon import config as configuration
from pylon.cli.terminal import say, tell
from pylon.control import client
from pylon.errors import ConfigError, UsageError

ASK_SECS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", metavar="HOST:PORT",
                        help="where to listen (default: [api] bind, 127.0.0.1:9899)")
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="configuration to use instead of the home's, for this run")
    parser.add_argument("--show-token", action="store_true",
                        help="print the token that callers need, and end")


def run(args: argparse.Namespace) -> int:
    from pylon.api.opening import open_endpoint, token    # late: an HTTP server
    if not args.home.exists():
        raise ConfigError(f"there is no node at {args.home.root}; make one with: pylon init")
    args.home.check()
    config = configuration.load(args.home, args.config)
    bind = _checked(args.bind) if args.bind else config.api.bind
    if args.show_token:
        say(token(config, args.home, bind) or "no token is needed")
        return 0
    from pylon.backends.registry import Prober, Registry  # late: backends
    registry = Registry(config, args.home)
    registry.refresh()
    prober = Prober(registry)
    endpoint = open_endpoint(config, args.home, registry, lambda order: _submit(args, order),
                             lambda order: _follow(args, order), bind)
    endpoint.start()
    prober.start()
    tell(f"listening on http://{endpoint.host}:{endpoint.port}/v1" + (
        "; the token: pylon api --show-token" if endpoint.token else ""))
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        endpoint.stop()
        prober.stop()
        prober.join(5)
        registry.close()
    return 0


def _checked(bind: str) -> str:
    host, _, port = bind.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--bind {bind!r} is not like 127.0.0.1:9899")
    return bind


def _submit(args: argparse.Namespace, order: dict[str, Any]) -> dict[str, Any]:
    """The daemon buys; without one nothing can be bought. Raises NotRunning."""
    return dict(client.call(args.home, "JobSubmit",
                            {**order, "request_id": secrets.token_hex(16)}, ASK_SECS))


def _follow(args: argparse.Namespace, order: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    yield from client.stream(args.home, "JobFollow", order)
