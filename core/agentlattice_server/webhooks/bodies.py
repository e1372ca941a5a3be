"""What a receiver is told, in its own form.

- `generic`: the notification as JSON, `type`, `timestamp` and `data` as the Standard Webhooks specification has them.
- `slack`: Block Kit for an incoming webhook. A request for approval has two buttons, whose value is the approval and
  the digest of what is shown, so that a press decides on exactly that.
- `pagerduty`: Events API v2. A request that waits triggers an alert, its end resolves it; `dedup_key` is the approval's
  id, so that a message that comes twice is one alert.
- What agents wrote is data: in Slack it is plain text, so that it can neither mention anybody nor pass for a link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from agentlattice_core.results import ApprovalRequest, GovernanceEvent

__all__ = ["BUTTON_APPROVE", "BUTTON_DENY", "Body", "body_of", "button_value", "details"]

Body = dict[str, Any]

BUTTON_APPROVE, BUTTON_DENY = "agentlattice_approve", "agentlattice_deny"

_LONGEST_TEXT = 2800  # of a Slack section's 3,000
_LONGEST_VALUE = 500
_LONGEST_SUMMARY = 1000  # of PagerDuty's 1,024


def body_of(
    template: str, event: GovernanceEvent, request: ApprovalRequest | None, secrets: Mapping[str, Any]
) -> bytes | None:
    """The body for one notification; None if this form has nothing to say of it. `request` is what it is about."""
    body = _FORMS[template](event, request, secrets)
    return None if body is None else orjson.dumps(body, default=str)


def _generic(event: GovernanceEvent, request: ApprovalRequest | None, secrets: Mapping[str, Any]) -> Body:
    body: Body = {
        "type": event.event_type,
        "timestamp": event.timestamp,
        "org_id": event.org_id,
        "data": event.data,
    }
    if event.agent_id is not None:
        body["agent_id"] = event.agent_id
    return body


def _slack(event: GovernanceEvent, request: ApprovalRequest | None, secrets: Mapping[str, Any]) -> Body:
    title = _title(event, request)
    lines = [f"{name}: {_escaped(_short(text))}" for name, text in details(event, request)]
    blocks: list[Body] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150]}},
        {"type": "section", "text": {"type": "plain_text", "emoji": False, "text": _joined(lines)}},
    ]
    if request is not None and request.waits and secrets.get("signing_secret"):
        value = button_value(request.id, request.digest)
        blocks.append(
            {
                "type": "actions",
                "block_id": request.id,
                "elements": [
                    _button("Approve", BUTTON_APPROVE, "primary", value),
                    _button("Deny", BUTTON_DENY, "danger", value),
                ],
            }
        )
    return {"text": _escaped(title), "blocks": blocks}


def _button(text: str, action: str, style: str, value: str) -> Body:
    return {
        "type": "button",
        "text": {"type": "plain_text", "text": text},
        "action_id": action,
        "style": style,
        "value": value,
    }


def button_value(approval_id: str, digest: str) -> str:
    """What a press carries."""
    return f"{approval_id} {digest}"


_TRIGGERS = ("approval.requested", "approval.escalated", "webhook.disabled", "webhook.test")


def _pagerduty(
    event: GovernanceEvent, request: ApprovalRequest | None, secrets: Mapping[str, Any]
) -> Body | None:
    about = event.data.get("approval_id") or event.data.get("webhook_id")
    if about is None or event.event_type not in (*_TRIGGERS, "approval.resolved"):
        return None
    body: Body = {"routing_key": secrets["routing_key"], "dedup_key": about}
    if event.event_type == "approval.resolved":
        return {**body, "event_action": "resolve"}
    return {
        **body,
        "event_action": "trigger",
        "client": "AgentLattice",
        "payload": {
            "summary": _title(event, request)[:_LONGEST_SUMMARY],
            "source": event.org_id,
            "severity": "critical" if event.event_type == "approval.escalated" else "warning",
            "timestamp": event.timestamp,
            "component": event.agent_id,
            "class": event.event_type,
            "custom_details": dict(details(event, request)),
        },
    }


def _title(event: GovernanceEvent, request: ApprovalRequest | None) -> str:
    what = request.action_type if request is not None else event.data.get("action_type")
    words = {
        "approval.requested": "Approval needed",
        "approval.escalated": "Approval escalated",
        "approval.resolved": f"Approval {event.data.get('status')}",
        "action.denied": "Action denied",
        "action.executed": "Action executed",
        "policy.changed": "Policy changed",
        "webhook.disabled": "Webhook disabled",
        "webhook.test": "Test message",
    }.get(event.event_type, event.event_type)
    return f"{words}: {what}" if what else words


def details(event: GovernanceEvent, request: ApprovalRequest | None) -> list[tuple[str, str]]:
    """What a person needs to know of it: names and texts."""
    data = event.data
    pairs: list[tuple[str, Any]]
    if request is not None:
        pairs = [
            ("Agent", request.agent),
            ("Policy", request.policy_name),
            ("Amount", f"{request.amount} {request.currency or ''}".strip() if request.amount else None),
            ("Beneficiary", request.beneficiary),
            ("Category", request.category),
            ("For", request.on_behalf_of),
            ("Data", request.metadata or None),
            ("Decide by", request.timeout_at if request.waits else None),
            ("Decided by", request.resolved_by),
            ("Reason", request.reason),
            ("Approval", request.id),
        ]
    else:
        pairs = [
            ("Agent", event.agent_id),
            ("Policy", data.get("policy_name")),
            ("Reason", data.get("denial_reason") or data.get("reason")),
            ("Status", data.get("status")),
            ("Source", data.get("source")),
            ("Webhook", data.get("name")),
            ("Action", data.get("audit_event_id")),
        ]
    return [
        (name, value if isinstance(value, str) else orjson.dumps(value, default=str).decode())
        for name, value in pairs
        if value is not None
    ]


def _short(text: str) -> str:
    """Text of which one value leaves room for the others; cut before it is escaped, so that no escape is cut."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _escaped(text: str) -> str:
    """Text that Slack shows as it is: https://api.slack.com/reference/surfaces/formatting#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _joined(lines: list[str]) -> str:
    return "\n".join(lines)[:_LONGEST_TEXT] or " "


_FORMS: Mapping[str, Callable[[GovernanceEvent, ApprovalRequest | None, Mapping[str, Any]], Body | None]] = {
    "generic": _generic,
    "slack": _slack,
    "pagerduty": _pagerduty,
}
