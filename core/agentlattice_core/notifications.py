"""What subscribers are told: notifications made from entries, so that none can be told that is not in the log.

| entry | notification |
|---|---|
| action, executed | `action.executed` |
| action, denied or without a policy | `action.denied` |
| action, waiting for a person | `approval.requested` |
| claim started after an approval | `action.executed` |
| claim refused or lapsed | `action.denied` |
| approval, escalated | `approval.escalated` |
| approval, amended by a change of policy | `approval.requested` |
| approval, any other end | `approval.resolved` |
| delegation, expired | `delegation.expired` |
| delegation, closed or revoked | `delegation.revoked` |
| policy, applied | `policy.changed` |
| webhook, disabled | `webhook.disabled` |

- `id` in the data is the entry's index: a subscriber that was away can tell what it missed.
- An agent is told of its own actions and of policy changes, and shown no more of a condition than the policy's
  `explain` lets it see; an operator is told everything.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from agentlattice_core.policy.explain import hide_conditions
from agentlattice_core.results import ConditionResult, GovernanceEvent
from agentlattice_core.stores.base import Row

__all__ = ["EVENT_TYPES", "concerns", "notification"]

EVENT_TYPES = (
    "action.executed",
    "action.denied",
    "approval.requested",
    "approval.escalated",
    "approval.resolved",
    "delegation.expired",
    "delegation.revoked",
    "policy.changed",
    "webhook.disabled",
)
"""Every type this release sends."""

_ACTIONS = {
    "executed": "action.executed",
    "requested": "approval.requested",
    "denied": "action.denied",
    "policy_not_found": "action.denied",
}


_APPROVALS = {"escalated": "approval.escalated", "amended": "approval.requested"}


def concerns(event: GovernanceEvent, own: str | None) -> bool:
    """Whether an agent, by its id, may hear of it; for None, an operator, always.

    What belongs to no agent (a change of policy) concerns all of them, and a child's end its parent too.
    """
    return own is None or not event.agent_id or own in (event.agent_id, event.data.get("parent_id"))


def notification(
    entry: dict[str, Any], row: Row, audience: Literal["agent", "operator"]
) -> GovernanceEvent | None:
    """The notification an entry makes, or None."""
    kind, data, who = entry["kind"], entry["data"], entry["who"]
    payload = orjson.loads(row[4]) if row[4] is not None and kind != "policy" else {}
    told: dict[str, Any] = {"id": entry["i"]}
    if kind == "action":
        event_type = _ACTIONS[data["decision"]]
        conditions = [ConditionResult.from_dict(c) for c in payload.get("conditions", ())]
        if audience == "agent":
            conditions = hide_conditions(conditions, data.get("explain", "full"))
        told |= {
            "audit_event_id": entry["id"],
            "action_type": data["action_type"],
            "status": data["decision"],
            "denial_reason": data.get("reason"),
            "policy_name": (data.get("policy") or {}).get("name"),
            "conditions_evaluated": [condition.to_dict() for condition in conditions],
        }
        if "approval" in data:
            told |= {"approval_id": data["approval"]["id"], "timeout_at": data["approval"]["timeout_at"]}
    elif kind == "claim":
        event_type = "action.executed" if data["event"] == "started" else "action.denied"
        told |= {
            "audit_event_id": data["action"],
            "claim": data["event"],
            "denial_reason": data.get("reason"),
        }
    elif kind == "approval" and data["event"] != "vote":
        event_type = _APPROVALS.get(data["event"], "approval.resolved")
        told |= {
            "approval_id": data["approval"],
            "audit_event_id": data["action"],
            "action_type": data["action_type"],
            "status": data["event"],
            "resolved_by": data.get("by"),
            "reason": payload.get("reason") or data.get("note"),
        }
        if data["event"] == "escalated":
            told["escalate_to"] = data["escalate_to"]
    elif kind == "delegation" and data["event"] != "granted":
        event_type = "delegation.expired" if data["event"] == "expired" else "delegation.revoked"
        told |= {
            "delegation_id": data["delegation"],
            "status": data["event"],
            "parent": data["parent"],
            "parent_id": data["parent_id"],
            "child": data["agent"],
            "cause": data.get("cause"),
        }
        who = {"agent_id": data["agent_id"]}  # it is about the child, whoever ended it
    elif kind == "policy" and data["event"] == "applied":
        event_type = "policy.changed"
        told |= {"source": data["source"]}
    elif kind == "webhook" and data["event"] == "disabled" and audience == "operator":
        event_type = "webhook.disabled"
        told |= {"webhook_id": data["webhook"], "name": data["name"], "reason": data["why"]}
    else:
        return None
    return GovernanceEvent(
        event_type, entry["at"], entry["log"], told, who.get("agent_id") or data.get("agent_id")
    )
