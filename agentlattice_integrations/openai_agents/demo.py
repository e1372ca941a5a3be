"""The demonstration's agent on the OpenAI Agents SDK: a governed agent, and a model with a scripted brain."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from agents import Agent, FunctionTool, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.exceptions import UserError
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from agentlattice_core import AgentLattice
from agentlattice_integrations.demo import Call, Conversation, Exchange, Offer, Think
from agentlattice_integrations.openai_agents.governing import govern

__all__ = ["demo_agent"]


def demo_agent(al: AgentLattice, tools: Sequence[Callable[..., str]], think: Think) -> Callable[[str], str]:
    """A governed agent with `tools` whose model thinks with `think`; call it with a task, it returns its answer."""
    agent = govern(
        Agent(
            name="engineer", tools=[function_tool(function) for function in tools], model=_BrainModel(think)
        ),
        al,
    )

    def run(task: str) -> str:
        # Traces would be sent to the provider; the demonstration needs neither a key nor a network.
        return str(
            Runner.run_sync(
                agent, task, max_turns=50, run_config=RunConfig(tracing_disabled=True)
            ).final_output
        )

    return run


class _BrainModel(Model):
    """Shows a brain the input, and says what it wants in the provider's words."""

    def __init__(self, think: Think) -> None:
        self._think = think
        self._ids = itertools.count(1)

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: list[Any], *_: Any, **__: Any
    ) -> ModelResponse:
        move = self._think(_conversation(input, tools))
        number = next(self._ids)
        item: ResponseFunctionToolCall | ResponseOutputMessage
        if isinstance(move, Call):
            item = ResponseFunctionToolCall(
                type="function_call",
                name=move.tool,
                arguments=json.dumps(move.arguments),
                call_id=f"call_{number}",
            )
        else:
            text = ResponseOutputText(type="output_text", text=move.text, annotations=[])
            item = ResponseOutputMessage(
                id=f"message_{number}", type="message", role="assistant", status="completed", content=[text]
            )
        return ModelResponse(output=[item], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """The demonstration does not stream."""
        raise UserError("the demonstration does not stream")


def _conversation(input: Any, tools: Sequence[Any]) -> Conversation:
    items = [{"role": "user", "content": input}] if isinstance(input, str) else input
    task = next(str(item["content"]) for item in items if item.get("role") == "user")
    results = {
        item["call_id"]: str(item["output"]) for item in items if item.get("type") == "function_call_output"
    }
    exchanges = [
        Exchange(Call(item["name"], json.loads(item["arguments"])), results[item["call_id"]])
        for item in items
        if item.get("type") == "function_call"
    ]
    offers = [
        Offer(tool.name, tool.description, tuple(tool.params_json_schema["properties"]))
        for tool in tools
        if isinstance(tool, FunctionTool)
    ]
    return Conversation(task, exchanges, offers)
