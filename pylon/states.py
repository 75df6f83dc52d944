"""Every state that is stored, and every legal step from one to the next.

A leaf: imports nothing of the project. The store copies EDGES into the database, where triggers
refuse every other step; `recover` in the roles knows what each state left behind by SIGKILL means.

Being paid (one job):

    born RECEIVED (a price is due), FREE (none is), GATHERING, or REJECTED (with a code)
    GATHERING -> RECEIVED | FREE | REJECTED         its inputs are events that must be fetched
    RECEIVED -> INVOICING -> QUOTED                 intent stored, wallet asked, invoice published
    QUOTED -> PAID                                  the wallet shows the money (booked here)
    QUOTED -> HELD                                  the wallet holds the money (nothing booked)
    QUOTED -> EXPIRED -> PAID | OWED                late money is served if it can be, else owed
    QUOTED -> CANCELLED -> OWED                     cancelled before payment; late money is owed
    FREE | PAID | HELD -> RUNNING                   a worker has it
    RUNNING -> FREE | PAID | HELD                   interrupted: back where it came from
    RUNNING -> DONE                                 the signed result stands in the outbox
    RUNNING -> FAILED | OWED | CANCELLING           given up: free, paid, held
    DONE -> DELIVERED                               a relay has accepted the result
    DELIVERED -> SETTLING -> SETTLED                held money is taken (booked here)
    CANCELLING -> CANCELLED                         held money went back: nobody lost anything
    OWED -> REFUNDED | WAIVED                       the owner settled it

Paying (one intent):

    RESERVED -> SENT -> SUCCEEDED | FAILED | UNKNOWN -> SUCCEEDED | FAILED

Buying (one order of ours):

    NEW -> SENT                                     stored and signed; a relay has accepted it
    SENT -> ACCEPTED                                a priced quote was chosen: it will be paid
    ACCEPTED -> SENT                                that payment failed for certain: choose again
    ACCEPTED -> PAID                                the wallet says that it is paid
    SENT | ACCEPTED | PAID -> COMPLETED             free, held or paid: the result is stored
    NEW | SENT -> CANCELLED                         nothing was promised to anybody
    any open state -> FAILED | EXPIRED              from PAID: the provider owes us
    FAILED | EXPIRED -> COMPLETED                   a late result is still a result
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class _Word(str, Enum):
    def __str__(self) -> str:
        return self.value


class JobStage(_Word):
    RECEIVED = "received"
    GATHERING = "gathering"
    REJECTED = "rejected"
    FREE = "free"
    INVOICING = "invoicing"
    QUOTED = "quoted"
    EXPIRED = "expired"
    PAID = "paid"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    DELIVERED = "delivered"
    SETTLING = "settling"
    SETTLED = "settled"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    OWED = "owed"
    REFUNDED = "refunded"
    WAIVED = "waived"


class PaymentState(_Word):
    RESERVED = "reserved"
    SENT = "sent"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class OrderState(_Word):
    NEW = "new"
    SENT = "sent"
    ACCEPTED = "accepted"
    PAID = "paid"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AgentState(_Word):
    SPAWNING = "spawning"
    ACTIVE = "active"
    LOW_BALANCE = "low_balance"
    HIBERNATING = "hibernating"
    DORMANT = "dormant"


class TickState(_Word):
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class ApprovalState(_Word):
    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DONE = "done"
    FAILED = "failed"


J, P, O, A, T = JobStage, PaymentState, OrderState, AgentState, TickState

JOB_EDGES: dict[JobStage, tuple[JobStage, ...]] = {
    J.RECEIVED: (J.REJECTED, J.INVOICING, J.CANCELLED),
    J.GATHERING: (J.REJECTED, J.FREE, J.RECEIVED, J.CANCELLED),
    J.INVOICING: (J.QUOTED, J.REJECTED, J.CANCELLED),
    J.QUOTED: (J.PAID, J.HELD, J.EXPIRED, J.CANCELLED, J.OWED),
    J.EXPIRED: (J.PAID, J.HELD, J.OWED),
    J.CANCELLED: (J.OWED,),
    J.FREE: (J.RUNNING, J.FAILED, J.CANCELLED),
    J.PAID: (J.RUNNING, J.OWED),
    J.HELD: (J.RUNNING, J.CANCELLING, J.PAID),
    J.RUNNING: (J.FREE, J.PAID, J.HELD, J.DONE, J.FAILED, J.OWED, J.CANCELLING, J.CANCELLED),
    J.DONE: (J.DELIVERED, J.FAILED, J.OWED, J.CANCELLING),
    J.DELIVERED: (J.SETTLING, J.OWED),
    J.SETTLING: (J.SETTLED, J.CANCELLED),
    J.CANCELLING: (J.CANCELLED, J.OWED),
    J.OWED: (J.REFUNDED, J.WAIVED),
    J.REJECTED: (J.OWED,),
    J.SETTLED: (), J.FAILED: (), J.REFUNDED: (), J.WAIVED: (),
}

PAYMENT_EDGES: dict[PaymentState, tuple[PaymentState, ...]] = {
    P.RESERVED: (P.SENT, P.FAILED),
    P.SENT: (P.SUCCEEDED, P.FAILED, P.UNKNOWN),
    P.UNKNOWN: (P.SUCCEEDED, P.FAILED),
    P.SUCCEEDED: (), P.FAILED: (),
}

ORDER_EDGES: dict[OrderState, tuple[OrderState, ...]] = {
    O.NEW: (O.SENT, O.FAILED, O.CANCELLED, O.EXPIRED),
    O.SENT: (O.ACCEPTED, O.COMPLETED, O.FAILED, O.CANCELLED, O.EXPIRED),
    O.ACCEPTED: (O.SENT, O.PAID, O.COMPLETED, O.FAILED, O.EXPIRED),
    O.PAID: (O.COMPLETED, O.FAILED, O.EXPIRED),
    O.COMPLETED: (), O.FAILED: (O.COMPLETED,), O.EXPIRED: (O.COMPLETED,), O.CANCELLED: (),
}

_AGENT_LIVE = (A.ACTIVE, A.LOW_BALANCE, A.HIBERNATING, A.DORMANT)
AGENT_EDGES: dict[AgentState, tuple[AgentState, ...]] = {
    A.SPAWNING: _AGENT_LIVE,
    **{state: tuple(s for s in _AGENT_LIVE if s != state) for state in _AGENT_LIVE},
}

TICK_EDGES: dict[TickState, tuple[TickState, ...]] = {
    T.STARTED: (T.SUCCEEDED, T.FAILED, T.INTERRUPTED),
    T.SUCCEEDED: (), T.FAILED: (), T.INTERRUPTED: (),
}

_W = ApprovalState
APPROVAL_EDGES: dict[ApprovalState, tuple[ApprovalState, ...]] = {
    _W.WAITING: (_W.APPROVED, _W.REJECTED, _W.EXPIRED),
    _W.APPROVED: (_W.DONE, _W.FAILED),          # approved is stored first: it acts at most once
    _W.REJECTED: (), _W.EXPIRED: (), _W.DONE: (), _W.FAILED: (),
}

EDGES: dict[str, Mapping[Any, tuple[Any, ...]]] = {
    "job": JOB_EDGES, "payment": PAYMENT_EDGES, "order": ORDER_EDGES, "agent": AGENT_EDGES,
    "tick": TICK_EDGES, "approval": APPROVAL_EDGES}

# The public word of each stage, as the first Pylon's `jobs.status` column has it.
PUBLIC_STATUS: dict[JobStage, str] = {
    J.RECEIVED: "pending", J.GATHERING: "pending", J.INVOICING: "pending", J.QUOTED: "pending",
    J.FREE: "processing", J.PAID: "processing", J.HELD: "processing", J.RUNNING: "processing",
    J.DONE: "completed", J.DELIVERED: "completed", J.SETTLING: "completed",
    J.SETTLED: "completed",
    J.REJECTED: "failed", J.FAILED: "failed", J.OWED: "failed", J.REFUNDED: "failed",
    J.WAIVED: "failed",
    J.EXPIRED: "cancelled", J.CANCELLING: "cancelled", J.CANCELLED: "cancelled",
}

CLAIMABLE = (J.HELD, J.PAID, J.FREE)        # a worker may take these; money goes first
OPEN_ORDERS = (O.NEW, O.SENT, O.ACCEPTED, O.PAID)
OPEN_STAGES = (J.RECEIVED, J.GATHERING, J.INVOICING, J.QUOTED, J.FREE, J.PAID, J.HELD, J.RUNNING,
               J.DONE, J.SETTLING, J.CANCELLING)
