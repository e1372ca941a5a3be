"""`govern(...)` and `coverage(...)`: what they take, what they give back, and what they say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph_scripted import ScriptedModel, asking, call, run, tool_graph, tool_messages

from agentlattice_core import AgentLattice
from agentlattice_core.errors import AgentLatticeError, InvalidRequestError
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.results import AuditEvent
from agentlattice_core.toolcalls import Coverage
from agentlattice_integrations.langgraph import (
    GovernanceMiddleware,
    coverage,
    current_action_id,
    govern,
    govern_tool,
    governed_tool_node,
    mcp_interceptor,
    tool_call_wrappers,
)

Recorded = Callable[[], list[AuditEvent]]


def delete(path: str) -> str:
    """Delete a file."""
    raise AssertionError(f"deleted {path}")


def _read(path: str) -> str:
    """Read a file."""
    return path


def _deleting() -> ScriptedModel:
    return ScriptedModel(asking(call("delete", path="a")))


def _denied(graph: Any, how: str = "sync") -> bool:
    messages = tool_messages(run(graph, how))
    return [message.status for message in messages] == ["error"] and "POLICY_DENIED" in str(
        messages[0].content
    )


def test_each_form_is_given_back_governed(al: AgentLattice) -> None:
    """A function becomes its tool, a tool its copy, lists stay lists, nodes and graphs stay the very same objects."""
    made = tool(delete)
    function, copy = govern(delete, al), govern(made, al)
    assert isinstance(function, BaseTool)
    assert isinstance(copy, type(made))
    assert copy is not made
    assert isinstance(govern([delete, made], al), list)
    assert isinstance(govern((delete,), al), tuple)
    node = ToolNode([made])
    assert govern(node, al) is node
    agent = create_agent(_deleting(), [made])
    assert govern(agent, al) is agent
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([made]))
    assert govern(builder, al) is builder
    for graph in (
        agent,
        create_agent(_deleting(), [function]),
        create_agent(_deleting(), [copy]),
        tool_graph(_deleting(), node),
    ):
        assert _denied(graph)


@pytest.mark.parametrize("wrong", [None, 3, "delete", {"type": "web_search"}])
def test_what_cannot_be_governed_is_refused_in_words(al: AgentLattice, wrong: Any) -> None:
    """An error says what to give instead."""
    with pytest.raises(
        InvalidRequestError, match="give a tool, a function, a list of them, a ToolNode or a graph"
    ):
        govern(wrong, al)


@pytest.mark.parametrize(
    "form",
    [
        lambda al, **options: govern([delete], al, **options),
        lambda al, **options: govern_tool(tool(delete), al, **options),
        lambda al, **options: govern(tool_graph(_deleting(), ToolNode([delete])), al, **options),
        lambda al, **options: governed_tool_node([delete], al, **options),
        lambda al, **options: GovernanceMiddleware(al, **options),
        lambda al, **options: tool_call_wrappers(al, **options),
        lambda al, **options: mcp_interceptor(al, **options),
    ],
    ids=["tools", "tool", "graph", "node", "middleware", "wrappers", "mcp"],
)
def test_an_option_that_there_is_not_is_never_ignored(al: AgentLattice, form: Callable[..., object]) -> None:
    """A misspelt `redact` would have secrets recorded: every form refuses it, and names the options there are."""
    with pytest.raises(TypeError, match=r"no option `redcat`; there are actions, redact, on_approval, "):
        form(al, redcat=["ssn"])


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "told", ["eve@acme.com", lambda config: config["configurable"]["user"]], ids=["text", "function"]
)
def test_the_end_user_is_who_the_application_says(tmp_path: Path, told: Any, how: str) -> None:
    """`on_behalf_of` names them, or reads them from the run's config, and whoever approves is shown them."""
    policies = PolicyDocument.parse(
        "version: 1\npolicies: [{name: Ask, action: tool.delete, effect: require_approval}]\n"
    )
    with AgentLattice.embedded(tmp_path / "g.db", policies=policies, agent="support") as al:
        graph = tool_graph(_deleting(), ToolNode([delete]))
        govern(graph, al, on_approval="defer", on_behalf_of=told)
        run(graph, how, {"configurable": {"user": "eve@acme.com"}})
        (request,) = al.for_operator("ana").list_pending_approvals_sync()
        assert request.on_behalf_of == "eve@acme.com"


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("form", ["middleware", "tools", "graph", "node", "wrappers"])
def test_a_tool_can_ask_for_the_id_of_its_action(
    al: AgentLattice, recorded: Recorded, form: str, how: str
) -> None:
    """What it passes on as an idempotency key is the id in the log; outside of a governed tool there is none."""
    seen: list[str | None] = []

    @tool
    def write(size: int) -> str:
        """Write."""
        seen.append(current_action_id())
        return "written"

    model = ScriptedModel(asking(call("write", "1", size=1), call("write", "2", size=2)))
    if form == "middleware":
        agent: Any = create_agent(model, [write], middleware=[GovernanceMiddleware(al)])
    elif form == "tools":
        agent = create_agent(model, govern([write], al))
    elif form == "graph":
        agent = govern(tool_graph(model, ToolNode([write])), al)
    elif form == "node":
        agent = tool_graph(model, governed_tool_node([write], al))
    else:
        wrap, awrap = tool_call_wrappers(al)
        agent = tool_graph(model, ToolNode([write], wrap_tool_call=wrap, awrap_tool_call=awrap))
    run(agent, how)
    assert len(seen) == 2
    assert set(seen) == {event.id for event in recorded()}
    assert current_action_id() is None


def test_a_graph_without_tools_is_not_governed_in_silence(al: AgentLattice) -> None:
    """There is nothing to govern where nothing can be seen, and that is said."""
    builder = StateGraph(MessagesState)
    builder.add_node("only", lambda state: {})
    builder.add_edge(START, "only")
    with pytest.raises(InvalidRequestError, match="no tool node that can be seen"):
        govern(builder.compile(), al)


def test_agents_inside_are_found_however_they_are_reached(al: AgentLattice) -> None:
    """A sub-graph, an agent in a node's function, an agent in a tool, an agent in a tool of that: all are governed."""
    innermost = create_agent(_deleting(), [tool(delete)])

    def answer(graph: Any) -> str:
        return "denied" if _denied(graph) else "ran"

    @tool
    def middle() -> str:
        """Ask the innermost agent."""
        return answer(innermost)

    in_tool = create_agent(ScriptedModel(asking(call("middle"))), [middle])
    in_function = create_agent(_deleting(), [tool(delete)])
    subgraph = create_agent(_deleting(), [tool(delete)])
    answers: list[str] = []

    def node(state: MessagesState) -> dict[str, Any]:
        answers.append(answer(in_function))
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("in_tool", in_tool)
    builder.add_node("in_function", node)
    builder.add_node("subgraph", subgraph)
    builder.add_edge(START, "in_tool")
    builder.add_edge("in_tool", "in_function")
    builder.add_edge("in_function", "subgraph")
    builder.add_edge("subgraph", END)
    graph = builder.compile()
    assert len(coverage(graph).not_coverable) == 4
    found: list[Coverage] = []
    govern(graph, al, report=found.append)
    assert {each.owner for each in found[0]} == {
        "in_tool/tools",
        "in_tool/tools/middle/tools",
        "in_function/tools",
        "subgraph/tools",
    }
    found[0].raise_if_uncovered()
    state = run(graph)
    messages = tool_messages(state)
    assert messages[0].content == "denied"
    assert answers == ["denied"]
    assert "POLICY_DENIED" in str(messages[1].content)


def test_graphs_that_hold_each_other_end(al: AgentLattice) -> None:
    """Two agents that are each other's tool are each visited once."""
    agents: dict[str, Any] = {}
    first_agent: Any = None

    @tool
    def ask_first() -> str:
        """Ask the first."""
        return str(first_agent)

    @tool
    def ask_second() -> str:
        """Ask the second."""
        return str(second_agent)

    second_agent = create_agent(ScriptedModel(), [ask_first])
    first_agent = create_agent(ScriptedModel(), [ask_second])
    agents["first"] = govern(first_agent, al)
    assert {each.name for each in coverage(first_agent).governed} == {"ask_first", "ask_second"}


def test_the_report_tells_open_tools_from_governed_ones(al: AgentLattice) -> None:
    """Ungoverned, it says what to do; governed, or under the middleware, it names the action type."""
    made = tool(delete)
    before = coverage([made, delete, {"type": "web_search"}])
    assert [each.status for each in before] == ["not_coverable", "not_coverable"]
    with pytest.raises(AgentLatticeError, match="`delete`"):
        before.raise_if_uncovered()
    assert coverage(create_agent(_deleting(), [made])).not_coverable[0].name == "delete"
    governance = GovernanceMiddleware(al, actions={"delete": "file.delete"})
    agent = create_agent(_deleting(), [made], middleware=[governance])
    (entry,) = coverage(agent)
    assert (entry.name, entry.status, entry.action_type, entry.owner) == (
        "delete",
        "governed",
        "file.delete",
        "tools",
    )
    run(agent)
    assert [each.action_type for each in coverage(governance)] == ["file.delete"]


@pytest.mark.parametrize("held", ["by itself", "in a list", "by name"])
def test_a_tool_that_a_nodes_own_code_can_call_is_reported(al: AgentLattice, held: str) -> None:
    """A tool that a function uses and no tool node runs is not passed over in the report; one that a node runs is
    listed once.
    """
    made, offered = tool(delete), tool(_read)
    kept: Any = {"by itself": made, "in a list": [made, offered], "by name": {"delete": made}}[held]
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("own", lambda state: {"messages": [str(kept)]})
    builder.add_node("tools", ToolNode([offered]))
    builder.add_edge(START, "own")
    builder.add_edge("own", "tools")
    reported: list[Coverage] = []
    graph = govern(builder.compile(), al, report=reported.append)
    for report in (*reported, coverage(graph)):
        assert [(each.owner, each.name, each.status) for each in report] == [
            ("tools", "_read", "governed"),
            ("own", "delete", "not_coverable"),
        ]
        with pytest.raises(AgentLatticeError, match="1 of 2 tools can run without being decided on"):
            report.raise_if_uncovered()


def test_a_tool_that_a_tools_own_function_calls_is_reported(al: AgentLattice) -> None:
    """Governing the outer tool does not govern the one that its function calls; the report says so."""
    inner = tool(delete)

    @tool
    def clean_up(path: str) -> str:
        """Clean up."""
        return str(inner.invoke({"path": path}))

    reported: list[Coverage] = []
    govern(clean_up, al, report=reported.append)
    assert [(each.name, each.status) for each in reported[0]] == [
        ("clean_up", "governed"),
        ("delete", "not_coverable"),
    ]


def test_hosted_tools_of_a_compiled_agent_are_taken_from_its_model(al: AgentLattice) -> None:
    """`govern(agent)` also reaches what the agent's model is offered; `allow` leaves it and says so."""
    model = ScriptedModel()
    agent = create_agent(model, [tool(delete), {"type": "web_search"}])
    found: list[Coverage] = []
    govern(agent, al, hosted_tools="allow", report=found.append)
    run(agent)
    assert len(model.offered[0]) == 2
    assert [each.name for each in found[0].not_coverable] == ["web_search"]
    govern(agent, al, report=found.append)
    run(agent)
    assert [each.name for each in model.offered[1]] == ["delete"]
    assert [each.name for each in found[1].refused] == ["web_search"]


@pytest.mark.parametrize("how", ["sync", "async", "stream"])
def test_tools_put_into_a_governed_node_later_are_governed(al: AgentLattice, how: str) -> None:
    """However the node's tools are changed, what is put in is governed."""
    made = tool(delete)
    for put in (
        lambda tools: tools.__setitem__("delete", made),
        lambda tools: tools.update(delete=made),
        lambda tools: tools.setdefault("delete", made),
        lambda tools: tools.__ior__({"delete": made}),
    ):
        node = govern(ToolNode([]), al)
        put(node.tools_by_name)
        assert _denied(tool_graph(_deleting(), node), how)


def test_governing_again_changes_nothing(al: AgentLattice, recorded: Recorded) -> None:
    """The same client twice is one decision per call."""
    agent = govern(govern(create_agent(_deleting(), [tool(delete)]), al), al)
    assert _denied(agent)
    assert len(recorded()) == 1


def test_importing_the_adapter_imports_no_other_framework() -> None:
    """The LangGraph room brings LangGraph and LangChain, and nothing of the other frameworks."""
    program = (
        "import sys, agentlattice_integrations.langgraph; "
        "print([name for name in ('crewai', 'agents', 'openai', 'langchain_mcp_adapters') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


@pytest.mark.parametrize("missing", ["langgraph", "langchain"])
def test_without_the_framework_the_import_says_what_to_install(missing: str) -> None:
    """One line with the command, and no traceback of somebody else's."""
    program = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "try:\n    import agentlattice_integrations.langgraph\n"
        "except ImportError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert 'pip install "agentlattice-integrations[langgraph]"' in said
    assert said.count("\n") == 1
