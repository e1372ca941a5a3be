"""`AgentLattice`: what an agent, or the person who decides, calls.

- Every method exists twice: a coroutine function, and a blocking twin named `*_sync`. A twin may be called on a running
  event loop; it blocks that loop while it waits, and starts no loop of its own.
- What a client may do follows from whom it acts for (`session`). What persons do is in `operating`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from agentlattice_core import admission, approvals, erasure, introspection, posture, registries, verification
from agentlattice_core.actions import Action
from agentlattice_core.admission import Caller
from agentlattice_core.agents import agent_facts
from agentlattice_core.batch import Batch
from agentlattice_core.clock import time_of_log
from agentlattice_core.commands import Execution, Outcome
from agentlattice_core.delegating import Delegating
from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    AuditError,
    ForbiddenError,
    InvalidRequestError,
)
from agentlattice_core.notifications import EVENT_TYPES, notification
from agentlattice_core.operating import Operating
from agentlattice_core.results import (
    ActionOptions,
    ActionResult,
    AuditResult,
    CanIResult,
    GovernanceEvent,
    PoliciesResult,
    PostureResult,
    RegistryEntry,
    ReportOutcome,
    ReportResult,
    VerifyResult,
    WhoamiResult,
)
from agentlattice_core.session import EIGHT_HOURS_MS, PolicySource
from agentlattice_core.stores.base import Row
from agentlattice_core.tracing import with_trace
from agentlattice_core.verification import StateDifference
from agentlattice_core.waiting import until_resolved, until_resolved_sync

__all__ = ["AgentLattice", "PolicySource"]

_MOST_OF_A_MESSAGE = 10_000


class AgentLattice(Operating, Delegating):
    """A client of the governance core.

    `AgentLattice.embedded(...)` opens a local file; nothing else is needed. `gate_poll_timeout_ms` bounds how long
    `gate` waits for a person, beside the approval's own deadline.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str,
        gate_poll_timeout_ms: int = EIGHT_HOURS_MS,
        gate_poll_interval_ms: int = 5000,
    ) -> None:
        """A client of a service. This release has no service; use `AgentLattice.embedded`."""
        raise AgentLatticeError(
            "NOT_AVAILABLE", f"this release cannot speak to a service (`{base_url}`); use the embedded form"
        )

    # Acting

    async def execute(
        self,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
        **fields: Any,
    ) -> ActionResult:
        """Submit an action and return at once with what was decided.

        The action's data comes as `ActionOptions` or as its members by keyword. `context` holds the framework's own
        ids; `trusted` names members that the model had no say in. Raises InvalidRequestError, EventIdConflictError,
        NotRecordedError.
        """
        return await self._engine.run_async(*self._execution(action_type, options, context, trusted, fields))

    def execute_sync(
        self,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
        **fields: Any,
    ) -> ActionResult:
        """As `execute`."""
        return self._engine.run(*self._execution(action_type, options, context, trusted, fields))

    def _execution(
        self,
        action_type: str,
        options: ActionOptions | None,
        context: Mapping[str, Any] | None,
        trusted: Iterable[str],
        fields: dict[str, Any],
    ) -> tuple[Callable[[Batch], ActionResult], Callable[[ActionResult], None]]:
        caller = self._acting()
        context = with_trace(context)
        if context:
            caller = Caller(caller.agent, caller.mode, caller.established, admission.checked_context(context))
        action = Action.build(action_type, _options(options, fields), trusted=trusted)
        making = registries.Change if registries.is_change(action.action_type) else Execution
        return making(self._engine.policies, caller, action), self._giving_back()

    def _giving_back(self) -> Callable[[ActionResult], None]:
        """For a caller that is cancelled before it gets its answer: what it was admitted for will not run.

        The client may be closed by then, while others go on using the log.
        """
        caller, engine = self._acting(), self._engine

        def give_back(result: ActionResult) -> None:
            if result.claim == "started" and not result.replayed:
                engine.post(lambda batch: admission.abandon(batch, caller, result.audit_event_id))

        return give_back

    async def gate(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> ActionResult:
        """Submit an action and return once it may run; the caller then holds its claim.

        Raises AgentLatticeDeniedError, AgentLatticeTimeoutError, and AgentLatticeError with code POLICY_NOT_FOUND.
        """
        result = await self.execute(action_type, options, **fields)
        if result.status == "requested" and not result.observed and result.approval_id is not None:
            result = await self.await_approval(result.approval_id, self._gate_patience)
        return _passed(result, action_type)

    def gate_sync(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> ActionResult:
        """As `gate`."""
        result = self.execute_sync(action_type, options, **fields)
        if result.status == "requested" and not result.observed and result.approval_id is not None:
            result = self.await_approval_sync(result.approval_id, self._gate_patience)
        return _passed(result, action_type)

    async def await_approval(self, approval_id: str, timeout: float | None = None) -> ActionResult:  # noqa: ASYNC109
        """Wait until a person has decided, at most `timeout` seconds, and claim the action if it was approved.

        The answer is `executed` if the caller now holds the claim, `denied`, `timed_out`, or `requested` if nobody has
        decided yet. Raises IllegalTransitionError if somebody else claimed it first.
        """
        approval = await until_resolved(self._engine, approval_id, timeout)
        return await self.claim(approval["action"])

    def await_approval_sync(self, approval_id: str, timeout: float | None = None) -> ActionResult:
        """As `await_approval`."""
        approval = until_resolved_sync(self._engine, approval_id, timeout)
        return self.claim_sync(approval["action"])

    async def claim(self, audit_event_id: str) -> ActionResult:
        """Take the right to run an approved action, once. Raises IllegalTransitionError if it was taken before."""
        return await self._engine.run_async(self._claiming(audit_event_id), self._giving_back())

    def claim_sync(self, audit_event_id: str) -> ActionResult:
        """As `claim`."""
        return self._engine.run(self._claiming(audit_event_id), self._giving_back())

    async def approval_status(self, approval_id: str) -> str:
        """How a request of this agent stands: `pending`, `approved`, `denied`, `timed_out` or `cancelled`.

        Claims nothing. Raises NotFoundError, NotYourEventError.
        """
        return await asyncio.to_thread(self.approval_status_sync, approval_id)

    def approval_status_sync(self, approval_id: str) -> str:
        """As `approval_status`."""
        agent = self._acting().agent
        with self._engine.read() as reader:
            return approvals.status_of(
                reader, agent, approval_id, time_of_log(self._engine.clock, reader.head.at)
            )

    def _claiming(self, audit_event_id: str) -> Callable[[Batch], ActionResult]:
        caller, in_force = self._acting(), self._engine.policies

        return lambda batch: registries.made(
            batch, caller, admission.claim(in_force, batch, caller, audit_event_id)
        )

    async def cancel(self, audit_event_id: str, reason: str | None = None) -> None:
        """Take back a request that still waits for a person, so that nobody decides on it in vain.

        Raises NotFoundError, NotYourEventError, and IllegalTransitionError if it waits for nobody or was decided.
        """
        await self._engine.run_async(self._cancelling(audit_event_id, reason))

    def cancel_sync(self, audit_event_id: str, reason: str | None = None) -> None:
        """As `cancel`."""
        self._engine.run(self._cancelling(audit_event_id, reason))

    def _cancelling(self, audit_event_id: str, reason: str | None) -> Callable[[Batch], None]:
        caller = self._acting()
        if reason is not None:
            admission.checked_text("reason", reason)
        return lambda batch: approvals.cancel(batch, caller, audit_event_id, reason)

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        """Note how a claimed run went (`succeeded`, `failed`, `unknown`), without waiting for the disk.

        Of a long `message` the first 10,000 characters are kept. If the process dies before it is written, the claim
        goes on reading `started`: nobody can say how it went.
        """
        caller = self._acting()
        if message is not None:
            message = message.encode("utf-8", "backslashreplace").decode()[:_MOST_OF_A_MESSAGE]
        self._engine.post(Outcome(caller, audit_event_id, claim, message))

    async def record_refusal(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """Record an attempt that could not even become an action; the answer is `denied`."""
        return await self._engine.run_async(self._refusal(action_type, reason, message, context))

    def record_refusal_sync(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """As `record_refusal`."""
        return self._engine.run(self._refusal(action_type, reason, message, context))

    def _refusal(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None
    ) -> Callable[[Batch], ActionResult]:
        caller = self._acting()
        admission.checked_text("reason", reason)
        admission.checked_text("message", message)
        context = with_trace(context)
        if context:
            caller = Caller(caller.agent, caller.mode, caller.established, admission.checked_context(context))
        return lambda batch: admission.refuse(batch, caller, action_type, reason, message)

    async def report(self, audit_event_id: str, outcome: ReportOutcome) -> ReportResult:
        """Report how an action went. The last report counts. Raises NotFoundError, NotYourEventError,
        InvalidRequestError.
        """
        return await self._engine.run_async(self._reporting(audit_event_id, outcome))

    def report_sync(self, audit_event_id: str, outcome: ReportOutcome) -> ReportResult:
        """As `report`."""
        return self._engine.run(self._reporting(audit_event_id, outcome))

    def _reporting(self, audit_event_id: str, outcome: ReportOutcome) -> Callable[[Batch], ReportResult]:
        caller = self._acting()
        return lambda batch: admission.report(batch, caller, audit_event_id, outcome)

    # Looking

    async def can_i(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> CanIResult:
        """What `execute` would answer; nothing is recorded and nobody is asked."""
        return await asyncio.to_thread(self.can_i_sync, action_type, options, **fields)

    def can_i_sync(self, action_type: str, options: ActionOptions | None = None, **fields: Any) -> CanIResult:
        """As `can_i`."""
        caller = self._acting()
        action = Action.build(action_type, _options(options, fields))
        with self._engine.read() as reader:
            return introspection.can_i(
                self._engine.policies,
                reader,
                caller.agent,
                action,
                time_of_log(self._engine.clock, reader.head.at),
            )

    async def policies(self, scope: str = "own") -> PoliciesResult:
        """The policies that may concern this agent, or with `scope="org"` all of them."""
        return await asyncio.to_thread(self.policies_sync, scope)

    def policies_sync(self, scope: str = "own") -> PoliciesResult:
        """As `policies`."""
        if scope not in ("own", "org"):
            raise InvalidRequestError(f"scope `{scope}` must be `own` or `org`")
        agent = self._acting().agent if scope == "own" else None
        with self._engine.read() as reader:
            return introspection.policies_of(self._engine.policies, reader, agent)

    async def whoami(self) -> WhoamiResult:
        """This agent's identity, state, policies, and delegations in force."""
        return await asyncio.to_thread(self.whoami_sync)

    def whoami_sync(self) -> WhoamiResult:
        """As `whoami`."""
        agent = self._acting().agent
        with self._engine.read() as reader:
            now = time_of_log(self._engine.clock, reader.head.at)
            return introspection.whoami(self._engine.policies, reader, agent, self.org_id, now)

    async def registry(self, name: str) -> list[RegistryEntry]:
        """What a registry that is kept in the store holds, in the order of values. Raises NotFoundError."""
        return await asyncio.to_thread(self.registry_sync, name)

    def registry_sync(self, name: str) -> list[RegistryEntry]:
        """As `registry`."""
        with self._engine.read() as reader:
            return registries.entries(reader, name)

    async def audit(
        self, cursor: str | None = None, limit: int = 50, action_type: str | None = None
    ) -> AuditResult:
        """A page of the audit trail, newest first: an agent's own actions, or for an operator everybody's."""
        return await asyncio.to_thread(self.audit_sync, cursor, limit, action_type)

    def audit_sync(
        self, cursor: str | None = None, limit: int = 50, action_type: str | None = None
    ) -> AuditResult:
        """As `audit`."""
        with self._engine.read() as reader:
            return introspection.audit_page(
                reader, agent=self.agent, cursor=cursor, limit=limit, action_type=action_type
            )

    async def verify(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """Verify the log: every entry, payload, tile and signed checkpoint.

        `checkpoint` is a signed note that was kept elsewhere. `incremental` verifies only what came after it, or after
        the last one signed. Raises AuditError if `checkpoint` is not this log's.
        """
        return await asyncio.to_thread(self.verify_sync, checkpoint, incremental=incremental)

    def verify_sync(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """As `verify`."""
        return verification.verify(self._engine, checkpoint, incremental=incremental)

    def verify_state_sync(self) -> list[StateDifference]:
        """Fold the log again and compare: every document of state that is not what the log makes of it."""
        return list(verification.verify_state(self._engine))

    async def posture(self) -> PostureResult:
        """How well the organisation is governed, 0 to 100, and what that is made of. Reads the whole log.

        An operator is also told which action types no policy covers. See `agentlattice_core.posture` for what earns how
        much.
        """
        return await asyncio.to_thread(self.posture_sync)

    def posture_sync(self) -> PostureResult:
        """As `posture`."""
        return posture.posture_of(self._engine, naming=self._caller is None)

    async def checkpoint(self) -> str:
        """Sign the log as it is now: a note to keep where nobody who can write the log can change it.

        Raises AuditError if the log is not the one that was signed before.
        """
        return await asyncio.to_thread(self.checkpoint_sync)

    def checkpoint_sync(self) -> str:
        """As `checkpoint`."""
        self._engine.flush()
        note = self._engine.notary.sign()
        if note is None:
            raise AuditError(self._engine.notary.alarm or "the log could not be signed")
        return note

    def verifier_key(self) -> str:
        """The public key of the checkpoints, as `name+id+key`: what a verifier elsewhere needs."""
        return self._engine.notary.verifier_key().format()

    async def erase(self, indexes: Iterable[int], reason: str) -> int:
        """Erase what may be personal in entries of the log, by index; how many there were. For administrators."""
        return await self._engine.run_async(self._erasing(indexes, reason))

    def erase_sync(self, indexes: Iterable[int], reason: str) -> int:
        """As `erase`."""
        return self._engine.run(self._erasing(indexes, reason))

    def _erasing(self, indexes: Iterable[int], reason: str) -> Callable[[Batch], int]:
        operator, chosen = self._deciding(), list(indexes)
        admission.checked_text("reason", reason)
        return lambda batch: erasure.erase(batch, operator, chosen, reason)

    # Following

    async def subscribe(
        self,
        org_id: str,
        callback: Callable[[GovernanceEvent], Any],
        *,
        events: Iterable[str] | None = None,
        agent_filter: str | None = None,
    ) -> None:
        """Have `callback` called on this event loop for every notification from now on.

        An agent hears of its own actions and delegations and of policy changes, an operator of everybody's. `events`
        are the types to hear of, `agent_filter` an agent's id. Raises ForbiddenError for another organisation, and for
        another agent.
        """
        loop = asyncio.get_running_loop()

        def deliver(event: GovernanceEvent) -> None:
            loop.call_soon_threadsafe(callback, event)

        await asyncio.to_thread(
            self.subscribe_sync, org_id, deliver, events=events, agent_filter=agent_filter
        )

    def subscribe_sync(
        self,
        org_id: str,
        callback: Callable[[GovernanceEvent], Any],
        *,
        events: Iterable[str] | None = None,
        agent_filter: str | None = None,
    ) -> None:
        """As `subscribe`; `callback` is called on a thread of its own, in order."""
        if org_id != self.org_id:
            raise ForbiddenError(f"this client belongs to `{self.org_id}` and may not follow `{org_id}`")
        wanted = frozenset(events) if events is not None else None
        for event_type in wanted or ():
            if event_type not in EVENT_TYPES:
                raise InvalidRequestError(f"event type `{event_type}` is not one of {', '.join(EVENT_TYPES)}")
        audience: Literal["agent", "operator"] = "agent" if self._operator is None else "operator"
        own = self._own_id(agent_filter)

        def watcher(entry: dict[str, Any], row: Row) -> None:
            event = notification(entry, row, audience)
            if event is None or (wanted is not None and event.event_type not in wanted):
                return
            # What belongs to no agent (a change of policy) concerns all of them, and a child's end its parent too.
            if (
                own is not None
                and own not in (event.agent_id, event.data.get("parent_id"))
                and event.agent_id
            ):
                return
            if agent_filter is None or event.agent_id == agent_filter:
                callback(event)

        self._ends.append(self._engine.follower.watch(watcher))

    def _own_id(self, agent_filter: str | None) -> str | None:
        """The id of the agent that may hear of nobody else; None for an operator."""
        if self._caller is None:
            return None
        with self._engine.read() as reader:
            own = agent_facts(reader, self._caller.agent).id
        if agent_filter not in (None, own):
            raise ForbiddenError(
                f"agent `{self._caller.agent}` hears of its own actions only; "
                "to hear of another agent's, subscribe as an operator"
            )
        return own

    async def unsubscribe(self) -> None:
        """End every subscription of this client."""
        self.unsubscribe_sync()

    def unsubscribe_sync(self) -> None:
        """As `unsubscribe`."""
        while self._ends:
            self._ends.pop()()


def _passed(result: ActionResult, action_type: str) -> ActionResult:
    """The result if its action may run; else the error that says why not."""
    if result.may_run and not result.replayed:
        return result
    if result.status == "executed":
        raise AgentLatticeDeniedError(
            result.approval_id,
            None,
            result.policy_name,
            result.conditions_evaluated,
            message=f"action `{result.audit_event_id}` was admitted before (its claim reads `{result.claim}`); "
            "it runs at most once",
            audit_event_id=result.audit_event_id,
        )
    if result.status == "policy_not_found":
        raise AgentLatticeError(
            "POLICY_NOT_FOUND",
            f"no policy covers `{action_type}`, so it may not run; write one to allow it",
            result,
        )
    if result.status in ("requested", "timed_out"):
        assert result.approval_id is not None
        raise AgentLatticeTimeoutError(result.approval_id)
    raise AgentLatticeDeniedError(
        result.approval_id if result.denial_reason == "DENIED_BY_REVIEWER" else None,
        result.denial_reason,
        result.policy_name,
        result.conditions_evaluated,
        message=result.message,
        audit_event_id=result.audit_event_id,
    )


def _options(options: ActionOptions | None, fields: dict[str, Any]) -> ActionOptions:
    if not fields:
        return options if options is not None else ActionOptions()
    if options is not None:
        raise InvalidRequestError("pass the action's data as options or by keyword, not both")
    try:
        return ActionOptions(**fields)
    except TypeError:
        known = vars(ActionOptions()).keys()
        wrong = sorted(set(fields) - known)
        raise InvalidRequestError(
            f"an action has no `{wrong[0]}`; its data is {', '.join(known)}, and anything else goes into metadata"
        ) from None
