"""A model that says what a script tells it to, and remembers what it was shown."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import Model, ModelResponse, Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

__all__ = ["ScriptedModel", "call", "outputs", "say"]

_ids = itertools.count(1)


def call(tool: str, arguments: Any = None, *, call_id: str | None = None) -> ResponseFunctionToolCall:
    """A call of a tool; text stands for the raw arguments, anything else is written as JSON."""
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return ResponseFunctionToolCall(
        type="function_call",
        name=tool,
        arguments=raw,
        call_id=call_id or f"call_{next(_ids)}",
        status="completed",
    )


def say(text: str) -> ResponseOutputMessage:
    """A message to the user."""
    return ResponseOutputMessage(
        id=f"msg_{next(_ids)}",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])],
    )


def outputs(items: Any) -> list[Any]:
    """What tools answered, as the model is shown it, in order."""
    return [
        item["output"]
        for item in items
        if isinstance(item, dict) and str(item.get("type", "")).endswith("_output") and "output" in item
    ]


class ScriptedModel(Model):
    """Each turn is a list of output items, or a function of the input that returns one; then it says `done`."""

    def __init__(self, *turns: Any) -> None:
        self.turns: list[list[Any] | Callable[[Any], list[Any]]] = list(turns)
        self.inputs: list[Any] = []
        self.offered: list[list[str]] = []

    @property
    def shown(self) -> list[Any]:
        """Every tool result the model was shown in its last turn."""
        return outputs(self.inputs[-1]) if isinstance(self.inputs[-1], list) else []

    def _next(self, input: Any, tools: Any, handoffs: Any) -> list[Any]:
        self.inputs.append(list(input) if isinstance(input, list) else input)
        self.offered.append([tool.name for tool in tools] + [handoff.tool_name for handoff in handoffs])
        turn = self.turns.pop(0) if self.turns else [say("done")]
        return turn(self.inputs[-1]) if callable(turn) else turn

    async def get_response(
        self,
        system_instructions: Any,
        input: Any,
        model_settings: Any,
        tools: Any,
        output_schema: Any,
        handoffs: Any,
        tracing: Any,
        **_: Any,
    ) -> ModelResponse:
        return ModelResponse(
            output=self._next(input, tools, handoffs),
            usage=Usage(requests=1),
            response_id=f"resp_{next(_ids)}",
        )

    async def stream_response(
        self,
        system_instructions: Any,
        input: Any,
        model_settings: Any,
        tools: Any,
        output_schema: Any,
        handoffs: Any,
        tracing: Any,
        **_: Any,
    ) -> AsyncIterator[Any]:
        response = Response(
            id=f"resp_{next(_ids)}",
            created_at=0,
            model="scripted",
            object="response",
            output=self._next(input, tools, handoffs),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
        )
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)
