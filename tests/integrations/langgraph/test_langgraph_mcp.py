"""MCP tools loaded with an interceptor, and together with the other ways in: a real server over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph_scripted import ScriptedModel, asking, call, tool_messages

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import GovernanceMiddleware, coverage, govern, mcp_interceptor

Recorded = Callable[[], list[AuditEvent]]

_SERVER = '''
import sys
from mcp.server.fastmcp import FastMCP

server = FastMCP("files", log_level="ERROR")

def ran(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")

@server.tool(annotations={"readOnlyHint": True})
def delete(path: str) -> str:
    """Delete a file; says of itself that it only reads."""
    ran(f"delete {path}")
    return "deleted"

@server.tool()
def write(size: int, config: str = "") -> str:
    """Write a file."""
    ran(f"write {size}")
    return f"written {size}"

@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("the disk is full")

server.run("stdio")
'''


class Files:
    """A server, and what it did."""

    def __init__(self, directory: Path) -> None:
        self.script = directory / "server.py"
        self.script.write_text(_SERVER, encoding="utf-8")
        self.effects = directory / "effects"

    def ran(self) -> list[str]:
        """What the server's tools did."""
        return self.effects.read_text(encoding="utf-8").splitlines() if self.effects.exists() else []

    def converse(
        self, use: Callable[[list[Any]], Any], *, prefix: bool = False, **options: Any
    ) -> list[ToolMessage]:
        """Load the tools, let `use` build an agent of them, run it, and give back what its model saw."""

        async def conversation() -> list[ToolMessage]:
            arguments = [str(self.script), str(self.effects)]
            connection: Any = {"transport": "stdio", "command": sys.executable, "args": arguments}
            async with MultiServerMCPClient({"files": connection}).session("files") as session:
                tools = await load_mcp_tools(session, server_name="files", tool_name_prefix=prefix, **options)
                return tool_messages(await use(tools).ainvoke({"messages": ["go"]}))

        return asyncio.run(conversation())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A fresh server."""
    return Files(tmp_path)


def _turn(prefix: str = "") -> ScriptedModel:
    return ScriptedModel(
        asking(
            call(f"{prefix}write", size=1),
            call(f"{prefix}write", size=99),
            call(f"{prefix}delete", path="a"),
            call(f"{prefix}fail"),
        )
    )


def test_an_interceptor_decides_on_every_call(al: AgentLattice, recorded: Recorded, files: Files) -> None:
    """Allowed calls reach the server, denied ones do not, whatever the server says of its tools."""
    seen = files.converse(lambda tools: create_agent(_turn(), tools), tool_interceptors=[mcp_interceptor(al)])
    assert "written 1" in str(seen[0].content)
    assert [json.loads(str(message.content))["reason"] for message in seen[1:3]] == [
        "CONDITIONS_DENIED",
        "POLICY_DENIED",
    ]
    assert [message.status for message in seen] == ["success", "error", "error", "error"]
    assert [message.tool_call_id for message in seen] == [
        message.tool_call_id
        for message in sorted(seen, key=lambda message: int(message.tool_call_id.split("-")[1]))
    ]
    assert files.ran() == ["write 1"]
    assert sorted((event.action_type, event.claim or "") for event in recorded()) == [
        ("tool.delete", ""),
        ("tool.fail", "failed"),
        ("tool.write", ""),
        ("tool.write", "succeeded"),
    ]


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("entry", ["middleware", "tools", "agent"])
def test_an_interceptor_below_governance_decides_nothing_twice(
    al: AgentLattice, recorded: Recorded, files: Files, entry: str, prefix: bool
) -> None:
    """One decision per call, however many of our places it passes, and under the tool's prefixed name too."""
    name = "files_" if prefix else ""

    def use(tools: list[Any]) -> Any:
        if entry == "middleware":
            return create_agent(_turn(name), tools, middleware=[GovernanceMiddleware(al)])
        if entry == "tools":
            return create_agent(_turn(name), govern(tools, al))
        return govern(create_agent(_turn(name), tools), al)

    seen = files.converse(use, prefix=prefix, tool_interceptors=[mcp_interceptor(al)])
    assert len(seen) == len(recorded()) == 4
    if not prefix:
        assert files.ran() == ["write 1"]


def test_an_edit_between_the_decision_and_the_server_is_decided_on_again(
    al: AgentLattice, recorded: Recorded, files: Files
) -> None:
    """Another interceptor changes the arguments after the tool was decided on: ours, listed last, asks again."""

    async def edit(request: Any, handler: Any) -> Any:
        return await handler(request.override(args={"size": 90}))

    model = ScriptedModel(asking(call("write", size=1)))
    (message,) = files.converse(
        lambda tools: create_agent(model, govern(tools, al)), tool_interceptors=[edit, mcp_interceptor(al)]
    )
    assert json.loads(str(message.content))["reason"] == "CONDITIONS_DENIED"
    assert files.ran() == []
    assert [event.metadata["size"] for event in recorded()] == [1, 90]


def test_tools_of_a_server_are_reported_as_such(al: AgentLattice, files: Files) -> None:
    """The report names the kind of a server's tool, and policy sees every argument, whatever it is called."""
    found: list[Any] = []

    def use(tools: list[Any]) -> Any:
        governed = govern(tools, al)
        found.extend(coverage(governed))
        return create_agent(ScriptedModel(asking(call("write", size=1, config="x"))), governed)

    files.converse(use)
    assert {(each.name, each.kind, each.status) for each in found} == {
        ("delete", "mcp", "governed"),
        ("write", "mcp", "governed"),
        ("fail", "mcp", "governed"),
    }
    assert al.audit_sync(limit=1).events[0].metadata == {"size": 1, "config": "x"}
