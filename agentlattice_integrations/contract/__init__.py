"""What every adapter must keep, as a pytest class to subclass: see `EnforcementContract`."""

from agentlattice_integrations.contract.harness import (
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

__all__ = [
    "Alternative",
    "Feature",
    "FrameworkHarness",
    "Governance",
    "How",
    "McpServer",
    "ScriptedCall",
    "Seen",
    "Transcript",
    "Turn",
]
