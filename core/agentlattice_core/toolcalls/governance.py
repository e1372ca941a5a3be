"""What the gate needs of the client, and nothing else.

`AgentLattice` offers all of it. Each method exists twice: `name` is a coroutine function, `name_sync` its blocking
twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from agentlattice_core.results import ActionOptions, ActionResult, ApprovalRequest

__all__ = ["DecidingClient", "GovernanceClient"]


class DecidingClient(Protocol):
    """The part of a client that decides for a person: what `AgentLattice.for_operator` gives."""

    def approve_action_sync(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """Approve a request as this operator."""
        ...

    async def approve_action(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """As `approve_action_sync`."""
        ...

    def deny_action_sync(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """Deny a request as this operator."""
        ...

    async def deny_action(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """As `deny_action_sync`."""
        ...


class GovernanceClient(Protocol):
    """The part of the client that decides on tool calls and records them.

    An allowed action comes back `executed` with `claim == "started"`: the caller holds the right to run it once. A
    known event id comes back with the original answer, `replayed`, and the claim's present state.
    """

    @property
    def mode(self) -> str:
        """`enforce`, or `observe`: decide and record, and let everything run."""
        ...

    def execute_sync(
        self,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
    ) -> ActionResult:
        """Decide on an action, record it, and claim it if it is allowed."""
        ...

    async def execute(
        self,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
    ) -> ActionResult:
        """As `execute_sync`."""
        ...

    def await_approval_sync(self, approval_id: str, timeout: float | None = None) -> ActionResult:
        """Wait for a person, at most `timeout` seconds, and claim the action if it was approved."""
        ...

    async def await_approval(self, approval_id: str, timeout: float | None = None) -> ActionResult:  # noqa: ASYNC109
        """As `await_approval_sync`."""
        ...

    def claim_sync(self, audit_event_id: str) -> ActionResult:
        """Claim an action that a person has approved meanwhile; `requested` while nobody has decided."""
        ...

    async def claim(self, audit_event_id: str) -> ActionResult:
        """As `claim_sync`."""
        ...

    def cancel_sync(self, audit_event_id: str, reason: str | None = None) -> None:
        """Take back a request that still waits for a person. Raises IllegalTransitionError if none does."""
        ...

    async def cancel(self, audit_event_id: str, reason: str | None = None) -> None:
        """As `cancel_sync`."""
        ...

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        """Note how a claimed action went (`succeeded`, `failed`, `unknown`), without waiting for the disk."""
        ...

    def record_refusal_sync(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """Record an attempt that was refused before policy could be asked; the answer is `denied`."""
        ...

    async def record_refusal(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """As `record_refusal_sync`."""
        ...
