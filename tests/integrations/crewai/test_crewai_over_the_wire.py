"""CrewAI with a service between the adapter and the log: decisions and approvals as with a file."""

from __future__ import annotations

from crew_harness import CrewAIHarness
from wire_world import WireWorld

from agentlattice_integrations.contract.approvals import ApprovalContract
from agentlattice_integrations.contract.decisions import DecisionContract


class TestCrewAIOverTheWire(DecisionContract, ApprovalContract):
    """The agent's client holds a key, and a person decides by another one."""

    harness = CrewAIHarness()
    world_type = WireWorld
