"""CrewAI's tool hooks: who is calling, tools that appear at kickoff, and cached results.

- The decision is made by the gate on the tool, on the arguments the tool is about to receive: hooks see raw
  ones, and a later hook can still change them. The hook before a call tells the gate who is calling, and puts
  a gate on every tool that has none: delegation, manager, memory and MCP tools exist only from kickoff on.
- A cached result never reaches the tool, so the hooks ask about it themselves. What is denied is taken out of
  the cache, so that the refusal comes from the tool: a tool's refusal is never the task's answer, a blocked
  call's text could be.
- CrewAI runs the tool when a hook raises. Nothing is raised here: what goes wrong blocks the call.
- The hook after the call shows the model the denial document, whatever CrewAI made of it meanwhile. It is
  there for calls that were refused, that raised, or that a cache may answer.
- Only CrewAI's public hook functions are used.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from crewai.hooks.contexts import StepContext
from crewai.hooks.dispatch import (
    HookAborted,
    InterceptionPoint,
    get_hooks,
    get_scoped_hooks,
    register,
    scoped_hooks,
    unregister,
)
from crewai.hooks.llm_hooks import LLMCallHookContext

from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_core.toolcalls.denial import refusal
from agentlattice_core.toolcalls.mapping import default_action_type
from agentlattice_integrations.crewai.deadlines import note_model_call
from agentlattice_integrations.crewai.governor import Governor
from agentlattice_integrations.crewai.hosted import hosted_tools
from agentlattice_integrations.crewai.pauses import PauseRun, current_method
from agentlattice_integrations.crewai.scope import (
    CallScope,
    enter_scope,
    leave_scope,
    scope_of,
    who_acts,
)
from agentlattice_integrations.crewai.tool_gate import gate_of, gate_tool, kind_of, name_of, original_tool

__all__ = ["CallHooks", "GovernorFor"]

_log = logging.getLogger("agentlattice")
_SOURCE = "agentlattice"

GovernorFor = Callable[[Any], Governor | None]
"""Says who governs a call, from the hook's context; None: it is not governed here."""


class _HookContext(Protocol):
    """What CrewAI hands to a tool hook, as far as it is used here."""

    tool_name: str
    tool_input: dict[str, Any]
    tool: Any
    agent: Any
    task: Any
    crew: Any
    tool_result: str | None
    raw_tool_result: Any


class CallHooks:
    """The hooks before and after a tool call, before a task, and before a model call.

    `governor_for` says who governs a call. Each hook point costs CrewAI more time than the hook itself, so in
    the process-wide lists the hook after a call stands only while there is a call that needs it, and the one
    before a model call only where an agent has a deadline.
    """

    def __init__(self, governor_for: GovernorFor) -> None:
        self._governor_for = governor_for
        self._always: dict[InterceptionPoint, Callable[[Any], Any]] = {
            InterceptionPoint.PRE_TOOL_CALL: self.before_call,
            InterceptionPoint.PRE_STEP: self.before_task,
        }
        self._at_times: dict[InterceptionPoint, Callable[[Any], Any]] = {
            InterceptionPoint.POST_TOOL_CALL: self.after_call,
            InterceptionPoint.PRE_MODEL_CALL: self.before_model_call,
        }
        self._lock = threading.Lock()
        self._watched = 0

    def register(self, *, deadlines: bool) -> None:
        """Put the hooks into CrewAI's process-wide lists, once; doing it again puts back what was cleared.

        `deadlines`: there is an agent with a `max_execution_time`.
        """
        for point, hook in self._always.items():
            _register(point, hook)
        if deadlines:
            _register(InterceptionPoint.PRE_MODEL_CALL, self.before_model_call)

    def unregister(self) -> None:
        """Take the hooks out of CrewAI's process-wide lists."""
        for point, hook in {**self._always, **self._at_times}.items():
            unregister(point, hook)

    @contextmanager
    def scoped(self) -> Iterator[None]:
        """The hooks for what runs inside, beside the scoped hooks that are there already; once, however deep."""
        points = {point: [*get_scoped_hooks(point)] for point in InterceptionPoint}
        for point, hook in {**self._always, **self._at_times}.items():
            if hook not in points[point]:
                points[point].append(hook)
        with scoped_hooks(points):
            yield

    def before_call(self, context: _HookContext) -> bool | None:
        """Before a tool call: False blocks it, None lets it go on to the gate on the tool."""
        try:
            if scope_of(context.tool_input) is not None:
                return None
            governor = self._governor_for(context)
            if governor is None or context.tool is None:
                return None
            run, ids = who_acts(context)
            scope = CallScope(
                governor,
                original_tool(context.tool),
                context.tool_input,
                self._watch,
                agent=context.agent,
                task=context.task,
                run=run,
                context=ids,
            )
            enter_scope(scope)
        except Exception:
            _log.exception("a tool call was blocked: it cannot be told who makes it")
            return False
        try:
            _gate_everything(governor, context, scope.tool)
            if _cache_of(context) is not None:
                self._watch(scope)
                if _cached(context) is not None and _refuses_cached(scope, context):
                    _forget_cached(context)
        except Exception as error:
            _block(scope, context, error)
            return False
        return None

    def after_call(self, context: _HookContext) -> str | None:
        """After a tool call, blocked or not: the text the model reads, or None to leave it as it is."""
        scope = scope_of(context.tool_input)
        if scope is None:
            return None
        try:
            leave_scope()
            self._unwatch(scope)
            if scope.attempts == 0 and scope.denial is None and _is_from_cache(context):
                _refuses_cached(scope, context)
            if scope.denial is not None:
                _allow_the_same_again(context)
        except Exception as error:
            _block(scope, context, error)
        return None if scope.denial is None else scope.denial.text

    def _watch(self, scope: CallScope) -> None:
        with self._lock:
            if not scope.watched:
                scope.watched = True
                self._watched += 1
            _register(InterceptionPoint.POST_TOOL_CALL, self.after_call)

    def _unwatch(self, scope: CallScope) -> None:
        with self._lock:
            if scope.watched:
                scope.watched = False
                self._watched -= 1
            if self._watched == 0:
                unregister(InterceptionPoint.POST_TOOL_CALL, self.after_call)

    def before_model_call(self, context: LLMCallHookContext) -> None:
        """Before a model call: note when the agent began; raises PauseRun, which ends the run, where a flow pauses."""
        _end_what_waits()
        note_model_call(context)

    def before_task(self, context: StepContext) -> None:
        """Before a task starts: raises HookAborted, which ends the run, where it may not."""
        if context.kind != "task":
            return
        try:
            governor = self._governor_for(context)
            if governor is None:
                return
            _refuse_hosted_tools(governor, context)
            if governor.start_of_task is None:
                return
            told = {
                "task": context.step_name,
                "agent": context.agent_role,
                "context": context.payload or None,
            }
            run, ids = who_acts(context)
            call = governor.tool_call(
                "task",
                {name: str(value) for name, value in told.items() if value is not None},
                kind="executor",
                target=governor.start_of_task,
                run=run,
                context=ids,
            )
            answer = governor.authorize_sync(call)
        except HookAborted:
            raise
        except Exception as error:
            raise HookAborted(
                f"the task could not be governed, so it did not start: {error}", _SOURCE
            ) from error
        if isinstance(answer, Denial):
            _end_what_waits()
            raise HookAborted(answer.text, _SOURCE)
        answer.succeeded()


def _end_what_waits() -> None:
    method = current_method.get()
    if method is not None and method.pending:
        raise PauseRun


def _register(point: InterceptionPoint, hook: Callable[[Any], Any]) -> None:
    if hook not in get_hooks(point):
        register(point, hook)


def _refuse_hosted_tools(governor: Governor, context: StepContext) -> None:
    """A model may have been given its provider's tools after the crew was governed."""
    if governor.settings.hosted_tools != "refuse":
        return
    crew = getattr(context.agent, "crew", None)
    for agent in (context.agent, *getattr(crew, "agents", ())):
        named = hosted_tools(getattr(agent, "llm", None))
        if named:
            raise HookAborted(
                f"the model of agent `{agent.role}` was given tools that its provider runs, which cannot be "
                f'governed: `{"`, `".join(named)}`; remove them, or govern with hosted_tools="allow"',
                _SOURCE,
            )


def _gate_everything(governor: Governor, context: _HookContext, original: object) -> None:
    """Put a gate on this tool and on its neighbours: with two tools of one name, CrewAI may run the other one."""
    executor = getattr(context.agent, "agent_executor", None)
    held = (
        *(getattr(executor, "original_tools", None) or ()),
        *(getattr(context.agent, "tools", None) or ()),
    )
    if gate_of(original) is not None and all(gate_of(tool) is not None for tool in held):
        return
    for tool in (context.tool, *(getattr(executor, "tools", None) or ()), *held):
        if gate_of(original_tool(tool)) is None:
            placed = gate_tool(tool, governor)
            placed.note(getattr(context.agent, "role", None))


def _block(scope: CallScope, context: _HookContext, error: Exception) -> None:
    """Refuse the call, whatever else goes wrong: CrewAI would run the tool if this raised."""
    _log.error("a call of tool `%s` was blocked", context.tool_name, exc_info=error)
    message = f"the tool could not be governed, so it did not run ({type(error).__name__})"
    try:
        denial = scope.governor.gate.refuse_sync(_as_call(scope, context), "NOT_COVERABLE", message)
    except Exception:
        _log.exception("that a call of tool `%s` was blocked could not be recorded", context.tool_name)
        name = str(context.tool_name)
        denial = refusal("NOT_COVERABLE", message, tool=name, action_type=default_action_type(name))
    scope.refused(denial)


# --- cached results
# -------------------------------------------------------------------------------------------------


def _cache_of(context: _HookContext) -> Any:
    return getattr(getattr(context.agent, "tools_handler", None), "cache", None)


def _cached(context: _HookContext) -> Any:
    cache = _cache_of(context)
    return None if cache is None else cache.read(tool=context.tool_name, input=_cache_key(context))


def _cache_key(context: _HookContext) -> str:
    return json.dumps(context.tool_input) if context.tool_input else ""


def _is_from_cache(context: _HookContext) -> bool:
    cached = _cached(context)
    return cached is not None and context.raw_tool_result is cached


def _forget_cached(context: _HookContext) -> None:
    # CrewAI reads a stored None as "not cached"; there is no other public way to take an entry out.
    context.agent.tools_handler.cache.add(tool=context.tool_name, input=_cache_key(context), output=None)


def _refuses_cached(scope: CallScope, context: _HookContext) -> bool:
    """Ask about a cached result, which takes no start of the tool; whether it was refused."""
    scope.attempts += 1
    answer = scope.governor.authorize_sync(_as_call(scope, context))
    if isinstance(answer, Denial):
        scope.refused_in_advance = answer
        scope.refused(answer)
        return True
    answer.succeeded()
    return False


def _as_call(scope: CallScope, context: _HookContext) -> ToolCall:
    """The call as the hook sees it: raw arguments, validated by the gate with the tool's own schema."""
    return scope.governor.tool_call(
        name_of(scope.tool),
        context.tool_input,
        attempt=max(1, scope.attempts),
        kind=kind_of(scope.tool),
        target=scope.tool,
        schema=getattr(scope.tool, "args_schema", None),
        run=scope.run,
        context=scope.context,
    )


def _allow_the_same_again(context: _HookContext) -> None:
    # CrewAI refuses to make the same text call twice in a row, and a refused call was not made: the model is
    # told to come back with the same arguments when a person has approved.
    handler = getattr(context.agent, "tools_handler", None)
    if handler is not None:
        handler.last_used_tool = None
