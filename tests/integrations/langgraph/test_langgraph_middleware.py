"""GovernanceMiddleware in `create_agent`: unusual calls, unknown tools, hosted tools, other middleware."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode
from langgraph_scripted import ScriptedModel, asking, call, run, tool_graph, tool_messages

from agentlattice_core import AgentLattice
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import (
    GovernanceMiddleware,
    govern,
    govern_tool,
    governed_tool_node,
    tool_call_wrappers,
)

Recorded = Callable[[], list[AuditEvent]]


@pytest.fixture
def ran() -> list[Any]:
    """What the tools of a test did."""
    return []


@pytest.fixture
def write(ran: list[Any]) -> BaseTool:
    """A tool that policy allows for sizes below 50."""

    @tool
    def write(size: int) -> str:
        """Write."""
        ran.append(size)
        return f"written {size}"

    return write


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("entry", ["middleware", "tool", "node"])
def test_a_call_without_an_id_is_refused_before_it_runs(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool, entry: str, how: str
) -> None:
    """LangChain would run the tool and then fail to answer; here nothing runs, and the attempt is in the log."""
    model = ScriptedModel(asking(call("write", None, size=1)))
    if entry == "middleware":
        agent: Any = create_agent(model, [write], middleware=[GovernanceMiddleware(al)])
    elif entry == "tool":
        agent = create_agent(model, [govern_tool(write, al)])
    else:
        agent = tool_graph(model, governed_tool_node([write], al))
    (message,) = tool_messages(run(agent, how))
    assert (message.status, json.loads(str(message.content))["reason"]) == ("error", "INVALID_REQUEST")
    assert ran == []
    assert [event.status for event in recorded()] == ["denied"]


@pytest.mark.parametrize("entry", ["middleware", "node"])
def test_calls_that_share_an_id_are_decided_on_one_by_one(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool, entry: str
) -> None:
    """Two calls under one id, even with the same arguments, are two actions with a claim each."""
    model = ScriptedModel(asking(*(call("write", "same", size=size) for size in (1, 1, 99))))
    if entry == "middleware":
        agent: Any = create_agent(model, [write], middleware=[GovernanceMiddleware(al)])
    else:
        agent = tool_graph(model, governed_tool_node([write], al))
    assert sorted(message.status for message in tool_messages(run(agent))) == ["error", "success", "success"]
    assert ran == [1, 1]
    assert sorted(event.claim or "" for event in recorded()) == ["", "succeeded", "succeeded"]


def test_an_invented_tool_is_answered_by_the_framework(al: AgentLattice, write: BaseTool) -> None:
    """Nothing could run, so the model is told which tools there are, as without governance."""
    model = ScriptedModel(asking(call("invented")))
    (message,) = tool_messages(run(create_agent(model, [write], middleware=[GovernanceMiddleware(al)])))
    assert "not a valid tool" in str(message.content)
    assert "write" in str(message.content)


class _Supply(AgentMiddleware):
    """Supplies a tool that the agent was not built with."""

    def __init__(self, supplied: BaseTool) -> None:
        super().__init__()
        self.supplied = supplied

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[*request.tools, self.supplied]))

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool=self.supplied))


def test_a_tool_supplied_before_governance_is_decided_on(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool
) -> None:
    """Listed last, governance knows the supplied tool: its schema, its marks, its name."""
    model = ScriptedModel(asking(call("write", size=1), call("write", size=99)))
    agent = create_agent(model, [], middleware=[_Supply(write), GovernanceMiddleware(al)])
    assert sorted(message.status for message in tool_messages(run(agent))) == ["error", "success"]
    assert ran == [1]
    assert len(recorded()) == 2


def test_a_tool_supplied_after_governance_is_refused(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool
) -> None:
    """Where governance cannot know what will run, nothing runs, and the model is told so."""
    model = ScriptedModel(asking(call("write", size=1)))
    agent = create_agent(model, [], middleware=[GovernanceMiddleware(al), _Supply(write)])
    (message,) = tool_messages(run(agent))
    assert json.loads(str(message.content))["reason"] == "NOT_COVERABLE"
    assert ran == []
    assert [event.status for event in recorded()] == ["denied"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_governed_agent_decides_on_what_its_middleware_supplies_or_swaps(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool, how: str
) -> None:
    """Governed as a whole, an agent asks about whatever tool its middleware runs in the end."""

    class Swap(_Supply):
        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(tool=self.supplied))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request)

    @tool
    def read(size: int) -> str:
        """Read."""
        return "read"

    for tools, called in (([], "write"), ([read], "read")):
        model = ScriptedModel(asking(call(called, size=99)))
        agent = create_agent(model, [*tools, _unused], middleware=[Swap(write)])
        (message,) = tool_messages(run(govern(agent, al), how))
        assert json.loads(str(message.content))["reason"] == "CONDITIONS_DENIED"
    assert ran == []
    assert [event.action_type for event in recorded()] == ["tool.write", "tool.read", "tool.write"]


@tool
def _unused() -> str:
    """Makes the agent have a tool node."""
    return ""


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("where", ["agent", "middleware", "settings", "model"])
def test_hosted_tools_are_not_offered_to_the_model(
    al: AgentLattice, write: BaseTool, how: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever a provider-hosted tool comes from, the model is not offered it; functions described by dicts stay."""
    hosted = {"type": "web_search"}
    described = {"type": "function", "function": {"name": "described", "parameters": {}}}

    class Offer(AgentMiddleware):
        def add(self, request: Any) -> Any:
            if where == "middleware":
                return request.override(tools=[*request.tools, hosted])
            if where == "settings":
                return request.override(model_settings={"tools": [*request.tools, hosted]}, tools=[])
            if where == "model":
                return request.override(model=request.model.bind(tools=[*request.tools, hosted]), tools=[])
            return request

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(self.add(request))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(self.add(request))

    model = ScriptedModel()
    governance = GovernanceMiddleware(al)
    tools = [write, described, *([hosted] if where == "agent" else [])]
    with caplog.at_level(logging.WARNING, "agentlattice"):
        run(create_agent(model, tools, middleware=[Offer(), governance]), how)
    assert [getattr(each, "name", None) or each["function"]["name"] for each in model.offered[0]] == [
        "write",
        "described",
    ]
    (refused,) = governance.coverage.refused
    assert (refused.name, refused.kind) == ("web_search", "hosted")
    assert "web_search" in caplog.text


def test_allowed_hosted_tools_are_reported_as_open(al: AgentLattice, write: BaseTool) -> None:
    """`hosted_tools="allow"` leaves them to the model, and the report says that nothing decides on them."""
    model = ScriptedModel()
    governance = GovernanceMiddleware(al, hosted_tools="allow")
    run(create_agent(model, [write, {"type": "web_search"}], middleware=[governance]))
    assert len(model.offered[0]) == 2
    assert [each.name for each in governance.coverage.not_coverable] == ["web_search"]
    assert [each.name for each in governance.coverage.governed] == ["write"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_a_provider_ran_all_the_same_is_in_the_log(
    al: AgentLattice, recorded: Recorded, how: str
) -> None:
    """A server-side call in the model's answer is recorded as an attempt that could not be stopped."""
    answer = AIMessage(
        [{"type": "server_tool_call", "name": "web_search", "args": {"query": "x"}, "id": "s1"}]
    )
    run(create_agent(ScriptedModel(answer), [], middleware=[GovernanceMiddleware(al)]), how)
    (event,) = recorded()
    assert (event.action_type, event.status) == ("tool.web_search", "denied")


def test_a_denied_tool_that_ends_the_run_can_be_explained_to_the_model(al: AgentLattice) -> None:
    """`return_direct` ends the run with the denial or, if one asks for it, goes back to the model."""

    @tool(return_direct=True)
    def write(size: int) -> str:
        """Write."""
        return f"written {size}"

    def last(**options: Any) -> str:
        model = ScriptedModel(asking(call("write", size=99)), asking(call("write", size=1)))
        state = run(create_agent(model, [write], middleware=[GovernanceMiddleware(al, **options)]))
        return str(state["messages"][-1].content)

    assert json.loads(last())["status"] == "denied"
    assert last(explain_return_direct=True) == "written 1"


def test_an_error_message_of_the_tool_counts_as_failed(al: AgentLattice, recorded: Recorded) -> None:
    """A tool that answers with `status="error"` by itself is recorded as failed, with what it said."""

    @tool
    def write(size: int) -> ToolMessage:
        """Write."""
        return ToolMessage("disk full", tool_call_id="c1", status="error")

    run(
        create_agent(
            ScriptedModel(asking(call("write", "c1", size=1))), [write], middleware=[GovernanceMiddleware(al)]
        )
    )
    (event,) = recorded()
    assert event.claim == "failed"
    assert event.outcome is not None
    assert "disk full" in str(event.outcome)


def test_a_denial_survives_with_its_document(al: AgentLattice, write: BaseTool) -> None:
    """The message carries the text for the model, the document as its artifact, and the essentials for interfaces."""
    (message,) = tool_messages(
        run(
            create_agent(
                ScriptedModel(asking(call("write", "c9", size=99))),
                [write],
                middleware=[GovernanceMiddleware(al)],
            )
        )
    )
    assert (message.status, message.name, message.tool_call_id) == ("error", "write", "c9")
    assert json.loads(str(message.content)) == message.artifact
    assert message.additional_kwargs["governance"]["reason"] == "CONDITIONS_DENIED"
    assert message.additional_kwargs["governance"]["action_id"].startswith("evt_")


def test_a_tool_that_short_circuits_is_recorded_by_what_came_back(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool
) -> None:
    """Middleware after governance that answers in the tool's place is decided on like the tool."""

    class Emulate(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return ToolMessage("emulated", tool_call_id=request.tool_call["id"], name="write")

    model = ScriptedModel(asking(call("write", size=1), call("write", size=99)))
    state = run(create_agent(model, [write], middleware=[GovernanceMiddleware(al), Emulate()]))
    assert sorted(message.status for message in tool_messages(state)) == ["error", "success"]
    assert ran == []
    assert sorted(event.claim or "" for event in recorded()) == ["", "succeeded"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_wrapper_that_looks_like_the_tool_node_changes_nothing_unseen(
    al: AgentLattice, recorded: Recorded, ran: list[Any], write: BaseTool, how: str
) -> None:
    """Arguments changed after the decision are decided on again, whatever the one who changes them pretends to be."""
    wrap, awrap = tool_call_wrappers(al)

    def edited(request: Any) -> Any:
        return request.override(tool_call={**request.tool_call, "args": {"size": 90}})

    def between(request: Any, execute: Any) -> Any:
        return wrap(request, functools.wraps(execute)(lambda final: execute(edited(final))))

    async def abetween(request: Any, execute: Any) -> Any:
        async def change(final: Any) -> Any:
            return await execute(edited(final))

        return await awrap(request, functools.wraps(execute)(change))

    node = ToolNode([write], wrap_tool_call=between, awrap_tool_call=abetween)
    (message,) = tool_messages(run(tool_graph(ScriptedModel(asking(call("write", size=1))), node), how))
    assert message.status == "error"
    assert ran == []
    assert sorted(event.status for event in recorded()) == ["denied", "executed"]


def test_pausing_is_refused_in_words(al: AgentLattice) -> None:
    """`on_approval="pause"` is not quietly something else."""
    with pytest.raises(InvalidRequestError, match=r"use `wait`.*or `defer`"):
        GovernanceMiddleware(al, on_approval="pause")


@pytest.mark.parametrize(
    "wrong", [{"on_approval": "never"}, {"hosted_tools": "maybe"}, {"approval_timeout": -1}]
)
def test_a_wrong_setting_is_refused_when_it_is_built(al: AgentLattice, wrong: dict[str, Any]) -> None:
    """A mistake shows when the agent is built, not at its first call."""
    with pytest.raises(ValueError, match=f"`{next(iter(wrong.values()))}`"):
        GovernanceMiddleware(al, **wrong)
