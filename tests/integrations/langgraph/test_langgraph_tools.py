"""A governed tool is the same tool: its schema, what is injected, what it gives back, and what calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from langgraph_scripted import ScriptedModel, asking, call, run, tool_messages
from pydantic import BaseModel

from agentlattice_core import AgentLattice, AgentLatticeDeniedError
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import GovernanceMiddleware, govern, govern_tool, governed

Recorded = Callable[[], list[AuditEvent]]


@tool
def plain(number: int, word: str = "x") -> str:
    """A plain function."""
    return word * number


@tool
async def coroutine(number: int) -> str:
    """A coroutine."""
    await asyncio.sleep(0)
    return f"async {number}"


@tool(response_format="content_and_artifact")
def with_artifact(number: int) -> tuple[str, dict[str, int]]:
    """Content and an artifact."""
    return "content", {"number": number}


@tool(return_direct=True)
def direct(number: int) -> str:
    """Ends the run."""
    return f"direct {number}"


@tool
def injected(
    number: int,
    state: Annotated[Any, InjectedState],
    messages: Annotated[list[Any], InjectedState("messages")],
    store: Annotated[Any, InjectedStore()],
    call_id: Annotated[str, InjectedToolCallId],
    runtime: ToolRuntime,
) -> str:
    """Everything that can be injected."""
    assert state["messages"] == messages
    assert store is runtime.store
    assert runtime.tool_call_id == call_id
    return f"injected {number} {len(messages)}"


@tool
def command(number: int, call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Answers with a Command."""
    return Command(update={"messages": [ToolMessage(f"command {number}", tool_call_id=call_id)]})


class _Handled(BaseTool):
    """A class of its own."""

    name: str = "handled"
    description: str = "Fails with an error it handles."
    handle_tool_error: bool = True
    suffix: str = "!"

    def _run(self, number: int) -> str:
        raise ToolException(f"handled {number}{self.suffix}")


class _Both(BaseTool):
    """A class of its own with a coroutine of its own."""

    name: str = "both"
    description: str = "Both kinds."

    def _run(self, number: int) -> str:
        return f"sync {number}"

    async def _arun(self, number: int) -> str:
        return f"async {number}"


def _single(text: str) -> str:
    return f"single {text}"


KINDS: dict[str, tuple[BaseTool, dict[str, Any]]] = {
    "plain": (plain, {"number": 2}),
    "coroutine": (coroutine, {"number": 2}),
    "artifact": (with_artifact, {"number": 2}),
    "return_direct": (direct, {"number": 2}),
    "injected": (injected, {"number": 2}),
    "command": (command, {"number": 2}),
    "class": (_Handled(), {"number": 2}),
    "class with both": (_Both(), {"number": 2}),
    "single input": (Tool("single", _single, "One text."), {"__arg1": "a"}),
    "json schema": (
        StructuredTool(
            name="schema",
            description="A JSON schema.",
            args_schema={"type": "object", "properties": {"number": {"type": "integer"}}},
            func=lambda **arguments: f"schema {arguments}",
        ),
        {"number": 2},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["sync", "async", "stream"])
@pytest.mark.parametrize("entry", ["tool", "middleware", "agent"])
def test_an_allowed_tool_answers_as_if_it_were_not_governed(
    al: AgentLattice, recorded: Recorded, kind: str, how: str, entry: str
) -> None:
    """Content, status, artifact, name and the end of the run are the same, for every kind of tool and call."""
    original, arguments = KINDS[kind]
    if kind == "coroutine" and how == "sync":
        how = "async"

    def answer(tools: list[BaseTool], **options: Any) -> tuple[Any, ...]:
        model = ScriptedModel(asking(call(original.name, "c1", **arguments)))
        agent = create_agent(model, tools, store=InMemoryStore(), **options)
        state = run(agent, how)
        (message,) = tool_messages(state)
        return message.content, message.status, message.artifact, message.name, len(state["messages"])

    bare = answer([original])
    if entry == "tool":
        assert answer([govern_tool(original, al)]) == bare
    elif entry == "middleware":
        assert answer([original], middleware=[GovernanceMiddleware(al)]) == bare
    else:
        model = ScriptedModel(asking(call(original.name, "c1", **arguments)))
        state = run(govern(create_agent(model, [original], store=InMemoryStore()), al), how)
        (message,) = tool_messages(state)
        assert (
            message.content,
            message.status,
            message.artifact,
            message.name,
            len(state["messages"]),
        ) == bare
    (event,) = recorded()
    assert event.claim == ("failed" if kind == "class" else "succeeded")
    assert event.metadata["number" if kind != "single input" else "__arg1"] == arguments.get("number", "a")


@pytest.mark.parametrize("kind", KINDS)
def test_a_governed_tool_looks_like_the_tool(al: AgentLattice, kind: str) -> None:
    """Its class, name, description, schema and settings are those of the original, which is left alone."""
    original, _ = KINDS[kind]
    before = type(original), original.__dict__.copy()
    copy = govern_tool(original, al)
    assert isinstance(copy, type(original))
    assert type(copy).__name__ == type(original).__name__
    assert copy.args == original.args
    assert convert_to_openai_tool(copy) == convert_to_openai_tool(original)
    for name in type(original).model_fields:
        if name not in ("func", "coroutine"):
            assert getattr(copy, name) == getattr(original, name)
    assert (type(original), original.__dict__) == before


def test_callbacks_see_a_governed_run_as_any_other(al: AgentLattice) -> None:
    """A handler hears of the start and the end of an allowed run, and of nothing when the run was denied."""
    heard: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_tool_start(self, serialized: dict[str, Any], input_str: str, **_: Any) -> None:
            heard.append(f"start {serialized['name']} {input_str}")

        def on_tool_end(self, output: Any, **_: Any) -> None:
            heard.append(f"end {output}")

    @tool
    def write(size: int) -> str:
        """Write."""
        return "written"

    governed_write = govern_tool(write, al)
    governed_write.invoke({"size": 1}, {"callbacks": [Handler()]})
    governed_write.invoke({"size": 99}, {"callbacks": [Handler()]})
    assert heard == ["start write {'size': 1}", "end written"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_function_inside_a_governed_tool_asks_for_itself(
    al: AgentLattice, recorded: Recorded, how: str
) -> None:
    """`func`, `coroutine`, `_run` and `_arun`, called past the tool, run when allowed and raise when denied."""
    ran: list[int] = []

    def write(size: int) -> str:
        """Write."""
        ran.append(size)
        return "written"

    async def awrite(size: int) -> str:
        return write(size)

    class Write(BaseTool):
        name: str = "write"
        description: str = "Write."

        def _run(self, size: int) -> str:
            return write(size)

        async def _arun(self, size: int) -> str:
            return write(size)

    function = govern_tool(StructuredTool.from_function(write, awrite), al)
    own_class = govern_tool(Write(), al)
    if how == "sync":
        assert function.func is not None
        ways: list[Callable[..., Any]] = [
            function.func,
            own_class._run,
            lambda **a: function._run(config={}, **a),
        ]
    else:
        assert function.coroutine is not None
        ways = [
            lambda **a: asyncio.run(function.coroutine(**a)),  # type: ignore[misc]
            lambda **a: asyncio.run(own_class._arun(**a)),
            lambda **a: asyncio.run(function._arun(config={}, **a)),
        ]
    for way in ways:
        assert way(size=1) == "written"
        with pytest.raises(AgentLatticeDeniedError) as denied:
            way(size=99)
        assert denied.value.reason == "CONDITIONS_DENIED"
        assert denied.value.policy == "Size"
    assert ran == [1, 1, 1]
    assert [(event.metadata["size"], event.claim) for event in recorded()] == [
        (1, "succeeded"),
        (99, None),
    ] * 3


def test_one_permit_lets_the_function_inside_run_once(al: AgentLattice, recorded: Recorded) -> None:
    """A tool whose body calls its own function again is decided on again: the permit is used up."""
    depths: list[int] = []

    @tool
    def write(size: int) -> str:
        """Write."""
        depths.append(size)
        return governed_write.func(size=size + 60) if size < 50 else "deep"  # type: ignore[misc,no-any-return]

    governed_write = govern_tool(write, al)
    with pytest.raises(AgentLatticeDeniedError):
        governed_write.invoke({"size": 1})
    assert depths == [1]
    assert [event.status for event in recorded()] == ["executed", "denied"]


def test_a_tool_that_could_run_past_the_gate_is_refused(al: AgentLattice) -> None:
    """A class that replaces LangChain's own entry points cannot be governed, and is told how to become so."""

    class Own(BaseTool):
        name: str = "own"
        description: str = "Own."

        def _run(self) -> str:
            return ""

        def invoke(self, *args: Any, **kwargs: Any) -> str:
            return "ran"

    with pytest.raises(InvalidRequestError, match="tool `own` has its own `invoke`"):
        govern_tool(Own(), al)


def test_governing_twice_decides_once(al: AgentLattice, recorded: Recorded) -> None:
    """A governed tool in a governed agent is one decision, one claim; never two and never none."""

    @tool
    def write(size: int) -> str:
        """Write."""
        return "written"

    twice = govern_tool(govern_tool(write, al), al)
    agent = create_agent(
        ScriptedModel(asking(call("write", size=1), call("write", size=99))),
        [twice],
        middleware=[GovernanceMiddleware(al), GovernanceMiddleware2(al)],
    )
    state = run(govern(agent, al))
    assert sorted(message.status for message in tool_messages(state)) == ["error", "success"]
    assert sorted((event.metadata["size"], event.claim) for event in recorded()) == [
        (1, "succeeded"),
        (99, None),
    ]


class GovernanceMiddleware2(GovernanceMiddleware):
    """A second one: create_agent takes each name once."""

    name = "second"  # type: ignore[assignment]


def test_a_tool_governed_as_something_else_is_decided_on_as_both(
    al: AgentLattice, recorded: Recorded
) -> None:
    """Where two gates ask different questions about one tool, both must agree."""

    @tool
    def change(size: int) -> str:
        """Change the schema."""
        return "changed"

    migration = govern_tool(change, al, actions={"change": "db.migrate"})
    agent = create_agent(
        ScriptedModel(asking(call("change", size=1))), [migration], middleware=[GovernanceMiddleware(al)]
    )
    assert tool_messages(run(agent))[0].status == "error"
    assert sorted((event.action_type, event.status) for event in recorded()) == [
        ("db.migrate", "denied"),
        ("tool.change", "executed"),
    ]


@pytest.mark.parametrize("entry", ["tool", "middleware", "agent"])
def test_what_governed_says_of_a_function_is_honoured(
    al: AgentLattice, recorded: Recorded, entry: str
) -> None:
    """`@governed` above or below `@tool` names the action, wherever governance enters."""

    @tool
    @governed("db.migrate", metadata={"reviewed": False})
    def below(size: int) -> str:
        """Below."""
        return "ran"

    @governed("db.migrate")
    @tool
    def above(size: int) -> str:
        """Above."""
        return "ran"

    for each in (below, above):
        model = ScriptedModel(asking(call(each.name, size=1)))
        if entry == "tool":
            agent = create_agent(model, [govern_tool(each, al)])
        elif entry == "middleware":
            agent = create_agent(model, [each], middleware=[GovernanceMiddleware(al)])
        else:
            agent = govern(create_agent(model, [each]), al)
        assert tool_messages(run(agent))[0].status == "error"
    assert [event.action_type for event in recorded()] == ["db.migrate"] * 2
    assert recorded()[0].metadata == {"size": 1, "reviewed": False}


def test_a_table_may_name_the_function_itself(al: AgentLattice, recorded: Recorded) -> None:
    """An entry for a tool's function wins over its name, also for the copy that is governed."""
    assert isinstance(plain, StructuredTool)
    agent = create_agent(
        ScriptedModel(asking(call("plain", number=1))),
        [plain],
        middleware=[GovernanceMiddleware(al, actions={plain.func: "db.migrate", "plain": "tool.plain"})],
    )
    assert tool_messages(run(agent))[0].status == "error"
    assert [event.action_type for event in recorded()] == ["db.migrate"]


class _Nested(BaseModel):
    inner: list[int]


def test_a_caller_cannot_change_the_arguments_while_the_decision_is_made(al: AgentLattice) -> None:
    """What runs is a copy that nobody else holds: changing the list that was passed in changes nothing."""
    seen: list[list[int]] = []

    @tool
    def take(nested: _Nested) -> str:
        """Take a list."""
        seen.append(nested.inner)
        return "taken"

    governed_take = govern_tool(take, al)
    arguments = {"nested": {"inner": [1]}}

    async def race() -> None:
        running = asyncio.ensure_future(governed_take.ainvoke(arguments))
        while not running.done():
            await asyncio.sleep(0)
            arguments["nested"]["inner"].append(99)

    asyncio.run(race())
    assert len(seen) == 1
    assert 99 not in seen[0]


def test_a_copy_of_a_governed_tool_is_governed(al: AgentLattice) -> None:
    """`model_copy` keeps the gate."""

    @tool
    def delete(path: str) -> str:
        """Delete."""
        raise AssertionError("ran")

    copy = govern_tool(delete, al).model_copy(update={"description": "Another."})
    assert '"reason":"POLICY_DENIED"' in copy.invoke({"path": "a"})


def test_a_deep_copy_of_a_governed_tool_is_governed(al: AgentLattice) -> None:
    """`copy.deepcopy` works as it does on the tool itself, and keeps the gate."""

    @tool
    def delete(path: str) -> str:
        """Delete."""
        raise AssertionError("ran")

    assert '"reason":"POLICY_DENIED"' in deepcopy(govern_tool(delete, al)).invoke({"path": "a"})
    assert deepcopy(govern_tool(plain, al)).invoke({"number": 2}) == "xx"


def test_the_own_run_of_a_structured_tool_without_a_function_asks(al: AgentLattice) -> None:
    """A class that brings its `_run` in place of a function is asked about when that is called by itself."""

    class Own(StructuredTool):
        def _run(self, *args: Any, **kwargs: Any) -> str:
            return f"ran {kwargs['number']}"

    allowed = govern_tool(Own(name="own", description="Run.", args_schema=plain.args_schema), al)
    assert allowed.invoke({"number": 1}) == "ran 1"
    assert allowed._run(number=2) == "ran 2"
    denied = govern_tool(Own(name="delete", description="Delete.", args_schema=plain.args_schema), al)
    with pytest.raises(AgentLatticeDeniedError):
        denied._run(number=1)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_tool_that_makes_text_of_its_own_error_has_failed(
    al: AgentLattice, recorded: Recorded, how: str
) -> None:
    """Called without a model's call, such a tool gives back bare text; the log says `failed` all the same."""

    @tool
    def failing(number: int) -> str:
        """Fail."""
        raise ToolException("it broke")

    failing.handle_tool_error = True
    asked = govern_tool(failing, al)
    given = {"number": 1}
    assert (asked.invoke(given) if how == "sync" else asyncio.run(asked.ainvoke(given))) == "it broke"
    (event,) = recorded()
    assert event.claim == "failed"
    assert event.outcome is not None
    assert event.outcome["message"] == "ToolException: it broke"
