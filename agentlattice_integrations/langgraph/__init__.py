"""AgentLattice for LangGraph and LangChain: every tool call is decided on, recorded, and explained when denied.

agent = create_agent(model, tools, middleware=[GovernanceMiddleware(al)])   # a LangChain agent
node = governed_tool_node(tools, al)                                        # a graph of your own
tools = govern(tools, al)                                                   # or what you already have
"""

from __future__ import annotations

try:
    import langchain.agents as _agents  # noqa: F401
    import langgraph.prebuilt as _prebuilt  # noqa: F401
except ImportError as missing:
    raise ImportError(
        'langgraph or langchain is not installed; run `pip install "agentlattice-integrations[langgraph]"`'
    ) from missing

from agentlattice_core.toolcalls.mapping import arg, governed
from agentlattice_integrations.langgraph.governing import coverage, govern, govern_tool
from agentlattice_integrations.langgraph.mcp import mcp_interceptor
from agentlattice_integrations.langgraph.middleware import GovernanceMiddleware
from agentlattice_integrations.langgraph.nodes import governed_tool_node, tool_call_wrappers
from agentlattice_integrations.langgraph.resuming import aresume_when_decided, resume_when_decided
from agentlattice_integrations.langgraph.tickets import current_action_id

__all__ = [
    "GovernanceMiddleware",
    "aresume_when_decided",
    "arg",
    "coverage",
    "current_action_id",
    "govern",
    "govern_tool",
    "governed",
    "governed_tool_node",
    "mcp_interceptor",
    "resume_when_decided",
    "tool_call_wrappers",
]
