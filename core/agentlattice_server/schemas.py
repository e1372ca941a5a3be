"""JSON Schemas of what is sent and answered, for OpenAPI. The core checks what is sent; these say what it checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlattice_core.actions import SENSITIVITIES
from agentlattice_core.notifications import EVENT_TYPES
from agentlattice_core.webhooks import TEMPLATES

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
    "DELIVERIES",
    "ERROR",
    "ISSUED",
    "LIST",
    "MADE_WEBHOOK",
    "MAYBE_TEXT",
    "MAYBE_TEXTS",
    "NEW_WEBHOOK",
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
    "WEBHOOK",
    "WEBHOOKS",
    "WEBHOOK_ATTEMPT",
    "WEBHOOK_CHANGE",
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

_EVENTS: Schema = {"type": ["array", "null"], "items": {"type": "string", "enum": [*EVENT_TYPES]}}
_PEOPLE: Schema = {"type": "object", "additionalProperties": TEXT}
_WEBHOOK_NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9][a-z0-9_\-]{0,63}$"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
NEW_WEBHOOK: Schema = body(
    {
        "name": _WEBHOOK_NAME,
        "url": MAYBE_TEXT,
        "template": {"type": "string", "enum": [*TEMPLATES]},
        "events": _EVENTS,
        "agent": MAYBE_TEXT,
        "people": _PEOPLE,
        "secret": MAYBE_TEXT,
        "signing_secret": MAYBE_TEXT,
        "routing_key": MAYBE_TEXT,
    },
    "name",
)
WEBHOOK_CHANGE: Schema = body(
    {
        "name": _WEBHOOK_NAME,
        "url": TEXT,
        "events": _EVENTS,
        "agent": MAYBE_TEXT,
        "people": _PEOPLE,
        "active": _BOOLEAN,
    }
)
_WEBHOOK: Schema = {
    "id": TEXT,
    "name": TEXT,
    "target": TEXT,
    "template": TEXT,
    "events": _EVENTS,
    "agent_id": MAYBE_TEXT,
    "people": _PEOPLE,
    "active": _BOOLEAN,
    "why": MAYBE_TEXT,
    "created_at": _TIME,
    "changed_at": _TIME,
    "rotating_until": MAYBE_TEXT,
    "waiting": _COUNT,
    "behind": _COUNT,
}
WEBHOOK: Schema = found(_WEBHOOK)
WEBHOOKS: Schema = found({"webhooks": _list(WEBHOOK), "next_cursor": MAYBE_TEXT})
MADE_WEBHOOK: Schema = found({**_WEBHOOK, "secret": MAYBE_TEXT})
_ATTEMPT: Schema = {
    "outcome": TEXT,
    "at": _TIME,
    "status": {"type": ["integer", "null"]},
    "milliseconds": {"type": "integer"},
    "error": MAYBE_TEXT,
}
WEBHOOK_ATTEMPT: Schema = found(_ATTEMPT)
DELIVERIES: Schema = found(
    {
        "deliveries": _list(
            found({**_ATTEMPT, "id": TEXT, "entry": _COUNT, "number": _COUNT, "due": MAYBE_TEXT})
        ),
        "next_cursor": MAYBE_TEXT,
    }
)
