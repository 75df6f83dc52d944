"""How a node hosts agents: the commands always answer, the host's threads start with the first
agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pylon.config import Config
from pylon.control.server import Peer
from pylon.daemon.inbox import Deadline
from pylon.errors import WalletError
from pylon.host import desk as desks
from pylon.host.desk import Desk
from pylon.host.host import Host
from pylon.host.registry import Registry
from pylon.wallets import external


class Hosting:
    """Of one `daemon.node.Node`. There is no host until there is an agent, nor in provider
    mode."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._registry = Registry(node.home, node.keys, node.identity.sealed)
        self._desk = Desk(node.db, self._registry, learn_funds=self._learn_funds)
        for name, handler in desks.HANDLERS.items():
            node.control.add(name, self._served(handler), asking=name in desks.ASKING)
        for name, stream in desks.STREAMS.items():
            node.control.add_stream(name, self._streamed(stream), asking=name in desks.ASKING)
        node.on_reload(self._reload)
        node.facts["host"] = lambda: self._desk.host.facts() if self._desk.host else None
        self._start_if_wanted()

    def _reload(self, config: Config) -> None:
        if self._desk.host is not None:
            self._desk.host.reload(config)

    def _served(self, handler: Callable[[Desk, dict[str, Any]], dict[str, Any]]) -> Any:
        def serve(args: dict[str, Any], peer: Peer) -> dict[str, Any]:
            answer = handler(self._desk, args)
            if handler is desks.spawn:
                self._start_if_wanted()
            return answer
        return serve

    def _streamed(self, stream: Callable[[Desk, dict[str, Any]], Iterator[Any]]) -> Any:
        return lambda args, peer: stream(self._desk, args)

    def _start_if_wanted(self) -> None:
        node = self._node
        if self._desk.host is not None or node.mode not in ("host", "both") or \
                not self._registry.all() or node.customer is None:
            return
        host = Host(node.home, node.db, node.config, self._registry, node.keys, node.pool,
                    node.payer, node.customer, node.registry, node.publisher.ring,
                    node.incoming.wake, self._sells)
        host.start()
        node.watch(*host.roles)
        node.add_part("host", lambda deadline: _stop(host, deadline))
        self._desk.host = host

    def _sells(self) -> bool:
        """Whether this node's own provider would take a job now, and has a thread for it."""
        provider = self._node.provider
        return (provider is not None and provider.admission.closed is None
                and any(worker.job_id is None for worker in provider.workers))

    def _learn_funds(self) -> None:
        """What the owner put into the wallet may be given to an agent."""
        wallet = self._node.wallet
        if wallet is None:
            return
        try:
            external.absorb(self._node.db, wallet, self._desk.now())
        except WalletError:
            return                  # then what the books know of is there


def _stop(host: Host, deadline: Deadline) -> None:
    host.stop(max(0.1, min(5.0, deadline.left())))
