"""Governed tools for CrewAI: policy, approvals and audit before every tool call of an agent or crew.

from agentlattice_core import AgentLattice
from agentlattice_integrations.crewai import govern

al = AgentLattice.embedded("governance.db", policies="policies.yaml", agent="researcher")
crew = govern(Crew(agents=[...], tasks=[...]), al)
"""

from __future__ import annotations

try:
    import crewai  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "crewai":
        raise
    raise ImportError(
        'crewai is not installed; run `pip install "agentlattice-integrations[crewai]"`'
    ) from error

from agentlattice_integrations.crewai.denials import ToolDenied
from agentlattice_integrations.crewai.feedback import ApprovalFeedback, approval_feedback
from agentlattice_integrations.crewai.govern import GovernanceHooks, coverage, govern
from agentlattice_integrations.crewai.guardrails import task_guardrail
from agentlattice_integrations.crewai.scope import current_action_id

__all__ = [
    "ApprovalFeedback",
    "GovernanceHooks",
    "ToolDenied",
    "approval_feedback",
    "coverage",
    "current_action_id",
    "govern",
    "task_guardrail",
]
