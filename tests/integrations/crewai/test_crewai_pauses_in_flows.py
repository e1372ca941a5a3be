"""What else can wait for a person in a flow: delegates, direct calls, guardrails, outputs; what cannot pause waits."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crew_harness import DELEGATE, agent_with, crew_of
from crew_tools import Recorded, Traces
from crewai import Crew, Task
from crewai.flow import Flow, listen, router, start
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.human_feedback import human_feedback
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.tools import tool
from pydantic import BaseModel
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_core.errors import InvalidRequestError
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import approval_feedback, govern, task_guardrail

DEPLOY = ScriptedCall("deploy", {"version": "1"})


@pytest.fixture
def policies() -> str:
    """Asks about deployments, publications and reports."""
    return """
version: 1
policies:
  - {name: Tools, action: "tool.*", effect: allow}
  - {name: Deployments, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Publications, action: report.publish, effect: conditional,
     conditions: [{field: output, operator: not_contains, value: risky}]}
  - {name: No Secrets, action: report.secret, effect: deny}
"""


@pytest.fixture
def persistence(tmp_path: Path) -> SQLiteFlowPersistence:
    return SQLiteFlowPersistence(str(tmp_path / "flows.db"))


class Governed:
    """Runs flows of a class, and resumes them from what was saved."""

    def __init__(self, al: AgentLattice, reviewer: AgentLattice, persistence: SQLiteFlowPersistence) -> None:
        self.al, self.reviewer, self.persistence = al, reviewer, persistence

    def run(self, kind: type[Flow[Any]], **settings: Any) -> Any:
        flow = kind(persistence=self.persistence, suppress_flow_events=True)
        return govern(flow, self.al, **settings).kickoff()

    def go_on(
        self, kind: type[Flow[Any]], paused: HumanFeedbackPending, feedback: str = "", **settings: Any
    ) -> Any:
        flow = kind.from_pending(paused.context.flow_id, self.persistence, suppress_flow_events=True)
        return govern(flow, self.al, **settings).resume(feedback)

    def approve(self) -> int:
        waiting = self.reviewer.list_pending_approvals_sync()
        for request in waiting:
            self.reviewer.approve_action_sync(request.id)
        return len(waiting)

    def deny(self) -> None:
        for request in self.reviewer.list_pending_approvals_sync():
            self.reviewer.deny_action_sync(request.id, "no")


@pytest.fixture
def flows(al: AgentLattice, reviewer: AgentLattice, persistence: SQLiteFlowPersistence) -> Governed:
    return Governed(al, reviewer, persistence)


@pytest.fixture
def approving(reviewer: AgentLattice) -> Iterator[list[str]]:
    """Somebody approves whatever is asked, as soon as it is asked; what was approved."""
    approved: list[str] = []
    over = threading.Event()

    def approve() -> None:
        while not over.wait(0.01):
            for request in reviewer.list_pending_approvals_sync():
                reviewer.approve_action_sync(request.id)
                approved.append(request.id)

    thread = threading.Thread(target=approve)
    thread.start()
    yield approved
    over.set()
    thread.join()


def test_a_delegates_call_pauses_the_flow_and_the_delegate_starts_again(
    flows: Governed, traces: Traces, recorded: Recorded
) -> None:
    """The delegation that was suspended reads `unknown`; started again, it is an action of its own."""
    order = {"task": "deploy", "context": "none", "coworker": "specialist"}

    class Hand(Flow[Any]):
        @start()
        def begin(self) -> str:
            first = agent_with(ScriptedModel([[ScriptedCall(DELEGATE, order)]]), allow_delegation=True)
            second = agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()], role="specialist")
            return str(crew_of(first, second).kickoff().raw)

    paused = flows.run(Hand)
    assert isinstance(paused, HumanFeedbackPending)
    assert flows.approve() == 1
    assert flows.go_on(Hand, paused) == "done"
    assert traces.ran == [("deploy", "1")]
    assert [event.claim for event in recorded(f"tool.{DELEGATE}")] == ["unknown", "succeeded"]


def test_a_child_goes_on_after_a_pause_as_the_same_child(
    flows: Governed, traces: Traces, recorded: Recorded
) -> None:
    """A pause suspends a delegated identity: the approval that was given to it is its own when the flow goes on."""

    class Delegated(Flow[Any]):
        @start()
        def begin(self) -> str:
            agent = agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()])
            child = flows.al.delegate(
                "deployer", capabilities=["tool.deploy"], ttl=600, run=str(self.state["id"])
            )
            return str(crew_of(govern(agent, child)).kickoff().raw)

    paused = flows.run(Delegated)
    assert isinstance(paused, HumanFeedbackPending)
    assert flows.approve() == 1
    assert flows.go_on(Delegated, paused) == "done"
    assert traces.ran == [("deploy", "1")]
    (delegation,) = flows.al.delegations_sync().delegations
    assert delegation.name == "deployer"


def test_a_tool_that_the_flow_calls_by_itself_pauses_it_at_the_call(flows: Governed, traces: Traces) -> None:
    """What comes after the call in the method has not happened."""
    deploy = traces.deploy()

    class Direct(Flow[Any]):
        @start()
        def begin(self) -> str:
            answer = deploy.run(version="1")
            traces.ran.append(("after", answer))
            return str(answer)

    govern(deploy, flows.al)
    paused = flows.run(Direct)
    assert isinstance(paused, HumanFeedbackPending)
    assert traces.ran == []
    flows.approve()
    assert flows.go_on(Direct, paused) == "deployed 1"
    assert traces.ran == [("deploy", "1"), ("after", "deployed 1")]


def test_a_flow_that_swallows_what_ends_its_crew_pauses_all_the_same(flows: Governed, traces: Traces) -> None:
    """`except Exception` around a crew does not turn a waiting call into a failed one."""

    class Careless(Flow[Any]):
        @start()
        def begin(self) -> str:
            try:
                return str(crew_of(agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()])).kickoff().raw)
            except Exception:
                return "failed"

    paused = flows.run(Careless)
    assert isinstance(paused, HumanFeedbackPending)
    flows.approve()
    assert flows.go_on(Careless, paused) == "done"
    assert traces.ran == [("deploy", "1")]


def test_what_a_router_decides_after_a_pause_routes(flows: Governed, traces: Traces) -> None:
    """A paused method goes on as what it is: a router's word chooses the way."""

    class Routed(Flow[Any]):
        @start()
        def begin(self) -> dict[str, int]:
            return {"number": 1}

        @router(begin)
        def choose(self, told: dict[str, int]) -> str:
            crew_of(agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()])).kickoff()
            return f"way {told['number']}"

        @listen("way 1")
        def one(self) -> str:
            return "went one way"

        @listen("way 2")
        def other(self) -> str:
            return "went the other way"

    paused = flows.run(Routed)
    flows.approve()
    assert flows.go_on(Routed, paused) == "went one way"


def test_a_flow_that_runs_on_an_event_loop_pauses(flows: Governed, traces: Traces) -> None:
    """`kickoff_async`, async methods and `resume_async`."""

    class Later(Flow[Any]):
        @start()
        async def begin(self) -> str:
            crew = crew_of(agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()]))
            return str((await crew.kickoff_async()).raw)

    async def run() -> Any:
        flow = govern(Later(persistence=flows.persistence, suppress_flow_events=True), flows.al)
        paused = await flow.kickoff_async()
        assert isinstance(paused, HumanFeedbackPending)
        flows.approve()
        left = Later.from_pending(paused.context.flow_id, flows.persistence, suppress_flow_events=True)
        return await govern(left, flows.al).resume_async()

    assert asyncio.run(run()) == "done"
    assert traces.ran == [("deploy", "1")]


def test_a_guardrail_that_waits_for_a_person_pauses_the_flow(flows: Governed) -> None:
    """The output of a task is asked about once, and passes once it was approved."""

    class Write(Flow[Any]):
        @start()
        def begin(self) -> str:
            guard = task_guardrail(flows.al, "tool.deploy")
            agent = agent_with(ScriptedModel())
            task = Task(description="d", expected_output="e", agent=agent, guardrail=guard)
            return str(Crew(agents=[agent], tasks=[task]).kickoff().raw)

    paused = flows.run(Write)
    assert isinstance(paused, HumanFeedbackPending)
    assert flows.approve() == 1
    assert flows.go_on(Write, paused) == "done"


def test_a_task_that_waits_for_a_person_to_begin_pauses_the_flow(flows: Governed, traces: Traces) -> None:
    """`task_action`: nothing of the task has happened before it was approved."""

    class Begin(Flow[Any]):
        @start()
        def begin(self) -> str:
            return str(
                crew_of(agent_with(ScriptedModel([[ScriptedCall("read", {"path": "a"})]]), [traces.read()]))
                .kickoff()
                .raw
            )

    paused = flows.run(Begin, task_action="tool.deploy")
    assert isinstance(paused, HumanFeedbackPending)
    assert traces.ran == []
    assert flows.approve() == 1
    assert flows.go_on(Begin, paused, task_action="tool.deploy") == "done"
    assert traces.ran == [("read", "a")]
    assert len(flows.al.audit_sync(action_type="tool.deploy").events) == 1


# --- what cannot pause waits


def _crew(traces: Traces) -> str:
    return str(crew_of(agent_with(ScriptedModel([[DEPLOY]]), [traces.deploy()])).kickoff().raw)


def test_a_flow_without_persistence_waits(al: AgentLattice, traces: Traces, approving: list[str]) -> None:
    """There is nothing that would outlive the process."""

    class Plain(Flow[Any]):
        @start()
        def begin(self) -> str:
            return _crew(traces)

    assert govern(Plain(suppress_flow_events=True), al).kickoff() == "done"
    assert traces.ran == [("deploy", "1")]
    assert len(approving) == 1


def test_a_method_whose_arguments_do_not_survive_waits(
    flows: Governed, traces: Traces, approving: list[str]
) -> None:
    """CrewAI keeps a paused flow as JSON: an object would come back as something else."""

    class Draft(BaseModel):
        title: str

    class Objects(Flow[Any]):
        @start()
        def begin(self) -> Draft:
            return Draft(title="t")

        @listen(begin)
        def use(self, draft: Draft) -> str:
            return draft.title + _crew(traces)

    assert flows.run(Objects) == "tdone"
    assert len(approving) == 1


def test_methods_that_run_at_the_same_time_wait(
    flows: Governed, traces: Traces, approving: list[str]
) -> None:
    """CrewAI resumes one method; the other one's work would be lost."""

    class Both(Flow[Any]):
        @start()
        def one(self) -> str:
            together.wait(10)
            return _crew(traces)

        @start()
        def other(self) -> str:
            together.wait(10)
            ended.wait(10)
            return "other"

        @listen(one)
        def end(self) -> None:
            ended.set()

    together, ended = threading.Barrier(2), threading.Event()
    result = flows.run(Both)
    assert not isinstance(result, HumanFeedbackPending)
    assert traces.ran == [("deploy", "1")]


def test_a_tool_inside_a_tool_waits(flows: Governed, traces: Traces, approving: list[str]) -> None:
    """The outer one is half done, and starting it again would do that half twice."""
    deploy = govern(traces.deploy(), flows.al)

    @tool("outer")
    def outer() -> str:
        """Deploy in a roundabout way."""
        traces.ran.append(("outer", None))
        return str(deploy.run(version="1"))

    class Nested(Flow[Any]):
        @start()
        def begin(self) -> str:
            return str(
                crew_of(agent_with(ScriptedModel([[ScriptedCall("outer", {})]]), [outer])).kickoff().raw
            )

    assert flows.run(Nested) == "done"
    assert traces.ran == [("outer", None), ("deploy", "1")]


# --- the output of a method


def _publishing(
    al: AgentLattice, draft: Any, action: str = "report.publish", **options: Any
) -> type[Flow[Any]]:
    class Publish(Flow[Any]):
        @start()
        @human_feedback(message="Publish?", provider=approval_feedback(al, action), **options)
        def write(self) -> Any:
            return draft

        @listen(write)
        def publish(self, result: Any) -> tuple[str, Any]:
            return result.feedback, result.output

    return Publish


def test_an_output_that_policy_allows_or_denies_asks_nobody(flows: Governed) -> None:
    """The flow reads `approved`, or the denial document, and does not pause."""
    assert flows.run(_publishing(flows.al, "fine")) == ("approved", "fine")
    feedback, _ = flows.run(_publishing(flows.al, "fine", "report.secret"))
    assert json.loads(feedback)["reason"] == "POLICY_DENIED"


@pytest.mark.parametrize("draft", ["risky", {"title": "risky", "pages": [1, 2]}])
def test_an_output_that_a_person_approves_passes_once(flows: Governed, draft: Any) -> None:
    """Approved in the core; a second resume of the same pause reads that it was used."""
    publish = _publishing(flows.al, draft)
    paused = flows.run(publish)
    assert isinstance(paused, HumanFeedbackPending)
    assert isinstance(flows.go_on(publish, paused), HumanFeedbackPending)
    assert flows.approve() == 1
    one, other = (
        govern(
            publish.from_pending(paused.context.flow_id, flows.persistence, suppress_flow_events=True),
            flows.al,
        )
        for _ in range(2)
    )
    assert one.resume() == ("approved", draft)
    assert json.loads(other.resume()[0])["status"] == "unknown"


def test_an_output_that_a_person_denies_does_not_pass(flows: Governed) -> None:
    """The flow reads the reason."""
    publish = _publishing(flows.al, "risky")
    paused = flows.run(publish)
    flows.deny()
    document = json.loads(flows.go_on(publish, paused)[0])
    assert (document["reason"], document["message"]) == ("DENIED_BY_REVIEWER", "no")


def test_an_output_that_was_changed_while_paused_is_not_the_approved_one(
    flows: Governed, persistence: SQLiteFlowPersistence
) -> None:
    """Whoever edits the saved flow has another output asked about."""
    publish = _publishing(flows.al, "risky")
    paused = flows.run(publish)
    flows.approve()
    state, context = persistence.load_pending_feedback(paused.context.flow_id) or ({}, paused.context)
    context.method_output = "risky and worse"
    persistence.save_pending_feedback(context.flow_id, context, state)
    assert isinstance(flows.go_on(publish, paused), HumanFeedbackPending)


def test_an_output_whose_way_a_model_chooses_is_refused(flows: Governed) -> None:
    """With `emit=` a model reads the feedback, and might read a denial as an approval."""
    publish = _publishing(flows.al, "risky", emit=["yes", "no"], llm=ScriptedModel())
    with pytest.raises(InvalidRequestError, match="emit="):
        flows.run(publish)


# --- defer and wait, across a restart


@pytest.mark.parametrize("waiting", ["defer", "wait"])
def test_a_named_run_finds_its_request_again_after_a_restart(
    al: AgentLattice, reviewer: AgentLattice, traces: Traces, waiting: Any
) -> None:
    """A crew of a new process that does the same work claims the approval, and asks nobody twice."""

    def work(run: str, **settings: Any) -> list[Any]:
        model = ScriptedModel([[DEPLOY]])
        crew = crew_of(agent_with(model, [traces.deploy()]))
        govern(crew, al, run=run, **settings).kickoff()
        return [seen.content for seen in model.shown]

    assert json.loads(work("ticket 1", on_approval="defer")[0])["status"] == "pending"
    assert json.loads(work("ticket 1", on_approval=waiting, approval_timeout=0)[0])["status"] == "pending"
    (request,) = reviewer.list_pending_approvals_sync()
    reviewer.approve_action_sync(request.id)
    assert work("ticket 1", on_approval=waiting) == ["deployed 1"]
    assert json.loads(work("ticket 1", on_approval=waiting)[0])["status"] == "unknown"
    assert json.loads(work("ticket 2", on_approval="defer")[0])["status"] == "pending"
    assert traces.ran == [("deploy", "1")]
