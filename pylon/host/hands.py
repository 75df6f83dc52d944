"""The hands: what carries out an agent's actions, once the rules allow them.

Everything is signed here and stored in the outbox in the transaction that notes the action, so an
action that is noted is sent, and one that is sent is noted. Money goes through the payer under the
action's own key: at most once, within the tick's limits. Runs in the tick's thread, or in the
thread of the owner who approves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pylon.errors import PylonError, Refused, WalletError
from pylon.failpoints import hit
from pylon.host import budget, rules
from pylon.host.agentfile import AgentFile
from pylon.host.lookup import dm_relays
from pylon.nostr import nip17
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.relays.pool import Pool
from pylon.states import ApprovalState
from pylon.store import agents, books, invoices, outbox
from pylon.store.database import Database
from pylon.store.invoices import InvoiceRow
from pylon.units import MSATS_PER_SAT, format_sats
from pylon.wallets.payer import Payer, Proposal, decoded
from pylon.wallets.wallet import checked_invoice

NOTE = 1
SEND_SECS = 86400                   # for so long relays are offered what an agent says
APPROVAL_SECS = 86400
INVOICE_SECS = 3600
DMS_PER_HOUR, POSTS_PER_HOUR, INVOICES_PER_HOUR = 30, 20, 20
PER_HOUR = {"direct_message": DMS_PER_HOUR, "post": POSTS_PER_HOUR,
            "request_payment": INVOICES_PER_HOUR}


@dataclass(frozen=True, slots=True)
class Act:
    """One proposed action in its place."""

    agent: AgentFile
    keys: Keys
    tick_id: str
    number: int
    heard: tuple[str, ...]          # verified authors (hex) of what caused the tick
    reply_to: tuple[str, str] | None = None     # (event id, author) of a mention


class Hands:
    """Carries out actions of every agent. `ring` rings the publisher, `on_invoice` the watch."""

    def __init__(self, db: Database, pool: Pool, payer: Payer, network: str,
                 ring: Callable[[], None], on_invoice: Callable[[], None],
                 owner: Callable[[], str | None],
                 wall: Callable[[], float] = time.time) -> None:
        self._db, self._pool, self._payer, self._network = db, pool, payer, network
        self._ring, self._on_invoice, self._owner, self._wall = ring, on_invoice, owner, wall

    def act(self, act: Act, params: Any) -> dict[str, Any]:
        """Do, ask, or refuse; what became of it. Raises Refused, which is noted too."""
        try:
            action = rules.checked(params)
        except Refused as err:
            self._note(act, "unknown", "refused", err.code)
            raise
        kind = action["type"]
        try:
            verdict = rules.decide(act.agent, action, act.heard, self._owner())
            if kind == "pay_invoice" and verdict == rules.DO:
                verdict = self._payee_verdict(act.agent, action)
            self._check_pace(act.agent.npub, kind)
            if verdict == rules.ASK:
                return self._ask(act, action)
            return self._do(act, action)
        except Refused as err:
            self._note(act, kind, "refused", err.code)
            raise
        except PylonError as err:
            self._note(act, kind, "failed", err.code)
            raise Refused(err.code, str(err)) from err

    def approve(self, act: Act, action: dict[str, Any], approval_id: str) -> dict[str, Any]:
        """The owner said yes: done under the owner's word, still within the limits of its tick
        and the day. Approved is stored first, so it acts at most once."""
        with self._db.transaction(durable=True) as tx:
            if not agents.decide(tx, approval_id, ApprovalState.APPROVED, self._now()):
                raise Refused("decided", "this was approved before")
        try:
            done = self._do(act, action, decided=True)
            state, outcome = ApprovalState.DONE, "done"
        except PylonError as err:
            done = {"outcome": "failed", "code": err.code, "message": str(err)}
            state, outcome = ApprovalState.FAILED, str(err)
        with self._db.transaction(durable=True) as tx:
            agents.decide(tx, approval_id, state, self._now(), outcome[:300])
            if state == ApprovalState.FAILED:
                agents.set_action(tx, act.tick_id, act.number, "failed", self._now(),
                                  code=done["code"])
        return done

    def reject(self, row: Any) -> None:
        """The owner said no."""
        with self._db.transaction(durable=True) as tx:
            agents.decide(tx, row["id"], ApprovalState.REJECTED, self._now())
            agents.set_action(tx, row["tick_id"], row["number"], "refused", self._now(),
                              code="rejected")

    # -- before it is done --

    def _payee_verdict(self, agent: AgentFile, action: dict[str, Any]) -> str:
        """An invoice says itself whom it pays: on the list, or the owner is asked."""
        return rules.DO if rules.may_pay(agent, decoded(action["bolt11"]).payee) else rules.ASK

    def _check_pace(self, npub: str, kind: str) -> None:
        most = PER_HOUR.get(kind)
        if most is not None and agents.actions_since(self._db, npub, (kind,),
                                                     self._now() - 3600) >= most:
            raise Refused("too-often", f"{most} times {kind} in an hour are enough")

    def _ask(self, act: Act, action: dict[str, Any]) -> dict[str, Any]:
        now = self._now()
        with self._db.transaction(durable=True) as tx:
            agents.add_action(tx, act.tick_id, act.number, action["type"], "waiting", now)
            approval_id = agents.ask_owner(tx, act.agent.npub, act.tick_id, act.number,
                                           {**action, "heard": list(act.heard)}, now,
                                           now + APPROVAL_SECS)
        return {"outcome": "waiting", "approval_id": approval_id}

    # -- doing --

    def _do(self, act: Act, action: dict[str, Any], decided: bool = False) -> dict[str, Any]:
        kind = action["type"]
        if kind == "post":
            return self._post(act, action, decided)
        if kind == "direct_message":
            return self._message(act, rules.recipient(action["to"]), action["text"], kind, decided)
        if kind == "pay_invoice":
            return self._pay(act, action, decided)
        if kind == "request_payment":
            return self._request_payment(act, action, decided)
        return self._inward(act, action)

    def _post(self, act: Act, action: dict[str, Any], decided: bool) -> dict[str, Any]:
        tags = []
        if act.reply_to is not None:
            tags = [["e", act.reply_to[0], "", "root"], ["p", act.reply_to[1]]]
        note = act.keys.sign(NOTE, action["text"], tags, self._now())
        self._publish(act, "post", [(note, "agent-post", "", list(act.agent.relays))], decided)
        return {"outcome": "done", "event_id": note.id}

    def _message(self, act: Act, to: str, text: str, kind: str, decided: bool,
                 amount_msats: int = 0) -> dict[str, Any]:
        """NIP-17: one wrap to the recipient's own relays, one to ours as the copy we keep."""
        where = dm_relays(self._pool, to, act.agent.relays)
        if not where:
            raise Refused("no-dm-relays", "the recipient names no relays for direct messages "
                          "(kind 10050), so there is nowhere to leave one")
        own = act.agent.relays or self._pool.own_urls()
        mail: list[tuple[Event, str, str, list[str]]] = []
        for pubkey, wrap in nip17.build(act.keys, [to], text, self._now()):
            mail.append((wrap, "direct-message", "" if pubkey == to else ":copy",
                         where if pubkey == to else list(own)))
        self._publish(act, kind, mail, decided, amount_msats)
        return {"outcome": "done", "event_id": mail[0][0].id}

    def _publish(self, act: Act, kind: str, events: list[tuple[Event, str, str, list[str]]],
                 decided: bool, amount_msats: int = 0) -> None:
        """Note the action and store its events, in one transaction."""
        now = self._now()
        with self._db.transaction(durable=True) as tx:
            for event, purpose, suffix, relays in events:
                outbox.add(tx, event, purpose, f"{act.tick_id}:{act.number}{suffix}", relays, now,
                           now + SEND_SECS)
            if decided:
                agents.set_action(tx, act.tick_id, act.number, "done", now, events[0][0].id)
            else:
                agents.add_action(tx, act.tick_id, act.number, kind, "done", now,
                                  events[0][0].id, amount_msats=amount_msats)
        self._ring()

    def _pay(self, act: Act, action: dict[str, Any], decided: bool) -> dict[str, Any]:
        """The rules, or the owner, have allowed the payee; the limits are the store's."""
        hit("A7")
        result = self._payer.pay(Proposal(
            f"{act.tick_id}:{act.number}", books.agent_account(act.agent.npub), budget.PAY,
            action["bolt11"], budget.limits(act.agent, act.tick_id), scope=act.tick_id))
        outcome = "done" if result.paid else "waiting" if result.pending else "failed"
        now = self._now()
        with self._db.transaction(durable=True) as tx:
            if decided:
                agents.set_action(tx, act.tick_id, act.number, outcome, now)
            else:
                agents.add_action(tx, act.tick_id, act.number, "pay_invoice", outcome, now,
                                  amount_msats=result.amount_msats)
        return {"outcome": outcome, "state": result.state.value,
                "amount_msats": result.amount_msats, "fee_msats": result.fee_msats}

    def _request_payment(self, act: Act, action: dict[str, Any],
                         decided: bool) -> dict[str, Any]:
        """An invoice whose money is the agent's, in a direct message."""
        to, amount = rules.recipient(action["to"]), action["amount_sats"] * MSATS_PER_SAT
        wallet = self._payer.wallet()
        if wallet is None:
            raise Refused("no-wallet", "no wallet is open")
        if not dm_relays(self._pool, to, act.agent.relays):
            raise Refused("no-dm-relays", "the recipient names no relays for direct messages")
        try:
            made = wallet.make_invoice(amount, f"to {act.agent.name}", INVOICE_SECS,
                                       f"agent:{act.tick_id}:{act.number}")
            read = checked_invoice(made.bolt11, amount, self._network, made.payment_hash)
        except WalletError as err:
            raise Refused(err.code, str(err)) from err
        invoices.add(self._db, InvoiceRow(
            f"inv_agent_{made.payment_hash[:24]}", None, made.bolt11, made.payment_hash, amount,
            "pending", False, books.agent_account(act.agent.npub), read.created_at,
            read.expires_at, None), wallet.name, self._now())
        self._on_invoice()
        text = f"{action.get('text', '')}\nInvoice for {format_sats(amount)}: {made.bolt11}"
        return self._message(act, to, text.strip(), "request_payment", decided, amount)

    def _inward(self, act: Act, action: dict[str, Any]) -> dict[str, Any]:
        """Goals and memory: written while others' words were heard, memory stays marked."""
        now, npub = self._now(), act.agent.npub
        with self._db.transaction(durable=False) as tx:
            if action["type"] == "add_memory":
                agents.remember(tx, npub, {"type": "note", "content": action["text"],
                                           "tainted": bool(act.heard)}, now)
            elif action["type"] == "update_goal":
                row = tx.execute("SELECT goals_json FROM agents WHERE npub = ?",
                                 (npub,)).fetchone()
                goals = json.loads(row["goals_json"] or "[]")
                agents.set_goals(tx, npub, _updated(goals, action, bool(act.heard), now), now)
            agents.add_action(tx, act.tick_id, act.number, action["type"], "done", now)
        return {"outcome": "done"}

    def _note(self, act: Act, kind: str, outcome: str, code: str) -> None:
        with self._db.transaction(durable=False) as tx:
            if not tx.execute("SELECT 1 FROM tick_actions WHERE tick_id = ? AND number = ?",
                              (act.tick_id, act.number)).fetchone():
                agents.add_action(tx, act.tick_id, act.number, kind, outcome, self._now(),
                                  code=code)

    def _now(self) -> int:
        return int(self._wall())


def _updated(goals: list[dict[str, Any]], action: dict[str, Any], tainted: bool,
             now: int) -> list[dict[str, Any]]:
    """Goals with one changed. Only the owner adds goals: an unknown one is refused."""
    wanted = action["goal"].strip().lower()
    found = [one for one in goals if wanted in (one["id"], one["description"].lower())]
    if not found:
        raise Refused("unknown-goal", "the agent has no such goal; only its owner gives it goals")
    for one in found[:1]:
        one |= {name: action[name] for name in ("status", "progress") if name in action}
    return goals


def heard_of(action: dict[str, Any]) -> tuple[dict[str, Any], Collection[str]]:
    """A stored approval's action, and whom the agent had heard when it proposed it."""
    plain = {name: value for name, value in action.items() if name != "heard"}
    return plain, tuple(action.get("heard", ()))
