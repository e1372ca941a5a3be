"""`AgentLattice`: what an agent, or the person who decides, calls.

- Every method exists twice: a coroutine function, and a blocking twin named `*_sync`. A twin may be called on a running
  event loop; it blocks that loop while it waits, and starts no loop of its own.
- Each method says once what is to be done, as `work`: on the log in this process, or by a service. Both answer alike.
- What a client may do follows from whom it acts for (`session`). What persons do is in `operating`, and being told what
  happens in `following`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentlattice_core import admission, approvals, erasure, introspection, posture, registries, verification
from agentlattice_core.actions import Action
from agentlattice_core.clock import time_of_log
from agentlattice_core.commands import Execution, Outcome
from agentlattice_core.delegating import Delegating
from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    AuditError,
    InvalidRequestError,
)
from agentlattice_core.following import Following
from agentlattice_core.operating import Operating
from agentlattice_core.remote import requests
from agentlattice_core.remote.service import without_claims
from agentlattice_core.results import (
    ActionOptions,
    ActionResult,
    AuditResult,
    CanIResult,
    PoliciesResult,
    PostureResult,
    RegistryEntry,
    ReportOutcome,
    ReportResult,
    VerifyResult,
    WhoamiResult,
)
from agentlattice_core.session import EIGHT_HOURS_MS, Mode, PolicySource, connected
from agentlattice_core.stores.base import Reader
from agentlattice_core.verification import StateDifference
from agentlattice_core.waiting import Standing, Waiting
from agentlattice_core.work import Command, Local, Reading, Work

__all__ = ["AgentLattice", "PolicySource"]

_MOST_OF_A_MESSAGE = 10_000


class AgentLattice(Operating, Delegating, Following):
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
        service = self._remote
        if service is not None:
            action = Action.build(action_type, _options(options, fields), trusted=trusted)
            checked = admission.checked_context(context) if context else None
            return service.execution(action, self._mode, checked)
        caller = self._acting()
        if context:
            caller = replace(caller, context=admission.checked_context(context))
        action = Action.build(action_type, _options(options, fields), trusted=trusted)
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

        Raises AgentLatticeDeniedError, AgentLatticeTimeoutError, and AgentLatticeError with code POLICY_NOT_FOUND.
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
        if reason is not None:
            admission.checked_text("reason", reason)
        service = self._remote
        if service is not None:
            return service.work(requests.cancel(audit_event_id, reason))
        caller = self._acting()
        return Command(self._engine, lambda batch: approvals.cancel(batch, caller, audit_event_id, reason))

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        """Note how a claimed run went (`succeeded`, `failed`, `unknown`), without waiting for the disk.

        Of a long `message` the first 10,000 characters are kept. If the process dies before it is written, the claim
        goes on reading `started`: nobody can say how it went.
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
        service = self._remote
        if service is not None:
            return service.work(requests.report(audit_event_id, outcome))
        caller = self._acting()
        return Command(self._engine, lambda batch: admission.report(batch, caller, audit_event_id, outcome))

    # Looking

    async def can_i(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> CanIResult:
        """What `execute` would answer; nothing is recorded and nobody is asked."""
        return await self._asking(action_type, options, fields).run_async()

    def can_i_sync(self, action_type: str, options: ActionOptions | None = None, **fields: Any) -> CanIResult:
        """As `can_i`."""
        return self._asking(action_type, options, fields).run()

    def _asking(
        self, action_type: str, options: ActionOptions | None, fields: dict[str, Any]
    ) -> Work[CanIResult]:
        action = Action.build(action_type, _options(options, fields))
        service = self._remote
        if service is not None:
            return service.work(requests.can_i(action))
        agent, engine = self._acting().agent, self._engine

        def look(reader: Reader) -> CanIResult:
            now = time_of_log(engine.clock, reader.head.at)
            return introspection.can_i(engine.policies, reader, agent, action, now)

        return Reading(engine, look)

    async def policies(self, scope: str = "own") -> PoliciesResult:
        """The policies that may concern this agent, or with `scope="org"` all of them."""
        return await self._policies(scope).run_async()

    def policies_sync(self, scope: str = "own") -> PoliciesResult:
        """As `policies`."""
        return self._policies(scope).run()

    def _policies(self, scope: str) -> Work[PoliciesResult]:
        if scope not in ("own", "org"):
            raise InvalidRequestError(f"scope `{scope}` must be `own` or `org`")
        service = self._remote
        if service is not None:
            return service.work(requests.policies(scope))
        agent, in_force = self._acting().agent if scope == "own" else None, self._engine.policies
        return Reading(self._engine, lambda reader: introspection.policies_of(in_force, reader, agent))

    async def whoami(self) -> WhoamiResult:
        """This agent's identity, state, policies, and delegations in force."""
        return await self._whoami().run_async()

    def whoami_sync(self) -> WhoamiResult:
        """As `whoami`."""
        return self._whoami().run()

    def _whoami(self) -> Work[WhoamiResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.whoami())
        agent, engine, org_id = self._acting().agent, self._engine, self.org_id

        def look(reader: Reader) -> WhoamiResult:
            now = time_of_log(engine.clock, reader.head.at)
            return introspection.whoami(engine.policies, reader, agent, org_id, now)

        return Reading(engine, look)

    async def registry(self, name: str) -> list[RegistryEntry]:
        """What a registry that is kept in the store holds, in the order of values. Raises NotFoundError."""
        return await self._registry(name).run_async()

    def registry_sync(self, name: str) -> list[RegistryEntry]:
        """As `registry`."""
        return self._registry(name).run()

    def _registry(self, name: str) -> Work[list[RegistryEntry]]:
        service = self._remote
        if service is not None:
            return service.work(requests.registry(name))
        return Reading(self._engine, lambda reader: registries.entries(reader, name))

    async def audit(
        self, cursor: str | None = None, limit: int = 50, action_type: str | None = None
    ) -> AuditResult:
        """A page of the audit trail, newest first: an agent's own actions, or for an operator everybody's."""
        return await self._page(cursor, limit, action_type).run_async()

    def audit_sync(
        self, cursor: str | None = None, limit: int = 50, action_type: str | None = None
    ) -> AuditResult:
        """As `audit`."""
        return self._page(cursor, limit, action_type).run()

    def _page(self, cursor: str | None, limit: int, action_type: str | None) -> Work[AuditResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.audit(cursor, limit, action_type))
        agent = self.agent
        return Reading(
            self._engine,
            lambda reader: introspection.audit_page(
                reader, agent=agent, cursor=cursor, limit=limit, action_type=action_type
            ),
        )

    async def verify(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """Verify the log: every entry, payload, tile and signed checkpoint.

        `checkpoint` is a signed note that was kept elsewhere. `incremental` verifies only what came after it, or after
        the last one signed. Raises AuditError if `checkpoint` is not this log's.
        """
        return await self._verifying(checkpoint, incremental).run_async()

    def verify_sync(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """As `verify`."""
        return self._verifying(checkpoint, incremental).run()

    def _verifying(self, checkpoint: str | None, incremental: bool) -> Work[VerifyResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.verify(checkpoint, incremental))
        engine = self._engine
        return Local(lambda: verification.verify(engine, checkpoint, incremental=incremental))

    def verify_state_sync(self) -> list[StateDifference]:
        """Fold the log again and compare: every document of state that is not what the log makes of it.

        For who has the file of the log. Raises ForbiddenError for a client of a service.
        """
        return list(verification.verify_state(self._engine))

    async def posture(self) -> PostureResult:
        """How well the organisation is governed, 0 to 100, and what that is made of. Reads the whole log.

        An operator is also told which action types no policy covers. See `agentlattice_core.posture` for what earns how
        much.
        """
        return await self._posture().run_async()

    def posture_sync(self) -> PostureResult:
        """As `posture`."""
        return self._posture().run()

    def _posture(self) -> Work[PostureResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.posture())
        engine, naming = self._engine, self._caller is None
        return Local(lambda: posture.posture_of(engine, naming=naming))

    async def checkpoint(self) -> str:
        """Sign the log as it is now: a note to keep where nobody who can write the log can change it.

        Raises AuditError if the log is not the one that was signed before.
        """
        return await self._signing().run_async()

    def checkpoint_sync(self) -> str:
        """As `checkpoint`."""
        return self._signing().run()

    def _signing(self) -> Work[str]:
        service = self._remote
        if service is not None:
            return service.work(requests.checkpoint())
        engine = self._engine

        def sign() -> str:
            engine.flush()
            note = engine.notary.sign()
            if note is None:
                raise AuditError(engine.notary.alarm or "the log could not be signed")
            return note

        return Local(sign)

    def verifier_key(self) -> str:
        """The public key of the checkpoints, as `name+id+key`: what a verifier elsewhere needs."""
        service = self._remote
        if service is not None:
            return service.ask(requests.verifier_key())
        return self._engine.notary.verifier_key().format()

    async def erase(self, indexes: Iterable[int], reason: str) -> int:
        """Erase what may be personal in entries of the log, by index; how many there were. For administrators."""
        return await self._erasing(indexes, reason).run_async()

    def erase_sync(self, indexes: Iterable[int], reason: str) -> int:
        """As `erase`."""
        return self._erasing(indexes, reason).run()

    def _erasing(self, indexes: Iterable[int], reason: str) -> Work[int]:
        chosen = list(indexes)
        admission.checked_text("reason", reason)
        service = self._remote
        if service is not None:
            return service.work(requests.erase(chosen, reason))
        operator = self._deciding()
        return Command(self._engine, lambda batch: erasure.erase(batch, operator, chosen, reason))


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
