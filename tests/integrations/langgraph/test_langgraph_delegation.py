"""A sub-agent acts under an identity that was delegated to it, and is the same child after its graph paused."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from langgraph_child import around, make_read, reads_and_deploys
from langgraph_pausing import FORMS, Thread, deploys, make_deploy
from langgraph_scripted import ScriptedModel, asking, call

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_core.testing import ManualClock
from agentlattice_integrations.langgraph import govern, govern_tool, resume_when_decided

Recorded = Callable[..., list[AuditEvent]]
NESTED = [form for form in FORMS if form != "wrapped"]


@pytest.fixture
def policies() -> str:
    return """
version: 1
policies:
  - {name: Reading, action: read_data, effect: allow}
  - {name: Tools, action: "tool.*", effect: allow}
  - {name: Deployments, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
"""


@pytest.fixture
def ana(al: AgentLattice) -> AgentLattice:
    """The person who decides."""
    return al.for_operator("ana")


def researcher_of(al: AgentLattice, **options: Any) -> Any:
    """One delegation, as an application writes it down."""
    return al.delegate("researcher", **{"capabilities": ["tool.deploy"], "ttl": 300, **options})


def children_of(al: AgentLattice) -> list[tuple[str, str]]:
    """The id and the status of every delegation there was."""
    return [(one.id, one.status) for one in al.delegations_sync(active_only=False).delegations]


class State(TypedDict):
    thread: str
    seen: list[str]


async def test_a_graph_that_interrupts_inside_the_block_resumes_as_the_same_child(al: AgentLattice) -> None:
    """LangGraph runs the node from its start again; the child is the one that was there before."""
    children: list[str] = []

    async def work(state: State) -> dict[str, Any]:
        async with al.delegate("worker", capabilities=["read_data"], ttl=3600, run=state["thread"]) as worker:
            children.append(worker.delegation_id)
            await worker.execute("read_data")
            answer = interrupt("go on?")
            result = await worker.execute("read_data")
            return {"seen": [answer, result.status]}

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    program = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "thread-1"}}
    await program.ainvoke({"thread": "thread-1", "seen": []}, config)
    assert [entry.status for entry in (await al.delegations()).delegations] == ["active"]
    result = await program.ainvoke(Command(resume="yes"), config)
    assert result["seen"] == ["yes", "executed"]
    assert children[0] == children[1]
    [ended] = (await al.delegations(active_only=False)).delegations
    assert ended.status == "closed"


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("form", NESTED)
def test_one_line_gives_a_sub_graph_a_delegated_identity(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, how: str
) -> None:
    """It does what was delegated to it and no more, asked about once, also when its parent governs the whole."""
    ran: list[str] = []
    tools = [make_read(ran.append), make_deploy(ran.append)]
    inner = FORMS[form](researcher_of(al), reads_and_deploys(), tools, None, {})
    thread = Thread(around(al, inner, InMemorySaver()), how=how).go()
    assert set(thread.paused) == {"call-web"}
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer("go on")
    assert ran == ["web"]
    assert '"reason":"OUT_OF_SCOPE"' in thread.answers["call-read"]
    assert thread.answers["call-web"] == "deployed web"
    ((_, status),) = children_of(al)
    assert status == "active"
    assert {event.agent.partition("~")[0] for event in ana.audit_sync().events} == {"researcher"}
    assert [event.action_type for event in ana.audit_sync().events] == ["tool.deploy", "tool.read"]


def test_an_agent_that_is_a_tool_acts_as_a_child_and_its_caller_as_itself(al: AgentLattice) -> None:
    """The outer call is the parent's, the inner ones are the child's."""
    ran: list[str] = []
    inner_model = ScriptedModel(asking(call("read", path="p")))
    inner = FORMS["agent"](
        researcher_of(al, capabilities=["tool.read"]), inner_model, [make_read(ran.append)], None, {}
    )

    @tool
    def research(task: str) -> str:
        """Ask the researcher."""
        return str(inner.invoke({"messages": [("user", task)]})["messages"][-1].content)

    model = ScriptedModel(asking(call("research", task="go"), call("read", path="own")))
    outer = FORMS["agent"](al, model, [research, make_read(ran.append)], InMemorySaver(), {})
    Thread(outer).go()
    assert sorted(ran) == ["own", "p"]
    events = al.for_operator("ana").audit_sync().events
    acted = sorted((event.action_type, event.agent.partition("~")[0]) for event in events)
    assert acted == [("tool.read", "researcher"), ("tool.read", "tester"), ("tool.research", "tester")]


def test_a_child_takes_its_parents_place_at_a_tool_that_was_governed_before(al: AgentLattice) -> None:
    """Who governs last gives less, and never more than was there."""
    ran: list[str] = []
    read = govern_tool(make_read(ran.append), al)
    child_of_other_scope = govern([read], researcher_of(al))
    assert "OUT_OF_SCOPE" in child_of_other_scope[0].invoke({"path": "p"})
    assert ran == []
    assert len(al.for_operator("ana").audit_sync().events) == 1


def test_each_thread_has_a_child_of_its_own(al: AgentLattice, ana: AgentLattice) -> None:
    """Two conversations are two children, which can be told apart and revoked apart."""
    ran: list[str] = []
    saver = InMemorySaver()
    threads = []
    for name in ("one", "two"):
        graph = FORMS["middleware"](
            researcher_of(al), deploys(name), [make_deploy(ran.append)], saver, {"on_approval": "pause"}
        )
        threads.append(Thread(graph, name).go())
    first, second = (one for one, _ in children_of(al))
    for request in ana.list_pending_approvals_sync():
        ana.approve_action_sync(request.id)
    al.revoke_sync(first)
    for thread in threads:
        thread.answer("go on")
    assert ran == ["two"]
    assert '"status":"denied"' in threads[0].answers["call-one"]
    assert children_of(al) == [(first, "revoked"), (second, "active")]


def test_a_child_revoked_while_its_graph_is_paused_does_nothing_more(
    al: AgentLattice, ana: AgentLattice
) -> None:
    """Governing anew, as after a restart, finds no child; the attempt is refused and recorded as its parent's."""
    ran: list[str] = []
    saver = InMemorySaver()
    thread = Thread(
        FORMS["middleware"](researcher_of(al), deploys("web"), [make_deploy(ran.append)], saver, {})
    ).go()
    ana.approve_action_sync(thread.approval("call-web"))
    ((child, _),) = children_of(al)
    al.revoke_sync(child)
    again = FORMS["middleware"](researcher_of(al), ScriptedModel(), [make_deploy(ran.append)], saver, {})
    answers = Thread(again).answer("go on").answers
    assert ran == []
    assert "was revoked" in answers["call-web"]
    assert '"reason":"OUT_OF_SCOPE"' in answers["call-web"]
    assert ana.audit_sync(limit=1).events[0].agent == "tester"


def test_a_childs_time_is_over_within_a_run_and_begins_anew_with_the_next(
    tmp_path: Path, policies: str
) -> None:
    """What a run began with is not prolonged while it goes on; the thread's next turn is the same child again."""
    clock, ran = ManualClock(), list[str]()
    (tmp_path / "policies.yaml").write_text(policies, encoding="utf-8")
    with AgentLattice.embedded(
        tmp_path / "governance.db", policies=tmp_path / "policies.yaml", agent="tester", clock=clock
    ) as al:
        first, second = asking(call("read", "one", path="1")), asking(call("read", "two", path="2"))
        done = AIMessage("done")
        model = ScriptedModel(first, second, done, asking(call("read", "later", path="3")))

        def read_and_wait(path: str) -> None:
            ran.append(path)
            clock.advance(seconds=301)

        graph = FORMS["middleware"](
            researcher_of(al, capabilities=["tool.read"]),
            model,
            [make_read(read_and_wait)],
            InMemorySaver(),
            {},
        )
        answers = Thread(graph).go().answers
        assert ran == ["1"]
        assert '"reason":"OUT_OF_SCOPE"' in answers["two"]
        Thread(graph).go()
        assert ran == ["1", "3"]
        names = {one.name for one in al.delegations_sync(active_only=False).delegations}
        assert names == {"researcher"}


def test_a_child_without_a_thread_ends_with_what_it_was_given_to(al: AgentLattice) -> None:
    """Nobody could find it again, and nobody has to remember to revoke it."""
    ran: list[str] = []
    tools = govern([make_read(ran.append)], researcher_of(al, capabilities=["tool.read"]))
    assert tools[0].invoke({"path": "a"}) == "read a"
    assert tools[0].invoke({"path": "b"}) == "read b"
    assert [status for _, status in children_of(al)] == ["active"]
    del tools
    gc.collect()
    al.execute_sync("tool.read")
    assert [status for _, status in children_of(al)] == ["closed"]


def test_a_delegation_that_names_its_run_has_one_child_in_all_threads(
    al: AgentLattice, recorded: Recorded
) -> None:
    """The application's own name for the work comes before the thread's."""
    for name in ("one", "two"):
        child = researcher_of(al, capabilities=["tool.read"], run="ticket 1")
        model = ScriptedModel(asking(call("read", path=name)))
        Thread(FORMS["agent"](child, model, [make_read(lambda _: None)], InMemorySaver(), {}), name).go()
    assert len(children_of(al)) == 1


def test_a_graph_goes_on_when_a_childs_request_is_decided_elsewhere(
    al: AgentLattice, ana: AgentLattice
) -> None:
    """Whoever waits names the delegation as `govern` was given it."""
    ran: list[str] = []
    inner = FORMS["agent"](researcher_of(al), deploys("web"), [make_deploy(ran.append)], None, {})
    thread = Thread(around(al, inner, InMemorySaver())).go()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(resume_when_decided, thread.graph, thread.config, al, researcher_of(al), timeout=60)
        ana.approve_action_sync(thread.approval("call-web"))
        run.result(30)
    assert ran == ["web"]
    assert [status for _, status in children_of(al)] == ["active"]


@pytest.fixture
def reopened(tmp_path: Path, policies: str) -> Iterator[AgentLattice]:
    """The log that two other processes work on, as its reviewer sees it."""
    (tmp_path / "policies.yaml").write_text(policies, encoding="utf-8")
    with AgentLattice.embedded(
        tmp_path / "governance.db", policies=tmp_path / "policies.yaml", operator="ana"
    ) as client:
        yield client


def test_a_graph_resumed_in_another_process_goes_on_as_the_same_child(
    reopened: AgentLattice, tmp_path: Path
) -> None:
    """The process that paused is killed: its child is not revoked, and what was approved for it runs as it."""

    def process(step: str) -> int:
        program = Path(__file__).with_name("langgraph_child.py")
        environment = {"PYTHONPATH": f"{program.parent}:{':'.join(sys.path)}"}
        return subprocess.run([sys.executable, str(program), step, str(tmp_path)], env=environment).returncode

    assert process("ask") == -signal.SIGKILL
    (asked,) = reopened.list_pending_approvals_sync()
    ((child, status),) = children_of(reopened)
    assert status == "active"
    reopened.approve_action_sync(asked.id)
    assert process("resume") == 0
    assert (tmp_path / "ran").read_text() == "web\n"
    assert json.loads((tmp_path / "answers.json").read_text()) == {"call-web": "deployed web"}
    assert children_of(reopened) == [(child, "active")]
    (event,) = reopened.audit_sync(action_type="tool.deploy").events
    assert (event.agent.partition("~")[0], event.claim) == ("researcher", "succeeded")
