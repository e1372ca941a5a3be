"""A person's part in an action.

| from | event | to | who |
|---|---|---|---|
| pending | vote | pending, or approved once every set has its quorum | an operator who may |
| pending | deny | denied: one denial ends it | an operator who may |
| pending | cancel | cancelled | the requesting agent |
| pending | escalation | pending, with more approvers | the clock (`deadlines`) |
| pending | deadline | timed_out | the clock |
| pending | policy change | approved, denied, or amended and pending | policy (`reevaluation`) |
| approved | claim | used, or refused | the requesting agent (`admission`) |
| approved | 24 hours | lapsed | the clock |

Everything else is refused with IllegalTransitionError and changes nothing.

- Who approved and thinks better of it may still deny while the request is pending.
- A decision committed at or after `timeout_at` does not count, even if nothing has recorded the timeout yet.
- Whose vote counts is `quorum`'s to say, who may not decide `segregation`'s, and which role and groups a person has
  `operators`'.
- A decision may carry the digest of what was shown; if the request is not that, it is a conflict. The digest is the
  leaf hash of the entry that asked, which covers the action, its arguments, the policy and the terms; once the request
  was amended, it covers the entry that did so as well.
- Approving forever changes policy (`forever`) once everybody whom it takes has said forever. A request that enough
  approve, but not all of them forever, is approved this once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from agentlattice_core import forever as lasting
from agentlattice_core import operators, quorum
from agentlattice_core.admission import Caller, stored_action
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time
from agentlattice_core.deadlines import GRANT_LIFE, resolution
from agentlattice_core.errors import (
    DigestMismatchError,
    ForbiddenError,
    IllegalTransitionError,
    NotFoundError,
    NotYourEventError,
)
from agentlattice_core.policies import Policies
from agentlattice_core.principals import Forever, Operator
from agentlattice_core.results import ApprovalRequest, ConditionResult, RuleResult
from agentlattice_core.segregation import check_segregation
from agentlattice_core.stores.base import Document, Row

__all__ = ["approval_request", "cancel", "decide", "pending", "status_of"]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def row(self, index: int) -> Row | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def decide(
    policies: Policies,
    batch: Batch,
    operator: Operator,
    approval_id: str,
    *,
    approve: bool,
    reason: str | None,
    digest: str | None,
    forever: Forever | None = None,
) -> ApprovalRequest:
    """An operator approves or denies. The answer is the request as it then stands: pending if the quorum is not full.

    Raises NotFoundError, ForbiddenError for an operator who may not, DigestMismatchError if it is not what was shown,
    IllegalTransitionError if it is decided, too late, or voted on before by the same person.
    """
    approval = _known(batch, approval_id)
    _check_pending(approval_id, approval, batch.at)
    operator = operators.standing(batch, operator)
    _check_operator(batch, operator, approval_id, approval)
    if approve and any(vote["by"] == operator.name for vote in approval["votes"]):
        raise IllegalTransitionError(
            f"`{operator.name}` has approved `{approval_id}` already; another approver is needed"
        )
    shown = _digest(batch, approval)
    if digest is not None and digest != shown:
        raise DigestMismatchError(approval_id)
    if forever is not None:
        lasting.check(batch, operator, approval_id, approval, forever)
    votes = [*approval["votes"], {"by": operator.name, "groups": sorted(operator.groups)}]
    added = quorum.added_by_escalation(approval)
    enough = approve and quorum.satisfied(approval["sets"], added, votes)
    data = resolution(approval_id, approval, "approved" if enough else "vote" if approve else "denied")
    data |= {
        "by": operator.name,
        "groups": sorted(operator.groups),
        "shown": shown if digest is not None else None,
    }
    if forever is not None:
        data["forever"] = forever
    if enough:
        data["approved_by"] = [vote["by"] for vote in votes]
        data["lapses_at"] = format_time(batch.now + GRANT_LIFE)
    payload = orjson.dumps({"reason": reason}) if reason else None
    batch.record("approval", operators.operator_identity(operator), data, payload=payload)
    if enough and forever is not None:
        lasting.publish(policies, batch, operators.operator_identity(operator), approval_id, forever)
    return approval_request(batch, approval_id)


def cancel(batch: Batch, caller: Caller, audit_event_id: str, reason: str | None) -> None:
    """The requesting agent takes its request back. Raises as `decide` does."""
    _, agent_id, document = stored_action(batch, caller, audit_event_id)
    approval_id = document.get("approval")
    if approval_id is None:
        raise IllegalTransitionError(
            f"action `{audit_event_id}` waits for nobody, so there is nothing to cancel"
        )
    approval = _known(batch, approval_id)
    _check_pending(approval_id, approval, batch.at)
    who = {"agent": caller.agent, "agent_id": agent_id, "established": caller.established}
    payload = orjson.dumps({"reason": reason}) if reason else None
    batch.record("approval", who, resolution(approval_id, approval, "cancelled"), payload=payload)


def pending(state: _State, at: str) -> list[ApprovalRequest]:
    """What waits for a person at the time `at` of the log, the nearest deadline first."""
    keys = [key.split("/", 1) for key, _ in state.scan("pending")]
    return [approval_request(state, approval_id) for deadline, approval_id in keys if deadline > at]


def status_of(state: _State, agent: str, approval_id: str, at: str) -> str:
    """How a request of `agent` stands at the time `at` of the log.

    Raises NotFoundError, and NotYourEventError for another agent's request.
    """
    approval = _known(state, approval_id)
    if approval["agent"] != agent:
        raise NotYourEventError(approval["action"])
    status: str = approval["status"]
    return "timed_out" if status == "pending" and at >= approval["timeout_at"] else status


def approval_request(state: _State, approval_id: str) -> ApprovalRequest:
    """A request as an approver is shown it. Raises NotFoundError."""
    approval = _known(state, approval_id)
    row = state.row(approval["entry"])
    assert row is not None
    payload = orjson.loads(row[4]) if row[4] is not None else {}
    action = payload.get("action", {})
    if "amended" in approval:
        payload = _payload(state, approval["amended"])
    reason = note = None
    if "resolution" in approval:
        reason = _payload(state, approval["resolution"]).get("reason")
        end = state.row(approval["resolution"])
        note = orjson.loads(end[1])["data"].get("note") if end is not None else None
    policy = approval["policy"] or {}
    waits = approval["status"] == "pending"
    return ApprovalRequest(
        id=approval_id,
        status="escalated" if waits and "escalated_at" in approval else approval["status"],
        action_type=approval["action_type"],
        audit_event_id=approval["action"],
        agent=approval["agent"],
        policy_name=policy.get("name"),
        policy_id=policy.get("id"),
        requested_at=approval["requested_at"],
        timeout_at=approval["timeout_at"],
        digest=_digest(state, approval),
        approvers=approval["sets"],
        data_accessed=action.get("data_accessed", []),
        metadata=action.get("metadata", {}),
        amount=action.get("amount"),
        currency=action.get("currency"),
        beneficiary=action.get("beneficiary"),
        category=action.get("category"),
        on_behalf_of=action.get("on_behalf_of"),
        conditions_evaluated=[ConditionResult.from_dict(c) for c in payload.get("conditions", ())],
        rules_fired=[RuleResult.from_dict(r) for r in payload.get("rules", ())],
        resolved_by=approval["resolved_by"],
        resolved_at=approval["resolved_at"],
        reason=reason or note,
        approved_by=[vote["by"] for vote in approval["votes"]],
        escalated_at=approval.get("escalated_at"),
        escalated_to=quorum.added_by_escalation(approval),
        forever=approval.get("forever"),
    )


def _payload(state: _State, index: int) -> dict[str, Any]:
    row = state.row(index)
    payload: dict[str, Any] = orjson.loads(row[4]) if row is not None and row[4] is not None else {}
    return payload


def _digest(state: _State, approval: Document) -> str:
    """What commits to the request as it is shown."""
    asked = state.row(approval["entry"])
    assert asked is not None
    if "amended" not in approval:
        return asked[2].hex()
    amended = state.row(approval["amended"])
    assert amended is not None
    return hashlib.sha256(asked[2] + amended[2]).hexdigest()


def _known(state: _State, approval_id: str) -> Document:
    approval = state.get("approval", approval_id)
    if approval is None:
        raise NotFoundError(f"there is no approval `{approval_id:.80}`")
    return approval


def _check_pending(approval_id: str, approval: Document, at: str) -> None:
    status = approval["status"]
    if status == "timed_out" or (status == "pending" and approval["timeout_at"] <= at):
        raise IllegalTransitionError(
            f"approval `{approval_id}` timed out at {approval['timeout_at']}, so it can no longer be decided",
            {"status": "timed_out"},
        )
    if status != "pending":
        by = f" by `{approval['resolved_by']}`" if approval["resolved_by"] else ""
        raise IllegalTransitionError(
            f"approval `{approval_id}` is already {status}{by}, so it cannot be decided again",
            {"status": status},
        )


def _check_operator(batch: Batch, operator: Operator, approval_id: str, approval: Document) -> None:
    if operator.role == "viewer":
        raise ForbiddenError(f"`{operator.name}` is a viewer and may see approvals but not decide them")
    check_segregation(batch, approval["agent"], operator.name)
    sets, added = approval["sets"], quorum.added_by_escalation(approval)
    if not quorum.listed(sets, added, operator.name, operator.groups):
        names = ", ".join(sorted({*(name for one in sets for name in one["approvers"]), *added}))
        raise ForbiddenError(f"`{operator.name}` is not among the approvers of `{approval_id}` ({names})")
