"""Requests whose time is up before anybody decided.

- The deadline is the request's own, and time is the log's: never before its last entry, whatever the clock says.
- Nobody needs to be awake for a deadline: whoever next depends on one records what has passed. Until then a request
  that timed out still holds its reservation, so a limit that is in the way is asked again once those are released.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Protocol

from agentlattice_core.batch import Batch
from agentlattice_core.stores.base import Document
from agentlattice_core.stores.projections import action_key

__all__ = ["expire", "overdue_reservations", "resolution"]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def expire(batch: Batch) -> list[str]:
    """Record the timeout of every request whose deadline has passed. Returns their ids."""
    expired = [approval_id for approval_id, _ in _overdue(batch, batch.at)]
    for approval_id in expired:
        approval = batch.get("approval", approval_id)
        assert approval is not None
        batch.record("approval", {"system": "deadline"}, resolution(approval_id, approval, "timed_out"))
    return expired


def overdue_reservations(state: _State, at: str) -> dict[str, Decimal]:
    """What requests whose deadline has passed at `at` still hold, by limit key."""
    found: dict[str, Decimal] = {}
    for _, approval in _overdue(state, at):
        action = state.get("action", action_key(approval["agent_id"], approval["entry"])) or {}
        if action.get("charged") == "held":
            for key, amount, *_ in action["charges"]:
                found[key] = found.get(key, Decimal(0)) + Decimal(amount)
    return found


def _overdue(state: _State, at: str) -> Iterator[tuple[str, Document]]:
    for key, _ in state.scan("pending"):
        deadline, approval_id = key.split("/", 1)
        if deadline > at:
            return
        approval = state.get("approval", approval_id)
        if approval is not None:
            yield approval_id, approval


def resolution(approval_id: str, approval: Document, event: str) -> dict[str, Any]:
    """The data of an entry that ends a request."""
    return {
        "approval": approval_id,
        "event": event,
        "action": approval["action"],
        "action_type": approval["action_type"],
        "agent": approval["agent"],
        "agent_id": approval["agent_id"],
        "policy": approval["policy"],
    }
