"""Buttons that were pressed in Slack: a person decides there on what was shown there.

- A request counts if Slack signed it (`v0` signature over the raw body) with the signing secret of a subscription of
  this log, within the last five minutes.
- Who pressed is who that subscription's `people` says; nobody else decides. Role, groups, quorum, segregation of duties
  and the digest are then the core's to check, as for any decision.
- Slack waits three seconds. A decision that takes longer goes on; what came of it is put in place of the message either
  way, through the `response_url` that Slack sent, to Slack's own hosts only.
- A request that comes twice decides nothing twice: an approval is decided once, and a person votes once.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from agentlattice_core import webhooks
from agentlattice_core.client import AgentLattice
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, InvalidRequestError
from agentlattice_core.results import ApprovalRequest
from agentlattice_core.webhooks import Webhook
from agentlattice_server.webhooks.addresses import UnreachableError
from agentlattice_server.webhooks.bodies import BUTTON_APPROVE, BUTTON_DENY
from agentlattice_server.webhooks.posting import post
from agentlattice_server.webhooks.sealing import SealingError
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["Deciding", "Press", "answer_press", "pressed", "signature"]

_log = logging.getLogger("agentlattice")

WINDOW = 300
"""Seconds that a request is good for."""

_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")

Deciding = Callable[[str], AgentLattice]
"""A client of the log that decides for the operator of that name; it is closed after use."""


@dataclass(frozen=True, slots=True)
class Press:
    """A button that somebody pressed: who it is to us, on which request, as it was shown, and where to answer."""

    operator: str
    approval_id: str
    digest: str
    approve: bool
    response_url: str | None


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What Slack sends as `X-Slack-Signature`."""
    signed = b"v0:" + timestamp.encode("ascii", "replace") + b":" + body
    return "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def pressed(
    subscriptions: Subscriptions, body: bytes, timestamp: str | None, given: str | None, now: datetime
) -> Press | None:
    """What a request says; None for one that Slack sends and that decides nothing.

    Raises ForbiddenError for one that no subscription's secret signed, that is too old, or of somebody unknown, and
    InvalidRequestError for one that cannot be read.
    """
    hook = _signer(_slack(subscriptions), subscriptions, body, timestamp or "", given or "", now)
    try:
        payload = orjson.loads(parse_qs(body.decode())["payload"][0])
        actions = [
            one for one in payload.get("actions", ()) if one["action_id"] in (BUTTON_APPROVE, BUTTON_DENY)
        ]
        if payload["type"] != "block_actions" or not actions:
            return None
        user = payload["user"]
        approval_id, digest = actions[0]["value"].split(" ")
        name = user["id"]  # and not the name that they go by, which they may change
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InvalidRequestError("the request is not one of Slack's") from None
    person = hook.people.get(name) if isinstance(name, str) else None
    if person is None:
        raise ForbiddenError(
            f"Slack user `{name!s:.80}` is no operator here; an administrator can add them to webhook `{hook.name}`"
        )
    approve = actions[0]["action_id"] == BUTTON_APPROVE
    return Press(person, approval_id, digest, approve, payload.get("response_url"))


def _slack(subscriptions: Subscriptions) -> list[Webhook]:
    with subscriptions.engine.read() as reader:
        return [hook for hook in webhooks.webhooks(reader) if hook.template == "slack"]


def _signer(
    hooks: Iterable[Webhook],
    subscriptions: Subscriptions,
    body: bytes,
    timestamp: str,
    given: str,
    now: datetime,
) -> Webhook:
    """The subscription whose secret signed the request."""
    if not (
        timestamp.isascii() and timestamp.isdigit() and abs(now.timestamp() - int(timestamp[:12])) <= WINDOW
    ):
        raise ForbiddenError("the request is too old, or does not say when Slack sent it")
    for hook in hooks:
        try:
            secret = subscriptions.opened(hook).get("signing_secret")
        except SealingError:
            continue
        if secret is not None and hmac.compare_digest(
            signature(secret, timestamp, body).encode(), given.encode("utf-8", "replace")
        ):
            return hook
    raise ForbiddenError("the request is not signed with the signing secret of a Slack webhook of this log")


def decided(press: Press, deciding: Deciding) -> str:
    """Decide, and say in a sentence what came of it."""
    try:
        with deciding(press.operator) as client:
            decide = client.approve_action_sync if press.approve else client.deny_action_sync
            request = decide(press.approval_id, "decided in Slack", digest=press.digest)
    except AgentLatticeError as error:
        return f"Not recorded: {error.message}"
    return _sentence(request, press)


def _sentence(request: ApprovalRequest, press: Press) -> str:
    if request.waits:
        return f"`{press.operator}` approved `{request.action_type}`; more approvers are needed"
    return f"`{request.action_type}` was {request.status} by `{press.operator}`"


def answer_press(press: Press, deciding: Deciding, subscriptions: Subscriptions) -> None:
    """Decide, and put what came of it in place of the message that had the buttons."""
    text = decided(press, deciding)
    if press.response_url is None:
        return
    keep = text.startswith("Not recorded")
    body: dict[str, Any] = {"text": text, "replace_original": not keep}
    if keep:
        body["response_type"] = "ephemeral"
    try:
        if urlsplit(press.response_url).hostname not in _SLACK_HOSTS and not subscriptions.reach.loopback:
            raise InvalidRequestError("an answer goes to Slack and nowhere else")
        parts = subscriptions.reach.checked_url(press.response_url)
        post(
            parts,
            orjson.dumps(body),
            {"Content-Type": "application/json"},
            subscriptions.reach,
            trust=subscriptions.trust,
        )
    except (UnreachableError, InvalidRequestError) as error:
        _log.warning("Slack could not be told what came of a decision: %s", error)
