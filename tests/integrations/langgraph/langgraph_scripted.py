"""A model that does what it is told, and graphs around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph

__all__ = ["ScriptedModel", "asking", "call", "run", "tool_graph", "tool_loop", "tool_messages"]

_ids = iter(range(1, 1_000_000))


def call(tool: str, call_id: str | None = "", **arguments: Any) -> dict[str, Any]:
    """One tool call of a model; an id of its own unless one is given."""
    return {"name": tool, "args": arguments, "id": f"call-{next(_ids)}" if call_id == "" else call_id}


def asking(*calls: dict[str, Any]) -> AIMessage:
    """A model's message that makes these calls."""
    return AIMessage("", tool_calls=list(calls))


class ScriptedModel(BaseChatModel):
    """Answers with `turns` in order and with `done` afterwards; keeps what it was sent and offered."""

    turns: list[AIMessage]
    requests: list[list[BaseMessage]]
    offered: list[list[Any]]

    def __init__(self, *turns: AIMessage) -> None:
        super().__init__(turns=list(turns), requests=[], offered=[])

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        """The model with these tools on offer, in the form in which a real one has them."""
        return self.bind(tools=list(tools))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        tools: Sequence[Any] = (),
        **_: Any,
    ) -> ChatResult:
        self.offered.append(list(tools))
        answered = len(self.requests)
        self.requests.append(list(messages))
        turn = self.turns[answered] if answered < len(self.turns) else AIMessage("done")
        return ChatResult(generations=[ChatGeneration(message=turn.model_copy(deep=True))])


def tool_loop(model: Any, node: Any, **options: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of one's own: a model, a tool node with these options, and the loop between them."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", node, **options)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "model")
    return builder


def tool_graph(model: ScriptedModel, node: Any, **compiled: Any) -> Any:
    """The compiled `tool_loop`."""
    return tool_loop(model, node).compile(**compiled)


def run(graph: Any, how: str = "sync", config: Any = None, given: Any = None) -> dict[str, Any]:
    """Run a graph by its blocking call, its coroutine or its stream, and give back the last state."""
    given = {"messages": [HumanMessage("go")]} if given is None else given
    if how == "sync":
        return dict(graph.invoke(given, config))
    if how == "async":
        return dict(asyncio.run(graph.ainvoke(given, config)))

    async def streamed() -> dict[str, Any]:
        states = [state async for state in graph.astream(given, config, stream_mode="values")]
        return dict(states[-1])

    return asyncio.run(streamed())


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    """The answers to tool calls in a state, in order."""
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]
