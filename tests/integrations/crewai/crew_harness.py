"""CrewAI behind the contract: crews of one scripted agent, in both of CrewAI's ways to call tools."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from crewai import Agent, Crew, Task
from crewai.hooks.dispatch import InterceptionPoint, scoped_hooks
from crewai.mcp import MCPServerStdio
from crewai.tools import tool as crewai_tool
from crewai.utilities.string_utils import sanitize_tool_name
from scripted_crewai import ScriptedModel

from agentlattice_core.toolcalls import Coverage
from agentlattice_integrations.contract import (
    Alternative,
    Feature,
    FrameworkHarness,
    Governance,
    How,
    McpServer,
    ScriptedCall,
    Transcript,
    Turn,
)
from agentlattice_integrations.contract.world import World
from agentlattice_integrations.crewai import govern

DELEGATE = "delegate_work_to_coworker"
ASK = "ask_question_to_coworker"


def agent_with(model: ScriptedModel, tools: Sequence[Any] = (), role: str = "worker", **fields: Any) -> Agent:
    """An agent that follows the model's script."""
    return Agent(
        role=role, goal="follow the script", backstory="scripted", llm=model, tools=list(tools), **fields
    )


def crew_of(*agents: Agent, **fields: Any) -> Crew:
    """A crew with one task, for the first of the agents."""
    task = Task(description="follow the script", expected_output="anything", agent=agents[0])
    return Crew(agents=list(agents), tasks=[task], **fields)


def _forget_the_last_call(agent: Agent) -> None:
    """CrewAI's text protocol refuses the same call twice in a row; as if another had been made in between."""
    agent.tools_handler.last_used_tool = None


def _refuses_odd_text(harness: FrameworkHarness, world: World) -> None:
    for text in ("not json", '{"text": "x"', "[1, 2]", '"text"'):
        transcript = harness.run(world.governance(), world.tools("free"), [[ScriptedCall("free", text)]])
        assert all("said" not in seen.content for seen in transcript.seen)
        assert world.effects.of() == []


def _repairs_odd_text(harness: FrameworkHarness, world: World) -> None:
    for text in ("not json", '{"text": "x"', "[1, 2]", '"text"', '{"text": "x", "text": "y"}'):
        harness.run(world.governance(), world.tools("free"), [[ScriptedCall("free", text)]])
    ran = world.effects.of("free")
    assert ran == [event.metadata for event in world.events("free") if event.claim == "succeeded"]


def _never_retries(harness: FrameworkHarness, world: World) -> None:
    harness.run(world.governance(), world.tools("flaky"), [[ScriptedCall("flaky", {"text": "x"})]])
    assert world.effects.of("flaky") == [{"text": "x"}]
    assert [event.claim for event in world.events("flaky")] == ["failed"]


class CrewAIHarness(FrameworkHarness):
    """Native function calls."""

    name = "crewai"
    handoff_tool = DELEGATE
    agent_tool = ASK
    native: ClassVar[bool] = True
    alternatives: ClassVar[Mapping[Feature, Alternative]] = {
        Feature.RAW_TEXT: Alternative(
            "CrewAI parses the text itself, before hooks and tools, and tells the model what is wrong with it",
            lambda world: _refuses_odd_text(world.harness, world),
        ),
        Feature.RETRY: Alternative(
            "CrewAI runs a native function call once, whatever happens",
            lambda world: _never_retries(world.harness, world),
        ),
    }

    def make_tool(self, function: Callable[..., Any], *, name: str | None = None) -> Any:
        return crewai_tool(name or function.__name__)(function)

    def run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, how: How = "sync"
    ) -> Transcript:
        hosted = [tool for tool in tools if isinstance(tool, str)]
        model = ScriptedModel(
            turns, native=self.native, hosted=hosted, before=lambda: _forget_the_last_call(agent)
        )
        report = Coverage()
        agent = agent_with(model, [tool for tool in tools if tool not in hosted])
        crew = crew_of(agent, stream=how == "stream")
        govern(crew, governance.client, report=report.update, **governance.options)
        assert model.builtin_tools is None
        return self._transcript(model, self._kickoff(crew, how), report)

    def call_directly(
        self, governance: Governance, tool: Any, arguments: Mapping[str, Any], *, how: How = "sync"
    ) -> str:
        govern(tool, governance.client, **governance.options)
        if how == "sync" or not inspect.iscoroutinefunction(tool.func):
            return str(tool.run(**arguments))
        return str(asyncio.run(tool.arun(**arguments)))

    def run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        stdio = MCPServerStdio(command=server.command, args=list(server.args))
        named: dict[str, str] = {}
        model = ScriptedModel(turns, native=self.native, called=lambda name: named[name])
        agent = agent_with(model, mcps=[stdio])
        for tool in agent.get_mcp_tools([stdio]):
            named[tool.original_tool_name] = sanitize_tool_name(tool.name)
        report = Coverage()
        crew = govern(crew_of(agent), governance.client, report=report.update, **governance.options)
        return self._transcript(model, self._kickoff(crew), report)

    def run_handoff(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool = False
    ) -> Transcript:
        order = {"task": "follow the script", "context": "none", "coworker": "specialist"}
        return self._delegate(governance, ScriptedCall(DELEGATE, order), tools, turns, denied=denied)

    def run_agent_as_tool(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        question = {"question": "what does the script say?", "context": "none", "coworker": "specialist"}
        return self._delegate(governance, ScriptedCall(ASK, question), tools, turns)

    def _delegate(
        self,
        governance: Governance,
        call: ScriptedCall,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        *,
        denied: bool = False,
    ) -> Transcript:
        """Two agents in a crew, of which the first alone is governed."""
        first = ScriptedModel([[call]], native=self.native)
        second = ScriptedModel(turns, native=self.native)
        report = Coverage()
        outer = govern(
            agent_with(first, allow_delegation=True),
            governance.client,
            report=report.update,
            **governance.options,
        )
        result = self._kickoff(crew_of(outer, agent_with(second, tools, role="specialist")))
        return self._transcript(first if denied else second, result, report)

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        model = ScriptedModel(turns, native=self.native)
        report = Coverage()
        agent = agent_with(model, tools)
        crew = govern(crew_of(agent), governance.client, report=report.update, **governance.options)
        agent.tools.append(late)
        for task in crew.tasks:
            task.tools[:] = agent.tools
        return self._transcript(model, self._kickoff(crew), report)

    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        model = ScriptedModel(turns, native=self.native, before=lambda: _forget_the_last_call(agent))
        agent = agent_with(model, tools, cache=True)
        report = Coverage()
        crew = govern(
            crew_of(agent, cache=True), governance.client, report=report.update, **governance.options
        )
        return self._transcript(model, self._kickoff(crew), report)

    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        for tool in tools:
            tool.max_usage_count = attempts
        return self.run(governance, tools, turns)

    def run_with_edit(
        self,
        governance: Governance,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Transcript:
        def change(context: Any) -> None:
            edited = edit(dict(context.tool_input))
            context.tool_input.clear()
            context.tool_input.update(edited)

        with scoped_hooks({InterceptionPoint.PRE_TOOL_CALL: [change]}):
            return self.run(governance, tools, turns)

    def hosted_tools(self) -> Sequence[Any]:
        return ["web_search"]

    def _kickoff(self, crew: Crew, how: How = "sync") -> str:
        if how == "async":
            return str(asyncio.run(crew.kickoff_async()).raw)
        output = crew.kickoff()
        if how == "stream":
            for _ in output:
                pass
            output = output.result
        return str(output.raw)

    def _transcript(self, model: ScriptedModel, final: str, report: Coverage) -> Transcript:
        return Transcript(model.shown, final, report)


class ReActHarness(CrewAIHarness):
    """CrewAI's text protocol."""

    native = False
    alternatives: ClassVar[Mapping[Feature, Alternative]] = {
        Feature.RAW_TEXT: Alternative(
            "CrewAI repairs text that is not JSON, before hooks and tools; what it made of it is decided on",
            lambda world: _repairs_odd_text(world.harness, world),
        ),
    }
