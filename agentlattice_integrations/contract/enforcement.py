"""The contract that every adapter keeps, as one pytest class.

    from agentlattice_integrations.contract import EnforcementContract

    class TestMyFramework(EnforcementContract):
        harness = MyHarness()

Its parts: decisions, approvals, ways around the gate, and what happens when things go wrong.
"""

from __future__ import annotations

from agentlattice_integrations.contract.approvals import ApprovalContract
from agentlattice_integrations.contract.decisions import DecisionContract
from agentlattice_integrations.contract.paths import PathContract
from agentlattice_integrations.contract.safety import SafetyContract

__all__ = ["EnforcementContract"]


class EnforcementContract(DecisionContract, ApprovalContract, PathContract, SafetyContract):
    """Every promise an adapter makes. Subclass it and set `harness`."""
