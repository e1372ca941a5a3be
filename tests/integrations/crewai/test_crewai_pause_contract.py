"""CrewAI keeps the pause contract."""

from __future__ import annotations

from crew_pause_harness import FlowPauses

from agentlattice_integrations.contract import PauseContract


class TestFlow(PauseContract):
    """A flow that pauses, and a crew that has none and waits."""

    harness = FlowPauses()
