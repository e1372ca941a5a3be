"""From a framework's tool call to a decision and back: mapping, redaction, gate, denial, coverage.

Adapters use this package; so does anyone who governs calls of a framework that has no adapter.
"""

from agentlattice_core.toolcalls.call import CallKind, Denial, OnApproval, Permit, ToolCall
from agentlattice_core.toolcalls.coverage import Coverage, CoverageStatus, ToolCoverage
from agentlattice_core.toolcalls.denial import denial_schema
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import DecidingClient, GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, ToolMapping, arg, default_action_type, governed
from agentlattice_core.toolcalls.redaction import Redactor, redact_text

__all__ = [
    "ActionTable",
    "CallKind",
    "Coverage",
    "CoverageStatus",
    "DecidingClient",
    "Denial",
    "GovernanceClient",
    "OnApproval",
    "Permit",
    "Redactor",
    "ToolCall",
    "ToolCoverage",
    "ToolGate",
    "ToolMapping",
    "arg",
    "default_action_type",
    "denial_schema",
    "governed",
    "redact_text",
]
