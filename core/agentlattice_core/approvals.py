"""A person's part in an action.

| from | event | to | who |
|---|---|---|---|
| pending | vote | pending, or approved once every set has its quorum | an operator who may |
| pending | deny | denied: one denial ends it | an operator who may |
| pending | deadline | timed_out | nobody: the clock |
| pending | cancel | cancelled | the requesting agent |
| approved | claim | used (the claim is in `admission`) | the requesting agent |

Everything else is refused with IllegalTransitionError and changes nothing.

- Who approved and thinks better of it may still deny while the request is pending.
- A decision committed at or after `timeout_at` does not count, even if nothing has recorded the timeout yet.
- Where approvers are listed, only they count, administrators included. `user:` names a person, `group:` anyone in it.
- Segregation of duties: the requesting agent never decides, nor does the person who owns it.
- A decision may carry the digest of what was shown; if the request is not that, it is a conflict. The digest is the
  leaf hash of the entry that asked, which covers the action, its arguments, the policy and the terms.
- Escalation targets that are neither a user nor a group (`webhook:`) are told but do not decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from agentlattice_core.admission import Caller, stored_action
from agentlattice_core.batch import Batch
from agentlattice_core.clock import parse_time
from agentlattice_core.deadlines import resolution
from agentlattice_core.errors import ForbiddenError, IllegalTransitionError, NotFoundError
from agentlattice_core.principals import Operator
from agentlattice_core.results import ApprovalRequest, ConditionResult, RuleResult
from agentlattice_core.stores.base import Document, Row

__all__ = ["approval_request", "cancel", "decide", "operator_identity", "pending"]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def row(self, index: int) -> Row | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def decide(
    batch: Batch,
    operator: Operator,
    approval_id: str,
    *,
    approve: bool,
    reason: str | None,
    digest: str | None,
) -> ApprovalRequest:
    """An operator approves or denies. The answer is the request as it then stands: pending if the quorum is not full.

    Raises NotFoundError, ForbiddenError for an operator who may not, IllegalTransitionError if it is decided, too late,
    voted on before by the same person, or not what was shown.
    """
    approval = _known(batch, approval_id)
    if approval["status"] != "pending":
        raise IllegalTransitionError(_already(approval_id, approval), {"status": approval["status"]})
    if batch.now >= parse_time(approval["timeout_at"]):
        raise IllegalTransitionError(
            f"approval `{approval_id}` timed out at {approval['timeout_at']}, so it can no longer be decided"
        )
    _check_operator(batch, operator, approval_id, approval)
    if approve and any(vote["by"] == operator.name for vote in approval["votes"]):
        raise IllegalTransitionError(
            f"`{operator.name}` has approved `{approval_id}` already; another approver is needed"
        )
    row = batch.row(approval["entry"])
    assert row is not None
    if digest is not None and digest != row[2].hex():
        raise IllegalTransitionError(
            f"approval `{approval_id}` is not what was shown when this decision was made; look at it again"
        )
    votes = [*approval["votes"], {"by": operator.name, "groups": sorted(operator.groups)}]
    event = "denied" if not approve else "approved" if _satisfied(approval["sets"], votes) else "vote"
    data: dict[str, Any] = {
        "approval": approval_id,
        "event": event,
        "action": approval["action"],
        "action_type": approval["action_type"],
        "agent": approval["agent"],
        "agent_id": approval["agent_id"],
        "policy": approval["policy"],
        "by": operator.name,
        "groups": sorted(operator.groups),
        "shown": row[2].hex() if digest is not None else None,
    }
    if event == "approved":
        data["approved_by"] = [vote["by"] for vote in votes]
    payload = orjson.dumps({"reason": reason}) if reason else None
    batch.record("approval", operator_identity(operator), data, payload=payload)
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
    if approval["status"] != "pending":
        raise IllegalTransitionError(_already(approval_id, approval), {"status": approval["status"]})
    who = {"agent": caller.agent, "agent_id": agent_id, "established": caller.established}
    payload = orjson.dumps({"reason": reason}) if reason else None
    batch.record("approval", who, resolution(approval_id, approval, "cancelled"), payload=payload)


def pending(state: _State, at: str) -> list[ApprovalRequest]:
    """What waits for a person at the time `at` of the log, the nearest deadline first."""
    keys = [key.split("/", 1) for key, _ in state.scan("pending")]
    return [approval_request(state, approval_id) for deadline, approval_id in keys if deadline > at]


def approval_request(state: _State, approval_id: str) -> ApprovalRequest:
    """A request as an approver is shown it. Raises NotFoundError."""
    approval = _known(state, approval_id)
    row = state.row(approval["entry"])
    assert row is not None
    payload = orjson.loads(row[4]) if row[4] is not None else {}
    action = payload.get("action", {})
    reason = None
    if approval.get("resolution") is not None:
        resolution = state.row(approval["resolution"])
        if resolution is not None and resolution[4] is not None:
            reason = orjson.loads(resolution[4]).get("reason")
    policy = approval["policy"] or {}
    return ApprovalRequest(
        id=approval_id,
        status=approval["status"],
        action_type=approval["action_type"],
        audit_event_id=approval["action"],
        agent=approval["agent"],
        policy_name=policy.get("name"),
        policy_id=policy.get("id"),
        requested_at=approval["requested_at"],
        timeout_at=approval["timeout_at"],
        digest=row[2].hex(),
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
        reason=reason,
    )


def _known(state: _State, approval_id: str) -> Document:
    approval = state.get("approval", approval_id)
    if approval is None:
        raise NotFoundError(f"there is no approval `{approval_id:.80}`")
    return approval


def _already(approval_id: str, approval: Document) -> str:
    by = f" by `{approval['resolved_by']}`" if approval["resolved_by"] else ""
    return f"approval `{approval_id}` is already {approval['status']}{by}, so it cannot be decided again"


def _check_operator(batch: Batch, operator: Operator, approval_id: str, approval: Document) -> None:
    if operator.role == "viewer":
        raise ForbiddenError(f"`{operator.name}` is a viewer and may see approvals but not decide them")
    agent = batch.get("agent", approval["agent"])
    if operator.name == approval["agent"] or batch.get("agent", operator.name) is not None:
        raise ForbiddenError(f"`{operator.name}` is an agent, and no agent may decide on an approval")
    if agent is not None and agent["owner"] == operator.name:
        raise ForbiddenError(
            f"`{operator.name}` owns the agent `{approval['agent']}` that asks, so somebody else must decide"
        )
    listed = [one["approvers"] for one in approval["sets"] if one["approvers"]]
    if listed and not any(
        _matches(name, operator.name, operator.groups) for names in listed for name in names
    ):
        names = ", ".join(sorted({name for names in listed for name in names}))
        raise ForbiddenError(f"`{operator.name}` is not among the approvers of `{approval_id}` ({names})")


def _matches(approver: str, name: str, groups: Any) -> bool:
    kind, _, rest = approver.partition(":")
    return (kind == "user" and rest == name) or (kind == "group" and rest in groups)


def _satisfied(sets: list[Document], votes: list[Document]) -> bool:
    for one in sets:
        approvers, quorum = one["approvers"], one["quorum"]
        if quorum == "all" and approvers:
            if not _each_met(list(dict.fromkeys(approvers)), votes):
                return False
        else:
            counting = {
                vote["by"]
                for vote in votes
                if not approvers or any(_matches(a, vote["by"], vote["groups"]) for a in approvers)
            }
            if len(counting) < (1 if quorum == "all" else quorum):
                return False
    return True


def _each_met(approvers: list[str], votes: list[Document]) -> bool:
    """Whether each entry of a set can be met by a person of its own: nobody meets a group for a colleague named beside
    it, and nobody meets two groups.
    """
    meets: dict[str, str] = {}

    def find(approver: str, tried: set[str]) -> bool:
        for vote in votes:
            person = vote["by"]
            if person in tried or not _matches(approver, person, vote["groups"]):
                continue
            tried.add(person)
            if person not in meets or find(meets[person], tried):
                meets[person] = approver
                return True
        return False

    return all(find(approver, set()) for approver in approvers)


def operator_identity(operator: Operator) -> dict[str, Any]:
    """How entries name the person who acted."""
    return {"operator": operator.name, "role": operator.role, "established": operator.established}
