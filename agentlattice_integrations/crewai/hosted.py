"""Tools that a model's provider runs inside the model call: web search, code execution and the like.

- They take effect before CrewAI hears of them, so nothing can stand before them. The only way to refuse one
  is not to offer it to the model.
- A model client may hold a second one that makes the actual calls; what that one offers counts as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crewai.llms.base_llm import BaseLLM

__all__ = ["hosted_tools", "take_hosted_tools_away"]


def hosted_tools(llm: Any) -> list[str]:
    """Names of the tools that the provider behind `llm` would run itself."""
    named: list[str] = []
    for client in _clients(llm):
        named += [str(name) for name in getattr(client, "builtin_tools", None) or ()]
        named += [
            str(tool["type"]) for tool in client.additional_params.get("tools") or () if _is_hosted(tool)
        ]
    return list(dict.fromkeys(named))


def take_hosted_tools_away(llm: Any) -> None:
    """Stop offering them to the model."""
    for client in _clients(llm):
        if getattr(client, "builtin_tools", None):
            client.builtin_tools = None
        offered = client.additional_params.get("tools")
        if offered:
            client.additional_params["tools"] = [tool for tool in offered if not _is_hosted(tool)]


def _is_hosted(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type", "function") != "function"


def _clients(llm: Any) -> Iterator[BaseLLM]:
    if not isinstance(llm, BaseLLM):
        return
    yield llm
    for value in (*vars(llm).values(), *(llm.__pydantic_private__ or {}).values()):
        if isinstance(value, BaseLLM) and value is not llm:
            yield value
