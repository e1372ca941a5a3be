"""JSON Schemas of what is sent and answered, for OpenAPI. The core checks what is sent; these say what it checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlattice_core.actions import SENSITIVITIES

__all__ = [
    "ACTION",
    "ACTION_HEADERS",
    "ANY",
    "APPROVAL",
    "APPROVALS",
    "APPROVAL_STATUS",
    "AUDIT",
    "CHECK",
    "DELEGATED",
    "DELEGATION",
    "DELEGATIONS",
    "ERROR",
    "ISSUED",
    "LIST",
    "MAYBE_TEXT",
    "MAYBE_TEXTS",
    "PAGE",
    "POLICIES",
    "POSTURE",
    "PROBLEM",
    "REFUSAL",
    "REGISTERED",
    "REGISTRATION",
    "REPORT",
    "REPORTED",
    "RESULT",
    "REVOKED",
    "TEXT",
    "TEXTS",
    "VERIFY",
    "WHOAMI",
    "body",
    "found",
]

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
TEXTS: Schema = {"type": "array", "items": TEXT}
MAYBE_TEXTS: Schema = {"type": ["array", "null"], "items": TEXT}
LIST: Schema = {"type": "array", "items": {"type": "object"}}
PAGE: Schema = {
    "cursor": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 200},
}
"""Parameters of what is answered in pages."""
ANY: Schema = {"type": "object"}
_BOOLEAN: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_TIME: Schema = {"type": "string", "format": "date-time"}


def body(members: Schema, *required: str) -> Schema:
    """An object that somebody sends."""
    return {"type": "object", "properties": dict(members), "required": list(required)}


def found(members: Schema, *required: str) -> Schema:
    """An object that is answered: all of `members` are there, unless `required` names some of them."""
    return {"type": "object", "properties": dict(members), "required": list(required or members)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


ERROR: Schema = found({"error": TEXT, "message": TEXT})
PROBLEM: Schema = found(
    {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "error": TEXT,
        "message": TEXT,
    }
)

_ACCESSED: Schema = {
    "type": "object",
    "properties": {
        "type": TEXT,
        "count": {"type": "integer", "minimum": 0},
        "sensitivity": {"type": ["string", "null"], "enum": [*SENSITIVITIES, None]},
    },
    "required": ["type"],
}
ACTION: Schema = body(
    {
        "action_type": {**TEXT, "pattern": r"^[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*$", "maxLength": 200},
        "timestamp": TEXT,
        "data_accessed": {"type": ["array", "null"], "items": _ACCESSED},
        "metadata": {"type": ["object", "null"]},
        "amount": {"type": ["string", "number", "null"]},
        "currency": MAYBE_TEXT,
        "beneficiary": MAYBE_TEXT,
        "category": MAYBE_TEXT,
        "on_behalf_of": MAYBE_TEXT,
        "context": {"type": ["object", "null"]},
        "trusted": {"type": ["array", "null"], "items": TEXT},
        "mode": {"type": "string", "enum": ["enforce", "observe"]},
    },
    "action_type",
)
ACTION_HEADERS: Schema = {
    "X-AL-Event-ID": {"description": "Makes a retry safe: the same id is the same action.", "schema": TEXT},
    "X-AL-Nonce": {
        "description": "How the action's id ends: 20 hexadecimal digits drawn by the client.",
        "schema": {**TEXT, "pattern": "^[0-9a-f]{20}$"},
    },
    "X-AL-Delegation-ID": {"description": "The delegation that a child's key is for.", "schema": TEXT},
}
_CONDITION: Schema = found(
    {"field": TEXT, "operator": TEXT, "expected": {}, "result": _BOOLEAN, "actual": {}}
)
RESULT: Schema = found(
    {
        "status": {
            "type": "string",
            "enum": ["executed", "requested", "denied", "timed_out", "policy_not_found"],
        },
        "audit_event_id": TEXT,
        "approval_id": MAYBE_TEXT,
        "message": MAYBE_TEXT,
        "timeout_at": MAYBE_TEXT,
        "denial_reason": MAYBE_TEXT,
        "policy_name": MAYBE_TEXT,
        "conditions_evaluated": _list(_CONDITION),
        "rules_fired": _list(ANY),
        "replayed": _BOOLEAN,
        "observed": _BOOLEAN,
        "claim": MAYBE_TEXT,
    }
)
APPROVAL_STATUS: Schema = found(
    {
        "status": {
            "type": "string",
            "enum": ["pending", "escalated", "approved", "denied", "timed_out"],
        },
        "action": TEXT,
        "timeout_at": _TIME,
        "resolved_at": MAYBE_TEXT,
    }
)
REGISTRATION: Schema = body(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": MAYBE_TEXT,
        "owner": MAYBE_TEXT,
        "tags": {"type": ["array", "null"], "items": TEXT},
        "grants": {"type": ["array", "null"], "items": TEXT},
    },
    "name",
)
REGISTERED: Schema = found({"id": TEXT, "name": TEXT, "api_key": TEXT, "created_at": _TIME})
_POLICY: Schema = found(
    {
        "id": TEXT,
        "name": TEXT,
        "action_type": TEXT,
        "approval_required": _BOOLEAN,
        "has_conditions": _BOOLEAN,
        "version": {"type": "integer"},
        "created_at": TEXT,
    }
)
_DELEGATION: Schema = found({"id": TEXT, "scope": ANY, "expires_at": _TIME, "active": _BOOLEAN})
WHOAMI: Schema = found(
    {
        "config_id": TEXT,
        "name": TEXT,
        "org_id": TEXT,
        "is_active": _BOOLEAN,
        "cb_state": TEXT,
        "calibration": ANY,
        "policies": _list(_POLICY),
        "delegations": found({"as_parent": _list(_DELEGATION), "as_child": _list(_DELEGATION)}),
    }
)
POLICIES: Schema = found({"scope": TEXT, "policies": _list(_POLICY)})
CHECK: Schema = found(
    {
        "allowed": _BOOLEAN,
        "needs_approval": _BOOLEAN,
        "action_type": TEXT,
        "policy_name": MAYBE_TEXT,
        "reason": MAYBE_TEXT,
        "conditions_evaluated": _list(_CONDITION),
    }
)
AUDIT: Schema = found(
    {
        "events": _list(found({"id": TEXT, "action_type": TEXT, "status": TEXT, "timestamp": _TIME})),
        "next_cursor": MAYBE_TEXT,
    }
)
VERIFY: Schema = found(
    {
        "org_id": TEXT,
        "chain_valid": _BOOLEAN,
        "verified_through_row": {"type": "integer"},
        "chain_hash": MAYBE_TEXT,
        "first_broken_at_row_id": MAYBE_TEXT,
        "verified_from_checkpoint": _BOOLEAN,
        "timestamp": TEXT,
    }
)
DELEGATIONS: Schema = found({"delegations": _list(_DELEGATION)})
DELEGATION: Schema = body(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "capabilities": {"type": "array", "items": TEXT, "minItems": 1},
        "ttl_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
        "run": MAYBE_TEXT,
        "grants": {"type": ["array", "null"], "items": TEXT},
    },
    "name",
    "capabilities",
    "ttl_seconds",
)
DELEGATED: Schema = found({"delegation_id": TEXT, "child_api_key": TEXT})
REVOKED: Schema = found({"revoked": _BOOLEAN, "delegation_id": TEXT})
ISSUED: Schema = found({"key": found({"id": TEXT, "kind": TEXT, "holder": TEXT}), "text": TEXT})
REPORT: Schema = body(
    {
        "audit_event_id": TEXT,
        "outcome": body(
            {
                "status": {"type": "string", "enum": ["success", "failure", "partial"]},
                "message": MAYBE_TEXT,
                "metadata": {"type": ["object", "null"]},
            },
            "status",
        ),
    },
    "audit_event_id",
    "outcome",
)
REPORTED: Schema = found({"audit_event_id": TEXT, "status": TEXT, "reported_at": _TIME})
POSTURE: Schema = found({"score": _NUMBER, "components": ANY})
REFUSAL: Schema = body(
    {
        "action_type": TEXT,
        "reason": TEXT,
        "message": TEXT,
        "context": {"type": ["object", "null"]},
        "mode": {"type": "string", "enum": ["enforce", "observe"]},
    },
    "action_type",
    "reason",
    "message",
)
APPROVAL: Schema = found(
    {
        "id": TEXT,
        "status": TEXT,
        "action_type": TEXT,
        "audit_event_id": TEXT,
        "agent": TEXT,
        "metadata": ANY,
        "requested_at": _TIME,
        "timeout_at": _TIME,
        "digest": TEXT,
    }
)
APPROVAL_EVENTS: Schema = found(
    {"events": _list(found({"event": TEXT, "at": _TIME, "approval": APPROVAL})), "cursor": TEXT}
)
APPROVALS: Schema = found({"approvals": _list(APPROVAL), "next_cursor": MAYBE_TEXT})
