"""Each way in which LangGraph is known to let a gate be passed by, or to spoil its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.tools import StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, interrupt
from langgraph_scripted import ScriptedModel, asking, call, run, tool_graph, tool_messages
from pydantic import BaseModel, Field

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import (
    GovernanceMiddleware,
    govern,
    govern_tool,
    governed_tool_node,
    tool_call_wrappers,
)

Recorded = Callable[[], list[AuditEvent]]


def _deleting(ran: list[str]) -> StructuredTool:
    @tool
    def delete(path: str) -> str:
        """Delete a file."""
        ran.append(path)
        return "deleted"

    return delete


@pytest.mark.parametrize("how", ["sync", "async", "stream"])
def test_a_node_decides_however_it_is_called(al: AgentLattice, how: str) -> None:
    """1: a ToolNode with a wrapper of one kind only is not asked for calls of the other kind; ours always is."""
    ran: list[str] = []
    wrap, awrap = tool_call_wrappers(al)
    nodes = [
        governed_tool_node([_deleting(ran)], al),
        ToolNode([_deleting(ran)], wrap_tool_call=wrap, awrap_tool_call=awrap),
        govern(ToolNode([_deleting(ran)], awrap_tool_call=_pass_on), al),
    ]
    for node in nodes:
        state = run(tool_graph(ScriptedModel(asking(call("delete", path="a"))), node), how)
        assert [message.status for message in tool_messages(state)] == ["error"]
    assert ran == []


async def _pass_on(request: Any, execute: Any) -> Any:
    return await execute(request)


def test_governing_a_node_leaves_its_error_filter_as_it_was(al: AgentLattice) -> None:
    """2: with any wrapper a ToolNode ignores which errors it was told to handle; a governed node keeps to it."""

    @tool
    def fail(kind: str) -> str:
        """Fail."""
        raise KeyError(kind) if kind == "key" else ValueError(kind)

    node = governed_tool_node([fail], al, handle_tool_errors=(ValueError,))
    handled = run(tool_graph(ScriptedModel(asking(call("fail", kind="value"))), node))
    assert tool_messages(handled)[0].status == "error"
    with pytest.raises(KeyError):
        run(tool_graph(ScriptedModel(asking(call("fail", kind="key"))), node))


def test_a_denial_is_not_retried_and_each_retry_of_a_failure_is_decided_on(
    al: AgentLattice, recorded: Recorded
) -> None:
    """3: a returned denial ends the attempts; a raising tool that is run again has a claim of its own each time."""
    attempts: list[int] = []

    @tool
    def flaky(number: int) -> str:
        """Fail twice."""
        attempts.append(number)
        if len(attempts) < 3:
            raise ConnectionError("gone")
        return "reached"

    ran: list[str] = []
    for place in ("outside", "inside"):
        attempts.clear()
        retry = ToolRetryMiddleware(max_retries=4, initial_delay=0.0, jitter=False)
        governance = GovernanceMiddleware(al)
        middleware = [retry, governance] if place == "outside" else [governance, retry]
        model = ScriptedModel(asking(call("flaky", number=1), call("delete", path="a")))
        state = run(create_agent(model, [flaky, _deleting(ran)], middleware=middleware))
        assert [message.status for message in tool_messages(state)] == ["success", "error"]
    assert ran == []
    events = recorded()
    assert [event.claim for event in events if event.action_type == "tool.flaky"] == [
        "failed",
        "failed",
        "succeeded",
    ] * 2
    assert len([event for event in events if event.action_type == "tool.delete"]) == 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_arguments_edited_after_the_decision_are_decided_on_again(
    al: AgentLattice, recorded: Recorded, how: str
) -> None:
    """5: whatever changes the arguments between the decision and the tool, what runs is what was decided on."""
    written: list[int] = []

    @tool
    def write(size: int) -> str:
        """Write."""
        written.append(size)
        return "written"

    class Edit(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool_call={**request.tool_call, "args": {"size": 90}}))

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(tool_call={**request.tool_call, "args": {"size": 90}}))

    class EditInPlace(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            request.tool_call["args"]["size"] = 90
            return handler(request)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            request.tool_call["args"]["size"] = 90
            return await handler(request)

    governance = GovernanceMiddleware(al)
    orders = (
        [governance, Edit()],
        [Edit(), governance],
        [governance, EditInPlace()],
        [EditInPlace(), governance],
    )
    for middleware in orders:
        state = run(
            create_agent(ScriptedModel(asking(call("write", size=1))), [write], middleware=middleware), how
        )
        assert [message.status for message in tool_messages(state)] == ["error"]
    assert written == []
    assert [(event.metadata["size"], event.status, event.claim) for event in recorded()] == [
        (1, "executed", "failed"),
        (90, "denied", None),
        (90, "denied", None),
        (1, "executed", "failed"),
        (90, "denied", None),
        (90, "denied", None),
    ]


class _Write(BaseModel):
    size: int = Field(alias="fileCount", default=99)
    state: Annotated[dict[str, Any], InjectedState]


def test_policy_sees_what_the_tool_will_see(al: AgentLattice, recorded: Recorded) -> None:
    """6: aliases, coercion and defaults are applied, and what a model forges under an injected name is left out."""
    written: list[int] = []

    @tool(args_schema=_Write)
    def write(size: int, state: Any) -> str:
        """Write."""
        assert "messages" in state
        written.append(size)
        return "written"

    forged = call("write", fileCount="20", state={"messages": "forged"}, other=1)
    omitted = call("write")
    for agent in (
        create_agent(ScriptedModel(asking(forged, omitted)), [write], middleware=[GovernanceMiddleware(al)]),
        create_agent(ScriptedModel(asking(forged, omitted)), [govern_tool(write, al)]),
    ):
        assert sorted(message.status for message in tool_messages(run(agent))) == ["error", "success"]
    assert written == [20, 20]
    assert sorted(event.metadata["size"] for event in recorded()) == [20, 20, 99, 99]
    assert all(set(event.metadata) == {"size"} for event in recorded())


@pytest.mark.parametrize("entry", ["middleware", "tool", "node"])
def test_a_tool_that_pauses_inside_is_suspended_and_not_failed(
    al: AgentLattice, recorded: Recorded, entry: str
) -> None:
    """7: an interrupt inside a tool leaves its claim `unknown`; the resumed run is decided on and claims again."""

    @tool
    def ask(question: str) -> str:
        """Ask a person."""
        return f"they said {interrupt(question)}"

    model = ScriptedModel(asking(call("ask", question="why?")))
    saver = InMemorySaver()
    if entry == "middleware":
        graph: Any = create_agent(model, [ask], middleware=[GovernanceMiddleware(al)], checkpointer=saver)
    elif entry == "tool":
        graph = create_agent(model, [govern_tool(ask, al)], checkpointer=saver)
    else:
        graph = tool_graph(model, governed_tool_node([ask], al), checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    assert run(graph, config=config)["__interrupt__"][0].value == "why?"
    (suspended,) = recorded()
    assert (suspended.claim, "suspended by an interrupt" in str(suspended.outcome)) == ("unknown", True)
    state = run(graph, config=config, given=Command(resume="because"))
    assert tool_messages(state)[0].content == "they said because"
    assert [event.claim for event in recorded()] == ["unknown", "succeeded"]


def test_an_interrupt_is_not_swallowed_by_the_gate(al: AgentLattice) -> None:
    """4: nothing of ours catches an interrupt on its way out, however many tools and agents it passes."""

    @tool
    def ask() -> str:
        """Ask a person."""
        return str(interrupt("inner"))

    inner = create_agent(ScriptedModel(asking(call("ask"))), [ask], middleware=[GovernanceMiddleware(al)])

    @tool
    def specialist() -> str:
        """Ask the specialist."""
        return str(inner.invoke({"messages": ["go"]})["messages"][-1].content)

    outer = create_agent(
        ScriptedModel(asking(call("specialist"))),
        [specialist],
        middleware=[GovernanceMiddleware(al)],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t"}}
    assert run(outer, config=config)["__interrupt__"][0].value == "inner"
    assert tool_messages(run(outer, config=config, given=Command(resume="x")))[0].content == "done"
