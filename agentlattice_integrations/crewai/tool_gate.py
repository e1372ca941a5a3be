"""The gate on a tool, in place: the tool object stays the one that the user, CrewAI and its caches hold.

- Class, schema, fields, signature and usage counts stay as they are; only what executes is replaced, on the
  object: the function of a `@tool`, the `_run` and `_arun` of any other tool, and `run` and `arun` where a
  class brings its own.
- Each start of the tool is a decision of its own, on the arguments the tool is about to receive. CrewAI
  starts a tool that raises up to six times for one call of the model: each start needs a permit.
- A refusal is returned, as a `ToolDenied`, and never raised.
- A tool whose `_run` calls its own `_arun` with the same arguments is one start. Anything else it calls is
  asked about.
- Between the decision and the start nothing may have changed: neither the arguments nor the agent's deadline.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any

from crewai.tools import BaseTool
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool
from crewai.tools.base_tool import Tool
from crewai.tools.mcp_native_tool import MCPNativeTool
from crewai.tools.mcp_tool_wrapper import MCPToolWrapper
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.string_utils import sanitize_tool_name
from pydantic import AnyUrl
from pydantic_core import to_jsonable_python

from agentlattice_core.actions import MAX_DEPTH
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import CallKind, Denial, Permit, ToolCall
from agentlattice_integrations.crewai.deadlines import time_is_over
from agentlattice_integrations.crewai.denials import ToolDenied
from agentlattice_integrations.crewai.governor import Governor
from agentlattice_integrations.crewai.pauses import PauseRun, is_waited_for
from agentlattice_integrations.crewai.scope import CallScope, Start, leave_scope, scope_for, under_way

__all__ = ["GateInPlace", "gate_of", "gate_tool", "kind_of", "name_of", "original_tool"]

_ENTRIES = ("run", "arun", "_run", "_arun")
_REPLACED = ("func", "_run", "_arun", "run", "arun")
_OWN = frozenset(getattr(owner, name) for owner in (BaseTool, Tool) for name in _ENTRIES)
_MARK = "__agentlattice_gate__"
_WRITTEN_AS_TEXT = (bytes, timedelta, PurePath, IPv4Address, IPv6Address, AnyUrl)
_UNCHANGEABLE = frozenset({str, int, float, bool, type(None)})
_installing = threading.Lock()


def original_tool(tool: object) -> object:
    """The tool that the user made, for the structured copy of it that CrewAI's executors and hooks hold."""
    if isinstance(tool, CrewStructuredTool):
        return getattr(tool, "_original_tool", None) or tool
    return tool


def kind_of(tool: object) -> CallKind:
    """What sort of tool it is: another agent, a server's tool, or a function."""
    if isinstance(tool, BaseAgentTool):
        return "agent"
    if isinstance(tool, MCPNativeTool | MCPToolWrapper):
        return "mcp"
    return "function"


def name_of(tool: Any) -> str:
    """The name a tool is governed by: a server's own name for it, else the name that the model sees.

    What CrewAI calls a server's tool holds the server's command line or address, which differs by machine.
    """
    if isinstance(tool, MCPNativeTool | MCPToolWrapper):
        return tool.original_tool_name
    return sanitize_tool_name(tool.name)


def gate_of(tool: object) -> GateInPlace | None:
    """The gate on `tool`, or None; a copy that carries the gate of the tool it was copied from has none."""
    held = getattr(tool, "__dict__", None)
    if held is None:
        return None
    for name in _REPLACED:
        if name in held:
            gate: GateInPlace | None = getattr(held[name], _MARK, None)
            if gate is not None:
                return gate if gate.tool is tool else None
    return None


def gate_tool(tool: object, governor: Governor) -> GateInPlace:
    """Put a gate before `tool` (a BaseTool or a CrewStructuredTool), in place; once is enough.

    A tool that has a gate keeps it: who holds the tool in common with others decides through their hooks.
    Raises InvalidRequestError for something that is no tool.
    """
    original = original_tool(tool)
    if not isinstance(original, BaseTool | CrewStructuredTool):
        raise InvalidRequestError(
            f"`{type(tool).__name__}` is not a tool; pass a CrewAI tool, agent, crew or flow"
        )
    placed = gate_of(original)
    if placed is None:
        with _installing:
            placed = gate_of(original)
            if placed is None:
                _take_off_the_gate_of_another(original)
                placed = GateInPlace(original, governor)
                placed.install()
    if isinstance(tool, CrewStructuredTool) and tool is not original and not isinstance(original, Tool):
        # The structured copy took the bound method when it was made, perhaps before the gate stood there.
        object.__setattr__(tool, "func", original._run)
    return placed


class GateInPlace:
    """The gate on one tool object."""

    __slots__ = ("governor", "kind", "name", "tool")

    def __init__(self, tool: BaseTool | CrewStructuredTool, governor: Governor) -> None:
        self.tool = tool
        self.governor = governor
        self.name = name_of(tool)
        self.kind = kind_of(tool)

    def install(self) -> None:
        """Replace what executes, on the object itself (past pydantic, which would validate and track it)."""
        for name in _entries_to_gate(self.tool):
            entry = getattr(self.tool, name)
            gated = self._gated_async(entry, name) if _is_async(entry) else self._gated(entry, name)
            setattr(gated, _MARK, self)
            object.__setattr__(self.tool, name, gated)

    def note(self, owner: str | None) -> None:
        """Enter the tool into the report of whoever governs it. `owner` is the role of the agent that holds
        it.
        """
        self.governor.coverage.add(
            self.name,
            kind=self.kind,
            action_type=self.governor.gate.resolve(self.name, self.tool).action_type,
            owner=owner,
        )

    def _gated(self, entry: Callable[..., Any], name: str) -> Callable[..., Any]:
        signature = inspect.signature(entry)

        @functools.wraps(entry)
        def gated(*args: Any, **kwargs: Any) -> Any:
            arguments = kwargs if not args else _named(signature, args, kwargs)
            decided_on = _as_json(arguments)
            if self._is_part_of_a_start(name, decided_on):
                return entry(*args, **kwargs)
            scope = scope_for(self.tool)
            if scope is not None and scope.refused_in_advance is not None:
                return ToolDenied.of(scope.refused_in_advance)
            governor = self.governor if scope is None else scope.governor
            try:
                call = self._call(governor, name, decided_on, scope)
            except Exception as error:
                unnamed = governor.of_nobody(self.name, self.kind, self.tool, error)
                return _denied(scope, governor.gate.refuse_sync(*unnamed))
            kept = governor.kept(call)
            if kept is not None:
                return _kept(scope, kept)
            answer = governor.authorize_sync(call)
            if isinstance(answer, Denial):
                return _denied(scope, answer)
            changed = _changed_meanwhile(governor, answer, arguments, scope)
            if changed is not None:
                answer.failed(changed[1])
                return _denied(scope, governor.gate.refuse_sync(call, *changed))
            start = self._start(answer, governor, scope, name, call)
            started = under_way.set(start)
            try:
                result = entry(*args, **kwargs)
            except BaseException as error:
                _raised(start, error)
                raise
            finally:
                under_way.reset(started)
            if inspect.isawaitable(result):
                return self._later(start, result)
            return _returned(start, result)

        return gated

    def _gated_async(self, entry: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        signature = inspect.signature(entry)

        @functools.wraps(entry)
        async def gated(*args: Any, **kwargs: Any) -> Any:
            arguments = kwargs if not args else _named(signature, args, kwargs)
            decided_on = _as_json(arguments)
            if self._is_part_of_a_start(name, decided_on):
                return await entry(*args, **kwargs)
            scope = scope_for(self.tool)
            if scope is not None and scope.refused_in_advance is not None:
                return ToolDenied.of(scope.refused_in_advance)
            governor = self.governor if scope is None else scope.governor
            try:
                call = self._call(governor, name, decided_on, scope)
            except Exception as error:
                unnamed = governor.of_nobody(self.name, self.kind, self.tool, error)
                return _denied(scope, await governor.gate.refuse(*unnamed))
            kept = governor.kept(call)
            if kept is not None:
                return _kept(scope, kept)
            answer = await governor.authorize(call)
            if isinstance(answer, Denial):
                return _denied(scope, answer)
            changed = _changed_meanwhile(governor, answer, arguments, scope)
            if changed is not None:
                answer.failed(changed[1])
                return _denied(scope, await governor.gate.refuse(call, *changed))
            return await self._later(self._start(answer, governor, scope, name, call), entry(*args, **kwargs))

        return gated

    def _start(
        self, permit: Permit, governor: Governor, scope: CallScope | None, name: str, call: ToolCall
    ) -> Start:
        return Start(self.tool, permit, governor, scope, {name}, call, self.kind, under_way.get())

    async def _later(self, start: Start, result: Awaitable[Any]) -> Any:
        started = under_way.set(start)
        try:
            value = await result
        except BaseException as error:
            _raised(start, error)
            raise
        finally:
            under_way.reset(started)
        return _returned(start, value)

    def _call(
        self, governor: Governor, name: str, arguments: Mapping[str, Any], scope: CallScope | None
    ) -> ToolCall:
        # CrewAI validates before `_run` and a tool's function; a class with a `run` of its own is shown raw
        # arguments.
        schema = self.tool.args_schema if name in ("run", "arun") else None
        if scope is None:
            return governor.tool_call(self.name, arguments, kind=self.kind, target=self.tool, schema=schema)
        scope.attempts += 1
        return governor.tool_call(
            self.name,
            arguments,
            kind=self.kind,
            target=self.tool,
            schema=schema,
            attempt=scope.attempts,
            run=scope.run,
            context=scope.context,
        )

    def _is_part_of_a_start(self, name: str, arguments: Mapping[str, Any]) -> bool:
        start = under_way.get()
        if (
            start is None
            or start.tool is not self.tool
            or name in start.passed
            or not start.permit.covers(arguments)
        ):
            return False
        start.passed.add(name)
        return True


def _changed_meanwhile(
    governor: Governor, permit: Permit, arguments: Mapping[str, Any], scope: CallScope | None
) -> tuple[str, str] | None:
    """Why the permit does not hold any more, as reason and message, or None."""
    if governor.gate.client.mode == "observe":
        return None
    if time_is_over(scope):
        return (
            "DEADLINE_OVER",
            "the agent's `max_execution_time` was over before the tool could start; it did not run",
        )
    if not _cannot_change(arguments) and not permit.covers(_as_json(arguments)):
        return (
            "ARGUMENTS_CHANGED",
            "the arguments were changed after they were decided on; the tool did not run",
        )
    return None


def _as_json(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments as a schema writes them: the tool is handed the objects that it made of the model's text."""
    if _cannot_change(arguments):
        return arguments
    return {name: _json(value) for name, value in arguments.items()}


def _json(value: Any, depth: int = 1) -> Any:
    if depth > MAX_DEPTH:
        return value  # the gate refuses it
    if isinstance(value, dict):
        return {name: _json(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        # In an order of its own, so that the same set is the same arguments in every process.
        return sorted((_json(item, depth + 1) for item in value), key=repr)
    if isinstance(value, _WRITTEN_AS_TEXT):
        try:
            return to_jsonable_python(value)
        except ValueError:
            pass  # bytes that are no text; the gate refuses them
    return value


def _cannot_change(arguments: Mapping[str, Any]) -> bool:
    """Whether nobody else can change the values: the mapping itself belongs to the call."""
    return all(type(value) in _UNCHANGEABLE for value in arguments.values())


def _take_off_the_gate_of_another(tool: BaseTool | CrewStructuredTool) -> None:
    """A copy of a governed tool holds the gated methods of the tool it was copied from, and would run as that one."""
    for name in _REPLACED:
        entry: Any = tool.__dict__.get(name)
        if getattr(entry, _MARK, None) is None:
            continue
        if name == "func":
            object.__setattr__(tool, name, entry.__wrapped__)
        else:
            object.__delattr__(tool, name)


def _entries_to_gate(tool: BaseTool | CrewStructuredTool) -> list[str]:
    if isinstance(tool, CrewStructuredTool):
        return ["func"]
    own = [name for name in _ENTRIES if name in tool.__dict__ or getattr(type(tool), name) not in _OWN]
    return [*own, "func"] if isinstance(tool, Tool) else own


def _is_async(entry: object) -> bool:
    return inspect.iscoroutinefunction(entry)


def _named(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, as the tool will see them. Raises TypeError where the call does not fit the
    tool.
    """
    named = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(named.pop(parameter.name, {}))
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and parameter.name in named:
            named[parameter.name] = list(named[parameter.name])
    return named


def _denied(scope: CallScope | None, denial: Denial) -> ToolDenied:
    if scope is not None:
        scope.refused(denial)
    elif is_waited_for(denial):
        raise PauseRun  # code that called the tool by itself would go on as if it had run
    return ToolDenied.of(denial)


def _kept(scope: CallScope | None, result: str) -> str:
    if scope is not None:
        scope.denial = None
    return result


def _returned(start: Start, result: Any) -> Any:
    scope, permit = start.scope, start.permit
    if scope is not None:
        scope.denial = None
        if not scope.watched:
            leave_scope()
    if start.suspended:
        _suspended(start)
    elif isinstance(result, ToolFailure):
        permit.failed(result.message)
    else:
        start.governor.keep(start.call, result, suspended=False)
        permit.succeeded()
    return result


def _raised(start: Start, error: BaseException) -> None:
    scope, permit = start.scope, start.permit
    if scope is not None:
        scope.watch(scope)  # CrewAI may start the tool again under the same call
    if start.suspended:
        _suspended(start)
    elif isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
        permit.failed(error)
    else:
        permit.abandoned(f"interrupted by {type(error).__name__}")


def _suspended(start: Start) -> None:
    start.governor.keep(start.call, None, suspended=True)
    start.permit.abandoned("suspended: a call made inside it waits for a person, and its flow paused")
