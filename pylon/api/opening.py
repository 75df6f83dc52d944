"""How the endpoint of the configuration is put together, in the daemon and for `pylon api`."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from pylon.api.server import Endpoint, is_loopback
from pylon.api.sources import Follow, Local, Market, Submit
from pylon.customer.shop import follow, submit
from pylon.daemon.node import Node
from pylon.home import Home, read_secret, write_private

TOKEN_NAME = "api.token"            # among the home's secrets


def attach(node: Node) -> None:
    """Start the endpoint inside the daemon; a step of its start. Raises ConfigError, PortTaken."""
    assert node.customer is not None
    shop = node.customer.shop
    endpoint = open_endpoint(node.config, node.home, node.registry, partial(submit, shop),
                             partial(follow, shop))
    endpoint.start()
    node.add_part("api", lambda deadline: endpoint.stop())
    node.facts["api"] = lambda: {"host": endpoint.host, "port": endpoint.port}


def open_endpoint(config: Any, home: Home, registry: Any, submit: Submit, follow: Follow,
                  bind: str | None = None) -> Endpoint:
    """An endpoint that is not started yet. Raises ConfigError."""
    where = bind or config.api.bind
    market = Market(submit, follow, config.customer.timeout_secs) if config.api.buy else None
    return Endpoint(where, Local(registry), market, token(config, home, where))


def token(config: Any, home: Home, bind: str) -> str | None:
    """The bearer token, made when it is needed and missing; None where none is needed."""
    if config.api.token_file:
        return read_secret(config.api.token_file, home)
    place = home.secrets / TOKEN_NAME
    if place.exists():
        return read_secret(str(place), home)
    if not config.api.buy and is_loopback(bind.rpartition(":")[0].strip("[]")):
        return None
    try:
        write_private(place, secrets.token_hex(24).encode() + b"\n", replace=False)
    except FileExistsError:
        pass                        # another command of this home was faster
    return read_secret(str(place), home)
