"""What the client answers with: one dataclass per answer, the same embedded and remote.

Names, members and defaults are those of the hosted product's Python client (reference: the SDK's documentation and the
wire protocol), so that code written for it needs no change. Members it does not have are ours and optional.
Timestamps are RFC 3339 strings in UTC with a trailing `Z`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ActionOptions",
    "ActionResult",
    "ApprovalRequest",
    "AuditEvent",
    "AuditResult",
    "CanIResult",
    "ConditionResult",
    "DelegationEntry",
    "DelegationsResult",
    "GovernanceEvent",
    "PoliciesResult",
    "PolicyRehearsal",
    "PolicySummary",
    "PostureComponent",
    "PostureResult",
    "RegistryEntry",
    "ReportOutcome",
    "ReportResult",
    "RevokeResult",
    "RuleResult",
    "VerifyResult",
    "WhoamiResult",
]


@dataclass
class ConditionResult:
    """One evaluated condition. `result` False marks what blocked; under `not` the negated operator is reported.

    `expected` and `actual` are blank (`None`) where the policy's `explain` hides them.
    """

    field: str
    operator: str
    expected: Any
    result: bool
    actual: Any = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> ConditionResult:
        return cls(d["field"], d["operator"], d["expected"], d["result"], d.get("actual"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "operator": self.operator,
            "expected": self.expected,
            "result": self.result,
            "actual": self.actual,
        }


@dataclass
class RuleResult:
    """One spend rule that fired: which (`policy`, `priority`, `type`), its `effect`, and why, for the agent to read."""

    policy: str
    priority: int
    type: str
    effect: str
    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> RuleResult:
        return cls(
            d["policy"], d["priority"], d["type"], d["effect"], d.get("message"), dict(d.get("details") or {})
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "priority": self.priority,
            "type": self.type,
            "effect": self.effect,
            "message": self.message,
            "details": self.details,
        }


@dataclass
class ActionResult:
    """The answer to an action.

    `status` is `executed` (go ahead), `requested` (a person is asked; see `approval_id`, `timeout_at`), `denied`
    (see `denial_reason`), `timed_out` or `policy_not_found`. `audit_event_id` names the action in the log and serves
    as its idempotency key. `replayed` says that the event id was seen before and this is the original answer;
    `observed` that the action may run only because the client is in observe mode, and `status` is what enforcement
    would have answered.
    """

    status: str
    audit_event_id: str
    approval_id: str | None = None
    message: str | None = None
    timeout_at: str | None = None
    denial_reason: str | None = None
    policy_name: str | None = None
    conditions_evaluated: list[ConditionResult] = field(default_factory=list)
    rules_fired: list[RuleResult] = field(default_factory=list)
    replayed: bool = False
    observed: bool = False
    claim: str | None = None

    @property
    def may_run(self) -> bool:
        """Whether the caller holds the right to run the action now."""
        return self.observed or self.status == "executed"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> ActionResult:
        return cls(
            status=d["status"],
            audit_event_id=d["audit_event_id"],
            approval_id=d.get("approval_id"),
            message=d.get("message"),
            timeout_at=d.get("timeout_at"),
            denial_reason=d.get("denial_reason"),
            policy_name=d.get("policy_name"),
            conditions_evaluated=[ConditionResult.from_dict(c) for c in d.get("conditions_evaluated") or ()],
            rules_fired=[RuleResult.from_dict(r) for r in d.get("rules_fired") or ()],
            replayed=d.get("replayed", False),
            observed=d.get("observed", False),
            claim=d.get("claim"),
        )


@dataclass
class ActionOptions:
    """What an action carries beside its type.

    `data_accessed` lists what it touches: `{"type": str, "count": int, "sensitivity": "low|medium|high|critical"}`.
    `metadata` is free-form JSON. `event_id` makes a retry idempotent. `amount` is an exact decimal (a string, an int or
    a `Decimal`; a float is read by its shortest decimal form).
    """

    data_accessed: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
    event_id: str | None = None
    amount: Any = None
    currency: str | None = None
    beneficiary: str | None = None
    category: str | None = None
    on_behalf_of: str | None = None


@dataclass
class PolicySummary:
    id: str
    name: str
    action_type: str
    approval_required: bool
    has_conditions: bool
    version: int
    created_at: str


@dataclass
class DelegationEntry:
    """A delegation. `scope` is `{"action_types": [...]}`; `status` active, closed, revoked or expired.

    `agent` is the name under which the child acts, `name` the one that `parent`, an agent's name too, gave it;
    `clamped` says that its life was cut to its parent's.
    """

    id: str
    scope: dict[str, Any]
    expires_at: str
    active: bool
    parent_config_id: str | None = None
    child_config_id: str | None = None
    name: str | None = None
    agent: str | None = None
    status: str | None = None
    clamped: bool = False
    parent: str | None = None


@dataclass
class WhoamiResult:
    """`cb_state` is MONITORING, WARN, HALT or KILLED; `delegations` has the keys `as_parent` and `as_child`."""

    config_id: str
    name: str
    org_id: str
    is_active: bool
    cb_state: str
    calibration: dict[str, Any]
    policies: list[PolicySummary]
    delegations: dict[str, list[DelegationEntry]]


@dataclass
class PoliciesResult:
    scope: str
    policies: list[PolicySummary]


@dataclass
class CanIResult:
    """A dry run. `reason` is a denial reason, `POLICY_NOT_FOUND`, or `NEEDS_DATA` with `missing` naming the fields
    that the agent may be told.
    """

    allowed: bool
    needs_approval: bool
    action_type: str
    policy_name: str | None = None
    reason: str | None = None
    conditions_evaluated: list[ConditionResult] = field(default_factory=list)
    rules_fired: list[RuleResult] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass
class AuditEvent:
    """An action of the audit trail, with what became of it.

    `approval` is the decision on it once there is one: `id`, `decision` (approved, denied, timed_out or cancelled),
    `operator` (None where no person decided), `reason`, `at`, `policy` (the name of the policy that asked) and
    `approved_by`, everybody whose vote counted.
    """

    id: str
    action_type: str
    status: str
    timestamp: str
    created_at: str
    data_accessed: list[Any] = field(default_factory=list)
    repo: str | None = None
    branch: str | None = None
    pr_number: int | None = None
    policy_id: str | None = None
    policy_version: str | None = None
    agent: str | None = None
    policy_name: str | None = None
    approved_by: str | None = None
    approved_at: str | None = None
    denial_reason: str | None = None
    conditions_evaluated: list[ConditionResult] = field(default_factory=list)
    anomaly: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    claim: str | None = None
    outcome: dict[str, Any] | None = None
    erased: bool = False
    approval: dict[str, Any] | None = None


@dataclass
class AuditResult:
    events: list[AuditEvent]
    next_cursor: str | None


@dataclass
class VerifyResult:
    """`first_broken_at_row_id` names the first row that is not what was written; `problem` says what is wrong with
    it. `cuts` says where an older copy was restored and accepted: entries that were signed are lost there.
    """

    org_id: str
    chain_valid: bool
    verified_through_row: int
    chain_hash: str | None
    verified_from_checkpoint: bool
    timestamp: str
    first_broken_at_row_id: str | None = None
    problem: str | None = None
    cuts: list[str] = field(default_factory=list)


@dataclass
class DelegationsResult:
    delegations: list[DelegationEntry]


@dataclass
class RevokeResult:
    revoked: bool
    delegation_id: str


@dataclass
class RegistryEntry:
    """One entry of a registry that is kept in the store. `caps` are amounts by name, as text; `audit_event_id` names
    the action that changed it last.
    """

    registry: str
    value: str
    tags: list[str]
    caps: dict[str, str]
    changed_at: str
    audit_event_id: str


@dataclass
class ReportOutcome:
    """How the action went: `status` is success, failure or partial."""

    status: str
    message: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass
class ReportResult:
    audit_event_id: str
    status: str
    reported_at: str


@dataclass
class PostureComponent:
    """One part of a posture: `score` of at most `max`. `extra` holds the counts that it is made of."""

    score: float
    max: float
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class PostureResult:
    """`score` is from 0 to 100: what the components earned of what they could have. `unmeasured` says of components
    that there is nothing to score, and why.
    """

    score: float
    components: dict[str, PostureComponent]
    unmeasured: dict[str, str] = field(default_factory=dict)


@dataclass
class GovernanceEvent:
    """A notification: `event_type` such as `action.denied`, `action.executed`, `approval.requested`,
    `policy.changed`.
    """

    event_type: str
    timestamp: str
    org_id: str
    data: dict[str, Any]
    agent_id: str | None = None


@dataclass
class ApprovalRequest:
    """What an approver is shown. `status` is pending, escalated, approved, denied, timed_out or cancelled.

    `digest` commits to what is shown here; a decision that carries it is refused if the request differs.
    `approvers` is what the policy asks for: sets, each `{"approvers": [...], "quorum": int | "all"}`. `escalated_to`
    may decide too since `escalated_at`. `approved_by` are those who approved so far; their votes count as long as the
    policy lists them. `resolved_by` is None where no person decided: `status` timed_out or cancelled, or policy changed
    (`reason` then says how). `forever` is `policy` or `agent` if approving it changed policy.
    """

    id: str
    status: str
    action_type: str
    audit_event_id: str
    agent: str
    policy_name: str | None
    policy_id: str | None
    requested_at: str
    timeout_at: str
    digest: str
    approvers: list[dict[str, Any]] = field(default_factory=list)
    data_accessed: list[Any] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    amount: str | None = None
    currency: str | None = None
    beneficiary: str | None = None
    category: str | None = None
    on_behalf_of: str | None = None
    conditions_evaluated: list[ConditionResult] = field(default_factory=list)
    rules_fired: list[RuleResult] = field(default_factory=list)
    resolved_by: str | None = None
    resolved_at: str | None = None
    reason: str | None = None
    approved_by: list[str] = field(default_factory=list)
    escalated_at: str | None = None
    escalated_to: list[str] = field(default_factory=list)
    forever: str | None = None

    @property
    def waits(self) -> bool:
        """Whether it can still be decided."""
        return self.status in ("pending", "escalated")


@dataclass
class PolicyRehearsal:
    """What applying policy files would do: ids of the parts that would change, and the pending requests, as they would
    then stand, that would be approved or denied by nobody, or amended.
    """

    changed: list[str]
    approved: list[ApprovalRequest] = field(default_factory=list)
    denied: list[ApprovalRequest] = field(default_factory=list)
    amended: list[ApprovalRequest] = field(default_factory=list)
