"""Webhooks over HTTP: for operators under `/api/v1/webhooks`, and for Slack under `/integrations/slack`.

- The application says who asks: `subscriptions` is a dependency that authenticates an operator and gives what they may
  do; and how an error is answered (`answer_error`), as for all its endpoints.
- A secret is in the answer of the request that made it, and in no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from agentlattice_core.errors import AgentLatticeError, InvalidRequestError, NotFoundError
from agentlattice_core.webhooks import Attempt, Webhook, delivery_id, read_delivery_id
from agentlattice_server.webhooks.slack_actions import Deciding, answer_press, pressed
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["AnswerError", "slack_routes", "webhook_routes"]

AnswerError = Callable[[AgentLatticeError], Response]
"""How the application answers an error of ours."""

_SLACK_PATIENCE = 2.5  # of the three seconds that Slack waits
_MOST_OF_A_PRESS = 1_000_000


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewWebhook(_Given):
    """A subscription to be made. `events` of None are all; of none, only escalations that name it."""

    name: str
    url: str | None = None
    template: str = "generic"
    events: list[str] | None = None
    agent: str | None = None
    people: dict[str, str] | None = None
    secret: str | None = None
    signing_secret: str | None = None
    routing_key: str | None = None


class WebhookChange(_Given):
    """What is to change; a member that is left out stays."""

    name: str | None = None
    url: str | None = None
    events: list[str] | None = None
    agent: str | None = None
    people: dict[str, str] | None = None
    active: bool | None = None


class Rotation(_Given):
    """`secret` is one that the receiver has already; `overlap_seconds` how long the old one still signs."""

    secret: str | None = None
    overlap_seconds: int = Field(default=86_400, ge=0, le=2_592_000)


class ShownWebhook(BaseModel):
    """A subscription. `behind` says how many entries at most it has not looked at, `waiting` how many failed
    messages wait.
    """

    id: str
    name: str
    target: str
    template: str
    events: list[str] | None
    agent_id: str | None
    people: dict[str, str]
    active: bool
    why: str | None
    created_at: str
    changed_at: str
    rotating_until: str | None
    waiting: int
    behind: int


class MadeWebhook(ShownWebhook):
    """A subscription with the secret that was made for it, which is shown only here."""

    secret: str | None


class ShownAttempt(BaseModel):
    """One attempt: `outcome` is delivered, retry (again at `due`), dead, or failed for a test."""

    outcome: str
    at: str
    status: int | None
    milliseconds: int
    error: str | None


class Delivery(ShownAttempt):
    """The latest attempt at telling of one entry."""

    id: str
    entry: int
    number: int
    due: str | None


class Webhooks(BaseModel):
    webhooks: list[ShownWebhook]
    next_cursor: str | None


class Deliveries(BaseModel):
    deliveries: list[Delivery]
    next_cursor: str | None


class Replayed(BaseModel):
    replayed: int


def webhook_routes(subscriptions: Callable[..., Any], answer_error: AnswerError) -> APIRouter:
    """The operator's endpoints. `subscriptions` is a dependency that gives the asking operator's `Subscriptions`."""
    router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], route_class=_answering(answer_error))
    asking = Depends(subscriptions)

    @router.get("")
    def list_webhooks(desk: Subscriptions = asking) -> Webhooks:
        """Every subscription."""
        return Webhooks(webhooks=[_shown(desk, hook) for hook in desk.all()], next_cursor=None)

    @router.post("", status_code=201)
    def add_webhook(new: NewWebhook, desk: Subscriptions = asking) -> MadeWebhook:
        """Subscribe. For administrators."""
        hook, secret = desk.add(
            new.name,
            new.url,
            template=new.template,
            events=new.events,
            agent=new.agent,
            people=new.people,
            secret=new.secret,
            signing_secret=new.signing_secret,
            routing_key=new.routing_key,
        )
        return MadeWebhook(**_members(desk, hook), secret=secret)

    @router.post("/deliveries/{delivery}/replay", status_code=202)
    def replay_delivery(delivery: str, desk: Subscriptions = asking) -> Replayed:
        """Have one message sent again, under the id it had. For administrators."""
        webhook_id, index = read_delivery_id(delivery)
        return Replayed(replayed=desk.replay(webhook_id, [index]))

    @router.get("/{webhook}")
    def get_webhook(webhook: str, desk: Subscriptions = asking) -> ShownWebhook:
        """One subscription, by id or name."""
        return _shown(desk, desk.get(webhook))

    @router.patch("/{webhook}")
    def change_webhook(webhook: str, change: WebhookChange, desk: Subscriptions = asking) -> ShownWebhook:
        """Change a subscription, pause it, or resume it where it stopped. For administrators."""
        given = change.model_dump(exclude_unset=True)
        for name in ("name", "url", "people", "active"):
            if name in given and given[name] is None:
                raise InvalidRequestError(f"{name}: cannot be null; leave it out to keep it as it is")
        return _shown(desk, desk.change(webhook, **given))

    @router.delete("/{webhook}", status_code=204)
    def remove_webhook(webhook: str, desk: Subscriptions = asking) -> Response:
        """End a subscription and erase its secrets. For administrators."""
        desk.remove(webhook)
        return Response(status_code=204)

    @router.post("/{webhook}/rotate")
    def rotate_secret(
        webhook: str, rotation: Rotation | None = None, desk: Subscriptions = asking
    ) -> MadeWebhook:
        """Give a subscription a new secret; the old one signs beside it for a while. For administrators."""
        asked = rotation or Rotation()
        hook, secret = desk.rotate(webhook, asked.secret, timedelta(seconds=asked.overlap_seconds))
        return MadeWebhook(**_members(desk, hook), secret=secret)

    @router.post("/{webhook}/test")
    def test_webhook(webhook: str, desk: Subscriptions = asking) -> ShownAttempt:
        """Send a test message now, and say how it went. For administrators."""
        return _attempt(desk.test(webhook))

    @router.get("/{webhook}/deliveries")
    def list_deliveries(webhook: str, desk: Subscriptions = asking) -> Deliveries:
        """The latest attempts, the newest first."""
        hook = desk.get(webhook)
        found = [_delivery(hook.id, one["i"], one["outcome"], one) for one in reversed(hook.attempts)]
        return Deliveries(deliveries=found, next_cursor=None)

    @router.get("/{webhook}/dead-letters")
    def list_dead_letters(
        webhook: str,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        desk: Subscriptions = asking,
    ) -> Deliveries:
        """What could not be delivered, the oldest first."""
        hook = desk.get(webhook)
        found = desk.dead_letters(hook.id, after=_cursor(cursor), limit=limit + 1)
        shown = [_delivery(hook.id, index, "dead", last) for index, last in found[:limit]]
        return Deliveries(
            deliveries=shown, next_cursor=f"{found[limit - 1][0]:x}" if len(found) > limit else None
        )

    return router


def slack_routes(
    workspace: Callable[[Request], tuple[Subscriptions, Deciding]], answer_error: AnswerError
) -> APIRouter:
    """What Slack calls. `workspace` gives the log that a request is for, with no more rights than to look, and how to
    decide in it for a person.
    """
    router = APIRouter(
        prefix="/integrations/slack", tags=["integrations"], route_class=_answering(answer_error)
    )
    running: set[asyncio.Future[None]] = set()

    @router.post("/actions", status_code=200)
    async def slack_action(
        request: Request,
        x_slack_request_timestamp: Annotated[str | None, Header()] = None,
        x_slack_signature: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A button that was pressed in Slack."""
        body = await _body(request)
        desk, deciding = workspace(request)
        press = await asyncio.to_thread(
            pressed, desk, body, x_slack_request_timestamp, x_slack_signature, desk.engine.clock.now()
        )
        if press is not None:
            deciding_now = asyncio.ensure_future(asyncio.to_thread(answer_press, press, deciding, desk))
            running.add(deciding_now)
            deciding_now.add_done_callback(running.discard)
            # Slack shows an error after three seconds, and a decision that was recorded would look like none.
            await asyncio.wait([deciding_now], timeout=_SLACK_PATIENCE)
        return Response(status_code=200)

    return router


def _answering(answer_error: AnswerError) -> type[APIRoute]:
    """Routes that answer errors the application's way, the framework's own about what was sent among them."""

    class Answering(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await inner(request)
                except RequestValidationError as error:
                    first = error.errors()[0]
                    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
                    message = str(first["msg"])
                    return answer_error(
                        InvalidRequestError(f"{where[:80]}: {message[:1].lower()}{message[1:]}")
                    )
                except AgentLatticeError as error:
                    return answer_error(error)

            return handle

    return Answering


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_OF_A_PRESS:
            raise InvalidRequestError(f"a request of Slack's has at most {_MOST_OF_A_PRESS} bytes")
    return bytes(body)


def _cursor(text: str | None) -> int:
    if text is None:
        return -1
    try:
        return int(text[:16], 16)
    except ValueError:
        raise NotFoundError(f"there is no page `{text:.80}`") from None


def _shown(desk: Subscriptions, hook: Webhook) -> ShownWebhook:
    return ShownWebhook(**_members(desk, hook))


def _members(desk: Subscriptions, hook: Webhook) -> dict[str, Any]:
    with desk.engine.read() as reader:
        size = reader.head.size
    return {
        "id": hook.id,
        "name": hook.name,
        "target": hook.target,
        "template": hook.template,
        "events": None if hook.events is None else list(hook.events),
        "agent_id": hook.agent_id,
        "people": dict(hook.people),
        "active": hook.active,
        "why": hook.why,
        "created_at": hook.created_at,
        "changed_at": hook.changed_at,
        "rotating_until": hook.rotating_until,
        "waiting": len(hook.retries),
        "behind": max(0, size - hook.next),
    }


def _attempt(made: Attempt) -> ShownAttempt:
    return ShownAttempt(
        outcome=made.outcome,
        at=made.at,
        status=made.status,
        milliseconds=made.milliseconds,
        error=made.error,
    )


def _delivery(webhook_id: str, index: int, outcome: str, last: Mapping[str, Any]) -> Delivery:
    return Delivery(
        id=delivery_id(webhook_id, index),
        entry=index,
        number=last["n"],
        outcome=outcome,
        at=last["at"],
        status=last.get("status"),
        milliseconds=last["ms"],
        error=last.get("error"),
        due=last.get("due"),
    )
