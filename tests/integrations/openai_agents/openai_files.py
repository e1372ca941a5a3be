"""Tools over a list of what really happened, agents that hold them, and calls without an agent."""

from __future__ import annotations

from typing import Any

from agents import Agent, function_tool
from agents.tool_context import ToolContext
from openai_scripted import ScriptedModel

__all__ = ["Files", "agent_with", "context_for"]


class Files:
    """Tools over a list of what really happened."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        files = self

        @function_tool
        def read(path: str) -> str:
            """Read a file."""
            files.ran.append(f"read {path}")
            return f"content of {path}"

        @function_tool
        async def delete(path: str) -> str:
            """Delete a file."""
            files.ran.append(f"delete {path}")
            return f"deleted {path}"

        @function_tool(needs_approval=True)
        def wipe(path: str) -> str:
            """Delete a directory."""
            files.ran.append(f"wipe {path}")
            return f"wiped {path}"

        self.read, self.delete, self.wipe = read, delete, wipe


def agent_with(model: ScriptedModel, *tools: Any, **more: Any) -> Agent[Any]:
    return Agent(name="main", tools=list(tools), model=model, **more)


def context_for(tool: str, arguments: str, call_id: str = "call_direct") -> ToolContext[Any]:
    return ToolContext(context=None, tool_name=tool, tool_call_id=call_id, tool_arguments=arguments)
