"""MCP servers that the application connects to itself, each a real process over stdio."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Runner
from agents.mcp import MCPServerStdio
from agents.run_state import RunState
from openai_scripted import ScriptedModel, call
from openai_world import World, is_denial

from agentlattice_integrations.openai_agents import coverage, govern


class Ran:
    """What the server's tools did, as the server's own process noted it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def tools(self) -> list[str]:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [json.loads(line)[0] for line in lines]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    return Ran(tmp_path / "effects.jsonl")


@asynccontextmanager
async def connected(ran: Ran, **more: Any) -> AsyncIterator[MCPServerStdio]:
    params: Any = {
        "command": sys.executable,
        "args": ["-m", "agentlattice_integrations.contract.mcp_server", str(ran.path)],
    }
    async with MCPServerStdio(params=params, client_session_timeout_seconds=30, **more) as server:
        yield server


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_tool_runs_only_when_it_is_allowed(ran: Ran, streamed: bool) -> None:
    """The server's process never hears of a denied call; the outcome of an allowed one is reported."""
    world = World("tool.forbidden")
    model = ScriptedModel([call("free", {"text": "a"}), call("forbidden", {"text": "b"})])
    async with connected(ran) as server:
        agent = govern(Agent(name="main", mcp_servers=[server], model=model), world)
        if streamed:
            run = Runner.run_streamed(agent, "go")
            async for _ in run.stream_events():
                pass
        else:
            await Runner.run(agent, "go")
    assert ran.tools == ["free"]
    assert is_denial(model.shown[1])
    assert dict(zip(world.types, world.outcomes, strict=True)) == {
        "tool.free": "succeeded",
        "tool.forbidden": None,
    }
    assert {entry["context"]["kind"] for entry in world.entries} == {"mcp"}


async def test_the_report_lists_the_server_and_then_its_tools(ran: Ran) -> None:
    """The server is in the report at once, its tools from the moment they were listed."""
    async with connected(ran, name="notes") as server:
        agent = govern(Agent(name="main", mcp_servers=[server], model=ScriptedModel()), World())
        assert [(tool.name, tool.kind) for tool in coverage(agent)] == [("notes", "mcp server")]
        await Runner.run(agent, "go")
    assert {(tool.name, tool.kind, tool.status) for tool in coverage(agent)} == {
        ("notes", "mcp server", "governed"),
        ("free", "mcp", "governed"),
        ("forbidden", "mcp", "governed"),
        ("open_pr", "mcp", "governed"),
    }


async def test_a_server_added_later_is_governed(ran: Ran) -> None:
    """A server appended after `govern`, with its tool list cached, is governed in every turn."""
    world = World("tool.forbidden")
    model = ScriptedModel([call("forbidden", {"text": "a"})], [call("forbidden", {"text": "a"})])
    async with connected(ran, cache_tools_list=True) as server:
        agent = govern(Agent(name="main", model=model), world)
        agent.mcp_servers.append(server)
        await Runner.run(agent, "go")
    assert ran.tools == []
    assert [is_denial(output) for output in model.shown] == [True, True]


async def test_an_error_of_the_server_is_reported_as_a_failure(ran: Ran) -> None:
    """A server that went away reads `failed`, and the model is shown the SDK's error."""
    world = World()
    model = ScriptedModel(
        [call("open_pr", {"title": "a"})]
    )  # without `pr_size`, which the SDK checks before it calls
    async with connected(ran) as server:
        await Runner.run(govern(Agent(name="main", mcp_servers=[server], model=model), world), "go")
    assert ran.tools == []
    assert world.outcomes == ["failed"]


async def test_the_sdks_own_approval_of_a_server_tool_is_followed_by_policy(ran: Ran) -> None:
    """`require_approval` pauses as before; approved by the application, the call is still decided on."""
    world, model = World("tool.forbidden"), ScriptedModel([call("forbidden", {"text": "a"})])
    async with connected(ran, require_approval="always") as server:
        agent = govern(Agent(name="main", mcp_servers=[server], model=model), world)
        saved = (await Runner.run(agent, "go")).to_state().to_string()
        assert world.entries == []
        state = await RunState.from_string(agent, saved)
        state.approve(state.get_interruptions()[0], always_approve=True)
        await Runner.run(agent, state)
    assert (ran.tools, world.types) == ([], ["tool.forbidden"])
    assert is_denial(model.shown[0])
