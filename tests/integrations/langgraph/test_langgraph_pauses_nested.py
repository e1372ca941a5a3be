"""Pauses inside sub-graphs, agents that are tools, and agents that hand over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from langgraph_parts import transfer_to_specialist, two_agents
from langgraph_pausing import FORMS, Thread, deploys, make_deploy
from langgraph_scripted import ScriptedModel, asking, call, tool_graph

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import GovernanceMiddleware, govern
from agentlattice_integrations.langgraph.calls import Attempts

Recorded = Callable[..., list[AuditEvent]]


@pytest.fixture
def ana(al: AgentLattice) -> AgentLattice:
    """The person who decides."""
    return al.for_operator("ana")


def _decide_all(thread: Thread, ana: AgentLattice, denied: str = "") -> None:
    for call_id, paused in thread.paused.items():
        approval = paused.value["governance"]["approval_id"]
        if call_id == denied:
            ana.deny_action_sync(approval, "not this one")
        else:
            ana.approve_action_sync(approval)


@pytest.mark.parametrize("form", ["middleware", "node", "graph"])
def test_a_sub_graph_pauses_the_whole(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """Calls of an agent that is a node of another graph are answered by id, each its own."""
    ran: list[str] = []
    inner = FORMS[form](al, deploys("a", "b"), [make_deploy(ran.append)], None, {})
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("agent", inner)
    builder.add_edge(START, "agent")
    builder.add_edge("agent", END)
    thread = Thread(builder.compile(checkpointer=InMemorySaver())).go()
    _decide_all(thread, ana, denied="call-b")
    thread.answer_each(dict.fromkeys(thread.paused, "go on"))
    assert ran == ["a"]
    assert thread.answers["call-a"] == "deployed a"
    assert "not this one" in thread.answers["call-b"]


def test_two_agents_that_pause_one_after_the_other(al: AgentLattice, ana: AgentLattice) -> None:
    """A hand-off that needs approval, and then the specialist's own call."""
    ran: list[str] = []
    first = ScriptedModel(asking(call("transfer_to_specialist", "handoff")))
    middleware = [GovernanceMiddleware(al, actions={"transfer_to_specialist": "tool.hand_over"})]
    triage = create_agent(first, [transfer_to_specialist], middleware=middleware)
    specialist = create_agent(
        deploys("web"), [make_deploy(ran.append)], middleware=[GovernanceMiddleware(al)]
    )
    builder = two_agents(triage, specialist)
    thread = Thread(_with_saver(builder)).go()
    assert set(thread.paused) == {"handoff"}
    _decide_all(thread, ana)
    thread.answer("go on")
    assert set(thread.paused) == {"call-web"}
    _decide_all(thread, ana)
    thread.answer("go on")
    assert ran == ["web"]


def _with_saver(graph: Any) -> Any:
    graph.checkpointer = InMemorySaver()
    return graph


@pytest.mark.parametrize("restarted", [True, False])
def test_an_agent_that_is_a_tool_pauses_for_each_of_its_calls(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer tool, which needs nobody, runs again after each answer, as LangGraph does; the inner ones run once."""
    ran: list[str] = []
    inner_model = ScriptedModel(
        asking(call("deploy", "one", service="one")), asking(call("deploy", "two", service="two"))
    )
    inner = create_agent(inner_model, [make_deploy(ran.append)], middleware=[GovernanceMiddleware(al)])

    @tool
    def specialist(task: str) -> str:
        """Ask the specialist."""
        return str(inner.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content)

    model = ScriptedModel(asking(call("specialist", "outer", task="go")))
    graph = create_agent(
        model, [specialist], middleware=[GovernanceMiddleware(al)], checkpointer=InMemorySaver()
    )
    thread = Thread(graph).go()
    for service in ("one", "two"):
        if restarted:  # what this process remembers of attempts is all that a restart loses
            monkeypatch.setattr("agentlattice_integrations.langgraph.deciding._ATTEMPTS", Attempts())
        assert set(thread.paused) == {service}
        thread.again()
        _decide_all(thread, ana)
        thread.answer("go on")
    assert ran == ["one", "two"]
    assert thread.answers == {"outer": "done"}
    assert [event.claim for event in recorded("tool.deploy")] == ["succeeded"] * 2


@pytest.mark.parametrize("form", ["middleware", "node"])
def test_an_answer_without_a_name_is_used_once(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """Run on without an answer, a graph must not take the approval of one call for that of the next."""
    ran: list[str] = []
    inner_model = ScriptedModel(
        asking(call("deploy", "one", service="one")), asking(call("deploy", "two", service="two"))
    )
    inner = FORMS[form](al, inner_model, [make_deploy(ran.append)], None, {"approver": ana})

    @tool
    def specialist(task: str) -> str:
        """Ask the specialist."""
        return str(inner.invoke({"messages": [HumanMessage(task)]})["messages"][-1].content)

    outer = FORMS[form](
        al, ScriptedModel(asking(call("specialist", "o", task="go"))), [specialist], InMemorySaver(), {}
    )
    thread = Thread(outer).go().answer({"type": "approve"})
    assert ran == ["one"]
    thread.again().again()
    assert ran == ["one"]
    assert set(thread.paused) == {"two"}
    thread.answer({"type": "approve"})
    assert ran == ["one", "two"]


def test_retry_middleware_does_not_take_a_pause_for_a_failure(al: AgentLattice, ana: AgentLattice) -> None:
    """A paused call is neither retried nor reworded."""
    ran: list[str] = []
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    agent = create_agent(
        deploys("web"),
        [make_deploy(ran.append)],
        middleware=[retry, GovernanceMiddleware(al)],
        checkpointer=InMemorySaver(),
    )
    thread = Thread(agent).go()
    _decide_all(thread, ana)
    assert thread.answer("go on").answers == {"call-web": "deployed web"}


def test_a_graph_with_sub_tasks_keeps_commands_and_errors(al: AgentLattice) -> None:
    """A tool that moves the graph on, one that fails and one that answers, beside each other in one tool node."""

    @tool
    def goto(place: str) -> Command[Any]:
        """Go on elsewhere."""
        return Command(update={"messages": [ToolMessage(f"went to {place}", tool_call_id="g")]})

    @tool
    def broken(number: int) -> str:
        """Fail."""
        raise ValueError(f"no {number}")

    @tool
    def fine(number: int) -> str:
        """Answer."""
        return f"fine {number}"

    calls = [call("goto", "g", place="there"), call("broken", "b", number=1), call("fine", "f", number=2)]
    for how in ("sync", "async"):
        node = ToolNode([goto, broken, fine], handle_tool_errors="it broke")
        graph = govern(tool_graph(ScriptedModel(asking(*calls)), node, checkpointer=InMemorySaver()), al)
        assert Thread(graph, how=how).go().answers == {"g": "went to there", "b": "it broke", "f": "fine 2"}
        node = ToolNode([goto, broken, fine], handle_tool_errors=False)
        graph = govern(tool_graph(ScriptedModel(asking(*calls)), node, checkpointer=InMemorySaver()), al)
        with pytest.raises(ValueError, match="no 1"):
            Thread(graph, how=how).go()


def _delegating_graph(al: AgentLattice, ran: list[str], children: list[str], how: str) -> Any:
    """A graph whose node has a specialist work under a delegation named after the thread."""

    model = deploys("web")

    def specialist(worker: Any) -> Any:
        children.append(str(worker.agent))
        return create_agent(
            model,
            [make_deploy(ran.append)],
            middleware=[GovernanceMiddleware(worker)],
            checkpointer=True,
        )

    def node(state: MessagesState, config: RunnableConfig) -> Any:
        thread = config["configurable"]["thread_id"]
        with al.delegate_sync("worker", capabilities=["tool.deploy"], ttl=3600, run=thread) as worker:
            return {"messages": specialist(worker).invoke(state)["messages"]}

    async def anode(state: MessagesState, config: RunnableConfig) -> Any:
        thread = config["configurable"]["thread_id"]
        async with al.delegate("worker", capabilities=["tool.deploy"], ttl=3600, run=thread) as worker:
            return {"messages": (await specialist(worker).ainvoke(state))["messages"]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("node", node if how == "sync" else anode)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_delegated_child_survives_its_pause_as_the_same_child(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, how: str
) -> None:
    """An interrupt inside the block of a delegation suspends the child; the resumed run finds it, and ends it."""
    ran: list[str] = []
    children: list[str] = []
    thread = Thread(_delegating_graph(al, ran, children, how), how=how).go()
    assert len(al.delegations_sync().delegations) == 1
    _decide_all(thread, ana)
    thread.answer("go on")
    assert ran == ["web"]
    assert len(set(children)) == 1
    assert len(children) == 2
    assert al.delegations_sync().delegations == []
    (event,) = ana.audit_sync(action_type="tool.deploy").events
    assert (event.agent, event.claim) == (children[0], "succeeded")
