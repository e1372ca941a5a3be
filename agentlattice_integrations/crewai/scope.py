"""Who is calling: what the hooks know about a tool call, handed to the gate on the tool.

- CrewAI tells its hooks the agent, the task and the crew of a call, and tells the tool nothing. The hook
  before a call leaves a scope, the gate on that very tool reads it.
- It lives in a context variable: CrewAI copies the context into every thread in which it runs a tool.
- A tool that runs is a start; calls made inside it (a delegate's tools) work for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentlattice_core.toolcalls.call import CallKind, Denial, Permit, ToolCall

if TYPE_CHECKING:
    from agentlattice_integrations.crewai.governor import Governor

__all__ = [
    "CallScope",
    "Start",
    "current_action_id",
    "enter_scope",
    "leave_scope",
    "scope_for",
    "scope_of",
    "under_way",
    "who_acts",
]


@dataclass(slots=True, eq=False)
class CallScope:
    """One tool call as the hook before it saw it.

    `tool_input` is CrewAI's own object for the arguments; the hook after the call is handed the same one.
    `outer` is the call inside which this one is made. `attempts` counts how often it was asked about under
    this call, `denial` is the last refusal. `refused_in_advance` is the answer to every start of the tool
    under this call, where it was refused before it came to a start. `watch` makes sure that the hook after
    the call is called.
    """

    governor: Governor
    tool: object
    tool_input: object
    watch: Callable[[CallScope], None]
    agent: Any = None
    task: Any = None
    run: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    outer: CallScope | None = None
    attempts: int = 0
    denial: Denial | None = None
    refused_in_advance: Denial | None = None
    watched: bool = False

    def refused(self, denial: Denial) -> None:
        """Note a refusal, for the hook after the call to show."""
        self.denial = denial
        self.watch(self)


@dataclass(slots=True, eq=False)
class Start:
    """A permitted start of a tool that is under way.

    `passed` are its entries that were already gone through, `outer` the start inside which it was made.
    `suspended`: a call made inside it waits for a person, and the flow will pause.
    """

    tool: object
    permit: Permit
    governor: Governor
    scope: CallScope | None
    passed: set[str]
    call: ToolCall
    kind: CallKind
    outer: Start | None = None
    suspended: bool = False


under_way: ContextVar[Start | None] = ContextVar("agentlattice_crewai_start", default=None)
"""The innermost tool that is running."""
_current: ContextVar[CallScope | None] = ContextVar("agentlattice_crewai_call", default=None)


def current_action_id() -> str | None:
    """Inside a governed tool: the id of its action in the log, which serves as an idempotency key. Else None."""
    start = under_way.get()
    return None if start is None else start.permit.action_id


def enter_scope(scope: CallScope) -> None:
    """The call of `scope` is about to be made."""
    start = under_way.get()
    scope.outer = None if start is None else start.scope
    _current.set(scope)


def leave_scope() -> None:
    """The call is over."""
    _current.set(None)


def scope_for(tool: object) -> CallScope | None:
    """The call under which `tool` is started, if the hook before it left one."""
    scope = _current.get()
    return scope if scope is not None and scope.tool is tool else None


def scope_of(tool_input: object) -> CallScope | None:
    """The call with this very arguments object, if it is the present one."""
    scope = _current.get()
    return scope if scope is not None and scope.tool_input is tool_input else None


def who_acts(context: Any) -> tuple[str | None, dict[str, Any]]:
    """The run that a hook's context belongs to (the crew's id, else the agent's), and who acts in it, by name."""
    agent, task = context.agent, context.task
    crew = context.crew or getattr(agent, "crew", None)
    owner = getattr(agent if crew is None else crew, "id", None)
    ids = {
        "crew": getattr(crew, "name", None),
        "agent": getattr(agent, "role", None),
        "task": getattr(task, "name", None) or getattr(task, "id", None),
    }
    return (
        None if owner is None else str(owner),
        {name: str(value).strip() for name, value in ids.items() if value is not None},
    )
