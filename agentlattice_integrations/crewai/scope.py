"""Who is calling: what the hooks know about a tool call, handed to the gate on the tool.

- CrewAI tells its hooks the agent, the task and the crew of a call, and tells the tool nothing. The hook
  before a call opens a scope, the gate on the tool reads it, the hook after the call closes it.
- A scope belongs to one call of one tool object. Nested calls (a delegate's tools) have scopes of their own,
  inside.
- It lives in a context variable: CrewAI copies the context into every thread in which it runs a tool.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.crewai.governor import Governor

__all__ = ["CallScope", "current_scope", "enter_scope", "ids_of", "leave_scope", "run_of", "scope_of"]


@dataclass(slots=True, eq=False)
class CallScope:
    """One tool call as the hook before it saw it.

    `tool_input` is CrewAI's own object for the arguments; the hook after the call is handed the same one.
    `attempts` counts how often it was asked about under this call, `denial` is the last refusal.
    `refused_in_advance` is the answer to every start of the tool under this call, where it was refused before
    it came to a start.
    """

    governor: Governor
    tool: object
    tool_input: object
    agent: Any = None
    task: Any = None
    run: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    outer: CallScope | None = None
    attempts: int = 0
    denial: Denial | None = None
    refused_in_advance: Denial | None = None


_current: ContextVar[CallScope | None] = ContextVar("agentlattice_crewai_call", default=None)


def current_scope() -> CallScope | None:
    """The innermost open scope."""
    return _current.get()


def enter_scope(scope: CallScope) -> None:
    """Open `scope` inside whatever scope is open."""
    scope.outer = _current.get()
    _current.set(scope)


def leave_scope(scope: CallScope) -> None:
    """Close `scope`, and anything inside it that was left open."""
    _current.set(scope.outer)


def scope_of(tool_input: object) -> CallScope | None:
    """The open scope of the call with this very arguments object, if there is one."""
    scope = _current.get()
    return scope if scope is not None and scope.tool_input is tool_input else None


def run_of(context: Any) -> str | None:
    """The run that a hook's context belongs to: the crew's id, else the agent's."""
    owner = context.crew or getattr(context.agent, "crew", None) or context.agent
    found = getattr(owner, "id", None)
    return None if found is None else str(found)


def ids_of(context: Any) -> dict[str, Any]:
    """Who acts, by name, as recorded with the action."""
    ids = {
        "crew": getattr(context.crew or getattr(context.agent, "crew", None), "name", None),
        "agent": getattr(context.agent, "role", None),
        "task": getattr(context.task, "name", None) or getattr(context.task, "id", None),
    }
    return {name: str(value).strip() for name, value in ids.items() if value is not None}
