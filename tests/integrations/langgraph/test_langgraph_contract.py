"""LangGraph keeps the contract, whichever way governance enters it."""

from __future__ import annotations

from langgraph_harness import AgentHarness, GraphHarness, MiddlewareHarness, NodeHarness, ToolsHarness

from agentlattice_integrations.contract import EnforcementContract


class TestMiddleware(EnforcementContract):
    """`create_agent(..., middleware=[GovernanceMiddleware(al)])`."""

    harness = MiddlewareHarness()


class TestGovernedAgent(EnforcementContract):
    """`govern(create_agent(...), al)`."""

    harness = AgentHarness()


class TestGovernedTools(EnforcementContract):
    """`create_agent(model, govern(tools, al))`."""

    harness = ToolsHarness()


class TestGovernedToolNode(EnforcementContract):
    """`governed_tool_node(tools, al)` in a graph of one's own."""

    harness = NodeHarness()


class TestGovernedGraph(EnforcementContract):
    """`govern(graph, al)` over a graph of one's own."""

    harness = GraphHarness()
