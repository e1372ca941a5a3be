"""Function tools, MCP tools and agents as tools: the decision in a tool guardrail, the proof of it at the invoker.

- The guardrail decides, last of all the tool's input guardrails: before hooks, outside the tool's timeout, and a denial
  is delivered as the tool's result, byte for byte. It is merged into the tool's last own guardrail, so that the lists
  of guardrail results keep their length.
- The invoker runs the tool only under a permit for exactly the arguments it was handed. Whoever calls it without one
  (directly, or after a hook changed the arguments) is decided on there.
- A governed tool is a copy of the tool. Its invoker keeps its type, so that the SDK finds on it all that it looks for:
  context type, sync marker, output schema, prepared arguments.
- How the tool ended is known at the invoker: raised, handled by the tool's error function, cancelled, or returned.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from agents import (
    FunctionTool,
    RunContextWrapper,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailData,
    ToolOutputGuardrail,
    ToolOutputGuardrailData,
    get_current_span,
)
from agents.tool_context import ToolContext
from agents.tracing import FunctionSpanData

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import CallKind, Denial, OnApproval, ToolCall
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, mark_of
from agentlattice_integrations.openai_agents.governor import (
    Governor,
    HeldPermit,
    OnBehalfOf,
    Settings,
    enclosing_call,
    identity_within,
    running,
    trace_id,
)
from agentlattice_integrations.openai_agents.pausing import PausingQuestion

try:
    from agents.agent_tool_state import (
        drop_agent_tool_run_result,
        get_agent_tool_state_scope,
        peek_agent_tool_run_result,
    )
except ImportError:  # an SDK that keeps this elsewhere: a suspended agent tool is then decided on again
    peek_agent_tool_run_result = None  # type: ignore[assignment]

__all__ = [
    "Seat",
    "govern_function_tool",
    "governance_guardrail",
    "is_governed",
    "kind_of",
    "mapping_target",
    "outcome_guardrail",
    "seat_of",
]

Invoker = Callable[[Any, str], Awaitable[Any]]

_permit_for_this_call: ContextVar[HeldPermit | None] = ContextVar("agentlattice_permit", default=None)
_SEAT = "agentlattice_seat"


class Seat:
    """Where a governor sits on one tool: what the tool is to the gate, and the run of it under a permit."""

    __slots__ = ("governor", "kind", "target", "tool")

    def __init__(self, governor: Governor, tool: FunctionTool, kind: CallKind) -> None:
        self.governor = governor
        self.tool = tool
        self.kind = kind
        self.target = mapping_target(tool)

    def call(self, context: Any, arguments: Mapping[str, Any] | str, call_id: str | None = None) -> ToolCall:
        """One call of this tool, as the gate is asked about it."""
        return self.governor.tool_call(
            self.tool.name,
            arguments or "{}",
            context if isinstance(context, RunContextWrapper) else None,
            kind=self.kind,
            call_id=call_id or _call_id(context),
            target=self.target,
            schema=self.tool.params_json_schema,
            # Whether an agent waits inside is not told to who is asked about its approval.
            suspended=self.kind == "agent"
            and (not isinstance(context, ToolContext) or _suspended_inside(context)),
        )

    async def decide(self, context: Any, arguments: str) -> HeldPermit | Denial:
        """The answer to one call of this tool: the one given when the SDK asked about approval, or the gate's now."""
        call = self.call(context, arguments)
        kept = self.governor.answers.take(call)
        if kept is not None:
            return kept
        answer = await self.governor.decide(call)
        return answer if isinstance(answer, Denial) else HeldPermit(answer, call)

    async def run(self, invoke: Invoker, context: Any, arguments: str) -> Any:
        """Run the tool if there is a permit for exactly this, and report how it went; else give the denial."""
        held = self._held(context, arguments)
        if held is None:
            answer = await self.decide(context, arguments)
            if isinstance(answer, Denial):
                going_on = self._going_on(answer, context, arguments)
                if going_on is None:
                    _forget_inside(context)
                    return answer.text
                answer = going_on
            held = answer
        held.used = True
        inner = running.set(held)
        outer = None
        if self.kind == "agent":
            outer = enclosing_call.set(identity_within(held.call.run, held.call.call_id))
        span = get_current_span() if held.call.run is not None else None  # without a trace there is none
        error_before = span.error if span is not None else None
        try:
            result = await invoke(context, arguments)
        except asyncio.CancelledError:
            held.permit.abandoned("cancelled before it ended")
            raise
        except BaseException as error:
            held.permit.failed(error)
            raise
        finally:
            running.reset(inner)
            if outer is not None:
                enclosing_call.reset(outer)
        if held.error is not None:
            held.permit.failed(held.error)
        elif self.kind == "agent" and _suspended_inside(context):
            self.governor.suspend(_suspension_key(context, arguments), held)
        elif (noted := _span_error(span, error_before)) is not None:
            held.permit.failed(noted)
        else:
            held.permit.succeeded()
        return result

    def _held(self, context: Any, arguments: str) -> HeldPermit | None:
        held = _permit_for_this_call.get()
        if held is not None and not held.used:
            if held.fits(self.tool.name, _call_id(context), arguments or "{}"):
                return held
            if held.call.call_id == _call_id(context) and held.call.tool == self.tool.name:
                held.drop()  # the arguments were changed after the decision
        if self.kind == "agent":
            return self.governor.resume(_suspension_key(context, arguments))
        return None

    def _going_on(self, denial: Denial, context: Any, arguments: str) -> HeldPermit | None:
        """The claim under which an agent that paused inside, in another process, goes on; it was never given up."""
        if (
            self.kind != "agent"
            or denial.reason != "OUTCOME_UNKNOWN"
            or denial.action_id is None
            or not _suspended_inside(context)
        ):
            return None
        return self.governor.claimed(denial.action_id, self.call(context, arguments))


class GovernanceGuardrail(ToolInputGuardrail[Any]):
    """The input guardrail that asks the gate; `inner` is the tool's own guardrail that it was merged into."""

    def __init__(self, governor: Governor, seat: Seat | None, inner: ToolInputGuardrail[Any] | None) -> None:
        super().__init__(
            guardrail_function=self._decide,
            name=inner.get_name() if inner is not None else "agentlattice",
        )
        self.governor = governor
        self.seat = seat
        self.inner = inner
        self.held: WeakKeyDictionary[ToolContext[Any], HeldPermit] = WeakKeyDictionary()

    async def _decide(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        own = None
        if self.inner is not None:
            own = await self.inner.run(data)
            if own.behavior["type"] != "allow":
                return own
        context = data.context
        seat = self.seat or Seat(self.governor, _find_tool(data), "function")
        if not _asked_before_approval(context, seat.tool, certain=self.seat is None):
            arguments = (
                context.tool_call.arguments if context.tool_call is not None else context.tool_arguments
            )
            answer = await seat.decide(context, arguments)
            if isinstance(answer, Denial):
                return ToolGuardrailFunctionOutput.reject_content(
                    answer.text, output_info=dict(answer.document)
                )
            if self.seat is None:
                answer.used = True  # without our invoker, the run is reported by `outcome_guardrail`
                self.held[context] = answer
            else:
                _permit_for_this_call.set(answer)
        return own if own is not None else ToolGuardrailFunctionOutput.allow()


def governance_guardrail(
    al: GovernanceClient | Delegate,
    *,
    actions: ActionTable | Mapping[Any, Any] | str | Path | None = None,
    redact: Sequence[str] = (),
    on_approval: OnApproval = "wait",
    approval_timeout: float | None = None,
    on_behalf_of: OnBehalfOf | None = None,
) -> ToolInputGuardrail[Any]:
    """The SDK's own form: an input guardrail for `@function_tool(tool_input_guardrails=[...])`.

    Takes the settings of `govern`. It decides, and nothing more: put `outcome_guardrail(guardrail)` beside it, or the
    log does not learn how the tool ended. `govern(tool, al)` does both, and closes direct calls of the tool as well.
    """
    if on_approval == "pause":
        raise InvalidRequestError(
            "on_approval `pause` takes more than a guardrail, which cannot pause a run; use `govern`, `wait` or `defer`"
        )
    settings = Settings(
        actions=actions,
        redact=tuple(redact),
        on_approval=on_approval,
        approval_timeout=approval_timeout,
        on_behalf_of=on_behalf_of,
    )
    return GovernanceGuardrail(Governor(al, settings), None, None)


def outcome_guardrail(guardrail: ToolInputGuardrail[Any]) -> ToolOutputGuardrail[Any]:
    """The output guardrail that reports how a tool ended which `guardrail`, from `governance_guardrail`, let run."""
    if not isinstance(guardrail, GovernanceGuardrail):
        raise TypeError("`outcome_guardrail` takes what `governance_guardrail` returned")
    held_by_context = guardrail.held

    def report(data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        held = held_by_context.pop(data.context, None)
        if held is not None:
            noted = _span_error(get_current_span(), None)
            if noted is not None:
                held.permit.failed(noted)
            elif trace_id() is None:
                held.permit.abandoned("returned; with tracing off a guardrail cannot see whether it failed")
            else:
                held.permit.succeeded()
        return ToolGuardrailFunctionOutput.allow()

    return ToolOutputGuardrail(guardrail_function=report, name="agentlattice outcome")


def govern_function_tool(
    tool: FunctionTool, governor: Governor, kind: CallKind | None = None, *, pausable: bool = True
) -> FunctionTool:
    """A governed copy of a function tool; a tool that is governed already is returned as it is.

    `pausable` says whether a `Runner` runs it, which can pause for an approval.
    """
    if is_governed(tool):
        return tool
    governed = copy.copy(tool)
    seat = Seat(governor, governed, kind or kind_of(tool))
    own = [rail for rail in governed.tool_input_guardrails or [] if not isinstance(rail, GovernanceGuardrail)]
    last = own.pop() if own else None
    governed.tool_input_guardrails = [*own, GovernanceGuardrail(governor, seat, last)]
    governed.on_invoke_tool = _governed_invoker(governed.on_invoke_tool, seat)
    if governor.pauses and pausable:
        governed.needs_approval = PausingQuestion(seat, governed.needs_approval)
    return governed


def is_governed(tool: FunctionTool) -> bool:
    """Whether the gate stands before this tool."""
    return getattr(tool.on_invoke_tool, _SEAT, None) is not None


def seat_of(tool: FunctionTool) -> Seat | None:
    """The seat on a governed tool."""
    return cast("Seat | None", getattr(tool.on_invoke_tool, _SEAT, None))


def kind_of(tool: FunctionTool) -> CallKind:
    """What kind of call a call of this tool is."""
    if getattr(tool, "_agent_instance", None) is not None:
        return "agent"
    origin = getattr(getattr(tool, "_tool_origin", None), "type", None)
    return "mcp" if getattr(origin, "value", origin) == "mcp" else "function"


def mapping_target(tool: FunctionTool) -> object:
    """Where the mapping is looked for: what `@governed` marked, else the function behind the tool, else the tool."""
    return tool if mark_of(tool) is not None else getattr(tool, "__wrapped__", tool)


class _HandledErrors:
    """Stands before the SDK's handler of errors that were turned into text for the model, and remembers the error."""

    def __init__(self, handler: Callable[..., None]) -> None:
        self.handler = handler

    def __call__(self, tool: Any, error: BaseException, *rest: Any) -> None:
        held = running.get()
        if held is not None:
            held.error = error
        self.handler(tool, error, *rest)


def _governed_invoker(invoker: Invoker, seat: Seat) -> Invoker:
    if callable(getattr(invoker, "__agents_bind_function_tool__", None)):
        return _seated(copy.copy(invoker), seat)
    return _wrapped(invoker, seat)


def _seated(invoker: Any, seat: Seat) -> Invoker:
    """Give the SDK's invoker, in place, a subclass of its own class that asks for the permit."""
    handler = getattr(invoker, "_on_handled_error", None)
    if callable(handler) and not isinstance(handler, _HandledErrors):
        invoker._on_handled_error = _HandledErrors(handler)
    invoker.__class__ = _invoker_class(type(invoker))
    setattr(invoker, _SEAT, seat)
    return cast(Invoker, invoker)


_invoker_classes: dict[type[Any], type[Any]] = {}


def _invoker_class(base: type[Any]) -> type[Any]:
    known = _invoker_classes.get(base)
    if known is not None:
        return known

    class GovernedInvoker(base):  # type: ignore[misc]
        def __agents_bind_function_tool__(self, tool: FunctionTool) -> Any:
            bound = super().__agents_bind_function_tool__(tool)
            if bound is self:
                return self
            seat = getattr(self, _SEAT)
            return _seated(bound, Seat(seat.governor, tool, seat.kind))

        def prepare_arguments(self, input: str, tool_name: str) -> Any:
            """Newer versions ask a person, and not `needs_approval`, where preparing changes the arguments. Policy has
            to be asked about those as well, so nothing is prepared before.
            """
            if isinstance(getattr(self, _SEAT).tool.needs_approval, PausingQuestion):
                return None
            return super().prepare_arguments(input, tool_name)

        async def __call__(self, ctx: ToolContext[Any], input: str) -> Any:
            return await getattr(self, _SEAT).run(super().__call__, ctx, input)

    GovernedInvoker.__name__ = base.__name__
    GovernedInvoker.__qualname__ = base.__qualname__
    return _invoker_classes.setdefault(base, GovernedInvoker)


def _wrapped(invoker: Invoker, seat: Seat) -> Invoker:
    """Put a function before a plain invoker, with its signature and annotations: they choose the context it gets."""

    @functools.wraps(invoker)
    async def governed(ctx: Any, input: str) -> Any:
        return await seat.run(invoker, ctx, input)

    def bind(tool: FunctionTool) -> Invoker:
        if tool is seat.tool:
            return governed
        own = invoker
        if inspect.ismethod(invoker) and invoker.__self__ is seat.tool:
            own = invoker.__func__.__get__(tool, type(tool))
        return _wrapped(own, Seat(seat.governor, tool, seat.kind))

    setattr(governed, _SEAT, seat)
    governed.__agents_bind_function_tool__ = bind  # type: ignore[attr-defined]
    return governed


def _call_id(context: Any) -> str | None:
    return context.tool_call_id if isinstance(context, ToolContext) else None


def _suspension_key(context: Any, arguments: str) -> tuple[str | None, str, str]:
    return (trace_id(), _call_id(context) or "", arguments)


def _suspended_inside(context: Any) -> bool:
    if (
        peek_agent_tool_run_result is None
        or not isinstance(context, ToolContext)
        or context.tool_call is None
    ):
        return False
    inner = peek_agent_tool_run_result(context.tool_call, scope_id=get_agent_tool_state_scope(context))
    return bool(getattr(inner, "interruptions", None))


def _forget_inside(context: Any) -> None:
    """Where an agent may not go on, what it waits for inside must not hold up the run."""
    if _suspended_inside(context):
        drop_agent_tool_run_result(context.tool_call, scope_id=get_agent_tool_state_scope(context))


def _span_error(span: Any, before: Any) -> str | None:
    if span is None or not isinstance(span.span_data, FunctionSpanData):
        return None
    error = span.error
    if not error or error is before:
        return None
    detail = (error.get("data") or {}).get("error")
    return f"{error['message']}: {detail}" if detail else str(error["message"])


def _find_tool(data: ToolInputGuardrailData) -> FunctionTool:
    name = data.context.tool_name
    for tool in data.agent.tools:
        if isinstance(tool, FunctionTool) and tool.name == name:
            return tool

    async def unknown(_context: Any, _arguments: str) -> Any:
        raise RuntimeError("a stand-in for a tool that the agent does not list")

    return FunctionTool(name, "", {}, unknown, strict_json_schema=False)


def _asked_before_approval(context: ToolContext[Any], tool: FunctionTool, *, certain: bool) -> bool:
    """Whether the SDK runs guardrails only to see if it should ask a person; they run again before the tool does.

    With our invoker behind the guardrail a wrong yes does no harm, the invoker decides. Without, it must be `certain`.
    """
    if tool.needs_approval is False:
        return False
    execution = getattr(context.run_config, "tool_execution", None)
    if not getattr(execution, "pre_approval_tool_input_guardrails", False):
        return False
    if certain and tool.needs_approval is not True:
        return False
    return (
        context.get_approval_status(tool.name, context.tool_call_id, tool_namespace=context.tool_namespace)
        is None
    )
