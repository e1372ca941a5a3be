"""`govern(...)`: takes what you already have and gives back the same thing, governed.

| given | given back |
|---|---|
| a tool | a governed copy of it |
| a function | the tool LangChain makes of it, governed |
| a list of tools, functions and provider dicts | a list of the same, governed; provider-hosted ones left out
|
| a ToolNode | the same node, its tools governed |
| a graph, compiled or not, an agent of `create_agent` | the same graph: its tool nodes, its sub-graphs, the
agents inside its tools |

- Nodes of a graph that hold tools no longer answer from LangGraph's node cache, which would not ask.
- A delegation in place of the client (`al.delegate(...)`) gives it a delegated identity; see `acting`.
- A graph in which there is nothing to govern is an error, not an empty success.
- A tool that a node's or a tool's own function calls by itself cannot be replaced there: the report says so.
- `report` is called with the coverage report; `coverage(...)` tells the same at any later time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Unpack, overload

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as make_tool
from langgraph.prebuilt import ToolNode

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_integrations.langgraph.calls import facts_of
from agentlattice_integrations.langgraph.deciding import CallGate, GateOptions
from agentlattice_integrations.langgraph.hosted import ALLOWED, REFUSED, HostedTools, hosted_name, is_hosted
from agentlattice_integrations.langgraph.middleware import GovernanceMiddleware
from agentlattice_integrations.langgraph.nodes import GovernedTools, govern_node
from agentlattice_integrations.langgraph.sight import Found, is_graph, look_into_tool, look_through, reaches
from agentlattice_integrations.langgraph.tools import gates_of, governed_copy, origin_of
from agentlattice_integrations.langgraph.wrappers import CallWrappers

__all__ = ["coverage", "govern", "govern_tool"]

_T = TypeVar("_T")
_ToolT = TypeVar("_ToolT", bound=BaseTool)

_UNGOVERNED = "nothing decides on its calls; pass it to govern(...)"
_IN_CODE = (
    "a function here can call it, and nothing decides on that; pass it to govern(...) and use what comes back"
)


def govern_tool(tool: _ToolT, client: GovernanceClient | Delegate, **options: Unpack[GateOptions]) -> _ToolT:
    """A copy of `tool`, of the same class and schema, whose every run `client` decides on.

    `options` are those of `GovernanceMiddleware`.
    Raises InvalidRequestError for a tool that could run without being asked about.
    """
    return governed_copy(tool, CallGate(client, options))


@overload
def govern(
    target: Callable[..., Any],
    client: GovernanceClient | Delegate,
    *,
    report: Callable[[Coverage], None] | None = None,
    hosted_tools: HostedTools = "refuse",
    **options: Unpack[GateOptions],
) -> Any: ...
@overload
def govern(
    target: _T,
    client: GovernanceClient | Delegate,
    *,
    report: Callable[[Coverage], None] | None = None,
    hosted_tools: HostedTools = "refuse",
    **options: Unpack[GateOptions],
) -> _T: ...
def govern(
    target: Any,
    client: GovernanceClient | Delegate,
    *,
    report: Callable[[Coverage], None] | None = None,
    hosted_tools: HostedTools = "refuse",
    **options: Unpack[GateOptions],
) -> Any:
    """Govern `target` (see the table above) with `client`; `options` are those of `GovernanceMiddleware`.

    `client` may be a delegation, `al.delegate(...)`: `target` then acts as its child; see `acting`. What is governed
    so stays so when `al` governs the whole around it.

    Raises InvalidRequestError for what cannot be governed, saying what to do instead.
    """
    gate = CallGate(client, options)
    found = Coverage()
    if is_graph(target):
        governed = _govern_graph(target, gate, hosted_tools, found)
    elif isinstance(target, ToolNode):
        _govern_node(target, gate, "tools", hosted_tools, found)
        governed = target
    elif isinstance(target, list | tuple):
        governed = type(target)(_govern_each(target, gate, hosted_tools, found))
    elif isinstance(target, BaseTool) or callable(target):
        governed = _govern_one(target, gate, hosted_tools, found)
    else:
        raise InvalidRequestError(
            f"a value of type `{type(target).__name__}` cannot be governed; give a tool, a function, a list of "
            "them, a ToolNode or a graph"
        )
    if report is not None:
        report(found)
    return governed


def coverage(target: Any) -> Coverage:
    """What of `target` is governed, refused or open, and why.

    `target` is anything `govern` takes, or a GovernanceMiddleware.
    """
    if isinstance(target, GovernanceMiddleware):
        return target.coverage
    found = Coverage()
    if is_graph(target):
        seen = list(look_through(target))
        for where, item in seen:
            if isinstance(item, ToolNode):
                _report_node(item, where, found)
            elif isinstance(item, list):
                _report_offered(item, where, found)
        _report_used(seen, found)
    elif isinstance(target, ToolNode):
        _report_node(target, None, found)
    else:
        for item in target if isinstance(target, list | tuple) else (target,):
            if isinstance(item, BaseTool):
                _report_tool(item, None, found)
            elif isinstance(item, Mapping):
                _report_offered([item], None, found)
            else:
                name = getattr(item, "__name__", type(item).__name__)
                found.add(name, status="not_coverable", why=_UNGOVERNED)
    return found


# --- governing ----------------------------------------------------------------------------------------------


def _govern_each(items: Any, gate: CallGate, hosted_tools: HostedTools, found: Coverage) -> list[Any]:
    governed: list[Any] = []
    for item in items:
        if not isinstance(item, Mapping):
            governed.append(_govern_one(item, gate, hosted_tools, found))
        elif not is_hosted(item):
            governed.append(
                item
            )  # it describes a function; what runs it is governed where that is registered
        elif hosted_tools == "allow":
            found.add(hosted_name(item), kind="hosted", status="not_coverable", why=ALLOWED)
            governed.append(item)
        else:
            found.add(hosted_name(item), kind="hosted", status="refused", why=REFUSED)
    return governed


def _govern_one(item: Any, gate: CallGate, hosted_tools: HostedTools, found: Coverage) -> BaseTool:
    tool = item if isinstance(item, BaseTool) else make_tool(item)
    inside = list(look_into_tool(tool))
    for where, inner in inside:
        _govern_found(inner, gate, where, hosted_tools, found)
    governed = governed_copy(tool, gate)
    _report_tool(governed, None, found)
    _report_used(inside, found)
    return governed


def _govern_graph(graph: _T, gate: CallGate, hosted_tools: HostedTools, found: Coverage) -> _T:
    seen = list(look_through(graph))
    for where, item in seen:
        _govern_found(item, gate, where, hosted_tools, found)
    if not found.tools:
        raise InvalidRequestError(
            "this graph has no tool node that can be seen, so there is nothing to govern; govern the tools its "
            "nodes call, or use governed_tool_node"
        )
    _report_used(seen, found)
    return graph


def _govern_found(item: Any, gate: CallGate, where: str, hosted_tools: HostedTools, found: Coverage) -> None:
    if isinstance(item, ToolNode):
        _govern_node(item, gate, where, hosted_tools, found)
    elif isinstance(item, list):
        _take_hosted(item, where, hosted_tools, found)
    elif not isinstance(item, BaseTool):
        # A cached answer would be given without asking whether the call is still allowed.
        item.cache_policy = None


def _govern_node(
    node: ToolNode, gate: CallGate, where: str | None, hosted_tools: HostedTools, found: Coverage
) -> None:
    tools = node.tools_by_name
    known = tools.gate if isinstance(tools, GovernedTools) else _gate_of_a_child(node)
    if known is None or not gate.settled_by(known):
        govern_node(node, gate)
    _report_node(node, where, found)


def _gate_of_a_child(node: ToolNode) -> CallGate | None:
    """The gate of the middleware before `node` that acts under a delegation: it decides for the whole around it too."""
    found = [reaches(wrapper, CallWrappers) for wrapper in (node._wrap_tool_call, node._awrap_tool_call)]
    gates = {None if one is None else one.gate for one in found}
    gate = gates.pop() if len(gates) == 1 else None
    return gate if gate is not None and isinstance(gate.acting.principal, Delegate) else None


def _take_hosted(offered: list[Any], where: str, hosted_tools: HostedTools, found: Coverage) -> None:
    """Take provider-hosted tools out of a list from which a model is offered its tools."""
    hosted = [tool for tool in offered if is_hosted(tool)]
    for tool in hosted:
        if hosted_tools == "allow":
            found.add(hosted_name(tool), kind="hosted", status="not_coverable", why=ALLOWED, owner=where)
        else:
            found.add(hosted_name(tool), kind="hosted", status="refused", why=REFUSED, owner=where)
    if hosted and hosted_tools == "refuse":
        offered[:] = [tool for tool in offered if not is_hosted(tool)]


# --- reporting ----------------------------------------------------------------------------------------------


def _report_node(node: ToolNode, where: str | None, found: Coverage) -> None:
    wrappers, async_wrappers = (
        reaches(wrapper, CallWrappers) for wrapper in (node._wrap_tool_call, node._awrap_tool_call)
    )
    for tool in node.tools_by_name.values():
        if wrappers is not None and async_wrappers is not None and not gates_of(tool):
            facts = facts_of(tool)
            mapping = wrappers.gate.gate.resolve(facts.name, tool)
            found.add(facts.name, kind=facts.kind, action_type=mapping.action_type, owner=where)
        else:
            _report_tool(tool, where, found)


def _report_tool(
    tool: BaseTool, where: str | None, found: Coverage, *, open_because: str = _UNGOVERNED
) -> None:
    gates = gates_of(tool)
    origin = origin_of(tool)
    facts = facts_of(origin)
    if gates:
        mapping = gates[0].gate.resolve(facts.name, origin)
        found.add(facts.name, kind=facts.kind, action_type=mapping.action_type, owner=where)
    else:
        found.add(facts.name, kind=facts.kind, status="not_coverable", why=open_because, owner=where)


def _report_used(seen: list[Found], found: Coverage) -> None:
    """The tools that functions mention and no tool node runs. Those that one runs are mentioned to offer them."""
    run = {
        id(origin_of(tool))
        for _, item in seen
        if isinstance(item, ToolNode)
        for tool in item.tools_by_name.values()
    }
    for where, item in seen:
        if isinstance(item, BaseTool) and id(origin_of(item)) not in run:
            _report_tool(item, where, found, open_because=_IN_CODE)


def _report_offered(offered: list[Any], where: str | None, found: Coverage) -> None:
    for tool in offered:
        if is_hosted(tool):
            found.add(hosted_name(tool), kind="hosted", status="not_coverable", why=ALLOWED, owner=where)
