"""The demonstration's agent on the OpenAI Agents SDK: real agent, real runner, and a model with a scripted brain."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Tool, Usage, function_tool
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from agentlattice_core import AgentLattice
from agentlattice_integrations.demo import Call, Conversation, Exchange, Offer, Think
from agentlattice_integrations.openai_agents import govern

__all__ = ["demo_agent"]


def demo_agent(al: AgentLattice, tools: Sequence[Callable[..., str]], think: Think) -> Callable[[str], str]:
    """A governed agent with `tools` whose model thinks with `think`; call it with a task, it returns its answer."""
    agent = govern(
        Agent(name="demo", model=_BrainModel(think), tools=[function_tool(tool) for tool in tools]), al
    )

    def run(task: str) -> str:
        settings = RunConfig(tracing_disabled=True)
        return str(asyncio.run(Runner.run(agent, task, max_turns=40, run_config=settings)).final_output)

    return run


class _BrainModel(Model):
    """Shows a brain the conversation, and says what it wants in the SDK's words."""

    def __init__(self, think: Think) -> None:
        self._think = think
        self._ids = itertools.count(1)

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: list[Tool], *_: Any, **__: Any
    ) -> ModelResponse:
        move = self._think(_conversation(input, tools))
        number = next(self._ids)
        output: Any
        if isinstance(move, Call):
            output = ResponseFunctionToolCall(
                type="function_call",
                name=move.tool,
                arguments=json.dumps(move.arguments),
                call_id=f"call_{number}",
            )
        else:
            text = ResponseOutputText(type="output_text", text=move.text, annotations=[])
            output = ResponseOutputMessage(
                id=f"msg_{number}", type="message", role="assistant", status="completed", content=[text]
            )
        return ModelResponse(output=[output], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("the demonstration does not stream")


def _conversation(input: Any, tools: Sequence[Tool]) -> Conversation:
    items = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
    task = next(str(item["content"]) for item in items if item.get("role") == "user")
    results = {
        item["call_id"]: str(item["output"]) for item in items if item.get("type") == "function_call_output"
    }
    exchanges = [
        Exchange(Call(item["name"], json.loads(item["arguments"])), results[item["call_id"]])
        for item in items
        if item.get("type") == "function_call"
    ]
    return Conversation(task, exchanges, [_offer(tool) for tool in tools])


def _offer(tool: Any) -> Offer:
    return Offer(tool.name, tool.description, tuple(tool.params_json_schema["properties"]))
