"""`AgentLattice`: what an agent, or the person who decides, calls.

- Every method exists twice: a coroutine function, and a blocking twin named `*_sync`. A twin may be called on a running
  event loop; it blocks that loop while it waits, and starts no loop of its own.
- Each method says once what is to be done, as `work`: on the log in this process, or by a service. Both answer alike.
- What a client may do follows from whom it acts for (`session`). What it reads is in `looking`, what persons do in
  `operating`, and being told what happens in `following`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentlattice_core import admission, approvals, registries
from agentlattice_core.actions import Action
from agentlattice_core.clock import time_of_log
from agentlattice_core.commands import Execution, Outcome
from agentlattice_core.delegating import Delegating
from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    InvalidRequestError,
)
from agentlattice_core.following import Following
from agentlattice_core.looking import Looking, options_given
from agentlattice_core.operating import Operating
from agentlattice_core.remote import requests
from agentlattice_core.remote.service import without_claims
from agentlattice_core.results import (
    ActionOptions,
    ActionResult,
    ReportOutcome,
    ReportResult,
)
from agentlattice_core.session import EIGHT_HOURS_MS, Mode, PolicySource, connected
from agentlattice_core.tracing import with_trace
from agentlattice_core.waiting import Standing, Waiting
from agentlattice_core.work import Command, Reading, Work

__all__ = ["AgentLattice", "PolicySource"]

_MOST_OF_A_MESSAGE = 10_000


class AgentLattice(Looking, Operating, Delegating, Following):
    """A client of the governance core.

    `AgentLattice.embedded(...)` opens a local file; nothing else is needed. `AgentLattice(api_key, base_url=...)`
    speaks to a service, which knows by the key who it is.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str | None = None,
        gate_poll_timeout_ms: int = EIGHT_HOURS_MS,
        gate_poll_interval_ms: int = 5000,
        mode: Mode = "enforce",
    ) -> None:
        """A client of the service at `base_url`, which has no default: a key is sent nowhere that was not named.

        `gate_poll_timeout_ms` bounds how long `gate` waits for a person, beside the approval's own deadline.
        `gate_poll_interval_ms` is how often it asks a service that cannot hold its answer until somebody has decided.
        Nothing is sent before a method is called. Raises InvalidRequestError.
        """
        self._service = connected(api_key, base_url, gate_poll_interval_ms)
        self._begin(mode, gate_poll_timeout_ms)

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
        return await self._execution(action_type, options, context, trusted, fields).run_async()

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
        return self._execution(action_type, options, context, trusted, fields).run()

    def _execution(
        self,
        action_type: str,
        options: ActionOptions | None,
        context: Mapping[str, Any] | None,
        trusted: Iterable[str],
        fields: dict[str, Any],
    ) -> Work[ActionResult]:
        context = with_trace(context)
        service = self._remote
        if service is not None:
            action = Action.build(action_type, options_given(options, fields), trusted=trusted)
            checked = admission.checked_context(context) if context else None
            return service.execution(action, self._mode, checked)
        caller = self._acting()
        if context:
            caller = replace(caller, context=admission.checked_context(context))
        action = Action.build(action_type, options_given(options, fields), trusted=trusted)
        making = registries.Change if registries.is_change(action.action_type) else Execution
        engine = self._engine
        return Command(engine, making(engine.policies, caller, action), self._giving_back())

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

        Raises AgentLatticeDeniedError, AgentLatticeTimeoutError, AgentLatticeError with code POLICY_NOT_FOUND, and
        IllegalTransitionError if what a person approved was claimed before, with the same `event_id`.
        """
        result = await self.execute(action_type, options, **fields)
        if result.status == "requested" and not result.observed and result.approval_id is not None:
            decided = await self.await_approval(result.approval_id, self._gate_patience)
            result = replace(decided, audit_event_id=decided.audit_event_id or result.audit_event_id)
        return _passed(result, action_type)

    def gate_sync(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> ActionResult:
        """As `gate`."""
        result = self.execute_sync(action_type, options, **fields)
        if result.status == "requested" and not result.observed and result.approval_id is not None:
            decided = self.await_approval_sync(result.approval_id, self._gate_patience)
            result = replace(decided, audit_event_id=decided.audit_event_id or result.audit_event_id)
        return _passed(result, action_type)

    async def await_approval(self, approval_id: str, timeout: float | None = None) -> ActionResult:  # noqa: ASYNC109
        """Wait until a person has decided, at most `timeout` seconds, and claim the action if it was approved.

        The answer is `executed` if the caller now holds the claim, `denied`, `timed_out`, or `requested` if nobody has
        decided yet. Raises IllegalTransitionError if somebody else claimed it first.
        """
        standing = await self._waiting(approval_id, timeout).run_async()
        if standing.action is None:
            return without_claims(approval_id, standing.status)
        return await self.claim(standing.action)

    def await_approval_sync(self, approval_id: str, timeout: float | None = None) -> ActionResult:
        """As `await_approval`."""
        standing = self._waiting(approval_id, timeout).run()
        if standing.action is None:
            return without_claims(approval_id, standing.status)
        return self.claim_sync(standing.action)

    def _waiting(self, approval_id: str, patience: float | None) -> Work[Standing]:
        admission.check_id("approval", approval_id)
        if patience is not None:
            patience = max(0.0, patience)  # 0 also for what is no number
        service = self._remote
        if service is not None:
            return service.talk(lambda: service.until_decided(approval_id, patience))
        return Waiting(self._engine, approval_id, patience)

    async def claim(self, audit_event_id: str) -> ActionResult:
        """Take the right to run an approved action, once. Raises IllegalTransitionError if it was taken before."""
        return await self._claiming(audit_event_id).run_async()

    def claim_sync(self, audit_event_id: str) -> ActionResult:
        """As `claim`."""
        return self._claiming(audit_event_id).run()

    def _claiming(self, audit_event_id: str) -> Work[ActionResult]:
        admission.check_id("action", audit_event_id)
        service = self._remote
        if service is not None:
            return service.claiming(audit_event_id)
        caller, in_force = self._acting(), self._engine.policies
        return Command(
            self._engine,
            lambda batch: registries.made(
                batch, caller, admission.claim(in_force, batch, caller, audit_event_id)
            ),
            self._giving_back(),
        )

    async def approval_status(self, approval_id: str) -> str:
        """How a request of this agent stands: `pending`, `approved`, `denied`, `timed_out` or `cancelled`.

        Claims nothing. Raises NotFoundError, NotYourEventError.
        """
        return await self._status(approval_id).run_async()

    def approval_status_sync(self, approval_id: str) -> str:
        """As `approval_status`."""
        return self._status(approval_id).run()

    def _status(self, approval_id: str) -> Work[str]:
        admission.check_id("approval", approval_id)
        service = self._remote
        if service is not None:
            return service.work(requests.approval_state(approval_id))
        agent, clock = self._acting().agent, self._engine.clock
        return Reading(
            self._engine,
            lambda reader: approvals.status_of(
                reader, agent, approval_id, time_of_log(clock, reader.head.at)
            ),
        )

    async def cancel(self, audit_event_id: str, reason: str | None = None) -> None:
        """Take back a request that still waits for a person, so that nobody decides on it in vain.

        Raises NotFoundError, NotYourEventError, and IllegalTransitionError if it waits for nobody or was decided.
        """
        await self._cancelling(audit_event_id, reason).run_async()

    def cancel_sync(self, audit_event_id: str, reason: str | None = None) -> None:
        """As `cancel`."""
        self._cancelling(audit_event_id, reason).run()

    def _cancelling(self, audit_event_id: str, reason: str | None) -> Work[None]:
        admission.check_id("action", audit_event_id)
        if reason is not None:
            admission.checked_text("reason", reason)
        service = self._remote
        if service is not None:
            return service.work(requests.cancel(audit_event_id, reason))
        caller = self._acting()
        return Command(self._engine, lambda batch: approvals.cancel(batch, caller, audit_event_id, reason))

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        """Note how a claimed run went (`succeeded`, `failed`, `unknown`), without waiting for the disk.

        The first word counts, and on `unknown` the first that says otherwise. Of a long `message` the first 10,000
        characters are kept. If the process dies before it is written, the claim goes on reading `started` until the
        call comes again, and then `unknown`: nobody can say how it went.
        """
        if message is not None:
            message = message.encode("utf-8", "backslashreplace").decode()[:_MOST_OF_A_MESSAGE]
        service = self._remote
        if service is not None:
            service.post(requests.outcome(audit_event_id, claim, message))
        else:
            self._engine.post(Outcome(self._acting(), audit_event_id, claim, message))

    async def record_refusal(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """Record an attempt that could not even become an action; the answer is `denied`."""
        return await self._refusal(action_type, reason, message, context).run_async()

    def record_refusal_sync(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        """As `record_refusal`."""
        return self._refusal(action_type, reason, message, context).run()

    def _refusal(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None
    ) -> Work[ActionResult]:
        admission.checked_text("reason", reason)
        admission.checked_text("message", message)
        context = with_trace(context)
        checked = admission.checked_context(context) if context else {}
        service = self._remote
        if service is not None:
            return service.work(requests.refusal(action_type, reason, message, checked, self._mode))
        caller = replace(self._acting(), context=checked)
        return Command(
            self._engine, lambda batch: admission.refuse(batch, caller, action_type, reason, message)
        )

    async def report(self, audit_event_id: str, outcome: ReportOutcome) -> ReportResult:
        """Report how an action went. The last report counts. Raises NotFoundError, NotYourEventError,
        InvalidRequestError.
        """
        return await self._reporting(audit_event_id, outcome).run_async()

    def report_sync(self, audit_event_id: str, outcome: ReportOutcome) -> ReportResult:
        """As `report`."""
        return self._reporting(audit_event_id, outcome).run()

    def _reporting(self, audit_event_id: str, outcome: ReportOutcome) -> Work[ReportResult]:
        admission.check_id("action", audit_event_id)
        if not isinstance(outcome, ReportOutcome):
            raise InvalidRequestError(
                f"outcome: a value of type `{type(outcome).__name__}` is no ReportOutcome"
            )
        service = self._remote
        if service is not None:
            return service.work(requests.report(audit_event_id, outcome))
        caller = self._acting()
        return Command(self._engine, lambda batch: admission.report(batch, caller, audit_event_id, outcome))


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
