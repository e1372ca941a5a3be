"""The OpenAI Agents SDK keeps the pause contract."""

from __future__ import annotations

from openai_pause_harness import RunPauses

from agentlattice_integrations.contract import PauseContract


class TestRun(PauseContract):
    """A run that pauses, and one without a trace, which waits."""

    harness = RunPauses()
