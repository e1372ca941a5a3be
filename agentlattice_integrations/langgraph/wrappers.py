"""Tool calls on their way through a ToolNode: decided on, and run with what was decided on.

- The decision comes before whatever lies between here and the tool (a cache, an emulator), so that a denied
  call gets nothing from those either. The tool is replaced by its governed copy, which runs with these arguments,
  or asks again if they were changed.
- Where nothing lies between, the ToolNode is given the tool as it is, and a copy of the arguments that nobody else
  holds: going through the governed copy would only find the decision a second time.
- Both wrappers exist because a ToolNode that was given only one of them leaves calls of the other kind alone.
- A tool nobody registered is left to the ToolNode, which tells the model so. Where other wrappers come
  between, one of them may supply the tool after the decision: such a call is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import tool_node
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.langgraph.deciding import NO_ID, CallGate, Subject
from agentlattice_integrations.langgraph.messages import denial_message, report_error, report_result
from agentlattice_integrations.langgraph.tickets import Ticket
from agentlattice_integrations.langgraph.tools import gates_of, governed_copy, origin_of

__all__ = ["AsyncExecute", "CallWrappers", "Execute"]

Execute = Callable[[ToolCallRequest], "ToolMessage | Command[Any]"]
AsyncExecute = Callable[[ToolCallRequest], Awaitable["ToolMessage | Command[Any]"]]

_REMEMBERED_COPIES = 1024
_TOOL_NODE = "langgraph.prebuilt.tool_node"
_UNKNOWN = (
    "the tool is not registered where governance looks, so what would run is not known; register it with the "
    "agent, or list GovernanceMiddleware after the middleware that supplies it"
)


class CallWrappers:
    """The sync and the async wrapper over one gate, in the form that ToolNode and middleware take.

    `supplied` says that tools which other wrappers supply are governed further in.
    """

    def __init__(self, gate: CallGate, *, supplied: bool = False) -> None:
        self.gate = gate
        self._supplied = supplied
        self._lock = threading.Lock()
        self._copies: OrderedDict[int, _Known] = OrderedDict()

    def wrap(self, request: ToolCallRequest, execute: Execute) -> ToolMessage | Command[Any]:
        """Decide on the call; run it, or answer with the denial."""
        call = request.tool_call
        if not call["id"]:
            return self.gate.refuse_sync(call, request.runtime.config, "INVALID_REQUEST", NO_ID)
        tool = request.tool
        if tool is None:
            if self._supplied or _is_innermost(execute):
                return execute(request)
            return self.gate.refuse_sync(call, request.runtime.config, "NOT_COVERABLE", _UNKNOWN)
        governed, subject = self._known(tool)
        facts = subject.facts
        arguments = facts.model_arguments(call["args"])
        answer = self.gate.take(subject, arguments) or self.gate.decide_sync(
            facts, subject.target, arguments, call["id"], request.runtime.config
        )
        if isinstance(answer, Denial):
            return denial_message(answer, facts.name, call["id"])
        with answer:
            try:
                output = execute(_for_the_tool(request, execute, governed, answer))
            except BaseException as error:
                report_error(answer.permit, error)
                raise
        _settle(answer, output)
        return output

    async def awrap(self, request: ToolCallRequest, execute: AsyncExecute) -> ToolMessage | Command[Any]:
        """As `wrap`, for async calls."""
        call = request.tool_call
        if not call["id"]:
            return await self.gate.refuse(call, request.runtime.config, "INVALID_REQUEST", NO_ID)
        tool = request.tool
        if tool is None:
            if self._supplied or _is_innermost(execute):
                return await execute(request)
            return await self.gate.refuse(call, request.runtime.config, "NOT_COVERABLE", _UNKNOWN)
        governed, subject = self._known(tool)
        facts = subject.facts
        arguments = facts.model_arguments(call["args"])
        answer = self.gate.take(subject, arguments) or await self.gate.decide(
            facts, subject.target, arguments, call["id"], request.runtime.config
        )
        if isinstance(answer, Denial):
            return denial_message(answer, facts.name, call["id"])
        with answer:
            try:
                output = await execute(_for_the_tool(request, execute, governed, answer))
            except BaseException as error:
                report_error(answer.permit, error)
                raise
        _settle(answer, output)
        return output

    def _known(self, tool: BaseTool) -> tuple[BaseTool, Subject]:
        """The governed copy of `tool`, and what the gate asks about."""
        key = id(tool)
        present = (tool.name, tool.args_schema, tool.__dict__.get("func"), tool.__dict__.get("coroutine"))
        known = self._copies.get(key)
        if known is None or known.tool is not tool or known.made_from != present:
            known = _Known(tool, present, governed_copy(tool, self.gate), self.gate.subject(origin_of(tool)))
            with self._lock:
                self._copies[key] = known
                if len(self._copies) > _REMEMBERED_COPIES:
                    self._copies.popitem(last=False)
        return known.governed, known.subject


@dataclass(frozen=True, slots=True)
class _Known:
    """A tool that came by, what its copy was made from, the copy, and what the gate asks about."""

    tool: BaseTool
    made_from: tuple[Any, ...]
    governed: BaseTool
    subject: Subject


def _is_innermost(execute: Callable[..., Any]) -> bool:
    """Whether `execute` is the ToolNode's own, with no other wrapper in between."""
    return getattr(execute, "__module__", None) == _TOOL_NODE


def _is_tool_nodes_own(execute: Callable[..., Any]) -> bool:
    """As `_is_innermost`, and not to be mistaken about: a wrapper may bear the name of what it wraps."""
    return getattr(execute, "__globals__", None) is tool_node.__dict__


def _for_the_tool(
    request: ToolCallRequest, execute: Callable[..., Any], governed: BaseTool, ticket: Ticket
) -> ToolCallRequest:
    """The request to go on with: for the governed copy of the tool, which looks for the ticket before it runs.

    Where the ToolNode itself comes next, there is nobody left who could change the call: it is given what was decided
    on, as a copy of its own, and the tool as it is. The ticket is used up then.
    """
    tool = request.tool
    if (
        tool is None
        or gates_of(tool)
        or not _is_tool_nodes_own(execute)
        or type(request) is not ToolCallRequest
    ):
        return _with(request, tool=governed)
    call = request.tool_call
    ticket.stage = "entered"
    return _with(request, tool_call={**call, "args": {**call["args"], **ticket.permit.arguments}})


def _with(request: ToolCallRequest, **changes: Any) -> ToolCallRequest:
    """As `request.override(...)`, which takes several times as long: it goes through every field's setter."""
    if type(request) is not ToolCallRequest:
        return request.override(**changes)
    changed = object.__new__(ToolCallRequest)
    changed.__dict__.update(request.__dict__, **changes)
    return changed


def _settle(ticket: Ticket, output: Any) -> None:
    """Report for a call whose tool did not report for itself."""
    if ticket.stage == "replaced":
        ticket.permit.failed(
            "the arguments were changed after the decision, so the call was decided on again"
        )
    else:
        report_result(ticket.permit, output)
