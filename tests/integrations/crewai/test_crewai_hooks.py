"""Hooks of CrewAI's around a call, and governance at the edges of a task."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from crew_harness import agent_with, crew_of
from crew_tools import BOTH, DELETE, Recorded, Traces, denial
from crewai import Agent, Crew, Task
from crewai.hooks import HookAborted, InterceptionPoint, get_hooks
from crewai.hooks.dispatch import scoped_hooks
from crewai.tools import tool
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import govern, hooks, task_guardrail
from agentlattice_integrations.crewai.registry import governor_of_holder

# --- hooks ------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_hook_that_goes_wrong_blocks_the_call(
    al: AgentLattice, traces: Traces, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """CrewAI runs the tool when a hook raises; ours then blocks it, and the model is told."""

    def fail(*_: Any) -> None:
        raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(hooks, "_gate_everything", fail)
    model = ScriptedModel([[ScriptedCall("read", {"path": "a"})]], native=native)
    govern(crew_of(agent_with(model, [traces.read()])), al).kickoff()
    assert denial(model.shown[0].content)["reason"] == "NOT_COVERABLE"
    assert traces.ran == []


@BOTH
def test_a_call_for_an_unknown_user_does_not_run(al: AgentLattice, traces: Traces, native: bool) -> None:
    """Where the function that names the end user raises, the call is refused, and the model is told."""

    def nobody() -> str:
        raise LookupError("no user")

    model = ScriptedModel([[ScriptedCall("read", {"path": "a"})]], native=native)
    crew = crew_of(agent_with(model, [traces.read()], cache=True), cache=True)
    govern(crew, al, on_behalf_of=nobody).kickoff()
    assert denial(model.shown[0].content)["reason"] == "NOT_COVERABLE"
    assert traces.ran == []


def test_a_later_hook_that_changes_the_arguments_is_decided_on(al: AgentLattice, recorded: Recorded) -> None:
    """What is decided on is what the tool receives, coerced by its schema, not what the model wrote."""
    received = []

    @tool("write")
    def write(size: int) -> str:
        """Write."""
        received.append(size)
        return "written"

    model = ScriptedModel([[ScriptedCall("write", {"size": "7"})]])
    crew = govern(crew_of(agent_with(model, [write])), al)
    with scoped_hooks(
        {InterceptionPoint.PRE_TOOL_CALL: [lambda context: context.tool_input.update(size="8")]}
    ):
        crew.kickoff()
    assert received == [8]
    assert [event.metadata for event in recorded("tool.write")] == [{"size": 8}]


def test_the_hook_after_a_call_is_there_only_while_a_call_needs_it(al: AgentLattice, traces: Traces) -> None:
    """CrewAI's own cost of a hook is paid where there is something to show."""
    model = ScriptedModel([[DELETE], [ScriptedCall("read", {"path": "a"})]])
    govern(crew_of(agent_with(model, [traces.delete(), traces.read()])), al).kickoff()
    assert traces.ran == [("read", "a")]
    assert get_hooks(InterceptionPoint.POST_TOOL_CALL) == []


def test_a_crew_that_is_gone_governs_nobody(al: AgentLattice, traces: Traces) -> None:
    """Crews are found by their texts for their copies' sake, and forgotten with the last thing they governed."""
    texts = {"role": "gone", "goal": "g", "backstory": "b"}
    governed = govern(Agent(**texts, llm=ScriptedModel(), tools=[traces.read()]), al)
    twin = Agent(**texts, llm=ScriptedModel())
    assert governor_of_holder(twin) is not None
    del governed, twin
    gc.collect()
    assert governor_of_holder(Agent(**texts, llm=ScriptedModel())) is None


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_hands_on_only_what_policy_allows(al: AgentLattice, recorded: Recorded) -> None:
    """The guardrail's denial reaches the agent, whose next answer passes."""
    answers = ["the secret plan", "the plan"]

    class Answering(ScriptedModel):
        def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            self._requests.append(list(messages))
            return answers.pop(0)

    model = Answering()
    agent = agent_with(model)
    guarded = Task(
        description="d", expected_output="e", agent=agent, guardrail=task_guardrail(al, "report.publish")
    )
    assert Crew(agents=[agent], tasks=[guarded]).kickoff().raw == "the plan"
    assert any("CONDITIONS_DENIED" in str(message["content"]) for message in model.requests[1])
    assert [event.status for event in recorded("report.publish")] == ["denied", "executed"]


def test_a_guardrail_that_cannot_ask_lets_nothing_pass(al: AgentLattice) -> None:
    """With a core that is gone, the output stays where it is."""
    guard = task_guardrail(al, "report.publish")
    al.close()

    class Output:
        raw, name, agent = "the plan", None, "worker"

    passed, why = guard(Output())
    assert passed is False
    assert denial(why)["reason"] == "NOT_RECORDED"


def test_a_task_starts_only_if_policy_allows(al: AgentLattice, traces: Traces) -> None:
    """`task_action` makes the start of a task an action; denied, the run ends before the model is asked."""
    model = ScriptedModel()
    with pytest.raises(HookAborted) as stopped:
        govern(crew_of(agent_with(model)), al, task_action="task.night").kickoff()
    assert denial(stopped.value.reason)["reason"] == "POLICY_DENIED"
    assert model.requests == []
    assert govern(crew_of(agent_with(model)), al, task_action="task.day").kickoff().raw == "done"
