"""What the framework is handed back, and what an outcome reads from.

- A denial is a tool message with `status="error"` whose text is the denial document. It is returned, never
  raised: a raised one would be retried by retry middleware and reworded by error handling.
- The document also travels as the message's artifact and, shortened, in `additional_kwargs["governance"]`,
  where user interfaces find it.
- An interrupt inside a tool is no failure: nobody can say yet whether the tool will run to its end.
"""

from __future__ import annotations

from typing import Any

import orjson
from langchain_core.messages import ToolMessage
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand

from agentlattice_core.toolcalls.call import Denial, Permit

__all__ = ["denial_message", "report_error", "report_result", "with_edit"]


def denial_message(denial: Denial, name: str, call_id: str | None) -> ToolMessage:
    """The tool message that tells the model why its call did not run.

    A call without an id gets an empty one: there is nothing the answer could refer to.
    """
    governance = {
        "status": denial.status,
        "reason": denial.reason,
        "approval_id": denial.approval_id,
        "action_id": denial.action_id,
    }
    return ToolMessage(
        content=denial.text,
        name=name,
        tool_call_id=call_id or "",
        status="error",
        artifact=dict(denial.document),
        additional_kwargs={
            "governance": {key: value for key, value in governance.items() if value is not None}
        },
    )


def with_edit(output: Any, permit: Permit) -> Any:
    """`output` of a tool that ran with arguments a person changed, saying so to the model."""
    ran = orjson.dumps(dict(permit.arguments), default=str).decode()
    said = f"A person changed the arguments of this call before it ran, to {ran}."
    if isinstance(output, ToolMessage) and isinstance(output.content, str):
        return output.model_copy(update={"content": f"{said}\n{output.content}"})
    return output


def report_result(permit: Permit, output: Any) -> None:
    """Report how a tool that returned went: an error message of its own counts as a failure."""
    for message in output if isinstance(output, list) else (output,):
        # The type first: asking whether something is an instance of a pydantic model is slow.
        if (type(message) is ToolMessage or isinstance(message, ToolMessage)) and message.status == "error":
            permit.failed(message.text[:1000] or "the tool answered with an error")
            return
    permit.succeeded()


def report_error(permit: Permit, error: BaseException) -> None:
    """Report how a tool that raised went."""
    if isinstance(error, GraphInterrupt):
        permit.abandoned("the tool was suspended by an interrupt of its own")
    elif isinstance(error, ParentCommand):
        permit.succeeded()
    elif isinstance(error, GraphBubbleUp) or not isinstance(error, Exception):
        permit.abandoned(f"the run ended while the tool was running: {type(error).__name__}")
    else:
        permit.failed(error)
