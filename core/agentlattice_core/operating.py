"""What persons do with a client: decide on requests, manage people, put policy into force.

- Every method needs an operator's client, and which role it takes is decided in the transaction that does it.
- As in the rest of the client, each exists as a coroutine function and as a blocking twin named `*_sync`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from agentlattice_core import admission, approvals, operators
from agentlattice_core.agents import operator_named
from agentlattice_core.batch import Batch
from agentlattice_core.clock import time_of_log
from agentlattice_core.errors import AgentLatticeError, InvalidRequestError
from agentlattice_core.principals import Forever, Operator, Role
from agentlattice_core.remote import requests
from agentlattice_core.results import ApprovalRequest, PolicyRehearsal
from agentlattice_core.session import PolicySource, Session, read_sources
from agentlattice_core.stores.base import Reader
from agentlattice_core.work import Command, Reading, Work

__all__ = ["Operating"]


class Operating(Session):
    """The operator's part of a client. Use `AgentLattice`."""

    # Deciding

    async def list_pending_approvals(self) -> list[ApprovalRequest]:
        """What waits for a person, the nearest deadline first. For operators."""
        return await self._pending().run_async()

    def list_pending_approvals_sync(self) -> list[ApprovalRequest]:
        """As `list_pending_approvals`."""
        return self._pending().run()

    def _pending(self) -> Work[list[ApprovalRequest]]:
        service = self._remote
        if service is not None:
            return service.all_of(requests.pending)
        operator, clock = self._deciding(), self._engine.clock

        def look(reader: Reader) -> list[ApprovalRequest]:
            operators.standing(reader, operator)
            return approvals.pending(reader, time_of_log(clock, reader.head.at))

        return Reading(self._engine, look)

    async def approve_action(
        self,
        approval_id: str,
        reason: str | None = None,
        *,
        digest: str | None = None,
        forever: Forever | None = None,
    ) -> ApprovalRequest:
        """Approve a request; it is approved once every set of approvers has its quorum. For operators.

        `digest` is that of the request as it was shown. `forever` asks an administrator to lift the policy that asked,
        for everybody (`policy`) or for the asking agent (`agent`), once the whole quorum has said so; the answer's
        `forever` says whether that happened. Raises NotFoundError, ForbiddenError, DigestMismatchError,
        IllegalTransitionError.
        """
        return await self._decision(approval_id, True, reason, digest, forever).run_async()

    def approve_action_sync(
        self,
        approval_id: str,
        reason: str | None = None,
        *,
        digest: str | None = None,
        forever: Forever | None = None,
    ) -> ApprovalRequest:
        """As `approve_action`."""
        return self._decision(approval_id, True, reason, digest, forever).run()

    async def deny_action(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """Deny a request; one denial ends it, and `reason` goes back to the agent. For operators."""
        return await self._decision(approval_id, False, reason, digest, None).run_async()

    def deny_action_sync(
        self, approval_id: str, reason: str | None = None, *, digest: str | None = None
    ) -> ApprovalRequest:
        """As `deny_action`."""
        return self._decision(approval_id, False, reason, digest, None).run()

    def _decision(
        self,
        approval_id: str,
        approve: bool,
        reason: str | None,
        digest: str | None,
        forever: Forever | None,
    ) -> Work[ApprovalRequest]:
        admission.check_id("approval", approval_id)
        if reason is not None:
            admission.checked_text("reason", reason)
        if forever is not None and forever not in get_args(Forever):
            raise InvalidRequestError(
                f"forever `{forever!s:.80}` must be one of {', '.join(get_args(Forever))}"
            )
        service = self._remote
        if service is not None:
            verdict = "approve" if approve else "deny"
            return service.work(requests.decide(approval_id, verdict, reason, digest, forever))
        operator, in_force = self._deciding(), self._engine.policies
        return Command(
            self._engine,
            lambda batch: approvals.decide(
                in_force,
                batch,
                operator,
                approval_id,
                approve=approve,
                reason=reason,
                digest=digest,
                forever=forever,
            ),
        )

    # People

    async def operators(self) -> list[Operator]:
        """Everybody who is registered, by name; empty as long as operators are who the process says."""
        return await self._people().run_async()

    def operators_sync(self) -> list[Operator]:
        """As `operators`."""
        return self._people().run()

    def _people(self) -> Work[list[Operator]]:
        service = self._remote
        if service is not None:
            return service.all_of(requests.operators)
        return Reading(self._engine, operators.registered)

    async def register_operator(
        self, operator: str, *, role: Role = "member", groups: Iterable[str] = ()
    ) -> None:
        """Register a person, or change their role and groups. For administrators.

        From the first one on, role and groups are what the log says, and nobody else may decide. Raises
        InvalidRequestError, ForbiddenError, and IllegalTransitionError if no administrator would be left.
        """
        await self._registration(operator, role, groups).run_async()

    def register_operator_sync(
        self, operator: str, *, role: Role = "member", groups: Iterable[str] = ()
    ) -> None:
        """As `register_operator`."""
        self._registration(operator, role, groups).run()

    def _registration(self, operator: str, role: Role, groups: Iterable[str]) -> Work[None]:
        person = operator_named(operator, role, groups)
        service = self._remote
        if service is not None:
            return service.work(requests.register_operator(person))
        by = self._deciding()
        return Command(self._engine, lambda batch: operators.register(batch, by, person))

    async def remove_operator(self, operator: str) -> None:
        """Remove a person, who may then no longer decide; votes cast before stay. For administrators.

        Raises ForbiddenError, NotFoundError, and IllegalTransitionError if no administrator would be left.
        """
        await self._removal(operator).run_async()

    def remove_operator_sync(self, operator: str) -> None:
        """As `remove_operator`."""
        self._removal(operator).run()

    def _removal(self, operator: str) -> Work[None]:
        service = self._remote
        if service is not None:
            return service.work(requests.remove_operator(operator))
        by = self._deciding()
        return Command(self._engine, lambda batch: operators.remove(batch, by, operator))

    # Policy

    def apply_policies_sync(
        self, policies: PolicySource | Sequence[PolicySource], *, prune: bool = False
    ) -> list[str]:
        """Publish policy files whatever was applied before. Returns the ids of the parts that changed.

        `prune` removes what the same file published before and no longer holds. Pending requests are asked about again:
        see `rehearse_policies_sync`.
        """
        changed: list[str] = []
        service = self._remote
        for name, digest, document in read_sources(policies):
            if service is not None:
                found: list[str] = service.ask(requests.apply_policies(document, name, prune))
                changed += found
            else:
                changed += self._publish(document, name, digest, prune=prune, force=True)
        return changed

    def rehearse_policies_sync(
        self, policies: PolicySource | Sequence[PolicySource], *, prune: bool = False
    ) -> PolicyRehearsal:
        """What `apply_policies_sync` would do, done and taken back: the parts that would change, and the pending
        requests that would be approved, denied, or shown to other approvers by it.

        A service rehearses one file at a time. Raises InvalidRequestError for more.
        """
        service = self._remote
        if service is not None:
            sources = read_sources(policies)
            if len(sources) != 1:
                raise InvalidRequestError("a service rehearses one policy file at a time; pass one")
            name, _, document = sources[0]
            return service.ask(requests.rehearse_policies(document, name, prune))
        publishing = [
            self._publishing(document, name, digest, prune=prune, force=True, limit=None)
            for name, digest, document in read_sources(policies)
        ]

        def command(batch: Batch) -> None:
            resolved: dict[str, str] = {}
            changed: list[str] = []
            for publish in publishing:
                change, found = publish(batch)
                changed += change.published + change.removed
                resolved |= {one.approval_id: one.event for one in found}
            became: dict[str, list[ApprovalRequest]] = {"approved": [], "denied": [], "amended": []}
            for approval_id, event in resolved.items():
                became[event].append(approvals.approval_request(batch, approval_id))
            raise _TakenBackError(PolicyRehearsal(changed, **became))

        try:
            self._engine.run(command)
        except _TakenBackError as done:
            return done.rehearsal
        raise AssertionError("a rehearsal is always taken back")


class _TakenBackError(AgentLatticeError):
    """Ends a rehearsal, so that nothing of it is recorded."""

    def __init__(self, rehearsal: PolicyRehearsal) -> None:
        super().__init__("REHEARSAL", "a rehearsal records nothing")
        self.rehearsal = rehearsal
