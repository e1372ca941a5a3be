"""Governance for raw graphs: a ToolNode whose tools are all governed.

- The tools themselves are governed, not the node: sync and async calls, `handle_tool_errors` and its type
  filter work as before, and the decision is made on what the tool receives in the end.
- A tool that is put into the node later is governed as it is put in.
- Around wrappers the node already has, governance stands on both sides: nothing they answer from a cache goes past
  it, and a tool that one of them supplies is governed too.
- Where the graph can be paused, each call of a message runs in a task of its own, so that one that waits for a person
  does not make its siblings run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import AsyncToolCallWrapper, ToolCallRequest, ToolCallWrapper
from langgraph.types import Command

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_integrations.langgraph.deciding import CallGate, GateOptions
from agentlattice_integrations.langgraph.fanning import fan_out
from agentlattice_integrations.langgraph.tools import governed_copy
from agentlattice_integrations.langgraph.wrappers import AsyncExecute, CallWrappers, Execute

__all__ = ["GovernedTools", "govern_node", "governed_tool_node", "tool_call_wrappers"]


def governed_tool_node(
    tools: Sequence[BaseTool | Callable[..., Any]],
    client: GovernanceClient | Delegate,
    *,
    name: str = "tools",
    tags: list[str] | None = None,
    handle_tool_errors: Any = None,
    messages_key: str = "messages",
    wrap_tool_call: ToolCallWrapper | None = None,
    awrap_tool_call: AsyncToolCallWrapper | None = None,
    **options: Unpack[GateOptions],
) -> ToolNode:
    """A ToolNode over `tools`, each of them governed.

    `options` are those of `GovernanceMiddleware`; everything else is ToolNode's own and means the same
    (`handle_tool_errors=None` leaves ToolNode's default).
    """
    given: dict[str, Any] = {} if handle_tool_errors is None else {"handle_tool_errors": handle_tool_errors}
    node = ToolNode(
        tools,
        name=name,
        tags=tags,
        messages_key=messages_key,
        wrap_tool_call=wrap_tool_call,
        awrap_tool_call=awrap_tool_call,
        **given,
    )
    govern_node(node, CallGate(client, options))
    return node


def tool_call_wrappers(
    client: GovernanceClient | Delegate, **options: Unpack[GateOptions]
) -> tuple[ToolCallWrapper, AsyncToolCallWrapper]:
    """The pair to give to a ToolNode one has to build oneself, as `wrap_tool_call` and `awrap_tool_call`.

    Give both: a node with only one of them does not ask for calls of the other kind.
    """
    wrappers = CallWrappers(CallGate(client, options))
    return wrappers.wrap, wrappers.awrap


class GovernedTools(dict[str, BaseTool]):
    """The tools of a node, by name; whatever is put in is governed."""

    def __init__(self, tools: Mapping[str, BaseTool], gate: CallGate) -> None:
        super().__init__()
        self.gate = gate
        self.update(tools)

    def __setitem__(self, name: str, tool: BaseTool) -> None:
        super().__setitem__(name, governed_copy(tool, self.gate))

    def setdefault(self, name: str, tool: BaseTool | None = None) -> BaseTool:
        """The tool of that name; `tool`, governed, if there was none."""
        if name not in self:
            if tool is None:
                raise KeyError(name)
            self[name] = tool
        return self[name]

    def update(self, *others: Any, **named: Any) -> None:
        """Put in all of `others`, governed."""
        for other in (*others, named):
            for name, tool in dict(other).items():
                self[name] = tool

    def __ior__(self, other: Any) -> GovernedTools:  # type: ignore[override,misc]
        self.update(other)
        return self


def govern_node(node: ToolNode, gate: CallGate) -> None:
    """Govern `node` where it stands.

    Raises AgentLatticeError if this version of ToolNode keeps its tools elsewhere.
    """
    governed = GovernedTools(node.tools_by_name, gate)
    node._tools_by_name = governed
    if node.tools_by_name is not governed:
        raise AgentLatticeError(
            "NOT_COVERABLE",
            "this version of langgraph keeps a tool node's tools where they cannot be governed in place; "
            "govern the tools before the node is built",
        )
    if gate.pauses:
        fan_out(node)
    wrappers = CallWrappers(gate, supplied=True)
    if node._wrap_tool_call is not None:
        node._wrap_tool_call = _between(wrappers, node._wrap_tool_call)
    if node._awrap_tool_call is not None:
        node._awrap_tool_call = _abetween(wrappers, node._awrap_tool_call)


def _between(governance: CallWrappers, wrapper: ToolCallWrapper) -> ToolCallWrapper:
    """`wrapper` with governance on both sides: deciding before it, and holding the tool that it lets run."""

    def between(request: ToolCallRequest, execute: Execute) -> ToolMessage | Command[Any]:
        def last(final: ToolCallRequest) -> ToolMessage | Command[Any]:
            return execute(_with_governed_tool(final, governance.gate))

        return governance.wrap(request, lambda decided: wrapper(decided, last))

    return between


def _abetween(governance: CallWrappers, wrapper: AsyncToolCallWrapper) -> AsyncToolCallWrapper:
    """As `_between`, for async calls."""

    async def between(request: ToolCallRequest, execute: AsyncExecute) -> ToolMessage | Command[Any]:
        async def last(final: ToolCallRequest) -> ToolMessage | Command[Any]:
            return await execute(_with_governed_tool(final, governance.gate))

        async def next_wrapper(decided: ToolCallRequest) -> ToolMessage | Command[Any]:
            return await wrapper(decided, last)

        return await governance.awrap(request, next_wrapper)

    return between


def _with_governed_tool(request: ToolCallRequest, gate: CallGate) -> ToolCallRequest:
    if request.tool is None:
        return request
    governed = governed_copy(request.tool, gate)
    return request if governed is request.tool else request.override(tool=governed)
