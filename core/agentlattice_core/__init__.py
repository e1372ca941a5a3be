"""AgentLattice: governance for what AI agents do.

    from agentlattice_core import AgentLattice

    al = AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci-deployer")
    await al.gate("db.migrate", metadata={"table": "users"})

Every name that the hosted product's client exports is exported here too, so that code written for it needs one changed
import.
"""

from agentlattice_core.client import AgentLattice
from agentlattice_core.delegated import DelegatedAgent
from agentlattice_core.delegating import Delegate, Parallel
from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    ApprovalTimeoutError,
    AuditError,
    DigestMismatchError,
    EventIdConflictError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
    NotRecordedError,
    NotYourEventError,
    PolicyDocumentError,
    PolicyProblem,
    StoreError,
)
from agentlattice_core.results import (
    ActionOptions,
    ActionResult,
    ApprovalRequest,
    AuditEvent,
    AuditResult,
    CanIResult,
    ConditionResult,
    DelegationEntry,
    DelegationsResult,
    GovernanceEvent,
    PoliciesResult,
    PolicyRehearsal,
    PolicySummary,
    PostureComponent,
    PostureResult,
    RegistryEntry,
    ReportOutcome,
    ReportResult,
    RevokeResult,
    RuleResult,
    VerifyResult,
    WhoamiResult,
)

# What the hosted product's client calls the blocks of `delegate` and `parallel`, for annotations.
DelegationContext = SyncDelegationContext = Delegate
ParallelDelegation = SyncParallelDelegation = Parallel

__all__ = [
    "ActionOptions",
    "ActionResult",
    "AgentLattice",
    "AgentLatticeDeniedError",
    "AgentLatticeError",
    "AgentLatticeTimeoutError",
    "ApprovalRequest",
    "ApprovalTimeoutError",
    "AuditError",
    "AuditEvent",
    "AuditResult",
    "CanIResult",
    "ConditionResult",
    "Delegate",
    "DelegatedAgent",
    "DelegationContext",
    "DelegationEntry",
    "DelegationsResult",
    "DigestMismatchError",
    "EventIdConflictError",
    "ForbiddenError",
    "GovernanceEvent",
    "IllegalTransitionError",
    "InvalidRequestError",
    "NotFoundError",
    "NotRecordedError",
    "NotYourEventError",
    "ParallelDelegation",
    "PoliciesResult",
    "PolicyDocumentError",
    "PolicyProblem",
    "PolicyRehearsal",
    "PolicySummary",
    "PostureComponent",
    "PostureResult",
    "RegistryEntry",
    "ReportOutcome",
    "ReportResult",
    "RevokeResult",
    "RuleResult",
    "StoreError",
    "SyncDelegationContext",
    "SyncParallelDelegation",
    "VerifyResult",
    "WhoamiResult",
]
