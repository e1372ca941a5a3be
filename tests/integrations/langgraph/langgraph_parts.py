"""What stands around governance in the contract's agents: a handover, and middleware that edits, adds, caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

__all__ = ["Caching", "Editing", "Supplying", "transfer_to_specialist", "two_agents", "wrappers"]


@tool("transfer_to_specialist")
def transfer_to_specialist() -> Any:
    """Hand over to the specialist."""
    handed = ToolMessage("handed over", tool_call_id="handoff", name="transfer_to_specialist")
    return Command(goto="specialist", graph=Command.PARENT, update={"messages": [handed]})


class _Wrapping(AgentMiddleware):
    """Middleware of one step, the same for both kinds of calls."""

    def before(self, request: Any) -> Any:
        return request

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self.before(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.before(request))


class Editing(_Wrapping):
    """Changes the arguments of every call."""

    def __init__(self, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self.edit = edit

    def before(self, request: Any) -> Any:
        arguments = self.edit(dict(request.tool_call["args"]))
        return request.override(tool_call={**request.tool_call, "args": arguments})


class Supplying(_Wrapping):
    """Offers the model a tool that the agent was not built with, and supplies it when it is called."""

    def __init__(self, late: BaseTool) -> None:
        super().__init__()
        self.late = late

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[*request.tools, self.late]))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(tools=[*request.tools, self.late]))

    def before(self, request: Any) -> Any:
        return request.override(tool=self.late) if request.tool_call["name"] == self.late.name else request


class Caching(AgentMiddleware):
    """Answers a call that was made before with what came back then."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, str] = {}

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        key = f"{request.tool_call['name']} {request.tool_call['args']}"
        if key not in self.kept:
            answer = handler(request)
            self.kept[key] = answer.content
            return answer
        return ToolMessage(
            self.kept[key], tool_call_id=request.tool_call["id"], name=request.tool_call["name"]
        )


def wrappers(middleware: Sequence[AgentMiddleware]) -> dict[str, Any]:
    """The tool call wrapper of the only middleware there is, in the form in which a ToolNode takes it."""
    if not middleware:
        return {}
    (only,) = middleware
    return {"wrap_tool_call": only.wrap_tool_call}


def two_agents(triage: Any, specialist: Any) -> Any:
    """A graph in which the first agent can hand over to the second."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("triage", triage, destinations=("specialist",))
    builder.add_node("specialist", specialist)
    builder.add_edge(START, "triage")
    builder.add_edge("specialist", END)
    return builder.compile()
