"""Governance for agents built with the OpenAI Agents SDK.

    from agentlattice_integrations.openai_agents import govern

    agent = govern(agent, AgentLattice.embedded("governance.db", policies="policies.yaml", agent="support"))

From then on every tool call, hand-off and MCP call of the agent, and of all agents it can reach, is decided on before
it takes effect. `govern` also takes one tool or a list; `governance_guardrail` is the SDK's own form for one tool. With
`on_approval="pause"` a run ends where a person has to decide, and `apply_decisions` carries what was decided into its
state.
"""

from __future__ import annotations

try:
    import agents as _agents  # noqa: F401
except ImportError as missing:
    raise ImportError(
        'the OpenAI Agents SDK is not installed; run `pip install "agentlattice-integrations[openai-agents]"`'
    ) from missing

from agentlattice_integrations.openai_agents.decisions import PendingCall, apply_decisions
from agentlattice_integrations.openai_agents.function_tools import governance_guardrail, outcome_guardrail
from agentlattice_integrations.openai_agents.governing import coverage, govern
from agentlattice_integrations.openai_agents.governor import current_action_id
from agentlattice_integrations.openai_agents.pausing import RunPaused, pause_block

__all__ = [
    "PendingCall",
    "RunPaused",
    "apply_decisions",
    "coverage",
    "current_action_id",
    "govern",
    "governance_guardrail",
    "outcome_guardrail",
    "pause_block",
]
