"""The gate before every tool call: one question, answered with a permit or a denial.

- It raises nothing: a refusal is a `Denial`, and so is a core that cannot decide or cannot record (`NOT_RECORDED`).
  Only cancellation passes through, and leaves nothing running behind it.
- A permit means that the action is in the log and that this caller, and nobody else, holds its claim. An answer that
  was given before (`replayed`) never gives a second one.
- Whoever asks again about a call that was started, and that nobody in this process holds a permit for, is told that its
  outcome is unknown, and so is the log. Should another process be running it all the same, what it reports counts.
- A call with an identity is idempotent: its event id is framework, identity, tool, digest of the recorded arguments,
  and attempt. A call without one is a new action each time.
- `wait` blocks until a person has decided; `defer` answers `pending` at once. A call that is pending is remembered:
  when the same arguments come again for the same tool, run and end user, the earlier approval is claimed instead of
  asking a second time. One approval lets one call run.
- `pause` answers `pending` at once too, for an adapter that then suspends its framework's run. Only the call with the
  same identity takes up the answer, in whatever process it comes again; nothing is remembered here.
- What was redacted in the arguments as a whole value is taken out of what a tool says of its failure, too.
- In observe mode it answers with a permit whatever policy said, and also when the core fails.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    EventIdConflictError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
)
from agentlattice_core.results import ActionOptions, ActionResult
from agentlattice_core.toolcalls.arguments import (
    Arguments,
    canonical_arguments,
    digest_of,
    lenient_arguments,
)
from agentlattice_core.toolcalls.call import Denial, OnApproval, Permit, ToolCall, is_held_here
from agentlattice_core.toolcalls.deferrals import DeferralKey, Deferrals
from agentlattice_core.toolcalls.denial import denial_from_result, refusal
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, MappingError, ToolMapping
from agentlattice_core.toolcalls.recording import (
    MOST_IDS,
    context_of,
    event_id_of,
    recordable,
    redact_computed,
)
from agentlattice_core.toolcalls.redaction import MARKER, Redactor, redact_text, withheld
from agentlattice_core.toolcalls.spans import traced, traced_sync

__all__ = ["ToolGate"]

_log = logging.getLogger("agentlattice")

_MAX_REMEMBERED: Final = 4096
_LONGEST_MESSAGE: Final = 2000
_LEAST_SECRET: Final = 4
_NONE: Final[frozenset[str]] = frozenset()
_LOST: Final = "the call came again, and nobody had said how it went"
_RAN: Final = ("started", "succeeded", "failed", "unknown")
_Ask = tuple[str, tuple[Any, ...], dict[str, Any]]
_Answer = Permit | Denial
_Asking = Generator[_Ask, ActionResult, _Answer]


@dataclass(slots=True)
class _Prepared:
    """A call, ready to be decided on."""

    call: ToolCall
    mapping: ToolMapping
    arguments: Arguments
    options: ActionOptions
    trusted: frozenset[str]
    constant: frozenset[str]
    context: dict[str, Any]
    on_approval: OnApproval
    secrets: tuple[str, ...] = ()

    @property
    def deferral_key(self) -> DeferralKey:
        """What makes a later call the same question."""
        call = self.call
        return (
            call.framework,
            call.run,
            call.on_behalf_of,
            call.tool,
            self.mapping.action_type,
            self.arguments.digest,
        )


class ToolGate:
    """Decides on tool calls with `client`.

    - `actions`: an `ActionTable`, what one is built from, or the path of a YAML file: mappings for tools one does
      not own.
    - `redact`: paths to redact beside what is recognised as secret; see `redaction`.
    - `on_approval`: `wait`, `defer` or `pause`; a single question may be asked with another one.
    - `approval_timeout`: the longest this gate waits for a person, in seconds; None waits until the approval's own
      deadline. A call that is still pending then is answered with a denial of status `pending`.

    Raises ValueError or InvalidRequestError when it is built with something that cannot work.
    """

    def __init__(
        self,
        client: GovernanceClient,
        *,
        actions: ActionTable | Mapping[Any, Any] | str | Path | None = None,
        redact: tuple[str, ...] | list[str] = (),
        on_approval: OnApproval = "wait",
        approval_timeout: float | None = None,
    ) -> None:
        if on_approval not in get_args(OnApproval):
            raise ValueError(f"on_approval `{on_approval}` is not one of {', '.join(get_args(OnApproval))}")
        if approval_timeout is not None and not approval_timeout >= 0:
            raise ValueError(f"approval_timeout `{approval_timeout}` is not a number of seconds")
        self.client = client
        self.actions = ActionTable.of(actions)
        self.redactor = Redactor(redact)
        self.on_approval: OnApproval = on_approval
        self.approval_timeout = approval_timeout
        self._redactors: dict[tuple[str, ...], Redactor] = {}
        self._resolved: dict[str, tuple[object | None, ToolMapping]] = {}
        self._deferrals = Deferrals()

    # --- questions --------------------------------------------------------------------------------------------------

    @traced_sync
    def authorize_sync(self, call: ToolCall, on_approval: OnApproval | None = None) -> Permit | Denial:
        """Decide on `call`. Blocks while a person is asked, if the gate waits for approvals. Never raises.

        `on_approval` counts for this question instead of the gate's own.
        """
        try:
            ready = self._ready(call, on_approval or self.on_approval)
            if isinstance(ready, _Prepared):
                # What nearly every call is: one question, answered with the claim.
                try:
                    result = self.client.execute_sync(
                        ready.mapping.action_type,
                        ready.options,
                        context=ready.context,
                        trusted=ready.trusted,
                    )
                except InvalidRequestError as error:
                    answer = self._drive_sync(self._not_recordable(ready, error))
                else:
                    if _held(result):
                        return self._permit(ready, result)
                    answer = self._drive_sync(self._answered(ready, result))
            else:
                answer = self._drive_sync(ready)
        except Exception as error:
            answer = self._failed(call, error)
        return self._observed(call, answer) if isinstance(answer, Denial) else answer

    @traced
    async def authorize(self, call: ToolCall, on_approval: OnApproval | None = None) -> Permit | Denial:
        """As `authorize_sync`, without blocking the event loop."""
        try:
            ready = self._ready(call, on_approval or self.on_approval)
            if isinstance(ready, _Prepared):
                try:
                    result = await self.client.execute(
                        ready.mapping.action_type,
                        ready.options,
                        context=ready.context,
                        trusted=ready.trusted,
                    )
                except InvalidRequestError as error:
                    answer = await self._drive(self._not_recordable(ready, error))
                else:
                    if _held(result):
                        return self._permit(ready, result)
                    answer = await self._drive(self._answered(ready, result))
            else:
                answer = await self._drive(ready)
        except Exception as error:
            answer = self._failed(call, error)
        return self._observed(call, answer) if isinstance(answer, Denial) else answer

    def refuse_sync(self, call: ToolCall, reason: str, message: str) -> Denial:
        """Refuse `call` without asking policy, and record the attempt.

        For what an adapter itself must refuse: `reason` is a code such as `NOT_COVERABLE`, `message` one line for the
        model. In observe mode it is refused all the same: the adapter asks only for what cannot run.
        """
        answer = self._drive_sync(self._refuse(call, self._action_type(call), reason, message))
        assert isinstance(answer, Denial)
        return answer

    async def refuse(self, call: ToolCall, reason: str, message: str) -> Denial:
        """As `refuse_sync`."""
        answer = await self._drive(self._refuse(call, self._action_type(call), reason, message))
        assert isinstance(answer, Denial)
        return answer

    def withdraw_sync(self, action_id: str, reason: str) -> None:
        """Take back the request for `action_id`: a person at the framework's interface rejected or changed it.

        Does nothing if it was decided, claimed or taken back before.
        """
        try:
            self.client.cancel_sync(action_id, reason)
        except IllegalTransitionError:
            pass

    async def withdraw(self, action_id: str, reason: str) -> None:
        """As `withdraw_sync`."""
        try:
            await self.client.cancel(action_id, reason)
        except IllegalTransitionError:
            pass

    def shown(self, call: ToolCall) -> dict[str, Any]:
        """The arguments of `call` as a person may be shown them: as decided on, secrets redacted.

        Raises InvalidRequestError for arguments that cannot be used.
        """
        mapping = self.resolve(call.tool, call.target)
        arguments = canonical_arguments(call.arguments, call.schema, call.injected)
        shown: dict[str, Any] = self._redactor_for(mapping).redact_canonical(
            arguments.copy(), arguments.encoded
        )
        return shown

    def resolve(self, tool: str, target: object | None = None) -> ToolMapping:
        """The mapping that a call of `tool` will be given; decides and records nothing.

        Raises InvalidRequestError for a tool without a name.
        """
        known = self._resolved.get(tool)
        if known is not None and known[0] is target:
            return known[1]
        mapping = self.actions.resolve(tool, target)
        if len(self._resolved) >= _MAX_REMEMBERED:  # models invent tool names
            self._resolved.clear()
        self._resolved[tool] = (target, mapping)
        return mapping

    # --- deciding: each step yields what to ask the client, so that both twins share every line ----------------------

    def _ready(self, call: ToolCall, on_approval: OnApproval) -> _Prepared | _Asking:
        """The call, ready to be asked about; or what to do where it cannot be, or was asked about before."""
        try:
            prepared = self._prepare(call, on_approval)
        except MappingError as error:
            return self._refuse(call, self._action_type(call), "MAPPING_FAILED", error.message)
        except InvalidRequestError as error:
            return self._refuse(call, self._action_type(call), "INVALID_ARGUMENTS", error.message)
        return self._resumed(prepared) if self._deferrals and on_approval != "pause" else prepared

    def _resumed(self, prepared: _Prepared) -> _Asking:
        """Take up an answer that this call is still waiting for; ask if there is none."""
        event_id = prepared.options.event_id
        deferrals = self._deferrals
        earlier = deferrals.claimed(event_id)
        if earlier is not None:
            return self._already(prepared, ActionResult("executed", earlier))
        key = prepared.deferral_key
        for action_id in deferrals.open(key):
            answer = yield from self._claim(prepared, action_id)
            if answer is None:
                deferrals.drop(key, action_id)
                continue
            if isinstance(answer, Permit):
                deferrals.claimed_by(event_id, action_id)
            if isinstance(answer, Permit) or answer.status != "pending":
                deferrals.drop(key, action_id)
            return answer
        try:
            result = yield (
                "execute",
                (prepared.mapping.action_type, prepared.options),
                {"context": prepared.context, "trusted": prepared.trusted},
            )
        except InvalidRequestError as error:
            return (yield from self._not_recordable(prepared, error))
        return (yield from self._answered(prepared, result))

    def _not_recordable(self, prepared: _Prepared, error: InvalidRequestError) -> _Asking:
        reason = "MAPPING_FAILED" if prepared.mapping.computes else "INVALID_ARGUMENTS"
        return self._refuse(prepared.call, prepared.mapping.action_type, reason, error.message)

    def _answered(self, prepared: _Prepared, result: ActionResult) -> _Asking:
        if result.observed:
            return self._permit(prepared, result)
        if result.status != "requested" or result.claim in _RAN:
            return self._settled(prepared, result)
        if result.replayed:
            answer = yield from self._claim(prepared, result.audit_event_id)
        else:
            answer = yield from self._decided(prepared, result)
        if answer is None:
            return self._already(prepared, result)
        if isinstance(answer, Denial) and answer.status == "pending" and prepared.on_approval != "pause":
            self._deferrals.add(prepared.deferral_key, result.audit_event_id)
        return answer

    def _claim(self, prepared: _Prepared, action_id: str) -> Generator[_Ask, ActionResult, _Answer | None]:
        """Take up an earlier question; None if its claim was taken before."""
        try:
            result = yield ("claim", (action_id,), {})
        except IllegalTransitionError:
            return None
        return (yield from self._decided(prepared, result))

    def _decided(
        self, prepared: _Prepared, result: ActionResult
    ) -> Generator[_Ask, ActionResult, _Answer | None]:
        """Wait for a person if one is asked and this gate waits; None if another call took the claim meanwhile."""
        if result.status == "requested" and prepared.on_approval == "wait" and result.approval_id is not None:
            try:
                decided = yield ("await_approval", (result.approval_id, self.approval_timeout), {})
            except IllegalTransitionError:
                return None
            if decided.status != "requested":
                result = decided
        return self._settled(prepared, result)

    def _settled(self, prepared: _Prepared, result: ActionResult) -> _Answer:
        if result.observed or _held(result):
            return self._permit(prepared, result)
        if result.claim in _RAN or (result.status == "executed" and result.claim != "lapsed"):
            return self._already(prepared, result)
        return denial_from_result(
            result,
            tool=prepared.call.tool,
            action_type=prepared.mapping.action_type,
            constant=prepared.constant,
        )

    def _already(self, prepared: _Prepared, result: ActionResult) -> Denial:
        action_id = result.audit_event_id
        if result.claim == "started" and not (prepared.call.suspended or is_held_here(action_id)):
            self._record_outcome(action_id, "unknown", _LOST)
        return denial_from_result(
            result, tool=prepared.call.tool, action_type=prepared.mapping.action_type, executed=True
        )

    def _refuse(self, call: ToolCall, action_type: str, reason: str, message: str) -> _Asking:
        message = recordable(redact_text(message), _LONGEST_MESSAGE)
        context = context_of(call, None)
        result = yield ("record_refusal", (action_type, reason, message), {"context": context})
        return refusal(
            reason, message, tool=call.tool, action_type=action_type, action_id=result.audit_event_id
        )

    # --- one call ---------------------------------------------------------------------------------------------------

    def _prepare(self, call: ToolCall, on_approval: OnApproval) -> _Prepared:
        mapping = self.resolve(call.tool, call.target)
        arguments = canonical_arguments(call.arguments, call.schema, call.injected)
        redactor = self._redactor_for(mapping)
        decided = arguments.decided
        shown = redactor.redact_canonical(decided, arguments.encoded)
        digest = arguments.digest if shown is decided and not arguments.hidden else digest_of(shown)
        secrets = () if shown is decided and not arguments.hidden else _secrets(arguments, shown)
        event_id = None if call.identity is None else event_id_of(call, digest)
        context = context_of(call, digest)
        if arguments.ignored:
            context["ignored_arguments"] = [
                recordable(redact_text(name)) for name in arguments.ignored[:MOST_IDS]
            ]
        if not mapping.computes:
            options = ActionOptions(metadata=shown, event_id=event_id, on_behalf_of=call.on_behalf_of)
            return _Prepared(call, mapping, arguments, options, _NONE, _NONE, context, on_approval, secrets)
        action = mapping.build(shown, arguments.copy, call.on_behalf_of, event_id)
        redact_computed(action, redactor)
        return _Prepared(
            call,
            mapping,
            arguments,
            action.options,
            action.trusted,
            action.constant,
            context,
            on_approval,
            secrets,
        )

    def _redactor_for(self, mapping: ToolMapping) -> Redactor:
        if not mapping.redact:
            return self.redactor
        paths = tuple(mapping.redact)
        known = self._redactors.get(paths)
        return (
            known if known is not None else self._redactors.setdefault(paths, self.redactor.including(paths))
        )

    def _permit(self, prepared: _Prepared, result: ActionResult) -> Permit:
        arguments, call = prepared.arguments, prepared.call
        return Permit(
            result.audit_event_id,
            arguments.given,
            arguments.digest,
            result,
            partial(self._record_outcome, result.audit_event_id, secrets=prepared.secrets),
            partial(_digest, call.schema, call.injected),
        )

    def _record_outcome(
        self, action_id: str, outcome: str, message: str | None, secrets: tuple[str, ...] = ()
    ) -> None:
        if message is not None:
            for secret in secrets:  # a tool's error often says what it was given
                message = message.replace(secret, MARKER)
            message = redact_text(message.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0"))
        try:
            self.client.record_outcome(action_id, outcome, message)
        except Exception:
            # The tool has run: nothing is gained by breaking its caller, and a lost outcome reads `unknown`, which
            # is true.
            _log.warning("the outcome of action `%s` could not be recorded", action_id, exc_info=True)

    def _action_type(self, call: ToolCall) -> str:
        try:
            return self.resolve(call.tool, call.target).action_type
        except InvalidRequestError:
            return "tool"

    # --- driving ----------------------------------------------------------------------------------------------------

    def _drive_sync(self, asking: _Asking) -> _Answer:
        client = self.client
        try:
            name, arguments, options = next(asking)
            while True:
                try:
                    result = getattr(client, f"{name}_sync")(*arguments, **options)
                except Exception as error:
                    name, arguments, options = asking.throw(error)
                else:
                    name, arguments, options = asking.send(result)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer

    async def _drive(self, asking: _Asking) -> _Answer:
        client = self.client
        try:
            name, arguments, options = next(asking)
            while True:
                try:
                    result = await getattr(client, name)(*arguments, **options)
                except Exception as error:
                    name, arguments, options = asking.throw(error)
                else:
                    name, arguments, options = asking.send(result)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer

    # --- when it goes wrong -----------------------------------------------------------------------------------------

    def _failed(self, call: ToolCall, error: Exception) -> Denial:
        tool, action_type = call.tool, self._action_type(call)
        if isinstance(error, AgentLatticeDeniedError):
            denied = ActionResult(
                "denied",
                error.audit_event_id or "",
                approval_id=error.approval_id,
                denial_reason=error.reason,
                policy_name=error.policy,
                conditions_evaluated=error.conditions,
            )
            return denial_from_result(denied, tool=tool, action_type=action_type)
        if isinstance(error, AgentLatticeTimeoutError):
            timed_out = ActionResult("timed_out", "", approval_id=error.approval_id)
            return denial_from_result(timed_out, tool=tool, action_type=action_type)
        if isinstance(error, EventIdConflictError):
            return refusal(
                "EVENT_ID_CONFLICT", None, tool=tool, action_type=action_type, action_id=error.audit_event_id
            )
        if isinstance(error, ForbiddenError):
            return refusal(error.code, None, tool=tool, action_type=action_type)
        # What went wrong is for the operator; the model only needs to know that nothing ran. It may name files and
        # hosts.
        _log.error(
            "a call of tool `%s` was denied because it could not be decided on or recorded",
            tool,
            exc_info=None if isinstance(error, AgentLatticeError) else error,
        )
        if isinstance(error, AgentLatticeError):
            _log.error("the reason: %s", error)
        return refusal("NOT_RECORDED", None, tool=tool, action_type=action_type)

    def _observed(self, call: ToolCall, denial: Denial) -> _Answer:
        """In observe mode nothing is withheld, whatever went wrong."""
        if self.client.mode != "observe":
            return denial
        result = ActionResult(
            "denied", denial.action_id or "", message=denial.text, denial_reason=denial.reason, observed=True
        )
        return Permit(
            denial.action_id or "",
            lenient_arguments(call.arguments, call.injected),
            "",
            result,
            _nothing,
            _no_digest,
        )


def _held(result: ActionResult) -> bool:
    """Whether this answer gave its caller the claim. A replay gives nothing."""
    return result.status == "executed" and result.claim == "started" and not result.replayed


def _secrets(arguments: Arguments, shown: Any) -> tuple[str, ...]:
    """What was taken out of the arguments whole, the longest first; too short a text would be found anywhere."""
    found = {*withheld(arguments.decided, shown), *withheld(arguments.given, shown)}
    return tuple(
        sorted((text for text in found if len(text) >= _LEAST_SECRET), key=lambda text: (-len(text), text))
    )


def _digest(schema: Any, injected: frozenset[str], arguments: Mapping[str, Any] | str | bytes) -> str | None:
    try:
        return canonical_arguments(arguments, schema, injected).digest
    except InvalidRequestError:
        return None


def _nothing(outcome: str, message: str | None) -> None:
    """The outcome of a call that is not in the log."""


def _no_digest(arguments: Mapping[str, Any] | str | bytes) -> str:
    return ""
