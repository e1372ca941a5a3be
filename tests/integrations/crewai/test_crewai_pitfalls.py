"""What CrewAI does that could let a tool run unasked, run twice, or hide a refusal from the model; each held closed."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from crew_harness import DELEGATE, agent_with, crew_of
from crewai import Agent, Crew, Process, Task
from crewai.agents.agent_adapters.base_agent_adapter import BaseAgentAdapter
from crewai.flow import Flow, start
from crewai.hooks import HookAborted, InterceptionPoint, get_hooks
from crewai.hooks.dispatch import scoped_hooks
from crewai.lite_agent import LiteAgent
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import BaseTool, tool
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import AuditEvent
from agentlattice_core.toolcalls import Coverage, governed
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import (
    GovernanceHooks,
    ToolDenied,
    coverage,
    current_action_id,
    govern,
    hooks,
    task_guardrail,
)
from agentlattice_integrations.crewai.registry import governor_of_holder

Recorded = Callable[[str], list[AuditEvent]]
DELETE = ScriptedCall("delete", {"path": "a"})
BOTH = pytest.mark.parametrize("native", [True, False], ids=["native", "text"])


class Traces:
    """Tools that note that they ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Any]] = []

    def delete(self, **options: Any) -> Any:
        @tool("delete", **options)
        def delete(path: str) -> str:
            """Delete a path."""
            self.ran.append(("delete", path))
            return f"deleted {path}"

        return delete

    def read(self, **options: Any) -> Any:
        @tool("read", **options)
        def read(path: str) -> str:
            """Read a path."""
            self.ran.append(("read", path))
            return f"read {path}"

        return read

    def deploy(self) -> Any:
        @tool("deploy")
        def deploy(version: str) -> str:
            """Deploy a version."""
            self.ran.append(("deploy", version))
            return f"deployed {version}"

        return deploy

    def draw(self, **options: Any) -> Any:
        @tool("draw", **options)
        def draw(amount: str, currency: str) -> str:
            """Draw an amount."""
            self.ran.append(("draw", amount))
            return f"drew {amount}"

        return draw


@pytest.fixture
def traces() -> Traces:
    return Traces()


def denial(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    assert document["type"] == "agentlattice.denial/v1"
    return document


# --- what the model and the run see -----------------------------------------------------------------------------------


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


# --- starts -----------------------------------------------------------------------------------------------------------


def test_each_of_the_six_starts_of_a_raising_tool_holds_a_claim(al: AgentLattice, recorded: Recorded) -> None:
    """CrewAI's text protocol starts a raising tool up to six times for one call: six actions, all failed, no more."""
    starts = []

    @tool("flaky")
    def flaky(path: str) -> str:
        """Fail."""
        starts.append(path)
        raise RuntimeError("no")

    model = ScriptedModel([[ScriptedCall("flaky", {"path": "a"})]], native=False)
    govern(crew_of(agent_with(model, [flaky])), al).kickoff()
    assert len(starts) == 6
    assert [event.claim for event in recorded("tool.flaky")] == ["failed"] * 6


def test_a_tool_whose_run_calls_its_own_coroutine_is_asked_about_once(
    al: AgentLattice, recorded: Recorded
) -> None:
    """`_run` that hands on to `_arun` with the same arguments is one start; the next call is another."""

    class Both(BaseTool):
        name: str = "both"
        description: str = "Does it both ways."

        def _run(self, path: str) -> str:
            return asyncio.run(self._arun(path=path))

        async def _arun(self, path: str) -> str:
            return f"did {path}"

    both = govern(Both(), al)
    assert both.run(path="a") == "did a"
    assert len(recorded("tool.both")) == 1
    assert both.run(path="a") == "did a"
    assert len(recorded("tool.both")) == 2


def test_a_tool_that_calls_another_tool_does_not_lend_it_its_permit(al: AgentLattice, traces: Traces) -> None:
    """What a permitted tool calls is asked about itself, with the same arguments too."""
    delete = traces.delete()

    class Clean(BaseTool):
        name: str = "clean"
        description: str = "Cleans up."

        def _run(self, path: str) -> str:
            return str(delete.run(path=path))

    clean, _ = govern([Clean(), delete], al)
    assert denial(clean.run(path="a"))["tool"] == "delete"
    assert traces.ran == []


def test_a_tool_that_runs_its_own_coroutine_twice_is_asked_about_twice(
    al: AgentLattice, recorded: Recorded
) -> None:
    """One permit lets one start run."""

    class Twice(BaseTool):
        name: str = "twice"
        description: str = "Does it twice."

        def _run(self, path: str) -> list[str]:
            return [asyncio.run(self._arun(path=path)), asyncio.run(self._arun(path=path))]

        async def _arun(self, path: str) -> str:
            return f"did {path}"

    assert govern(Twice(), al).run(path="a") == ["did a", "did a"]
    assert len(recorded("tool.twice")) == 2


def test_a_refusal_reads_the_same_without_hooks(al: AgentLattice, traces: Traces) -> None:
    """However CrewAI turns a tool's result into text, it is the denial document and nothing else."""
    delete = govern(traces.delete(), al)
    refused = delete.run(path="a")
    assert denial(delete.format_output_for_agent(refused)) == denial(str(refused)) == refused.details


def test_no_tool_starts_after_the_agents_time_is_over(
    al: AgentLattice, reviewer: AgentLattice, traces: Traces, recorded: Recorded
) -> None:
    """Approved too late: `max_execution_time` has ended the run with an error, and the tool does not run behind it."""

    def approve_late() -> None:
        while not (pending := reviewer.list_pending_approvals_sync()):
            time.sleep(0.01)
        time.sleep(1.2)
        reviewer.approve_action_sync(pending[0].id)

    person = threading.Thread(target=approve_late)
    model = ScriptedModel([[ScriptedCall("deploy", {"version": "1"})]])
    crew = govern(crew_of(agent_with(model, [traces.deploy()], max_execution_time=1)), al)
    person.start()
    with pytest.raises(TimeoutError):
        crew.kickoff()
    person.join()
    assert traces.ran == []
    assert recorded("tool.deploy")[-1].status == "denied"
    assert [event.claim for event in recorded("tool.deploy") if event.claim] == ["failed"]


def test_a_tool_in_time_runs_under_a_deadline(al: AgentLattice, traces: Traces) -> None:
    """`max_execution_time` by itself denies nothing."""
    model = ScriptedModel([[ScriptedCall("read", {"path": "a"})]])
    govern(crew_of(agent_with(model, [traces.read()], max_execution_time=60)), al).kickoff()
    assert model.shown[0].content == "read a"


def test_a_tool_can_ask_for_the_id_of_its_action(al: AgentLattice, recorded: Recorded) -> None:
    """Inside, it is the id in the log, in every start another one; outside there is none."""
    asked = []

    @tool("pay")
    def pay(amount: int) -> str:
        """Pay."""
        asked.append(current_action_id())
        return "paid"

    govern(pay, al)
    pay.run(amount=1)
    pay.run(amount=1)
    assert asked == [event.id for event in recorded("tool.pay")]
    assert len(set(asked)) == 2
    assert current_action_id() is None


# --- which tool -------------------------------------------------------------------------------------------------------


@BOTH
def test_two_tools_with_one_name_are_told_apart_by_object(al: AgentLattice, native: bool) -> None:
    """CrewAI renames the second of two tools that read the same; neither takes the other's permit."""
    ran = []

    def payment(name: str, size: str) -> Any:
        @tool(name)
        def pay(amount: int) -> str:
            """Pay."""
            ran.append(size)
            return size

        return pay

    small, large = payment("pay", "small"), governed("pay.large")(payment("Pay!", "large"))
    calls = [[ScriptedCall("pay", {"amount": 1})], [ScriptedCall("pay_2", {"amount": 2})]]
    model = ScriptedModel(calls, native=native)
    crew = crew_of(agent_with(model, [small, large]))
    govern(crew, al).kickoff()
    assert "large" not in ran
    assert "small" in ran or not native


def test_governing_changes_neither_the_tool_nor_the_lists_that_hold_it(
    al: AgentLattice, traces: Traces
) -> None:
    """The same object comes back, of the same class, with the same fields, schema and signature, in the same lists."""
    read = traces.read()
    agent = agent_with(ScriptedModel(), [read])
    crew = crew_of(agent)
    fields, schema, lists = (
        read.model_dump(exclude={"func"}),
        read.args_schema,
        (agent.tools, crew.tasks[0].tools),
    )
    assert govern(crew, al) is crew
    assert type(read) is type(traces.read())
    assert read.model_dump(exclude={"func"}) == fields
    assert read.args_schema is schema
    assert (agent.tools, crew.tasks[0].tools) == lists
    assert agent.tools is lists[0]
    assert agent.tools[0] is read


def test_governing_twice_asks_once(al: AgentLattice, traces: Traces, recorded: Recorded) -> None:
    """A tool has one gate, however often it is governed."""
    read = traces.read()
    govern(crew_of(agent_with(ScriptedModel(), [govern(read, al)])), al)
    assert read.run(path="a") == "read a"
    assert len(recorded("tool.read")) == 1


def test_a_copy_of_a_governed_tool_is_governed_and_runs_as_itself(al: AgentLattice) -> None:
    """`model_copy` takes the gate along; in a governed crew the copy gets one of its own."""

    class Remove(BaseTool):
        name: str = "delete"
        description: str = "Deletes."
        place: str = "here"

        def _run(self, path: str) -> str:
            return f"{path} in {self.place}"

    original = govern(Remove(), al)
    copy = original.model_copy(update={"place": "there"})
    assert denial(str(copy.run(path="a")))["reason"] == "POLICY_DENIED"
    govern(copy, al, actions={"delete": "tool.allowed"})
    assert copy.run(path="a") == "a in there"


def test_positional_arguments_are_decided_on_by_name(
    al: AgentLattice, traces: Traces, recorded: Recorded
) -> None:
    """`tool.run("a")` is recorded as what the tool receives."""
    assert govern(traces.read(), al).run("a") == "read a"
    assert [event.metadata for event in recorded("tool.read")] == [{"path": "a"}]


def test_a_governed_tool_handed_to_a_model_client_is_governed(al: AgentLattice, traces: Traces) -> None:
    """`LLM.call(available_functions=...)` calls no hook; the gate on the tool stands all the same."""
    functions = {"delete": govern(traces.delete(), al).run}
    assert denial(str(functions["delete"](path="a")))["reason"] == "POLICY_DENIED"
    assert traces.ran == []


# --- whatever runs the tool -------------------------------------------------------------------------------------------


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


# --- what cannot be governed ------------------------------------------------------------------------------------------


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


def test_pausing_is_an_error_that_names_what_to_use(al: AgentLattice, traces: Traces) -> None:
    """A crew cannot pause inside a tool call."""
    with pytest.raises(InvalidRequestError, match="use `wait` or `defer`"):
        govern(traces.read(), al, on_approval="pause")


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
