"""Agents that are paused: the forms in which a graph is governed, and what its interface shows and sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Interrupt
from langgraph_scripted import ScriptedModel, asking, call, tool_graph, tool_messages

from agentlattice_integrations.langgraph import (
    GovernanceMiddleware,
    govern,
    govern_tool,
    governed_tool_node,
    tool_call_wrappers,
)

__all__ = ["FORMS", "Thread", "deploys", "make_deploy"]


def make_deploy(ran: Callable[[str], None]) -> BaseTool:
    """A tool whose every run is told to `ran`."""

    @tool
    def deploy(service: str) -> str:
        """Deploy."""
        ran(service)
        return f"deployed {service}"

    return deploy


def deploys(*services: str) -> ScriptedModel:
    """A model that deploys these, all in one message."""
    return ScriptedModel(asking(*(call("deploy", f"call-{each}", service=each) for each in services)))


def _middleware(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    return create_agent(model, tools, middleware=[GovernanceMiddleware(al, **options)], checkpointer=saver)


def _tools(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    governed = [govern_tool(each, al, **options) for each in tools]
    return create_agent(model, governed, checkpointer=saver)


def _agent(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    return govern(create_agent(model, tools, checkpointer=saver), al, **options)


def _node(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    return tool_graph(model, governed_tool_node(tools, al, **options), checkpointer=saver)


def _graph(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    return govern(tool_graph(model, ToolNode(tools), checkpointer=saver), al, **options)


def _wrapped(al: Any, model: Any, tools: Any, saver: Any, options: Mapping[str, Any]) -> Any:
    wrap, awrap = tool_call_wrappers(al, **options)
    node = ToolNode(tools, wrap_tool_call=wrap, awrap_tool_call=awrap)
    return tool_graph(model, node, checkpointer=saver)


FORMS: Mapping[str, Callable[..., Any]] = {
    "middleware": _middleware,
    "tools": _tools,
    "agent": _agent,
    "node": _node,
    "graph": _graph,
    "wrapped": _wrapped,
}


class Thread:
    """One conversation with a graph, as an interface has it: run, look at what is asked, answer."""

    def __init__(self, graph: Any, name: str = "t", how: str = "sync") -> None:
        self.graph = graph
        self.config: Any = {"configurable": {"thread_id": name}}
        self.how = how
        self.state: dict[str, Any] = {}

    def go(self, given: Any = None) -> Thread:
        """Run or resume the graph; by default begin the conversation."""
        if given is None:
            given = {"messages": ["go"]}
        if self.how == "sync":
            self.state = self.graph.invoke(given, self.config)
        else:
            self.state = asyncio.run(self.graph.ainvoke(given, self.config))
        return self

    def answer(self, value: Any) -> Thread:
        """Resume as agent-chat-ui does, without ids."""
        return self.go(Command(resume=value))

    def answer_each(self, answers: Mapping[str, Any]) -> Thread:
        """Resume by interrupt ids; `answers` are by tool call id."""
        return self.go(Command(resume={self.paused[call_id].id: value for call_id, value in answers.items()}))

    def again(self) -> Thread:
        """Run on without an answer, as after a crash."""
        self.state = self.graph.invoke(None, self.config)
        return self

    @property
    def paused(self) -> dict[str, Interrupt]:
        """What the graph is paused for, by tool call id."""
        found = self.graph.get_state(self.config).interrupts
        return {interrupt.value["governance"]["tool_call_id"]: interrupt for interrupt in found}

    def approval(self, call_id: str) -> str:
        """The approval that this call waits for."""
        return str(self.paused[call_id].value["governance"]["approval_id"])

    @property
    def answers(self) -> dict[str, str]:
        """What the model was answered, by tool call id."""
        return {message.tool_call_id: str(message.content) for message in tool_messages(self.state)}


def ids(services: Sequence[str]) -> list[str]:
    """The tool call ids of these."""
    return [f"call-{each}" for each in services]
