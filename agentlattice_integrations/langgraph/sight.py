"""What a graph holds: its tool nodes, the agents inside its tools, the tools its models are offered or its code uses.

- LangGraph shows a graph's nodes. What a node's or a tool's function uses is read off the function: the
  variables it closes over and the module's names it mentions. What it reaches in other ways (attributes,
  imports) is not seen.
- Everything found is visited once, so that graphs that contain each other end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence
from langchain_core.tools import BaseTool
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

__all__ = ["Found", "is_graph", "look_into_tool", "look_through", "reaches"]

_T = TypeVar("_T")

Found = tuple[str, Any]
"""Where something was found, and what.

It is a ToolNode, a list of tools that a model is offered, a tool that a function mentions, by itself or in a list or
dict, or a graph's node that holds one of these and caches results.
"""


def is_graph(target: object) -> bool:
    """Whether `target` is a graph, compiled or not."""
    return isinstance(target, Pregel | StateGraph)


def look_through(graph: Any) -> Iterator[Found]:
    """Every tool node of `graph` and every list of tools its models are offered, however deep inside."""
    yield from _graph(graph, "", set())


def look_into_tool(tool: BaseTool) -> Iterator[Found]:
    """The same for the agents and nodes that a tool's own function uses."""
    yield from _function_of_tool(tool, tool.name, set())


def reaches(function: Any, kind: type[_T]) -> _T | None:
    """The first object of `kind` among what `function` is bound to or closes over, through all wrappers."""
    waiting, seen = [function], set[int]()
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        owner = getattr(item, "__self__", None)
        for candidate in (item, owner, getattr(owner, "_wrappers", None)):
            if isinstance(candidate, kind):
                return candidate
        waiting.append(getattr(item, "__wrapped__", None))
        if inspect.isfunction(item):
            for value in _closed_over(item):
                waiting.extend(value if isinstance(value, list | tuple) else [value])
    return None


def _graph(graph: Any, where: str, seen: set[int]) -> Iterator[Found]:
    if id(graph) in seen:
        return
    seen.add(id(graph))
    nodes = [
        (name, getattr(node, "bound", None) or getattr(node, "runnable", None))
        for name, node in graph.nodes.items()
    ]
    # Tool nodes first: a model's node refers to them too, and they should be found under their own name.
    for name, item in sorted(nodes, key=lambda node: not isinstance(node[1], ToolNode)):
        inside = f"{where}/{name}" if where else name
        for found in _runnable(item, inside, seen):
            if getattr(graph.nodes[name], "cache_policy", None) is not None:
                yield inside, graph.nodes[name]
            yield found


def _runnable(item: Any, where: str, seen: set[int]) -> Iterator[Found]:
    if item is None or id(item) in seen:
        return
    if is_graph(item):
        yield from _graph(item, where, seen)
        return
    seen.add(id(item))
    if isinstance(item, ToolNode):
        yield where, item
        for tool in item.tools_by_name.values():
            yield from _function_of_tool(tool, f"{where}/{tool.name}", seen)
    elif isinstance(item, RunnableBinding):
        if isinstance(item.kwargs.get("tools"), list):
            yield where, item.kwargs["tools"]
        yield from _runnable(item.bound, where, seen)
    elif isinstance(item, RunnableSequence) or hasattr(item, "steps"):
        for step in item.steps:
            yield from _runnable(step, where, seen)
    else:
        for name in ("func", "afunc"):
            yield from _function(getattr(item, name, None), where, seen)


def _function_of_tool(tool: BaseTool, where: str, seen: set[int]) -> Iterator[Found]:
    for name in ("func", "coroutine"):
        yield from _function(getattr(tool, name, None), where, seen)


def _function(function: Any, where: str, seen: set[int]) -> Iterator[Found]:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if function is None or id(function) in seen:
        return
    seen.add(id(function))
    for value in _used_by(function):
        for tool in _tools_in(value):
            yield where, tool
        if isinstance(value, list) and any(isinstance(item, BaseTool | dict) for item in value):
            yield where, value
        elif isinstance(value, Runnable) and not isinstance(value, BaseTool):
            yield from _runnable(value, where, seen)
        elif inspect.isfunction(value) and value.__module__ == getattr(function, "__module__", None):
            yield from _function(value, where, seen)


def _tools_in(value: Any) -> list[BaseTool]:
    """`value`, or what it holds, as far as it is a tool."""
    held = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    )
    return [item for item in held if isinstance(item, BaseTool)]


def _used_by(function: Callable[..., Any]) -> list[Any]:
    """The values of the variables that `function` closes over and of the module's names it mentions."""
    inner = getattr(function, "__func__", function)
    code = getattr(inner, "__code__", None)
    if code is None:
        return []
    values = _closed_over(inner)
    members = getattr(inner, "__globals__", {})
    values.extend(members[name] for name in code.co_names if name in members)
    return values


def _closed_over(function: Any) -> list[Any]:
    values: list[Any] = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            continue  # the variable is not set yet
    return values
