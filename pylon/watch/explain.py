"""The story of one job, order, payment or tick, from the journal: one line a step. Reads only."""

from __future__ import annotations

import json
import time
from typing import Any

from pylon.errors import PylonError
from pylon.log import clean
from pylon.units import format_duration, format_sats

MIN_PREFIX = 4

# Journal type -> sentence; {name} is a field of its data, {name:sats} one in msats.
SENTENCES: dict[str, str] = {
    "JobReceived": "received: kind {kind}, model {model}, from {customer_pubkey:id}",
    "JobRefused": "refused ({code}): {reason}",
    "InvoiceCreated": "quoted {amount_msats:sats}; payment hash {payment_hash:id}",
    "InvoiceExpired": "the invoice was not paid in time; its hash is still watched",
    "PaymentReceived": "the wallet shows {amount_msats:sats} for hash {payment_hash:id}: booked",
    "PaymentHeld": "the wallet holds the payment (hash {payment_hash:id}); nothing is booked yet",
    "JobStarted": "started with {model}, attempt {attempt}",
    "JobInterrupted": "interrupted ({reason}); back in the queue",
    "JobCompleted": "answered by {backend}: {completion_tokens} tokens in {duration_ms} ms; the "
                    "result is signed and stored",
    "ResultDelivered": "delivered: {relay} has accepted the result",
    "JobFailed": "given up ({code}): {reason}",
    "JobCancelled": "cancelled by the customer",
    "MoneyOwed": "{amount_msats:sats} are owed to the customer ({code})",
    "OwedSettled": "the debt is settled: {state}",
    "HoldReleased": "the held payment went back to the customer",
    "OrderSubmitted": "ordered: kind {kind}, model {model}, policy {policy}; pays at most "
                      "{max_msats:sats} by itself",
    "OrderSent": "sent: a relay has accepted it",
    "OrderAskedNext": "sent to the next provider, {provider:id}",
    "OrderAuthorised": "its owner allows {max_msats:sats}",
    "OfferReceived": "{provider:id} works on it without a price",
    "QuoteReceived": "{provider:id} asks {amount_msats:sats}; payment hash {payment_hash:id}",
    "ProviderRefused": "{provider:id} is out ({code}): {reason}",
    "ReplyRefused": "a message of {provider:id} does not count ({code}): {reason}",
    "QuoteChosen": "chosen: {provider:id} for {amount_msats:sats}; {why}",
    "OrderPaymentFailed": "not paid to {provider:id} ({code}): {reason}",
    "OrderPaid": "paid {amount_msats:sats} to {provider:id}, fee {fee_msats:sats}",
    "ResultReceived": "a result of {provider:id} came: {chars} characters",
    "OrderCompleted": "completed by {provider:id} after {duration_secs} s",
    "OrderFailed": "failed ({code}): {reason}",
    "OrderExpired": "expired ({code}): {reason}",
    "OrderCancelled": "cancelled by its owner",
    "TickStarted": "began: {trigger}",
    "TickEnded": "{state} after {duration_ms} ms: {actions} actions, {cost_msats:sats} spent "
                 "({code})",
    "AgentActed": "{type}: {outcome}, event {event_id:id}",
    "AgentActionHeld": "{type}: {outcome} ({code})",
    "AgentActionDecided": "action {number}: {outcome} ({code})",
    "AgentSpawned": "spawned as {name}",
    "AgentStateChanged": "{state}: {runway}",
    "AgentPaused": "paused by its owner",
    "AgentResumed": "started by its owner",
}


class _Line(dict[str, Any]):
    """The data of a journal line, for str.format_map; a missing field shows as '?'."""

    def __missing__(self, key: str) -> Any:
        return _Shown("?")

    def __getitem__(self, key: str) -> Any:
        return _Shown(self.get(key)) if key in self else self.__missing__(key)


class _Shown:
    """One value with our own format words."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        if spec == "sats" and isinstance(self.value, int):
            return format_sats(self.value)
        text = "none" if self.value is None else clean(str(self.value))
        return text[:8] if spec == "id" else text


def find(db: Any, subject: str) -> str:
    """The full subject for what a person typed. Raises PylonError (unknown, ambiguous)."""
    if len(subject) < MIN_PREFIX:
        raise PylonError(f"{subject!r} is too short; give at least {MIN_PREFIX} characters")
    rows = db.query("SELECT DISTINCT subject FROM journal WHERE subject >= ? AND subject < ? "
                    "LIMIT 3", (subject, subject + "\x7f"))
    if not rows:
        raise PylonError(f"nothing is known of {subject!r}; ids stand in `pylon job list`, "
                         "`pylon earnings` and `pylon logs`")
    if len(rows) > 1 and rows[0]["subject"] != subject:
        raise PylonError(f"{subject!r} could be several; give more of it")
    return str(rows[0]["subject"])


def story(db: Any, subject: str) -> list[dict[str, Any]]:
    """Steps `{at, type, text, data}`, oldest first."""
    return [{"at": row["at"], "type": row["type"], "data": json.loads(row["data"]),
             "text": sentence(row["type"], json.loads(row["data"]))}
            for row in db.query("SELECT at, type, data FROM journal WHERE subject = ? "
                                "ORDER BY id", (subject,))]


def sentence(type_: str, data: dict[str, Any]) -> str:
    """One line of the story, in words."""
    known = SENTENCES.get(type_)
    if known is not None:
        return known.format_map(_Line(data))
    facts = ", ".join(f"{name} {clean(str(value))}" for name, value in data.items())
    return f"{type_}: {facts}" if facts else type_


def render(steps: list[dict[str, Any]]) -> str:
    """The story as text: local time, seconds since the step before, the sentence."""
    lines, before = [], None
    for step in steps:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(step["at"]))
        gap = f"+{format_duration(step['at'] - before)}" if before is not None else ""
        lines.append(f"{clock}  {gap:>8}  {step['text']}")
        before = step["at"]
    return "\n".join(lines)
