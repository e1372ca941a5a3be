"""What clients read: identity, policies, dry runs, the audit trail, verification. Nothing here writes.

- Each function takes a reader, which is one consistent view of what is durable.
- An agent sees its own actions, and of a condition only what the policy's `explain` lets it see. An operator sees all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson

from agentlattice_core import deadlines
from agentlattice_core.actions import Action
from agentlattice_core.admission import original_result, resolved_reason
from agentlattice_core.agents import agent_facts
from agentlattice_core.clock import parse_time
from agentlattice_core.delegation import delegations
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policies import Policies
from agentlattice_core.policy.decision import Facts
from agentlattice_core.policy.explain import hide
from agentlattice_core.results import (
    AuditEvent,
    AuditResult,
    CanIResult,
    ConditionResult,
    PoliciesResult,
    PolicySummary,
    WhoamiResult,
)
from agentlattice_core.stores.base import Document, Reader, Row
from agentlattice_core.stores.projections import PAGE, acted_key, action_key, pages_of

__all__ = ["MAX_PAGE", "audit_page", "can_i", "policies_of", "whoami"]

MAX_PAGE = 200
"""Most events on one page of the audit trail."""


def can_i(policies: Policies, reader: Reader, agent: str, action: Action, at: str) -> CanIResult:
    """What `execute` would answer at the time `at` of the log, with nothing recorded."""
    overdue = deadlines.overdue_reservations(reader, at)

    def used(key: str) -> Decimal:
        document = reader.get("limit", key)
        total = Decimal(document["used"]) if document is not None else Decimal(0)
        return total - overdue.get(key, Decimal(0))

    facts = Facts(action, agent_facts(reader, agent), parse_time(at), used, policies.registries(reader))
    decision = policies.at(reader).decide(facts)
    shown = hide(decision)
    reason: str | None = decision.denial_reason
    if decision.missing:
        reason = "NEEDS_DATA"
    elif decision.outcome == "not_found":
        reason = "POLICY_NOT_FOUND"
    return CanIResult(
        allowed=decision.outcome == "allow" and not decision.missing,
        needs_approval=decision.outcome == "require_approval" and not decision.missing,
        action_type=action.action_type,
        policy_name=decision.policy.name if decision.policy is not None else None,
        reason=reason,
        conditions_evaluated=list(shown.conditions),
        rules_fired=list(shown.rules),
        missing=list(shown.missing),
    )


def policies_of(policies: Policies, reader: Reader, agent: str | None) -> PoliciesResult:
    """The policies that may concern `agent`, or all of them for None."""
    facts = agent_facts(reader, agent) if agent is not None else None
    return PoliciesResult("org" if agent is None else "own", list(policies.at(reader).summaries(facts)))


def whoami(policies: Policies, reader: Reader, agent: str, log_id: str, at: str) -> WhoamiResult:
    """The agent's identity at the time `at` of the log, what governs it, and its delegations in force."""
    facts = agent_facts(reader, agent)
    given = [link.delegation for link in facts.lineage[1:]]
    now = parse_time(at)
    own: list[PolicySummary] = policies_of(policies, reader, agent).policies
    return WhoamiResult(
        config_id=facts.id,
        name=(reader.get("agent", agent) or {}).get("name", facts.name),
        org_id=log_id,
        is_active=all(one is not None and one.status == "active" and now < one.expires_at for one in given),
        cb_state="MONITORING",
        calibration={
            "actions": sum(1 for _ in reader.scan("action", f"{facts.id}/", limit=1000)),
            "complete": False,
        },
        policies=own,
        delegations={
            f"as_{role}": delegations(reader, agent, role, active_only=True, at=at)
            for role in ("parent", "child")
        },
    )


def audit_page(
    reader: Reader,
    *,
    agent: str | None,
    cursor: str | None,
    limit: int,
    action_type: str | None,
    for_operator: bool = False,
) -> AuditResult:
    """Actions, newest first: those of `agent`, or everybody's for None.

    One agent's are shown as that agent may see them, unless they are `for_operator`. Raises InvalidRequestError for a
    bad cursor.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequestError(f"limit `{limit}` must be from 1 to {MAX_PAGE}")
    before = reader.head.size if cursor is None else _position(cursor)
    if action_type is not None and not action_type.isprintable():
        return AuditResult([], None)  # no action is of such a type, and no store need be asked for it
    events: list[AuditEvent] = []
    found: Iterator[tuple[int, Document]]
    if agent is not None:
        found = _own(reader, agent_facts(reader, agent).id, before, action_type)
    else:
        found = _everybodys(reader, before, action_type)
    for index, document in found:
        if action_type is not None and document["type"] != action_type:
            continue
        if len(events) == limit:
            return AuditResult(events, f"{int(events[-1].id[4:16], 16):x}")
        row = reader.row(index)
        assert row is not None
        events.append(audit_event(reader, row, document, for_agent=agent is not None and not for_operator))
    return AuditResult(events, None)


def _position(cursor: str) -> int:
    if not isinstance(cursor, str) or not re.fullmatch("[0-9a-f]{1,12}", cursor):
        raise InvalidRequestError(
            f"cursor `{cursor!s:.80}` is not one of ours; pass `next_cursor` as it came"
        )
    return int(cursor, 16)


def _own(
    reader: Reader, agent_id: str, before: int, action_type: str | None
) -> Iterator[tuple[int, Document]]:
    """An agent's actions, newest first; with an action type, at least all of that type."""
    after = action_key(agent_id, before)
    for prefix in [f"{agent_id}/"] if action_type is None else _pages(reader, agent_id, before, action_type):
        for key, document in reader.scan("action", prefix, after=after, reverse=True):
            yield int(key.rsplit("/", 1)[1], 16), document


def _pages(reader: Reader, agent_id: str, before: int, action_type: str) -> Iterator[str]:
    """What the keys begin with of actions in each page of the log that holds one of that type, newest first."""
    pages = pages_of(agent_id, action_type)
    beyond = acted_key(agent_id, action_type, before + PAGE)
    for key, _ in reader.scan("acted", pages, after=beyond, reverse=True):
        yield f"{agent_id}/{key[len(pages) :]}"


def _everybodys(reader: Reader, before: int, action_type: str | None) -> Iterator[tuple[int, Document]]:
    """Everybody's actions, newest first; with an action type, at least all of that type."""
    # Most entries can be told by a look at their bytes, which is much cheaper than parsing them.
    wanted = b'"kind":"action"' if action_type is None else b'"action_type":' + orjson.dumps(action_type)
    for row in reader.rows(0, before, reverse=True):
        if wanted not in row[1]:
            continue
        entry = orjson.loads(row[1])
        if entry["kind"] == "action":
            document = reader.get("action", action_key(entry["who"]["agent_id"], row[0]))
            if document is not None:
                yield row[0], document


def audit_event(reader: Reader, row: Row, document: Document, *, for_agent: bool) -> AuditEvent:
    """One action of the audit trail, with what became of it."""
    entry = orjson.loads(row[1])
    payload = orjson.loads(row[4]) if row[4] is not None else {}
    data, action = entry["data"], payload.get("action", {})
    metadata = action.get("metadata", {})
    policy = data.get("policy") or {}
    conditions = [ConditionResult.from_dict(c) for c in payload.get("conditions", ())]
    if for_agent:
        conditions = original_result(row, document).conditions_evaluated
    event = AuditEvent(
        id=entry["id"],
        action_type=data["action_type"],
        status=document["status"],
        timestamp=entry["at"],
        created_at=entry["at"],
        data_accessed=action.get("data_accessed", []),
        repo=_text(metadata, "repo"),
        branch=_text(metadata, "branch"),
        pr_number=metadata.get("pr_number") if isinstance(metadata.get("pr_number"), int) else None,
        policy_id=policy.get("id"),
        policy_version=str(policy["version"]) if policy else None,
        agent=entry["who"]["agent"],
        policy_name=policy.get("name"),
        denial_reason=data.get("reason"),
        conditions_evaluated=conditions,
        metadata=metadata,
        claim=document.get("claim"),
        erased=row[4] is None,
    )
    if "approval" in document:
        approval = reader.get("approval", document["approval"])
        assert approval is not None
        if approval["status"] == "approved":
            event.approved_by, event.approved_at = approval["resolved_by"], approval["resolved_at"]
        elif approval["status"] != "pending":
            event.denial_reason = resolved_reason(reader, approval)
        if approval["status"] != "pending":
            event.approval = _decision_on(reader, document["approval"], approval)
    if "outcome" in document:
        outcome = reader.row(document["outcome"])
        assert outcome is not None
        said = orjson.loads(outcome[1])["data"]
        event.outcome = {name: said[name] for name in ("status", "claim") if name in said}
        if outcome[4] is not None:
            event.outcome |= orjson.loads(outcome[4])
    return event


def _decision_on(reader: Reader, approval_id: str, approval: Document) -> dict[str, Any]:
    row = reader.row(approval["resolution"])
    assert row is not None
    said = orjson.loads(row[4]) if row[4] is not None else {}
    return {
        "id": approval_id,
        "decision": approval["status"],
        "operator": approval["resolved_by"],
        "reason": said.get("reason") or orjson.loads(row[1])["data"].get("note"),
        "at": approval["resolved_at"],
        "policy": (approval["policy"] or {}).get("name"),
        "approved_by": [vote["by"] for vote in approval["votes"]],
    }


def _text(metadata: dict[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None
