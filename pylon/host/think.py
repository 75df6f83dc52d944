"""Thinking: how an agent's `infer` is answered, and paid for, within the limits of its tick.

Three sources. `auto`: this node's own provider, at its own price, settled in the books without
Lightning; where it cannot, the market. `market`: an order like anybody's, from the agent's account.
`local`: the node's backends for nothing, by the owner's leave. Runs in the tick's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylon.backends import tokens
from pylon.backends.completion import Completion, Prompt
from pylon.backends.registry import Registry
from pylon.config import Config
from pylon.customer.buyer import Terms
from pylon.customer.draft import Draft
from pylon.customer.order import Orders
from pylon.errors import BackendError, Refused
from pylon.host import budget
from pylon.host.agentfile import AgentFile
from pylon.nostr.keys import Keys
from pylon.provider import pricing
from pylon.states import OrderState
from pylon.store import books, payments
from pylon.store.database import Database
from pylon.store.orders import OrderRow
from pylon.store.payments import Intent
from pylon.units import MSATS_PER_SAT

MAX_MESSAGES = 20
MAX_PROMPT_CHARS = 16_000
ROLES = ("system", "user", "assistant")
QUOTE_SECS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """One `infer`, checked."""

    messages: list[dict[str, str]]
    max_tokens: int
    model: str | None
    max_msats: int | None
    json_schema: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Thought:
    """One answer. Amounts in msats."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_msats: int


def question(params: Any, agent: AgentFile) -> Question:
    """What a runner asks. Raises Refused (`bad-params`)."""
    if not isinstance(params, dict):
        raise Refused("bad-params", "the parameters of infer are an object")
    unknown = set(params) - {"prompt", "messages", "max_tokens", "model", "max_msats",
                             "json_schema"}
    if unknown:
        raise Refused("bad-params", f"infer has no parameter {sorted(unknown)[0][:40]!r}")
    messages = _messages(params)
    most = params.get("max_tokens", agent.max_tokens)
    if type(most) is not int or most < 1:
        raise Refused("bad-params", "max_tokens must be a whole number from 1")
    model, limit = params.get("model") or agent.model or None, params.get("max_msats")
    if model is not None and (not isinstance(model, str) or len(model) > 200):
        raise Refused("bad-params", "model must be a name")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise Refused("bad-params", "max_msats must be a whole number")
    shape = params.get("json_schema")
    if shape is not None and not isinstance(shape, dict):
        raise Refused("bad-params", "json_schema must be an object")
    return Question(messages, min(most, agent.max_tokens), model, limit, shape)


def _messages(params: dict[str, Any]) -> list[dict[str, str]]:
    found = params.get("messages", [{"role": "user", "content": params.get("prompt")}])
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_MESSAGES:
        raise Refused("bad-params", f"messages must be a list of 1 to {MAX_MESSAGES}")
    for one in found:
        if (not isinstance(one, dict) or set(one) != {"role", "content"}
                or one["role"] not in ROLES or not isinstance(one["content"], str)):
            raise Refused("bad-params", "a message has a role (system, user, assistant) and a "
                          "content")
    if not any(one["content"].strip() for one in found):
        raise Refused("bad-params", "there is no prompt")
    if sum(len(one["content"]) for one in found) > MAX_PROMPT_CHARS:
        raise Refused("prompt-too-long", f"a prompt has at most {MAX_PROMPT_CHARS} characters")
    return found


class Thinker:
    """Answers the `infer` of every agent. `sells()` says whether the own provider would."""

    def __init__(self, db: Database, config: Callable[[], Config], registry: Registry,
                 orders: Orders, node_pubkey: str, sells: Callable[[], bool],
                 wall: Callable[[], float] = time.time) -> None:
        self._db, self._config, self._registry, self._orders = db, config, registry, orders
        self._node_pubkey, self._sells, self._wall = node_pubkey, sells, wall

    def think(self, agent: AgentFile, keys: Keys, tick_id: str, number: int, asked: Question,
              deadline: float) -> Thought:
        """Raises Refused, BackendError."""
        if agent.source == "local":
            return self._thought(self._complete(asked, deadline), asked, 0)
        if agent.source == "auto" and self._sells() and self._has_model(asked):
            return self._buy_here(agent, tick_id, number, asked, deadline)
        return self._buy_outside(agent, keys, tick_id, asked, deadline)

    def _has_model(self, asked: Question) -> bool:
        try:
            self._registry.choose(asked.model)
        except (Refused, BackendError):
            return False
        return True

    def _complete(self, asked: Question, deadline: float) -> Completion:
        return self._registry.complete(
            Prompt(asked.messages, asked.max_tokens, json_schema=asked.json_schema), asked.model,
            deadline=deadline)

    def _thought(self, done: Completion, asked: Question, cost_msats: int) -> Thought:
        prompt_tokens = done.prompt_tokens or tokens.at_most_in(asked.messages)
        return Thought(done.text, done.model, prompt_tokens,
                       done.completion_tokens or tokens.at_most(done.text), cost_msats)

    # -- from this node's own provider --

    def _buy_here(self, agent: AgentFile, tick_id: str, number: int, asked: Question,
                  deadline: float) -> Thought:
        """Money reserved first, moved when the answer is there, given back when none comes."""
        _, model = self._registry.choose(asked.model)
        price = pricing.rate_for(self._config(), model).price(
            tokens.at_most_in(asked.messages), asked.max_tokens, False)
        if not self._config().require_payment:
            price = 0
        if asked.max_msats is not None and price > asked.max_msats:
            raise Refused("amount-too-large", f"it would cost {price} msats, more than the "
                          f"{asked.max_msats} that the runner allows")
        if price == 0:
            return self._thought(self._complete(asked, deadline), asked, 0)
        name = f"{tick_id}:infer:{number}"
        row = payments.reserve(
            self._db, Intent(name, books.agent_account(agent.npub), budget.INFER,
                             payments.INTERNAL, "", f"internal:{name}", price, 0, None, tick_id,
                             self._node_pubkey),
            budget.limits(agent, tick_id), self._now())
        try:
            done = self._complete(asked, deadline)
        except BaseException as err:
            payments.fail(self._db, row.id, f"no answer: {type(err).__name__}", self._now())
            raise
        with self._db.transaction(durable=True) as tx:
            payments.settle_trade(tx, row.id, books.PROVIDER, self._now())
        return self._thought(done, asked, price)

    # -- from the market --

    def _buy_outside(self, agent: AgentFile, keys: Keys, tick_id: str, asked: Question,
                     deadline: float) -> Thought:
        most = agent.per_tick_limit_sats * MSATS_PER_SAT
        if asked.max_msats is not None:
            most = min(most, asked.max_msats)
        left = int(deadline - time.monotonic())
        if left < 2:
            raise Refused("too-late", "the tick is almost over")
        order_id = self._orders.submit(
            Draft(flat(asked.messages), model=asked.model, max_tokens=asked.max_tokens,
                  bid_msats=most or None, max_msats=most, quote_secs=min(QUOTE_SECS, left),
                  timeout_secs=left, relays=list(agent.relays)),
            keys, books.agent_account(agent.npub), tick_id)
        order = self._orders.outcome(order_id, left)
        if order.state != OrderState.COMPLETED or order.result is None:
            raise Refused(order.code or "no-answer",
                          order.error_message or "nobody answered in time")
        paid = payments.by_action(self._db, order_id)
        cost = paid.amount_msats + (paid.fee_msats or 0) if paid and paid.fee_msats is not None \
            else 0
        return Thought(order.result, asked.model or "", tokens.at_most_in(asked.messages),
                       tokens.at_most(order.result), cost)

    def terms(self, agent: AgentFile | None, order: OrderRow) -> Terms:
        """Under which an agent's orders are paid: those of its tick."""
        tick_id = str(order.details.get("scope") or "")
        if agent is None or not tick_id:
            return Terms(limits=budget.Limits(action_msats=0))
        return Terms(budget.INFER, tick_id, budget.limits(agent, tick_id))

    def _now(self) -> int:
        return int(self._wall())


def flat(messages: list[dict[str, str]]) -> str:
    """A chat as one prompt, for the market, whose jobs have one input."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(one["content"] if one["role"] == "system"
                       else f"{one['role'].capitalize()}: {one['content']}" for one in messages)


def recover(db: Database, now: int) -> int:
    """Before the first tick: trades inside the node that a crash cut off are given back."""
    cut = [row for row in payments.open_intents(db)
           if row.wallet == payments.INTERNAL and row.purpose == budget.INFER]
    for row in cut:
        payments.release_unsent(db, row.id, now)
    return len(cut)
