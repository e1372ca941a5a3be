"""What CrewAI runs past every gate is taken away, refused or reported, and never passed over."""

from __future__ import annotations

from typing import Any

import pytest
from crew_harness import agent_with, crew_of
from crew_tools import Traces
from crewai.agents.agent_adapters.base_agent_adapter import BaseAgentAdapter
from crewai.hooks import HookAborted
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls import Coverage
from agentlattice_integrations.crewai import coverage, govern


def test_a_providers_tools_given_to_the_model_later_end_the_run(al: AgentLattice) -> None:
    """They are taken away when the crew is governed, and refused when they come back."""
    model = ScriptedModel(hosted=["web_search"])
    crew = govern(crew_of(agent_with(model)), al)
    assert model.builtin_tools is None
    model.builtin_tools = ["code_interpreter"]
    with pytest.raises(HookAborted, match="code_interpreter"):
        crew.kickoff()
    assert model.requests == []


def test_a_providers_tools_stay_only_where_the_caller_says_so(al: AgentLattice) -> None:
    """Left to the model, they are reported as what they are."""
    model = ScriptedModel(hosted=["web_search"])
    report = Coverage()
    govern(crew_of(agent_with(model)), al, report=report.update, hosted_tools="allow").kickoff()
    assert model.builtin_tools == ["web_search"]
    assert [tool.name for tool in report.not_coverable] == ["web_search"]


class Foreign(BaseAgentAdapter):
    """An agent of another framework."""

    def configure_tools(self, tools: Any = None) -> None: ...

    def configure_structured_output(self, structured_output: Any) -> None: ...

    def execute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "done"

    async def aexecute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "done"

    def create_agent_executor(self, tools: Any = None, task: Any = None) -> None: ...

    def get_delegation_tools(self, agents: Any) -> list[Any]:
        return []

    def get_platform_tools(self, apps: Any) -> list[Any]:
        return []

    def get_mcp_tools(self, mcps: Any) -> list[Any]:
        return []


def test_an_agent_of_another_framework_is_refused(al: AgentLattice) -> None:
    """Its tools call no hook of CrewAI's, so it is an error, until the caller explicitly leaves it ungoverned."""
    foreign = Foreign(role="foreign", goal="g", backstory="b", llm=ScriptedModel())
    with pytest.raises(InvalidRequestError, match="cannot be governed"):
        govern(foreign, al)
    report = Coverage()
    govern(foreign, al, report=report.update, hosted_tools="allow")
    assert [tool.owner for tool in report.not_coverable] == ["foreign"]


def test_what_is_no_part_of_crewai_is_an_error(al: AgentLattice) -> None:
    """Governing something that CrewAI cannot run says so."""
    with pytest.raises(InvalidRequestError, match="cannot be governed"):
        govern("a tool", al)


def test_the_report_says_what_no_gate_stands_before(al: AgentLattice, traces: Traces) -> None:
    """`coverage` tells the state as it is: before `govern` nothing is governed, afterwards everything."""
    crew = crew_of(agent_with(ScriptedModel(), [traces.read()], allow_delegation=True))
    assert {entry.status for entry in coverage(crew)} == {"not_coverable"}
    govern(crew, al)
    found = coverage(crew)
    assert {entry.status for entry in found} == {"governed"}
    assert {entry.name: entry.action_type for entry in found}["read"] == "tool.read"
