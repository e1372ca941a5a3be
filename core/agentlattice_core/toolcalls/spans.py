"""A span for each tool call, from the question to the outcome.

- By the OpenTelemetry API where the process has it: nothing is imported for it, and without a tracer that records
  nothing is done. Who set one up gets the spans, and nobody else.
- It is called `execute_tool <tool>`. Its `gen_ai.*` attributes are copied as text from the conventions, which still
  change; what is ours begins with `al.`. It names the action (`al.audit_event_id`), whose entry names its trace.
- It holds names and ids, never arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, TypeVar

from agentlattice_core.toolcalls.call import Denial, Permit, ToolCall

__all__ = ["traced", "traced_sync"]

_SOURCE = "agentlattice"

Gate = TypeVar("Gate")
Answer = Permit | Denial


def traced_sync(
    authorize: Callable[[Gate, ToolCall, Any], Answer],
) -> Callable[..., Answer]:
    """Give a gate's question a span."""

    @wraps(authorize)
    def asked(gate: Gate, call: ToolCall, on_approval: Any = None) -> Answer:
        span = _begun(gate, call)
        if span is None:
            return authorize(gate, call, on_approval)
        with _current(span):
            answer = authorize(gate, call, on_approval)
        return _answered(span, answer)

    return asked


def traced(
    authorize: Callable[[Gate, ToolCall, Any], Coroutine[Any, Any, Answer]],
) -> Callable[..., Coroutine[Any, Any, Answer]]:
    """As `traced_sync`, for a coroutine function."""

    @wraps(authorize)
    async def asked(gate: Gate, call: ToolCall, on_approval: Any = None) -> Answer:
        span = _begun(gate, call)
        if span is None:
            return await authorize(gate, call, on_approval)
        try:
            with _current(span):
                answer = await authorize(gate, call, on_approval)
        except BaseException as error:  # cancelled: the gate raises nothing else
            span.set_attribute("error.type", type(error).__name__)
            span.end()
            raise
        return _answered(span, answer)

    return asked


def _begun(gate: Any, call: ToolCall) -> Any:
    """A span for the call; None where nobody records one."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_tracer(_SOURCE).start_span(f"execute_tool {call.tool}")
    if not span.is_recording():
        return None
    said = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.tool,
        "gen_ai.tool.call.id": call.call_id,
        "gen_ai.agent.name": getattr(gate.client, "agent", None),
        "gen_ai.conversation.id": call.run,
        "al.framework": call.framework,
    }
    span.set_attributes({name: value for name, value in said.items() if value is not None})
    return span


def _current(span: Any) -> Any:
    use_span = sys.modules["opentelemetry.trace"].use_span
    return use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


def _answered(span: Any, answer: Answer) -> Answer:
    if isinstance(answer, Denial):
        span.set_attributes({"al.decision": answer.status, "error.type": answer.reason})
        _name(span, answer.action_id, answer.approval_id)
        span.end()
        return answer
    span.set_attribute("al.decision", answer.result.status)
    if answer.result.policy_name is not None:
        span.set_attribute("al.policy", answer.result.policy_name)
    _name(span, answer.action_id, answer.result.approval_id)
    answer._report = partial(_ended, span, answer._report)
    return answer


def _name(span: Any, action_id: str | None, approval_id: str | None) -> None:
    if action_id:
        span.set_attribute("al.audit_event_id", action_id)
    if approval_id:
        span.set_attribute("al.approval_id", approval_id)


def _ended(span: Any, report: Callable[[str, str | None], None], outcome: str, message: str | None) -> None:
    """The tool's outcome ends its span."""
    span.set_attribute("al.outcome", outcome)
    if outcome != "succeeded":
        # The name of the error, of which the text may hold anything.
        span.set_attribute("error.type", (message or outcome).partition(":")[0][:100])
    span.end()
    report(outcome, message)
