"""The contract's view of LangGraph, once for each way in which governance enters it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph.cache.memory import InMemoryCache
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, RetryPolicy
from langgraph_parts import Caching, Editing, Supplying, transfer_to_specialist, two_agents, wrappers
from langgraph_scripted import ScriptedModel, asking, call, run, tool_loop

from agentlattice_core.toolcalls import Coverage
from agentlattice_integrations.contract import (
    Alternative,
    Feature,
    FrameworkHarness,
    Governance,
    How,
    McpServer,
    ScriptedCall,
    Seen,
    Transcript,
    Turn,
    World,
)
from agentlattice_integrations.langgraph import GovernanceMiddleware, coverage, govern, governed_tool_node

__all__ = ["AgentHarness", "GraphHarness", "MiddlewareHarness", "NodeHarness", "ToolsHarness"]


class _LangGraphHarness(FrameworkHarness):
    """What all of them share: the scripted model, and reading what it saw."""

    name = "langgraph"
    alternatives: ClassVar[Mapping[Feature, Alternative]] = {
        Feature.RAW_TEXT: Alternative(
            "LangChain reads the text a model wrote before any tool or middleware sees it",
            lambda world: _json_is_parsed_before_us(world),
        )
    }

    # --- how governance enters ---------------------------------------------------------------------------------------

    @abstractmethod
    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        """A governed agent, and how to read its report; `before` and `after` stand around governance."""

    # --- the contract's methods ---------------------------------------------------------------------------------------

    def make_tool(self, function: Callable[..., Any], *, name: str | None = None) -> BaseTool:
        made: BaseTool = tool(name or function.__name__)(function)
        return made

    def run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, how: How = "sync"
    ) -> Transcript:
        model = _model(turns)
        agent, report = self.agent(governance, model, tools)
        return _transcript(run(agent, how), report)

    def call_directly(
        self, governance: Governance, tool: Any, arguments: Mapping[str, Any], *, how: How = "sync"
    ) -> str:
        governed = govern(tool, governance.client, **governance.options)
        if how == "sync":
            return str(governed.invoke(dict(arguments)))
        return str(asyncio.run(governed.ainvoke(dict(arguments))))

    def run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        async def conversation() -> Transcript:
            connection = {"transport": "stdio", "command": server.command, "args": list(server.args)}
            client = MultiServerMCPClient({"contract": connection})
            async with client.session("contract") as session:
                tools = await load_mcp_tools(session)
                agent, report = self.agent(governance, _model(turns), tools)
                state = await agent.ainvoke({"messages": [HumanMessage("go")]})
            return _transcript(state, report)

        return asyncio.run(conversation())

    def run_handoff(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool = False
    ) -> Transcript:
        first = ScriptedModel(asking(call("transfer_to_specialist", "handoff")))
        graph, report = self.pair(governance, (first, [transfer_to_specialist]), (_model(turns), tools))
        transcript = _transcript(run(graph), report)
        seen = [each for each in transcript.seen if (each.tool == "transfer_to_specialist") == denied]
        return Transcript(seen, transcript.final, transcript.coverage)

    def pair(
        self,
        governance: Governance,
        triage: tuple[ScriptedModel, Sequence[Any]],
        specialist: tuple[ScriptedModel, Sequence[Any]],
    ) -> tuple[Any, Callable[[], Coverage]]:
        """A graph of two agents, the first of which can hand over to the second."""
        first, _ = self.agent(governance, *triage)
        second, report = self.agent(governance, *specialist)
        return two_agents(first, second), report

    def run_agent_as_tool(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        inner = self.inner(governance, _model(turns), tools)
        seen: list[Transcript] = []

        @tool
        def specialist(task: str) -> str:
            """Ask the specialist."""
            seen.append(_transcript(inner.invoke({"messages": [HumanMessage(task)]}), Coverage))
            return "asked"

        outer, _ = self.agent(governance, ScriptedModel(asking(call("specialist", task="go"))), [specialist])
        run(outer)
        return seen[0]

    def inner(self, governance: Governance, model: ScriptedModel, tools: Sequence[Any]) -> Any:
        """An agent that another one asks as a tool."""
        agent, _ = self.agent(governance, model, tools)
        return agent

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        agent, report = self.agent(governance, _model(turns), tools)
        agent.nodes["tools"].bound.tools_by_name[late.name] = late
        return _transcript(run(agent), report)

    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        agent, report = self.agent(governance, _model(turns), tools, after=[Caching()])
        return _transcript(run(agent), report)

    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        retry = ToolRetryMiddleware(max_retries=attempts - 1, initial_delay=0.0, jitter=False)
        agent, report = self.agent(governance, _model(turns), tools, before=[retry])
        return _transcript(run(agent), report)

    def run_with_edit(
        self,
        governance: Governance,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Transcript:
        agent, report = self.agent(governance, _model(turns), tools, after=[Editing(edit)])
        return _transcript(run(agent), report)

    def hosted_tools(self) -> Sequence[Any]:
        return [
            {"type": "web_search"},
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "web_search_20250305", "name": "anthropic_search"},
            {"type": "mcp", "server_label": "remote", "server_url": "https://mcp.example/sse"},
            {"google_search": {}},
        ]


# --- the forms --------------------------------------------------------------------------------------------------------


class MiddlewareHarness(_LangGraphHarness):
    """`create_agent(..., middleware=[GovernanceMiddleware(al)])`."""

    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        middleware = GovernanceMiddleware(governance.client, **governance.options)
        agent = create_agent(model, list(tools), middleware=[*before, middleware, *after], **options)
        return agent, lambda: middleware.coverage

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        agent, report = self.agent(governance, _model(turns), tools, before=[Supplying(late)])
        return _transcript(run(agent), report)


class AgentHarness(_LangGraphHarness):
    """`govern(create_agent(...), al)`."""

    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        return _governed_whole(
            governance, create_agent(model, list(tools), middleware=[*before, *after], **options)
        )

    def pair(
        self,
        governance: Governance,
        triage: tuple[ScriptedModel, Sequence[Any]],
        specialist: tuple[ScriptedModel, Sequence[Any]],
    ) -> tuple[Any, Callable[[], Coverage]]:
        return _governed_whole(governance, two_agents(create_agent(*triage), create_agent(*specialist)))

    def inner(self, governance: Governance, model: ScriptedModel, tools: Sequence[Any]) -> Any:
        return create_agent(model, list(tools))  # governed by way of the outer one


class ToolsHarness(_LangGraphHarness):
    """`create_agent(model, govern(tools, al))`."""

    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        found: list[Coverage] = []
        governed = govern(list(tools), governance.client, report=found.append, **governance.options)
        agent = create_agent(model, governed, middleware=[*before, *after], **options)
        return agent, lambda: found[0]

    @staticmethod
    def _a_cache_answers_by_itself(world: World) -> None:
        harness = ToolsHarness()
        order = ScriptedCall("order", {"amount": "60", "currency": "EUR"})
        transcript = harness.run_with_cache(world.governance(), world.tools("order"), [[order], [order]])
        assert [seen.content for seen in transcript.seen] == ["ordered for 60 EUR"] * 2
        assert len(world.effects.of("order")) == len(world.events("order")) == 1

    @staticmethod
    def _hosted_tools_are_left_out(world: World) -> None:
        found: list[Coverage] = []
        hosted = list(ToolsHarness().hosted_tools())
        tools = [*world.tools("free"), *hosted]
        governed = govern(tools, world.client, report=found.append)
        assert [each.name for each in governed] == ["free"]
        assert len(found[0].refused) == len(hosted)

    @staticmethod
    def _a_late_tool_is_reported(world: World) -> None:
        (late,) = world.tools("forbidden")
        agent, _ = ToolsHarness().agent(world.governance(), ScriptedModel(), world.tools("free"))
        agent.nodes["tools"].bound.tools_by_name[late.name] = late
        assert [open_tool.name for open_tool in coverage(agent).not_coverable] == ["forbidden"]

    alternatives: ClassVar[Mapping[Feature, Alternative]] = {
        **_LangGraphHarness.alternatives,
        Feature.CACHE: Alternative(
            "middleware that answers from a cache stands before the tool, and a governed tool cannot know of it",
            _a_cache_answers_by_itself,
        ),
        Feature.LATE_TOOLS: Alternative(
            "only the tools that were governed are; what joins an agent without being governed is reported",
            _a_late_tool_is_reported,
        ),
        Feature.HOSTED: Alternative(
            "a list of tools is governed; what else a model is offered is not in it",
            _hosted_tools_are_left_out,
        ),
    }


class NodeHarness(_LangGraphHarness):
    """`governed_tool_node(tools, al)` in a graph of one's own."""

    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        name: str | None = None,
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        kept = [each for each in tools if not isinstance(each, dict)]
        node = governed_tool_node(
            kept, governance.client, **wrappers([*before, *after]), **governance.options
        )
        found: list[Coverage] = []
        builder = tool_loop(model.bind_tools(tools), node, **options)
        graph = govern(builder, governance.client, report=found.append, **governance.options)
        return graph.compile(name=name), lambda: found[0]

    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        policy = RetryPolicy(max_attempts=attempts, initial_interval=0.0, retry_on=RuntimeError)
        agent, report = self.agent(governance, _model(turns), tools, retry_policy=policy)
        return _transcript(run(agent), report)


class GraphHarness(NodeHarness):
    """`govern(graph, al)` over a graph of one's own with an ordinary ToolNode."""

    def agent(
        self,
        governance: Governance,
        model: ScriptedModel,
        tools: Sequence[Any],
        *,
        before: Sequence[AgentMiddleware] = (),
        after: Sequence[AgentMiddleware] = (),
        name: str | None = None,
        cache: Any = None,
        **options: Any,
    ) -> tuple[Any, Callable[[], Coverage]]:
        kept = [each for each in tools if not isinstance(each, dict)]
        node = ToolNode(kept, **wrappers([*before, *after]))
        graph = tool_loop(model.bind_tools(tools), node, **options).compile(name=name, cache=cache)
        return _governed_whole(governance, graph)

    def pair(
        self,
        governance: Governance,
        triage: tuple[ScriptedModel, Sequence[Any]],
        specialist: tuple[ScriptedModel, Sequence[Any]],
    ) -> tuple[Any, Callable[[], Coverage]]:
        agents = (tool_loop(model, ToolNode(list(tools))).compile() for model, tools in (triage, specialist))
        return _governed_whole(governance, two_agents(*agents))

    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        def arguments(state: Any) -> str:
            return str(state["messages"][-1].tool_calls[0]["args"])

        policy = CachePolicy(key_func=arguments)
        agent, report = self.agent(
            governance, _model(turns), tools, cache=InMemoryCache(), cache_policy=policy
        )
        return _transcript(run(agent), report)


# --- parts ------------------------------------------------------------------------------------------------------------


def _governed_whole(governance: Governance, graph: Any) -> tuple[Any, Callable[[], Coverage]]:
    found: list[Coverage] = []
    govern(graph, governance.client, report=found.append, **governance.options)
    return graph, lambda: found[0]


def _model(turns: Sequence[Turn]) -> ScriptedModel:
    return ScriptedModel(*(asking(*(_made(each) for each in turn)) for turn in turns))


def _made(scripted: ScriptedCall) -> dict[str, Any]:
    assert not isinstance(scripted.arguments, str)
    return call(scripted.tool, scripted.call_id or "", **scripted.arguments)


def _transcript(state: dict[str, Any], report: Callable[[], Coverage]) -> Transcript:
    """What the model was shown: the state's messages are what its next request consists of."""
    messages = state["messages"]
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    seen = [
        Seen(made["name"], str(answers[made["id"]].content), made["id"])
        for message in messages
        if isinstance(message, AIMessage)
        for made in message.tool_calls
        if made["id"] in answers
    ]
    return Transcript(seen, str(messages[-1].content) or None, report())


def _json_is_parsed_before_us(world: World) -> None:
    """LangChain reads the model's text itself: what is no JSON object never becomes a tool call."""
    broken = {
        "name": "store",
        "args": '{"payload": {"a": 1',
        "id": "c1",
        "error": None,
        "type": "invalid_tool_call",
    }
    model = ScriptedModel(AIMessage("", invalid_tool_calls=[broken]))
    agent = create_agent(model, world.tools("store"), middleware=[GovernanceMiddleware(world.client)])
    run(agent)
    assert world.effects.of() == []
    assert world.events() == []
