"""What every adapter must keep, as pytest classes to subclass: see `EnforcementContract` and `PauseContract`.

Needs pytest, jsonschema and mcp, which no adapter needs to run.
"""

import pytest

# The parts assert; without this their failures would not show the values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in ("base", "world", "decisions", "approvals", "paths", "safety", "pauses", "pause_cells")
    )
)

from agentlattice_integrations.contract.enforcement import EnforcementContract  # noqa: E402
from agentlattice_integrations.contract.harness import (  # noqa: E402
    Alternative,
    Feature,
    FrameworkHarness,
    Governance,
    How,
    McpServer,
    ScriptedCall,
    Seen,
    Transcript,
    Turn,
)
from agentlattice_integrations.contract.pause_harness import PausedAgent, PauseHarness, Resumed  # noqa: E402
from agentlattice_integrations.contract.pauses import PauseContract  # noqa: E402
from agentlattice_integrations.contract.world import World  # noqa: E402

__all__ = [
    "Alternative",
    "EnforcementContract",
    "Feature",
    "FrameworkHarness",
    "Governance",
    "How",
    "McpServer",
    "PauseContract",
    "PauseHarness",
    "PausedAgent",
    "Resumed",
    "ScriptedCall",
    "Seen",
    "Transcript",
    "Turn",
    "World",
]
