"""Between a conversation and the messages of the chat completions format, which providers and CrewAI speak."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentlattice_integrations.demo.brain import Call, Conversation, Exchange, Offer

__all__ = ["read_chat", "tool_call"]


def tool_call(call: Call, call_id: str) -> dict[str, Any]:
    """A call as the model's message holds it."""
    function = {"name": call.tool, "arguments": json.dumps(dict(call.arguments))}
    return {"id": call_id, "type": "function", "function": function}


def read_chat(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Conversation:
    """The conversation in a request's messages and tools.

    Raises KeyError, ValueError, TypeError or StopIteration where they do not have that format.
    """
    task = next(_text(message["content"]) for message in messages if message["role"] == "user")
    results = {
        message["tool_call_id"]: _text(message["content"])
        for message in messages
        if message["role"] == "tool"
    }
    exchanges = [
        Exchange(
            Call(call["function"]["name"], json.loads(call["function"]["arguments"])), results[call["id"]]
        )
        for message in messages
        for call in message.get("tool_calls") or ()
    ]
    return Conversation(task, exchanges, [_offer(tool["function"]) for tool in tools])


def _text(content: Any) -> str:
    """The text of a message, which is text or a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _offer(function: Mapping[str, Any]) -> Offer:
    parameters = function.get("parameters") or {}
    return Offer(
        function["name"], function.get("description") or "", tuple(parameters.get("properties") or ())
    )
