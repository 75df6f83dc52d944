"""The ears: what agents hear from relays, and what of it may wake them.

Thread: ears. Relay threads only put verified events into its inbox. A mention or a message counts
once for ever, is fresh, is not by the agent itself or another agent of this node, and its author
and the agent have a rate, before anything is spent. Gift wraps are dated back up to two days: the
message inside says when it was written, and by whom.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from pylon.errors import InvalidMessage, PylonError
from pylon.host.agentfile import AgentFile
from pylon.host.registry import Registry
from pylon.log import short
from pylon.nostr import nip17, nip59
from pylon.nostr.event import Event
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from pylon.role import Role
from pylon.store import agents
from pylon.store.database import Database

log = logging.getLogger(__name__)

MENTION, OLD_DM, WRAP = 1, 4, nip59.WRAP
MAX_AGE_SECS = 3600                 # older words are not answered any more
AHEAD_SECS = 600
WRAP_SINCE_SECS = nip59.BACKDATED_SECS + 86400
MAX_INBOX = 2000
TEXT_CHARS = 2000
HOUR = 3600
SUBSCRIPTION = "agents"


class Ears(Role):
    """`heard(npub)` is told of every trigger that was stored."""

    def __init__(self, db: Database, registry: Registry, pool: Pool,
                 heard: Callable[[str], None]) -> None:
        super().__init__("ears")
        self._db, self._registry, self._pool, self._heard = db, registry, pool, heard
        self._inbox: deque[Event] = deque()
        self._npubs: dict[str, str] = {}            # pubkey: npub; replaced whole

    def listen(self) -> None:
        """Subscribe for all agents that there are now. Any thread."""
        everybody = [one for one in self._registry.all() if one.active]
        self._npubs = {one.pubkey: one.npub for one in everybody}
        if not everybody:
            self._pool.unsubscribe(SUBSCRIPTION)
            return
        now, people = int(time.time()), list(self._npubs)
        relays = list(dict.fromkeys(url for one in everybody for url in one.relays))
        filters = [{"kinds": [MENTION, OLD_DM], "#p": people, "since": now - MAX_AGE_SECS},
                   {"kinds": [WRAP], "#p": people, "since": now - WRAP_SINCE_SECS}]
        self._pool.subscribe(Subscription(
            SUBSCRIPTION, filters, self._on_events, wanted=self._wanted,
            relays=[*self._pool.own_urls(), *relays] if relays else None))

    def _wanted(self, event: Event) -> bool:
        return event.kind in (MENTION, OLD_DM, WRAP) and bool(self._meant(event))

    def _on_events(self, relay: str, events: list[Event]) -> None:
        room = MAX_INBOX - len(self._inbox)
        self._inbox.extend(events[:max(0, room)])
        self.wake()

    def step(self, now: int) -> None:
        while self._inbox and not self.stopping:
            event = self._inbox.popleft()
            for pubkey in self._meant(event):
                agent = self._registry.get(self._npubs.get(pubkey, ""))
                if agent is not None:
                    self._hear(agent, event, now)
        self.wait(None)

    def _meant(self, event: Event) -> list[str]:
        named = {tag[1] for tag in event.tags if tag[0] == "p" and len(tag) > 1}
        return [pubkey for pubkey in named if pubkey in self._npubs]

    def _hear(self, agent: AgentFile, event: Event, now: int) -> None:
        if agents.knows_trigger(self._db, agent.npub, event.id):
            return
        try:
            id_, kind, author, text, at = self._read(agent, event)
        except PylonError as err:
            log.debug("agent %s: event %s is not read: %s", agent.name, short(event.id), err)
            return
        row = agents.get(self._db, agent.npub)
        if row is None or agents.knows_trigger(self._db, agent.npub, id_):
            return
        why = self._objection(agent, kind, author, at, max(row.listen_since, now - MAX_AGE_SECS),
                              now)
        with self._db.transaction(durable=True) as tx:
            new = agents.add_trigger(tx, agent.npub, id_, kind, author, text[:TEXT_CHARS], now,
                                     why)
        if why is not None:
            log.debug("agent %s: %s %s does not count: %s", agent.name, kind, short(id_), why)
        elif new:
            log.info("agent %s: %s by %s", agent.name, kind, short(author))
            self._heard(agent.npub)

    def _read(self, agent: AgentFile, event: Event) -> tuple[str, str, str, str, int]:
        """(id, kind, author, text, when). Raises InvalidMessage, IdentityError."""
        if event.kind == MENTION:
            return event.id, "mention", event.pubkey, event.content, event.created_at
        keys = self._registry.keys(agent.npub)
        if event.kind == OLD_DM:
            return (event.id, "dm", event.pubkey, keys.nip04_decrypt(event.pubkey, event.content),
                    event.created_at)
        mail = nip17.parse(nip59.unwrap(keys, event))
        if agent.pubkey not in mail.recipients:
            raise InvalidMessage("the message inside is not to this agent")
        return mail.id, "dm", mail.sender, mail.text, mail.created_at

    def _objection(self, agent: AgentFile, kind: str, author: str, at: int, since: int,
                   now: int) -> str | None:
        """Why something wakes nobody, as a code; None when it may. Money comes after this."""
        if author == agent.pubkey:
            return "own"
        if author in self._npubs and self._npubs[author] not in agent.allow:
            return "neighbour"                  # two agents could talk each other poor
        if not since <= at <= now + AHEAD_SECS:
            return "old" if at < since else "future"
        if kind not in agent.triggers:
            return "not-wanted"
        if agents.triggers_of_author(self._db, agent.npub, author, now - HOUR) >= \
                agent.author_per_hour:
            return "author-rate"
        if agents.triggers_since(self._db, agent.npub, now - HOUR) >= agent.triggers_per_hour:
            return "rate"
        return None

    def leave(self) -> None:
        self._pool.unsubscribe(SUBSCRIPTION)
