"""LangGraph keeps the pause contract."""

from __future__ import annotations

from langgraph_pause_harness import MiddlewarePauses, NodePauses, ToolsPauses

from agentlattice_integrations.contract import PauseContract


class TestMiddleware(PauseContract):
    """An agent of `create_agent`."""

    harness = MiddlewarePauses()


class TestGovernedTools(PauseContract):
    """An agent of `create_agent` over governed tools."""

    harness = ToolsPauses()


class TestGovernedToolNode(PauseContract):
    """A graph of one's own."""

    harness = NodePauses()
