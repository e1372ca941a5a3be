"""The demonstration's agent on CrewAI: a crew of one, and a model with a scripted brain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool
from pydantic import PrivateAttr

from agentlattice_core import AgentLattice
from agentlattice_integrations.crewai import govern
from agentlattice_integrations.demo import Call, Think
from agentlattice_integrations.demo.chat import read_chat, tool_call

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
        move = self._think(read_chat(messages, tools or ()))
        return [tool_call(move, f"call_{next(self._ids)}")] if isinstance(move, Call) else move.text
