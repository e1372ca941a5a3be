"""The enforcement contract over the OpenAI Agents SDK: a governed agent, and governed tools in an agent that is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from agents import (
    Agent,
    CodeInterpreterTool,
    FileSearchTool,
    FunctionTool,
    ImageGenerationTool,
    RunHooks,
    Runner,
    ShellTool,
    WebSearchTool,
    function_tool,
)
from agents.mcp import MCPServerStdio
from agents.tool_context import ToolContext
from openai_scripted import ScriptedModel, call, say

from agentlattice_integrations.contract import (
    Alternative,
    EnforcementContract,
    Feature,
    FrameworkHarness,
    Governance,
    How,
    McpServer,
    ScriptedCall,
    Seen,
    Transcript,
    Turn,
)
from agentlattice_integrations.openai_agents import coverage, govern


def scripted(turns: Sequence[Turn]) -> ScriptedModel:
    return ScriptedModel(*([call(c.tool, c.arguments, call_id=c.call_id) for c in turn] for turn in turns))


def seen(model: ScriptedModel) -> list[Seen]:
    """What the model was shown for each of its calls, in the order in which it made them."""
    items = [item for item in model.inputs[-1] if isinstance(item, dict)]
    shown = {item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"}
    return [
        Seen(item["name"], _text(shown[item["call_id"]]), item["call_id"])
        for item in items
        if item.get("type") == "function_call" and item["call_id"] in shown
    ]


def _text(output: Any) -> str:
    if isinstance(output, str):
        return output
    return "".join(part["text"] for part in output)


def _no_cache(world: Any) -> None:
    """Two equal calls are two runs."""
    turns = [[ScriptedCall("free", {"text": "a"})], [ScriptedCall("free", {"text": "a"})]]
    world.harness.run(world.governance(), world.tools("free"), turns)
    assert len(world.effects.of("free")) == 2


def _no_retry(world: Any) -> None:
    """A raising tool is run once for one call."""
    world.harness.run(world.governance(), world.tools("flaky"), [[ScriptedCall("flaky", {"text": "a"})]])
    assert len(world.effects.of("flaky")) == 1


class OpenAIAgentsHarness(FrameworkHarness):
    """The whole agent is passed to `govern`."""

    name = "openai-agents"
    handoff_tool = "transfer_to_specialist"
    agent_tool = "ask_specialist"
    alternatives: ClassVar[Mapping[Feature, Alternative]] = {
        Feature.CACHE: Alternative("the SDK keeps no results of tools", _no_cache),
        Feature.RETRY: Alternative("the SDK does not run a raising tool again by itself", _no_retry),
    }

    def make_tool(self, function: Callable[..., Any], *, name: str | None = None) -> Any:
        return function_tool(function, name_override=name, strict_mode=False)

    def govern(self, governance: Governance, agent: Agent[Any]) -> Agent[Any]:
        return govern(agent, governance.client, **governance.options)

    def run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, how: How = "sync"
    ) -> Transcript:
        agent = self.govern(governance, Agent(name="main", tools=list(tools), model=scripted(turns)))
        return self._ran(agent, agent, how)

    def call_directly(
        self, governance: Governance, tool: Any, arguments: Mapping[str, Any], *, how: How = "sync"
    ) -> str:
        governed: FunctionTool = govern(tool, governance.client, **governance.options)
        raw = json.dumps(arguments)
        context: ToolContext[Any] = ToolContext(
            context=None, tool_name=governed.name, tool_call_id="call_direct", tool_arguments=raw
        )

        async def invoke() -> Any:
            return await governed.on_invoke_tool(context, raw)

        return str(asyncio.run(invoke()))

    def run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        async def run() -> Transcript:
            params: Any = {"command": server.command, "args": list(server.args)}
            async with MCPServerStdio(params=params, client_session_timeout_seconds=30) as connected:
                agent = self.govern(
                    governance, Agent(name="main", mcp_servers=[connected], model=scripted(turns))
                )
                result = await Runner.run(agent, "go", max_turns=20)
                return Transcript(seen(agent.model), result.final_output, coverage(agent))  # type: ignore[arg-type]

        return asyncio.run(run())

    def run_handoff(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool = False
    ) -> Transcript:
        specialist = Agent(name="specialist", tools=list(tools), model=scripted(turns))
        first = Agent(
            name="first",
            handoffs=[specialist],
            model=scripted([[ScriptedCall("transfer_to_specialist", {})]]),
        )
        self.govern(governance, first)
        transcript = self._ran(first, first if denied else specialist, "sync")
        own = [each for each in transcript.seen if denied or each.tool != "transfer_to_specialist"]
        return Transcript(own, transcript.final, transcript.coverage)

    def run_agent_as_tool(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        specialist = Agent(name="specialist", tools=list(tools), model=scripted(turns))
        outer = Agent(
            name="outer",
            tools=[specialist.as_tool("ask_specialist", "Ask the specialist.")],
            model=scripted([[ScriptedCall("ask_specialist", {"input": "go"})]]),
        )
        return self._ran(self.govern(governance, outer), specialist, "sync")

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        agent = self.govern(governance, Agent(name="main", tools=list(tools), model=scripted(turns)))
        agent.tools.append(late)
        return self._ran(agent, agent, "sync")

    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        raise AssertionError("the SDK has no cache")

    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        raise AssertionError("the SDK has no retries")

    def run_with_edit(
        self,
        governance: Governance,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Transcript:
        class Edit(RunHooks[Any]):
            async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
                context.tool_call.arguments = json.dumps(edit(json.loads(context.tool_call.arguments)))

        agent = self.govern(governance, Agent(name="main", tools=list(tools), model=scripted(turns)))
        return self._ran(agent, agent, "sync", Edit())

    def hosted_tools(self) -> Sequence[Any]:
        return [
            WebSearchTool(),
            FileSearchTool(vector_store_ids=["vs_1"]),
            CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": {"type": "auto"}}),
            ImageGenerationTool(tool_config={"type": "image_generation"}),
            ShellTool(environment={"type": "container_auto"}),
        ]

    def _ran(
        self, agent: Agent[Any], watched: Agent[Any], how: How, hooks: RunHooks[Any] | None = None
    ) -> Transcript:
        async def streamed() -> Any:
            run = Runner.run_streamed(agent, "go", max_turns=20, hooks=hooks)
            async for _ in run.stream_events():
                pass
            return run.final_output

        if how == "sync":
            final = Runner.run_sync(agent, "go", max_turns=20, hooks=hooks).final_output
        elif how == "async":
            final = asyncio.run(_awaited(agent, hooks)).final_output
        else:
            final = asyncio.run(streamed())
        model = watched.model
        assert isinstance(model, ScriptedModel)
        return Transcript(seen(model), final, self.report(agent))

    def report(self, agent: Agent[Any]) -> Any:
        return coverage(agent)


async def _awaited(agent: Agent[Any], hooks: RunHooks[Any] | None) -> Any:
    return await Runner.run(agent, "go", max_turns=20, hooks=hooks)


class PerToolHarness(OpenAIAgentsHarness):
    """Only the tools are passed to `govern`; the agent that gets them is the application's own, and not governed."""

    def __init__(self) -> None:
        self._report: Any = None

    def govern(self, governance: Governance, agent: Agent[Any]) -> Agent[Any]:
        if agent.mcp_servers or agent.handoffs or any(tool.name == self.agent_tool for tool in agent.tools):
            return super().govern(
                governance, agent
            )  # what an agent reaches can only be governed with the agent

        def keep(report: Any) -> None:
            self._report = report

        agent.tools = govern(list(agent.tools), governance.client, report=keep, **governance.options)
        return agent

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        governed = govern(late, governance.client, **governance.options)
        return super().run_with_late_tool(governance, tools, governed, turns)

    def report(self, agent: Agent[Any]) -> Any:
        return self._report


class _Contract(EnforcementContract):
    @pytest.mark.parametrize(
        "kind", ["huge", "deep", "not a number", "infinite", "nul", "too large a number"]
    )
    def test_arguments_that_cannot_be_recorded_are_refused(self, world: Any, kind: str) -> None:
        """Nothing runs, the run does not break, and what the model is told is not longer than it can use."""
        super().test_arguments_that_cannot_be_recorded_are_refused(world, kind)

    def test_a_lone_surrogate_ends_the_run_in_the_sdk_and_runs_nothing(self, world: Any) -> None:
        """The SDK itself cannot encode such a call: it ends the run before anything of a tool is asked."""
        with pytest.raises(UnicodeEncodeError):
            super().test_arguments_that_cannot_be_recorded_are_refused(world, "surrogate")
        assert world.effects.of() == []


class TestGovernedAgent(_Contract):
    harness = OpenAIAgentsHarness()


class TestGovernedTools(_Contract):
    harness = PerToolHarness()


def test_the_harness_sees_a_denied_call_when_there_is_one() -> None:
    """The harness reads tool results from what the model was sent, in the order of the calls."""
    model = ScriptedModel([call("b", {}, call_id="2"), call("a", {}, call_id="1")], [say("done")])
    agent = Agent(
        name="main",
        tools=[function_tool(lambda: "A", name_override="a"), function_tool(lambda: "B", name_override="b")],
        model=model,
    )
    Runner.run_sync(agent, "go")
    assert seen(model) == [Seen("b", "B", "2"), Seen("a", "A", "1")]
