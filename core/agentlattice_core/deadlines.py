"""What falls due by itself: requests that nobody decided, escalations, grants that nobody used.

- Time is the log's: never before its last entry, whatever the clock says.
- Nothing depends on being recorded in time. Whoever decides, claims or reserves computes what is over; recording it is
  the scheduler's part, or that of whoever depends on one.
- What is recorded is found in the transaction that records it, so no two processes record one thing twice.
- A request past its deadline and a grant past its life still hold what they reserved until that is recorded; a limit
  that is in the way is asked again once those are released.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Protocol

from agentlattice_core.batch import Batch
from agentlattice_core.stores.base import Document
from agentlattice_core.stores.projections import action_key

__all__ = ["GRANT_LIFE", "expire", "next_due", "overdue_reservations", "resolution", "settle"]

GRANT_LIFE = timedelta(hours=24)
"""How long an approval may stay unused."""

_SYSTEM = {"system": "deadline"}


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def settle(batch: Batch, limit: int | None = None) -> int:
    """Record what has fallen due, the earliest first, at most `limit` things (None: all). Returns how many."""
    overdue = list(islice(_overdue(batch, batch.at), limit))
    for what, approval_id, approval in overdue:
        _record(batch, what, approval_id, approval)
    return len(overdue)


def expire(batch: Batch, approval_id: str) -> None:
    """Record the timeout of one request if its deadline has passed and nobody has."""
    approval = batch.get("approval", approval_id)
    if approval is not None and approval["status"] == "pending" and approval["timeout_at"] <= batch.at:
        _record(batch, "timeout", approval_id, approval)


def next_due(state: _State) -> str | None:
    """The time of the log at which something falls due next, or None if nothing waits."""
    firsts = [key for kind in ("pending", "due") for key, _ in islice(state.scan(kind), 1)]
    return min((key.split("/", 1)[0] for key in firsts), default=None)


def overdue_reservations(state: _State, at: str) -> dict[str, Decimal]:
    """What is still held at `at` by requests whose deadline has passed and by grants that lapsed, by limit key."""
    found: dict[str, Decimal] = {}
    for what, _, approval in _overdue(state, at):
        action = state.get("action", action_key(approval["agent_id"], approval["entry"])) or {}
        if what != "escalate" and action.get("charged") == "held":
            for key, amount, *_ in action["charges"]:
                found[key] = found.get(key, Decimal(0)) + Decimal(amount)
    return found


def _overdue(state: _State, at: str) -> Iterator[tuple[str, str, Document]]:
    """What has fallen due: timeouts first, because a request that is over is not escalated."""
    over: set[str] = set()
    for key, _ in state.scan("pending"):
        deadline, approval_id = key.split("/", 1)
        if deadline > at:
            break
        approval = state.get("approval", approval_id)
        if approval is not None:
            over.add(approval_id)
            yield "timeout", approval_id, approval
    for key, _ in state.scan("due"):
        when, what, approval_id = key.split("/", 2)
        if when > at:
            return
        approval = state.get("approval", approval_id)
        if approval is not None and approval_id not in over:
            yield what, approval_id, approval


def _record(batch: Batch, what: str, approval_id: str, approval: Document) -> None:
    if what == "timeout":
        batch.record("approval", _SYSTEM, resolution(approval_id, approval, "timed_out"))
    elif what == "escalate":
        data = resolution(approval_id, approval, "escalated")
        batch.record("approval", _SYSTEM, {**data, "escalate_to": approval["escalate_to"]})
    else:
        data = {
            "action": approval["action"],
            "agent_id": approval["agent_id"],
            "entry": approval["entry"],
            "event": "lapsed",
            "approval": approval_id,
        }
        batch.record("claim", _SYSTEM, data)


def resolution(approval_id: str, approval: Document, event: str) -> dict[str, Any]:
    """What the entry of every step of a request says, but for who took it and why."""
    return {
        "approval": approval_id,
        "event": event,
        "action": approval["action"],
        "action_type": approval["action_type"],
        "agent": approval["agent"],
        "agent_id": approval["agent_id"],
        "policy": approval["policy"],
    }
