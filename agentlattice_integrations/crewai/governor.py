"""What stands before every tool of one `govern(...)` call: the gate, its settings, and the report of what it
covers.

- CrewAI gives a tool call no identity of its own that outlives the process: no two calls are taken for the
  same, and a call that is made again after a restart is a new action.
- A run is the crew's id, or the agent's where there is no crew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crewai.utilities.string_utils import sanitize_tool_name

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import CallKind, OnApproval, ToolCall
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, governed

__all__ = ["ActionsLike", "Governor", "HostedTools", "OnBehalfOf", "Settings"]

ActionsLike = ActionTable | Mapping[Any, Any] | str | Path | None
HostedTools = Literal["refuse", "allow"]
OnBehalfOf = str | Callable[[], str | None]

FRAMEWORK = "crewai"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller chose.

    - `actions`: an action table, what one is built from, or the path of a YAML file. Tools are named as the
      model sees them (`delegate_work_to_coworker`); other spellings of a name are read as that.
    - `redact`: paths to redact beside what is recognised as secret.
    - `on_approval`: `wait` blocks the agent's worker thread until a person has decided, `defer` tells the
      model that the call is pending. `approval_timeout`: the longest wait in seconds; None: the approval's
      own deadline.
    - `hosted_tools`: tools that the model's provider runs itself: `refuse` takes them away, `allow` leaves
      them, ungoverned.
    - `on_behalf_of`: the end user, or a function without arguments that names the present one.
    - `task_action`: the action type of starting a task; None: tasks start without being asked about.
    """

    actions: ActionsLike = None
    redact: tuple[str, ...] = ()
    on_approval: OnApproval = "wait"
    approval_timeout: float | None = None
    hosted_tools: HostedTools = "refuse"
    on_behalf_of: OnBehalfOf | None = None
    task_action: str | None = None


class _StartOfTask:
    """Stands for the start of a task where the gate looks for a tool."""


class Governor:
    """One gate with its settings, and the coverage report of all that it governs.

    Raises InvalidRequestError or ValueError for settings that cannot be used.
    """

    def __init__(self, al: GovernanceClient, settings: Settings) -> None:
        if settings.on_approval == "pause":
            raise InvalidRequestError(
                "on_approval `pause` is not available for CrewAI, which cannot pause inside a tool call; "
                "use `wait` or `defer`"
            )
        if settings.hosted_tools not in ("refuse", "allow"):
            raise InvalidRequestError(f"hosted_tools `{settings.hosted_tools}` is not one of refuse, allow")
        self.settings = settings
        self.gate = ToolGate(
            al,
            actions=_as_the_model_sees(settings.actions),
            redact=settings.redact,
            on_approval=settings.on_approval,
            approval_timeout=settings.approval_timeout,
        )
        self.coverage = Coverage()
        self.start_of_task = (
            None if settings.task_action is None else governed(settings.task_action)(_StartOfTask())
        )

    def tool_call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        kind: CallKind,
        target: object | None,
        schema: Any = None,
        attempt: int = 1,
        run: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> ToolCall:
        """Describe one call of a tool. Raises whatever the function that names the end user raises."""
        told = self.settings.on_behalf_of
        return ToolCall(
            FRAMEWORK,
            tool,
            arguments,
            attempt=attempt,
            kind=kind,
            target=target,
            schema=schema,
            run=run,
            on_behalf_of=told() if callable(told) else told,
            context=context or {},
        )

    def of_nobody(
        self, tool: str, kind: CallKind, target: object, error: Exception
    ) -> tuple[ToolCall, str, str]:
        """What to refuse, and why, where the function that names the end user raised `error`."""
        message = (
            f"it cannot be told on whose behalf the call is made, so it was not made ({type(error).__name__})"
        )
        return ToolCall(FRAMEWORK, tool, {}, kind=kind, target=target), "NOT_COVERABLE", message


def _as_the_model_sees(actions: ActionsLike) -> ActionsLike:
    if not isinstance(actions, Mapping):
        return actions
    return {
        sanitize_tool_name(key)
        if isinstance(key, str) and not any(mark in key for mark in "*?[")
        else key: value
        for key, value in actions.items()
    }
