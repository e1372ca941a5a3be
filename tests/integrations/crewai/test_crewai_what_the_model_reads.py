"""What the model and the run see of a refusal: a document, never an answer, whatever CrewAI makes of results."""

from __future__ import annotations

from crew_harness import agent_with, crew_of
from crew_tools import BOTH, DELETE, Recorded, Traces, denial
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import ToolDenied, govern


@BOTH
def test_a_denial_is_never_the_answer_of_a_task(al: AgentLattice, traces: Traces, native: bool) -> None:
    """With `result_as_answer`, a refused call is read by the model and recorded as a failure; the run goes on."""
    model = ScriptedModel([[DELETE]], native=native)
    crew = govern(crew_of(agent_with(model, [traces.delete(result_as_answer=True)])), al)
    output = crew.kickoff()
    assert output.raw == "done"
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"
    (failure,) = output.tasks_output[0].tool_failures
    assert isinstance(failure.failure, ToolDenied)
    assert failure.failure.details["reason"] == "POLICY_DENIED"
    assert traces.ran == []


@BOTH
def test_a_cached_result_that_is_denied_now_is_not_the_answer_either(
    al: AgentLattice, traces: Traces, native: bool
) -> None:
    """A result served from CrewAI's cache is asked about; refused, neither it nor the refusal ends the task."""
    draw = ScriptedCall("draw", {"amount": "1", "currency": "EUR"})
    model = ScriptedModel([[draw], [ScriptedCall("read", {"path": "x"})], [draw]], native=native)
    paid = traces.draw()
    agent = agent_with(model, [paid, traces.read()], cache=True)
    model._before = lambda: setattr(paid, "result_as_answer", len(model.requests) == 3)
    output = govern(crew_of(agent, cache=True), al).kickoff()
    assert output.raw == "done"
    assert denial(model.shown[2].content)["status"] == "denied"
    assert traces.ran == [("draw", "1"), ("read", "x")]


@BOTH
def test_a_cached_result_that_is_allowed_is_served_and_recorded(
    al: AgentLattice, traces: Traces, recorded: Recorded, native: bool
) -> None:
    """CrewAI's cache keeps working: the tool runs once, and each call is an action of its own."""
    read, other = ScriptedCall("read", {"path": "a"}), ScriptedCall("read", {"path": "b"})
    model = ScriptedModel([[read], [other], [read]], native=native)
    govern(crew_of(agent_with(model, [traces.read()], cache=True), cache=True), al).kickoff()
    assert traces.ran == [("read", "a"), ("read", "b")]
    assert [seen.content for seen in model.shown] == ["read a", "read b", "read a"]
    assert [event.claim for event in recorded("tool.read")] == ["succeeded"] * 3


def test_a_deferred_call_can_be_made_again_at_once_in_the_text_protocol(
    al: AgentLattice, reviewer: AgentLattice, traces: Traces
) -> None:
    """CrewAI refuses the same text call twice in a row; a call that was refused does not count as made."""

    def approve() -> None:
        for request in reviewer.list_pending_approvals_sync():
            reviewer.approve_action_sync(request.id)

    deploy = ScriptedCall("deploy", {"version": "1"})
    model = ScriptedModel([[deploy], [deploy]], native=False, before=approve)
    govern(crew_of(agent_with(model, [traces.deploy()])), al, on_approval="defer").kickoff()
    assert denial(model.shown[0].content)["status"] == "pending"
    assert model.shown[1].content == "deployed 1"
    assert traces.ran == [("deploy", "1")]


def test_what_crewai_itself_makes_of_a_refusal_does_not_reach_the_model(
    al: AgentLattice, traces: Traces
) -> None:
    """A cache function that trips over the refusal changes nothing: the model reads the denial document."""
    delete = traces.delete()
    delete.cache_function = lambda _, result: result.startswith("ok")
    model = ScriptedModel([[DELETE]])
    govern(crew_of(agent_with(model, [delete], cache=True), cache=True), al).kickoff()
    assert denial(model.shown[0].content)["reason"] == "POLICY_DENIED"


def test_a_refusal_reads_the_same_without_hooks(al: AgentLattice, traces: Traces) -> None:
    """However CrewAI turns a tool's result into text, it is the denial document and nothing else."""
    delete = govern(traces.delete(), al)
    refused = delete.run(path="a")
    assert denial(delete.format_output_for_agent(refused)) == denial(str(refused)) == refused.details
