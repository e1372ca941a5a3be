"""What stands before every tool of one `govern(...)` call: the gate, its settings, and the report of what it
covers.

- CrewAI gives a tool call no identity of its own that outlives the process. In a flow that can pause, a call is told
  by its place in the flow (`pauses`); where the application names its run, by its place in that. Everywhere else
  no two calls are taken for the same, and a call that is made again after a restart is a new action.
- A run is what the application names so, else the flow's if it can pause, else the crew's id, or the agent's where
  there is no crew.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from crewai.utilities.string_utils import sanitize_tool_name

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ApprovalRequest
from agentlattice_core.toolcalls.call import CallKind, Denial, OnApproval, Permit, ToolCall
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, governed
from agentlattice_integrations.crewai.pauses import (
    call_place,
    current_method,
    pausable_method,
)

__all__ = [
    "FRAMEWORK",
    "ActionsLike",
    "Governor",
    "HostedTools",
    "OnBehalfOf",
    "Operator",
    "Settings",
    "told",
]

ActionsLike = ActionTable | Mapping[Any, Any] | str | Path | None
HostedTools = Literal["refuse", "allow"]
OnBehalfOf = str | Callable[[], str | None]

FRAMEWORK = "crewai"
"""What calls of this framework are called in the log."""
_MOST_RUNS = 1000


class Operator(Protocol):
    """A client of a person who may decide on approvals."""

    def approve_action_sync(self, approval_id: str, reason: str | None = None) -> ApprovalRequest:
        """Approve a request."""
        ...

    def deny_action_sync(self, approval_id: str, reason: str | None = None) -> ApprovalRequest:
        """Deny a request."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller chose.

    - `actions`: an action table, what one is built from, or the path of a YAML file. Tools are named as the
      model sees them (`delegate_work_to_coworker`); other spellings of a name are read as that.
    - `redact`: paths to redact beside what is recognised as secret.
    - `on_approval`: `pause` pauses the flow that the call is made in, and waits where there is none that can pause;
      `wait` blocks the agent's worker thread until a person has decided, `defer` tells the model that the call is
      pending. `approval_timeout`: the longest wait in seconds; None: the approval's own deadline.
    - `hosted_tools`: tools that the model's provider runs itself: `refuse` takes them away, `allow` leaves
      them, ungoverned.
    - `on_behalf_of`: the end user, or a function without arguments that names the present one.
    - `task_action`: the action type of starting a task; None: tasks start without being asked about.
    - `run`: what the application calls the piece of work (a ticket's number), or a function without arguments that
      names the present one. The n-th time that a call is made in a run is one action, also after a restart.
    - `operator`: a client of the person whose feedback a paused flow is resumed with.
    """

    actions: ActionsLike = None
    redact: tuple[str, ...] = ()
    on_approval: OnApproval = "pause"
    approval_timeout: float | None = None
    hosted_tools: HostedTools = "refuse"
    on_behalf_of: OnBehalfOf | None = None
    task_action: str | None = None
    run: OnBehalfOf | None = None
    operator: Operator | None = None


class _StartOfTask:
    """Stands for the start of a task where the gate looks for a tool."""


class Governor:
    """One gate with its settings, and the coverage report of all that it governs.

    Raises InvalidRequestError or ValueError for settings that cannot be used.
    """

    def __init__(self, al: GovernanceClient, settings: Settings) -> None:
        if settings.hosted_tools not in ("refuse", "allow"):
            raise InvalidRequestError(f"hosted_tools `{settings.hosted_tools}` is not one of refuse, allow")
        self.settings = settings
        self.gate = ToolGate(
            al,
            actions=_as_the_model_sees(settings.actions),
            redact=settings.redact,
            on_approval="wait" if settings.on_approval == "pause" else settings.on_approval,
            approval_timeout=settings.approval_timeout,
        )
        # Asks about calls for which a flow can pause: it answers at once that they are pending.
        self._asking = self.gate
        if settings.on_approval == "pause":
            self._asking = ToolGate(
                al, actions=self.gate.actions, redact=settings.redact, on_approval="defer"
            )
        self._runs: OrderedDict[str, Counter[str]] = OrderedDict()
        self._lock = threading.Lock()
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
        settings, role = self.settings, (context or {}).get("agent")
        identity = None
        method = pausable_method() if settings.on_approval == "pause" else None
        if method is not None:
            place = method.place(tool, arguments, role)
            run, identity, attempt = method.run, place.identity, place.attempt
        elif settings.run is not None:
            run = told(settings.run)
            identity = None if run is None else self._next_in_run(run, tool, arguments, role)
        return ToolCall(
            FRAMEWORK,
            tool,
            arguments,
            identity=identity,
            attempt=attempt,
            kind=kind,
            target=target,
            schema=schema,
            run=run,
            on_behalf_of=told(settings.on_behalf_of),
            context=context or {},
        )

    def authorize_sync(self, call: ToolCall) -> Permit | Denial:
        """Decide on `call`: wait for a person, or have the flow pause that it was made in."""
        if not self._is_paused_for(call):
            return self.gate.authorize_sync(call)
        return self._noted(call, self._asking.authorize_sync(call))

    async def authorize(self, call: ToolCall) -> Permit | Denial:
        """As `authorize_sync`."""
        if not self._is_paused_for(call):
            return await self.gate.authorize(call)
        return self._noted(call, await self._asking.authorize(call))

    def kept(self, call: ToolCall) -> str | None:
        """What the tool returned for this very call before its flow paused."""
        method = current_method.get()
        return None if method is None or call.identity is None else method.kept.get(call.identity)

    def keep(self, call: ToolCall, result: Any, *, suspended: bool) -> None:
        """Note what the tool returned, for the model to read again if the flow pauses; or that it was suspended."""
        method = current_method.get()
        if method is None or not self._is_paused_for(call):
            return
        assert call.identity is not None
        if suspended:
            method.suspended[call.identity] = call.attempt
        else:
            method.kept[call.identity] = str(result)

    def _is_paused_for(self, call: ToolCall) -> bool:
        method = current_method.get()
        return (
            method is not None
            and call.identity is not None
            and call.run == method.run
            and self.settings.on_approval == "pause"
        )

    def _noted(self, call: ToolCall, answer: Permit | Denial) -> Permit | Denial:
        method = current_method.get()
        if isinstance(answer, Denial) and answer.status == "pending" and method is not None:
            method.waits_for(call, answer)
        return answer

    def _next_in_run(self, run: str, tool: str, arguments: Mapping[str, Any], role: str | None) -> str:
        with self._lock:
            counts = self._runs.setdefault(run, Counter())
            self._runs.move_to_end(run)
            if len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
            return call_place(run, counts, tool, arguments, role)

    def of_nobody(
        self, tool: str, kind: CallKind, target: object, error: Exception
    ) -> tuple[ToolCall, str, str]:
        """What to refuse, and why, where the function that names the end user raised `error`."""
        message = (
            f"it cannot be told on whose behalf the call is made, so it was not made ({type(error).__name__})"
        )
        return ToolCall(FRAMEWORK, tool, {}, kind=kind, target=target), "NOT_COVERABLE", message


def told(source: OnBehalfOf | None) -> str | None:
    """The name that `source` is or tells at present."""
    return source() if callable(source) else source


def _as_the_model_sees(actions: ActionsLike) -> ActionsLike:
    if not isinstance(actions, Mapping):
        return actions
    return {
        sanitize_tool_name(key)
        if isinstance(key, str) and not any(mark in key for mark in "*?[")
        else key: value
        for key, value in actions.items()
    }
