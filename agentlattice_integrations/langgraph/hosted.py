"""Tools that run at the model's provider, out of reach of any gate.

- In LangChain they are dicts among the tools a model is offered. A dict that only describes a function is not
  one of them: a call of it comes back and passes the gate.
- Refused, they are taken out of what the model is offered, wherever they stand: the request's tools, its
  model settings, or bound to the model beforehand.
- What a provider ran all the same shows in its answer as server tool calls. Those are recorded as attempts
  that could not be prevented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeGuard

from langchain.agents.middleware.types import ModelRequest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableBinding

__all__ = [
    "ALLOWED",
    "REFUSED",
    "HostedTools",
    "hosted_calls",
    "hosted_name",
    "is_hosted",
    "offered_hosted",
    "without_hosted",
]

HostedTools = Literal["refuse", "allow"]

REFUSED = "runs at the model's provider, where no call can be stopped; it is not offered to the model"
ALLOWED = "runs at the model's provider, where no call can be stopped"

# What a dict that describes a function looks like, in the formats of the providers. Everything else counts as
# hosted.
_FUNCTION_TYPES = frozenset({"function", "custom", "object"})
_FUNCTION_MEMBERS = frozenset(
    {"name", "function", "title", "toolSpec", "function_declarations", "functionDeclarations"}
)


def is_hosted(tool: object) -> bool:
    """Whether `tool`, one of those a model is offered, runs at the provider."""
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    return _FUNCTION_MEMBERS.isdisjoint(tool) if kind is None else kind not in _FUNCTION_TYPES


def hosted_name(tool: Mapping[str, Any]) -> str:
    """What to call a provider's tool in a report: its name, else its type, else its first member."""
    return str(
        tool.get("name") or tool.get("server_label") or tool.get("type") or next(iter(tool), "unnamed")
    )


def offered_hosted(request: ModelRequest[Any]) -> list[Mapping[str, Any]]:
    """Every provider-hosted tool that the model would be offered by this request."""
    return [tool for tools in _tool_lists(request) for tool in tools if is_hosted(tool)]


def without_hosted(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """The same request without provider-hosted tools."""
    overrides: dict[str, Any] = {"tools": [tool for tool in request.tools if not is_hosted(tool)]}
    bound_in_settings = request.model_settings.get("tools")
    if _is_list(bound_in_settings):
        kept = [tool for tool in bound_in_settings if not is_hosted(tool)]
        overrides["model_settings"] = {**request.model_settings, "tools": kept}
    model: Any = request.model
    if isinstance(model, RunnableBinding) and _is_list(model.kwargs.get("tools")):
        kept = [tool for tool in model.kwargs["tools"] if not is_hosted(tool)]
        overrides["model"] = model.model_copy(update={"kwargs": {**model.kwargs, "tools": kept}})
    return request.override(**overrides)


def hosted_calls(messages: Sequence[BaseMessage]) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    """The calls that the provider ran by itself, as name, arguments and id."""
    for message in messages:
        if isinstance(message.content, str) or not isinstance(message, AIMessage):
            continue
        for block in message.content_blocks:
            if block["type"] == "server_tool_call":
                arguments = block.get("args")
                yield (
                    str(block.get("name") or block["type"]),
                    arguments if isinstance(arguments, Mapping) else {},
                    block.get("id"),
                )


def _tool_lists(request: ModelRequest[Any]) -> list[Sequence[Any]]:
    lists: list[Sequence[Any]] = [request.tools]
    bound_in_settings = request.model_settings.get("tools")
    if _is_list(bound_in_settings):
        lists.append(bound_in_settings)
    model: Any = request.model
    if isinstance(model, RunnableBinding) and _is_list(model.kwargs.get("tools")):
        lists.append(model.kwargs["tools"])
    return lists


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)
