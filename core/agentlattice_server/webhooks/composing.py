"""From a notification to what is sent to one subscription.

- What a subscription is told of are the events it asks for, of the agent it asks for; an escalation that names it
  (`webhook:<name>`) or a mail address; and then also the end of what was escalated to it.
- A message's id is made from the leaf hash of the entry it tells of: the same for every attempt, on whatever node.
- A retry tells what is true when it is sent: of a request that was decided meanwhile it shows the decision.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentlattice_core.approvals import approval_request
from agentlattice_core.clock import format_time
from agentlattice_core.notifications import notification
from agentlattice_core.results import ApprovalRequest, GovernanceEvent
from agentlattice_core.stores.base import Reader, Row
from agentlattice_core.webhooks import Webhook
from agentlattice_server.webhooks import mail
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.bodies import body_of
from agentlattice_server.webhooks.posting import Answer, post
from agentlattice_server.webhooks.signing import signed_headers

__all__ = ["News", "Receiver", "Send", "message_id", "news"]

Send = Callable[[datetime], Answer]


@dataclass(frozen=True, slots=True)
class News:
    """A notification, the request it is about, whether a subscription asked for it, and whom an escalation names."""

    event: GovernanceEvent
    request: ApprovalRequest | None
    wanted: bool
    escalated_to: tuple[str, ...]


def message_id(row: Row) -> str:
    """The id of the message about an entry."""
    return f"msg_{row[2].hex()[:32]}"


def news(reader: Reader, hook: Webhook, entry: dict[str, Any], row: Row) -> News | None:
    """What an entry has to say to a subscription, or None."""
    event = notification(entry, row, "operator")
    if event is None:
        return None
    wanted = hook.events is None or event.event_type in hook.events
    if hook.agent_id is not None and event.agent_id != hook.agent_id:
        wanted = False
    escalated_to = _escalated_to(reader, event)
    named = f"webhook:{hook.name}" in escalated_to
    mailed = hook.template == "email" and any(party.startswith("mailto:") for party in escalated_to)
    if not (wanted or named or mailed):
        return None
    request = None
    if event.event_type.startswith("approval."):
        request = approval_request(reader, event.data["approval_id"])
    return News(event, request, wanted or named, escalated_to)


def _escalated_to(reader: Reader, event: GovernanceEvent) -> tuple[str, ...]:
    if event.event_type == "approval.escalated":
        return tuple(event.data["escalate_to"])
    if event.event_type == "approval.resolved":
        approval = reader.get("approval", event.data["approval_id"])
        if approval is not None and "escalated_at" in approval:
            return tuple(approval["escalate_to"])
    return ()


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where one subscription's messages go, with its secrets opened. `trust` stands in for the system's authorities."""

    hook: Webhook
    secrets: Mapping[str, Any]
    reach: Reach
    trust: ssl.SSLContext | None = None

    def sending(self, told: News, name: str) -> Send | None:
        """What sends a message under the id `name`; None if its form has nothing to say."""
        if self.hook.template == "email":
            return self._mailing(told, name)
        body = body_of(self.hook.template, told.event, told.request, self.secrets)
        return None if body is None else self._posting(body, name)

    def _posting(self, body: bytes, name: str) -> Send:
        reach, trust = self.reach, self.trust
        parts = reach.checked_url(self.secrets["url"])
        headers = {"Content-Type": "application/json", "User-Agent": "AgentLattice-Webhooks"}

        def send(at: datetime) -> Answer:
            valid = self._signing_secrets(at)
            signed = signed_headers(name, at, body, valid) if valid else {}
            return post(parts, body, {**headers, **signed}, reach, trust=trust)

        return send

    def _signing_secrets(self, at: datetime) -> list[str]:
        secrets: list[str] = list(self.secrets.get("secrets", ()))
        rotating = self.hook.rotating_until
        return secrets if rotating is not None and format_time(at) < rotating else secrets[:1]

    def _mailing(self, told: News, name: str) -> Send | None:
        relay = mail.relay_of(self.secrets["url"], self.reach)
        to = mail.recipients(relay, told.escalated_to, told.wanted)
        if not to:
            return None
        body = mail.letter(relay, to, name, told.event, told.request)
        return lambda at: mail.send(relay, to, body, self.reach, trust=self.trust)
