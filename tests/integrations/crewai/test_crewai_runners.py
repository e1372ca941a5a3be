"""Whatever runs a tool, a lone agent, a copy, a manager, a flow or a block, asks first."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from crew_harness import DELEGATE, agent_with, crew_of
from crew_tools import BOTH, DELETE, Traces, denial
from crewai import Agent, Crew, Process, Task
from crewai.flow import Flow, start
from crewai.lite_agent import LiteAgent
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import BaseTool
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import Coverage
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import GovernanceHooks, govern


@BOTH
@pytest.mark.parametrize("kind", [Agent, LiteAgent])
def test_an_agent_without_a_crew_is_governed(
    al: AgentLattice, traces: Traces, kind: Any, native: bool
) -> None:
    """`Agent.kickoff` and `LiteAgent`, whose tools CrewAI took when the agent was made."""
    if kind is LiteAgent and native:
        native = False  # a LiteAgent speaks the text protocol only
    model = ScriptedModel([[DELETE]], native=native)

    class Remove(BaseTool):
        name: str = "delete"
        description: str = "Deletes."

        def _run(self, path: str) -> str:
            traces.ran.append(("delete", path))
            return "deleted"

    lone = kind(role="lone", goal="g", backstory="b", llm=model, tools=[Remove()])
    govern(lone, al).kickoff("go")
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"
    assert traces.ran == []


def test_copies_of_a_crew_are_governed(al: AgentLattice, traces: Traces) -> None:
    """`copy` and `kickoff_for_each` make new agents; their tools and what appears at kickoff are governed alike."""
    model = ScriptedModel(
        [[DELETE], [ScriptedCall(DELEGATE, {"task": "t", "context": "c", "coworker": "other"})]]
    )
    agent = agent_with(model, [traces.delete()], allow_delegation=True)
    crew = govern(
        crew_of(agent, agent_with(ScriptedModel(), role="other")), al, actions={DELEGATE: "pay.large"}
    )
    copied = crew.copy()
    copied.kickoff()
    shown = [model.shown, copied.agents[0].llm.shown]
    assert [denial(seen.content)["action_type"] for seen in max(shown, key=len)] == [
        "tool.delete",
        "pay.large",
    ]
    assert traces.ran == []


def test_a_managers_tools_are_governed(al: AgentLattice, traces: Traces) -> None:
    """In a hierarchical crew the manager and its delegation tools exist from kickoff on."""
    order = {"task": "t", "context": "c", "coworker": "worker"}
    manager = ScriptedModel(
        [[ScriptedCall(DELEGATE, order)], [ScriptedCall(DELEGATE, {**order, "task": "t2"})]]
    )
    worker = ScriptedModel([[DELETE]])
    crew = Crew(
        agents=[agent_with(worker, [traces.delete()])],
        tasks=[Task(description="d", expected_output="e")],
        process=Process.hierarchical,
        manager_llm=manager,
    )
    report = Coverage()
    govern(crew, al, report=report.update)
    assert report.get(DELEGATE) is not None
    crew.kickoff()
    assert denial(worker.shown[0].content)["reason"] == "POLICY_DENIED"
    assert [seen.content for seen in manager.shown] == ["done", "done"]
    assert traces.ran == []


def test_an_instance_of_a_crew_class_governs_the_crews_it_makes(al: AgentLattice, traces: Traces) -> None:
    """`@CrewBase` makes a crew each time it is asked."""
    model = ScriptedModel([[DELETE]])

    @CrewBase
    class Team:
        agents_config: ClassVar[Any] = {}
        tasks_config: ClassVar[Any] = {}

        @agent
        def worker(self) -> Agent:
            return agent_with(model, [traces.delete()])

        @task
        def work(self) -> Task:
            return Task(description="d", expected_output="e", agent=self.worker())

        @crew
        def crew(self) -> Crew:
            return Crew(agents=self.agents, tasks=self.tasks)

    govern(Team(), al).crew().kickoff()
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"
    assert traces.ran == []


def test_what_a_flow_makes_while_it_runs_is_governed(al: AgentLattice, traces: Traces) -> None:
    """Crews that a flow's methods make, and only while the flow runs."""
    model, after = ScriptedModel([[DELETE]]), ScriptedModel([[DELETE]])

    class Work(Flow[Any]):
        @start()
        def begin(self) -> str:
            return str(crew_of(agent_with(model, [traces.delete()])).kickoff().raw)

    flow = govern(Work(), al)
    assert flow.kickoff() == "done"
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"
    assert traces.ran == []
    crew_of(agent_with(after, [traces.delete()], role="outside")).kickoff()
    assert traces.ran == [("delete", "a")]


def test_hooks_in_a_with_statement_govern_what_runs_inside_and_nothing_else(
    al: AgentLattice, traces: Traces
) -> None:
    """`with GovernanceHooks(al)` needs no `govern`, lists what it met, and ends with the block."""
    inside, outside = ScriptedModel([[DELETE]]), ScriptedModel([[DELETE]])
    with GovernanceHooks(al) as governance:
        crew_of(agent_with(inside, [traces.delete()])).kickoff()
    assert denial(inside.shown[0].content)["reason"] == "POLICY_DENIED"
    assert governance.coverage.get("delete") is not None
    crew_of(agent_with(outside, [traces.delete()])).kickoff()
    assert traces.ran == [("delete", "a")]


def test_installed_hooks_govern_the_crews_they_were_given_and_no_other(
    al: AgentLattice, traces: Traces
) -> None:
    """`install(crew)` is for that crew and its copies, whatever else runs in the process."""
    model, other = ScriptedModel([[DELETE]]), ScriptedModel([[DELETE]])
    crew, stranger = (
        crew_of(agent_with(model, [traces.delete()])),
        crew_of(agent_with(other, [], role="stranger")),
    )
    stranger.agents[0].tools.append(traces.read())
    stranger.agents[0].llm._turns = [[ScriptedCall("read", {"path": "b"})]]
    installed = GovernanceHooks(al)
    installed.install(crew)
    crew.kickoff()
    stranger.kickoff()
    installed.uninstall()
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"
    assert traces.ran == [("read", "b")]
    assert [tool.name for tool in installed.coverage] == ["delete"]
