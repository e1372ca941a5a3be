"""The demonstration's agent on LangGraph: `create_agent`, its middleware, and a model with a scripted brain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from pydantic import PrivateAttr

from agentlattice_core import AgentLattice
from agentlattice_integrations.demo import Call, Conversation, Exchange, Offer, Think
from agentlattice_integrations.langgraph import GovernanceMiddleware

__all__ = ["demo_agent"]


def demo_agent(al: AgentLattice, tools: Sequence[Callable[..., str]], think: Think) -> Callable[[str], str]:
    """A governed agent with `tools` whose model thinks with `think`; call it with a task, it returns its answer."""
    agent = create_agent(
        _BrainModel(think), [tool(function) for function in tools], middleware=[GovernanceMiddleware(al)]
    )

    def run(task: str) -> str:
        state = agent.invoke({"messages": [HumanMessage(task)]}, {"recursion_limit": 100})
        return str(state["messages"][-1].content)

    return run


class _BrainModel(BaseChatModel):
    """Shows a brain the messages, and says what it wants in LangChain's words."""

    _think: Think = PrivateAttr()
    _offers: list[Offer] = PrivateAttr(default_factory=list)
    _ids: Any = PrivateAttr(default_factory=lambda: itertools.count(1))

    def __init__(self, think: Think) -> None:
        super().__init__()
        self._think = think

    @property
    def _llm_type(self) -> str:
        return "demo"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> _BrainModel:
        self._offers = [
            Offer(offered.name, offered.description, tuple(offered.args))
            for offered in tools
            if isinstance(offered, BaseTool)
        ]
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        move = self._think(_conversation(messages, self._offers))
        if isinstance(move, Call):
            call = {"name": move.tool, "args": dict(move.arguments), "id": f"call_{next(self._ids)}"}
            message = AIMessage("", tool_calls=[call])
        else:
            message = AIMessage(move.text)
        return ChatResult(generations=[ChatGeneration(message=message)])


def _conversation(messages: Sequence[BaseMessage], offers: Sequence[Offer]) -> Conversation:
    task = next(str(message.content) for message in messages if isinstance(message, HumanMessage))
    results = {
        message.tool_call_id: str(message.content) for message in messages if isinstance(message, ToolMessage)
    }
    exchanges = [
        Exchange(Call(call["name"], call["args"]), results[str(call["id"])])
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]
    return Conversation(task, exchanges, offers)
