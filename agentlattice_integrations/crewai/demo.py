"""The demonstration's agent on CrewAI: a crew of one, and a model with a scripted brain."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool
from pydantic import PrivateAttr

from agentlattice_core import AgentLattice
from agentlattice_integrations.crewai import govern
from agentlattice_integrations.demo import Call, Conversation, Exchange, Offer, Think

__all__ = ["demo_agent"]


def demo_agent(al: AgentLattice, tools: Sequence[Callable[..., str]], think: Think) -> Callable[[str], str]:
    """A governed crew with `tools` whose model thinks with `think`; call it with a task, it returns its answer."""
    agent = Agent(
        role="engineer",
        goal="Do what the user asks.",
        backstory="You work with the tools you are given.",
        llm=_BrainModel(think),
        tools=[tool(function) for function in tools],
        max_iter=100,
    )

    def run(task: str) -> str:
        work = Task(description=task, expected_output="What was done.", agent=agent)
        crew = govern(Crew(agents=[agent], tasks=[work], cache=False, tracing=False), al)
        return str(crew.kickoff())

    return run


class _BrainModel(BaseLLM):
    """Shows a brain the messages, and says what it wants in CrewAI's words."""

    _think: Think = PrivateAttr()
    _ids: Any = PrivateAttr(default_factory=lambda: itertools.count(1))

    def __init__(self, think: Think) -> None:
        super().__init__(model="demo")
        self._think = think

    def supports_function_calling(self) -> bool:
        return True

    def get_input_tokens_count(self, *_: Any, **__: Any) -> int:
        return 0  # a brain has no window to overflow

    def call(self, messages: Any, tools: Any = None, *_: Any, **__: Any) -> Any:
        move = self._think(_conversation(messages, tools or ()))
        if not isinstance(move, Call):
            return move.text
        function = {"name": move.tool, "arguments": json.dumps(move.arguments)}
        return [{"id": f"call_{next(self._ids)}", "type": "function", "function": function}]


def _conversation(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Conversation:
    task = next(str(message["content"]) for message in messages if message["role"] == "user")
    results = {
        message["tool_call_id"]: str(message["content"]) for message in messages if message["role"] == "tool"
    }
    exchanges = [
        Exchange(
            Call(call["function"]["name"], json.loads(call["function"]["arguments"])), results[call["id"]]
        )
        for message in messages
        for call in message.get("tool_calls") or ()
    ]
    return Conversation(task, exchanges, [_offer(offered["function"]) for offered in tools])


def _offer(function: Mapping[str, Any]) -> Offer:
    return Offer(
        function["name"], function.get("description", ""), tuple(function["parameters"]["properties"])
    )
