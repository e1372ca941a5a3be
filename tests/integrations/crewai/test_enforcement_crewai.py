"""CrewAI held to the enforcement contract, in both of its ways to call tools."""

from __future__ import annotations

from crew_harness import CrewAIHarness, ReActHarness

from agentlattice_integrations.contract import EnforcementContract


class TestNativeCalls(EnforcementContract):
    """Function calls of the model's own."""

    harness = CrewAIHarness()


class TestTextProtocol(EnforcementContract):
    """CrewAI's text protocol, for models without function calls."""

    harness = ReActHarness()
