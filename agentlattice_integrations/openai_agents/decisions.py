"""Decisions on a paused run: what the core knows of each call that a `RunState` waits for, carried into the state.

- Approved calls are approved in the state, denied and timed out ones rejected with the denial document. The rest stays.
- Nothing is claimed here: an approved call is claimed when it runs, and decided on once more then.
- What the application itself approved or rejected in the state counts as the decision of the person whose client it
  names as `operator`. Where it names nobody, its approval does not count, and its rejection takes the request back.
- Calls that only the tool's own `needs_approval` asks about are the application's, and are left to it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from agents import FunctionTool, RunContextWrapper, RunState
from agents.items import ToolApprovalItem

from agentlattice_core.errors import IllegalTransitionError
from agentlattice_core.results import ActionOptions, ActionResult
from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_integrations.openai_agents.executors import ExecutorDecisions, decisions_of
from agentlattice_integrations.openai_agents.function_tools import Seat, seat_of
from agentlattice_integrations.openai_agents.governor import (
    Governor,
    HeldPermit,
    identity_of,
    identity_within,
)
from agentlattice_integrations.openai_agents.pausing import PausingQuestion

try:
    from agents.agent_tool_state import peek_agent_tool_run_result
except (
    ImportError
):  # an SDK that keeps this elsewhere: calls inside an agent that is a tool are left as they are
    peek_agent_tool_run_result = None  # type: ignore[assignment]

__all__ = ["PendingCall", "apply_decisions"]

_NO_OPERATOR = "rejected in the application, which named no operator"


class ApprovalsClient(GovernanceClient, Protocol):
    """What carrying decisions into a state needs of the agent's client, beside what the gate does."""

    async def approval_status(self, approval_id: str) -> str:
        """How a request stands; claims nothing."""
        ...

    async def cancel(self, audit_event_id: str, reason: str | None = None) -> None:
        """Take a request back."""
        ...


class OperatorClient(Protocol):
    """A client that decides for a person, such as `al.for_operator("dana")`."""

    async def approve_action(self, approval_id: str, reason: str | None = None) -> Any:
        """Approve a request."""
        ...

    async def deny_action(self, approval_id: str, reason: str | None = None) -> Any:
        """Deny a request."""
        ...


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that a state still waits for. `approval_id` is None where the application itself asks, not policy."""

    tool: str
    call_id: str
    approval_id: str | None
    action_id: str | None
    item: ToolApprovalItem = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Paused:
    """An interruption, and where it is: `context` belongs to the run that made the call, `outer` to its agent's."""

    item: ToolApprovalItem
    context: RunContextWrapper[Any]
    outer: str | None


@dataclass(frozen=True, slots=True)
class _Question:
    """What policy is asked about one interruption: `own` says that the application itself asks, `calls` makes the parts
    of the call, and `expect` is told of each that is to run.
    """

    governor: Governor
    own: bool
    calls: Callable[[], list[ToolCall]]
    expect: Callable[[ToolCall], None]


async def apply_decisions(
    state: RunState[Any, Any], *, operator: OperatorClient | None = None
) -> list[PendingCall]:
    """Carry the core's decisions into `state`, a paused run; what it still waits for is returned.

    Call it after `result.to_state()` or `RunState.from_string(...)`, then give the state to the `Runner`, in the same
    process. A call that is left undecided pauses the run again. `operator` is the client of the person whose decisions
    the application has put into the state. Raises ForbiddenError where that person may not decide.
    """
    run = _trace_of(state)
    waiting: list[PendingCall] = []
    for paused in _paused(state, run):
        open_call = await _Carrying(state, run, paused, operator).carry()
        if open_call is not None:
            waiting.append(open_call)
    return waiting


class _Carrying:
    """One interruption of a state."""

    def __init__(
        self, state: RunState[Any, Any], run: str | None, paused: _Paused, operator: OperatorClient | None
    ) -> None:
        self.state = state
        self.run = run
        self.item = paused.item
        self.context = paused.context
        self.outer = paused.outer
        self.operator = operator
        self.tool: str = paused.item.tool_name or ""
        self.call_id = _member(paused.item.raw_item, "call_id") or ""

    async def carry(self) -> PendingCall | None:
        said = self._said()
        question = await self._question()
        if question is None or self.run is None or question.own:
            return self._open() if said is None else None
        governor = question.governor
        for context in (self.context, self.state._context):
            if context is not None:
                governor.resumed_as(context, self.run)
        identity = identity_of(self.run, self.call_id, outer=self.outer)
        calls = [dataclasses.replace(call, run=self.run, identity=identity) for call in question.calls()]
        denied: Denial | None = None
        waiting: Denial | None = None
        for call in calls:
            answer, approved = await self._answer(governor, call, said)
            if isinstance(answer, HeldPermit):
                governor.answers.keep(call, answer)
            elif not approved and answer.status == "pending":
                waiting = waiting or answer
            elif not approved:
                denied = denied or answer
        if said is False:
            return None  # what the application rejects stays rejected, with the application's message
        if denied is not None:
            self.state.reject(self.item, rejection_message=denied.text)
            return None
        if waiting is not None:
            return self._open(waiting)
        for call in calls:
            question.expect(call)
        self.state.approve(self.item)
        return None

    async def _answer(
        self, governor: Governor, call: ToolCall, said: bool | None
    ) -> tuple[HeldPermit | Denial, bool]:
        """The answer to one part of the call, and whether a person has approved it, which leaves it to be claimed."""
        kept = governor.answers.kept(call)
        if kept is not None:
            return kept, False
        answer, approved = await _look(governor, call)
        if said is not None and isinstance(answer, Denial) and answer.status == "pending" and not approved:
            await self._apply(said, answer, governor, call)
            if said:
                answer, approved = await _look(governor, call)
        return (answer if isinstance(answer, Denial) else HeldPermit(answer, call)), approved

    async def _apply(self, approve: bool, pending: Denial, governor: Governor, call: ToolCall) -> None:
        """Let what the application says in the state be the decision of the person that it names."""
        assert pending.approval_id is not None
        assert pending.action_id is not None
        try:
            if self.operator is not None and approve:
                await self.operator.approve_action(pending.approval_id)
            elif self.operator is not None:
                await self.operator.deny_action(pending.approval_id, self._message())
            elif not approve:
                await governor.withdraw(call, pending.action_id, _NO_OPERATOR)
        except IllegalTransitionError:
            pass  # it was decided meanwhile, and that decision counts

    def _said(self) -> bool | None:
        """What the application decided in the state."""
        return self.context.get_approval_status(
            self.tool, self.call_id, tool_namespace=self.item.tool_namespace, existing_pending=self.item
        )

    def _message(self) -> str | None:
        return self.context.get_rejection_message(
            self.tool, self.call_id, tool_namespace=self.item.tool_namespace, existing_pending=self.item
        )

    async def _question(self) -> _Question | None:
        """What policy is asked about this call; None where nobody governs the tool, or its calls do not pause."""
        agent = self.item.agent
        tools: Iterable[Any] = await agent.get_all_tools(self.context) if agent is not None else ()
        for tool in tools:
            if getattr(tool, "name", None) != self.tool:
                continue
            if not isinstance(tool, FunctionTool):
                decisions = decisions_of(tool)
                return None if decisions is None else await self._executors_question(decisions)
            asked, seat = tool.needs_approval, seat_of(tool)
            if seat is None or not isinstance(asked, PausingQuestion):
                return None
            return await self._functions_question(seat, asked)
        return None

    async def _functions_question(self, seat: Seat, asked: PausingQuestion) -> _Question:
        arguments = _member(self.item.raw_item, "arguments") or "{}"
        return _Question(
            seat.governor,
            await asked.asks_itself(self.context, _parsed(arguments), self.call_id),
            lambda: [seat.call(self.context, arguments, self.call_id)],
            lambda _: None,  # the SDK tells a function tool which call it is
        )

    async def _executors_question(self, decisions: ExecutorDecisions) -> _Question:
        parts = decisions.parts(self.item.raw_item, self.context)
        own = False
        for part in parts:
            own = own or await decisions.asks_itself(self.context, part, self.call_id)
        return _Question(
            decisions.governor,
            own,
            lambda: [decisions.call(self.context, part, self.call_id) for part in parts],
            decisions.expect,
        )

    def _open(self, pending: Denial | None = None) -> PendingCall:
        return PendingCall(
            self.tool,
            self.call_id,
            pending.approval_id if pending is not None else None,
            pending.action_id if pending is not None else None,
            self.item,
        )


class _Onlooker:
    """The agent's client for one look: it asks, and learns what was decided, and leaves a grant where it is."""

    def __init__(self, al: Any) -> None:
        self._al = al
        self._result: ActionResult | None = None
        self.approved = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._al, name)

    async def execute(
        self, action_type: str, options: ActionOptions | None = None, **more: Any
    ) -> ActionResult:
        result: ActionResult = await self._al.execute(action_type, options, **more)
        self._result = result
        return result

    async def claim(self, audit_event_id: str) -> ActionResult:
        result = self._result
        assert result is not None
        assert result.approval_id is not None
        status = await self._al.approval_status(result.approval_id)
        self.approved = status == "approved"
        if self.approved or status == "pending":
            return result
        refused: ActionResult = await self._al.claim(audit_event_id)
        return refused


async def _look(governor: Governor, call: ToolCall) -> tuple[Any, bool]:
    """The gate's answer to a call without a claim on what a person approved, and whether somebody has."""
    onlookers: list[_Onlooker] = []

    def through(client: GovernanceClient) -> GovernanceClient:
        onlookers.append(_Onlooker(client))
        return cast(GovernanceClient, onlookers[0])

    answer = await governor.look(call, through)
    return answer, any(onlooker.approved for onlooker in onlookers)


def _paused(state: RunState[Any, Any], run: str | None, outer: str | None = None) -> Iterator[_Paused]:
    """Every interruption of a run, each with the run it belongs to: those of agents that are tools stand inside."""
    inner: set[tuple[str | None, ...]] = set()
    processed = state._last_processed_response
    if processed is not None and peek_agent_tool_run_result is not None:
        for made in processed.functions:
            result = peek_agent_tool_run_result(made.tool_call, scope_id=state._agent_tool_state_scope_id)
            if result is None or not result.interruptions:
                continue
            inner.update(_called(item) for item in result.interruptions)
            nested = result.to_state()
            if isinstance(nested, RunState):
                yield from _paused(nested, run, identity_within(run, made.tool_call.call_id, outer))
    assert state._context is not None
    for item in state.get_interruptions():
        if _called(item) not in inner:
            yield _Paused(item, state._context, outer)


def _called(item: ToolApprovalItem) -> tuple[str | None, ...]:
    """What tells the calls of a run and of the agents inside it apart: the same call is there as two objects."""
    return (item.tool_name, _member(item.raw_item, "call_id"), _member(item.raw_item, "arguments"))


def _trace_of(state: RunState[Any, Any]) -> str | None:
    found = getattr(state._trace_state, "trace_id", None)
    return found if isinstance(found, str) and found != "no-op" else None


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _member(raw: Any, name: str) -> str | None:
    found = raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)
    return found if isinstance(found, str) else None
