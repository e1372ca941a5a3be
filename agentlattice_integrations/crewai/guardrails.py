"""A task's output as an action: `Task(guardrail=task_guardrail(al, "report.publish"))`.

- CrewAI takes real functions with one parameter and the annotation `tuple[bool, Any]`, nothing else.
- A denial goes back to the agent as the guardrail's complaint, and the agent tries again: at most
  `guardrail_max_retries` times, each a decision of its own. Then CrewAI ends the run with an error.
- It guards what a task hands on, not what its tools did meanwhile. In a list of guardrails it belongs last:
  CrewAI does not run the earlier ones again on an answer that was changed for a later one.
- Assigning `task.guardrail` after the task was made needs `task.ensure_guardrails_is_list_of_callables()`
  after it where a list is given, or CrewAI silently ignores it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentlattice_core.toolcalls.call import Denial, OnApproval
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import governed
from agentlattice_integrations.crewai.governor import Governor, OnBehalfOf, Settings

__all__ = ["task_guardrail"]


class _Output:
    """Stands for the output where the gate looks for a tool."""


def task_guardrail(
    al: GovernanceClient,
    action_type: str,
    *,
    redact: tuple[str, ...] | list[str] = (),
    on_approval: OnApproval = "pause",
    approval_timeout: float | None = None,
    on_behalf_of: OnBehalfOf | None = None,
    **mapping: Any,
) -> Callable[[Any], tuple[bool, Any]]:
    """A guardrail that lets a task's output pass only as an allowed action of type `action_type`.

    The action's arguments are `output` (the text), `task` and `agent`. `mapping` are further members of
    `ToolMapping`, such as `data_accessed=[...]`, `metadata={...}` or `arguments=[]` to record none of the
    text. Raises InvalidRequestError, ValueError or TypeError for a mapping that cannot be used.
    """
    governor = Governor(
        al,
        Settings(
            redact=tuple(redact),
            on_approval=on_approval,
            approval_timeout=approval_timeout,
            on_behalf_of=on_behalf_of,
        ),
    )
    target = governed(action_type, **mapping)(_Output())

    def guardrail(output: Any) -> tuple[bool, Any]:
        try:
            told = {
                "output": output.raw,
                "task": getattr(output, "name", None),
                "agent": getattr(output, "agent", None),
            }
            arguments = {name: str(value).strip() for name, value in told.items() if value is not None}
            call = governor.tool_call("task_output", arguments, kind="executor", target=target)
            answer = governor.authorize_sync(call)
        except Exception as error:
            return (
                False,
                f"the output could not be governed, so it was not passed on ({type(error).__name__})",
            )
        if isinstance(answer, Denial):
            return False, answer.text
        answer.succeeded()
        return True, output

    # CrewAI compares the annotation itself, which must not be the text that this module's annotations are.
    guardrail.__annotations__ = {"output": Any, "return": tuple[bool, Any]}
    return guardrail
