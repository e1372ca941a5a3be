"""Webhooks: who else is told, how that went, and what could not be delivered.

- Any person may look; changing anything takes an administrator.
- A secret is in the answer of the call that made it, and in no other.
- A member that is not known is refused: one that is misspelt would leave a subscription other than was meant.
- How secrets are sealed and what may be reached is the service's to say. One that does not say delivers none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.webhooks import read_delivery_id
from agentlattice_server import schemas
from agentlattice_server.endpoints import (
    MOST_ON_A_PAGE,
    OPERATOR,
    Call,
    Endpoints,
    answer,
    make_cursor,
    page,
    read_cursor,
)
from agentlattice_server.outward import OutwardSettings
from agentlattice_server.problems import RequestError
from agentlattice_server.webhooks.showing import attempt_shown, delivery_shown, shown
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()

_OVERLAP = 86_400
_LONGEST_OVERLAP = 2_592_000
_NEVER_NULL = ("name", "url", "people", "active")

_LOOKING: Mapping[int, Any] = {501: schemas.PROBLEM}
_CHANGING: Mapping[int, Any] = {501: schemas.PROBLEM, 409: schemas.PROBLEM}


def _desk(call: Call) -> Subscriptions:
    """The subscriptions of the caller's organisation. Raises RequestError where the service delivers none."""
    settings: OutwardSettings | None = call.request.app.state.outward
    if settings is None:
        raise RequestError(
            "NOT_INSTALLED",
            "this service delivers no webhooks; set AL_WEBHOOK_KEY to the file of the key that seals their secrets",
        )
    identity = call.identity
    return Subscriptions(identity.engine, settings.webhook_key, identity.operator(), settings.reach)


def _check_members(call: Call, schema: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError for a member of the body that `schema` does not name."""
    for name in call.body:
        if name not in schema["properties"]:
            raise InvalidRequestError(f"{name:.80}: there is no such member")


@ENDPOINTS.add(
    "GET",
    "/api/v1/webhooks",
    OPERATOR,
    "Webhooks, the oldest first",
    query=schemas.PAGE,
    answers={200: schemas.WEBHOOKS, **_LOOKING},
)
async def list_webhooks(call: Call) -> Response:
    desk = _desk(call)

    def read() -> list[dict[str, Any]]:
        size = desk.size()
        return [shown(hook, size) for hook in desk.all()]

    return answer(page("webhooks", await asyncio.to_thread(read), call, lambda hook: hook["id"]))


@ENDPOINTS.add(
    "POST",
    "/api/v1/webhooks",
    OPERATOR,
    "Subscribe; a secret that is made is shown this once",
    body=schemas.NEW_WEBHOOK,
    answers={201: schemas.MADE_WEBHOOK, **_CHANGING},
)
async def add_webhook(call: Call) -> Response:
    desk = _desk(call)
    _check_members(call, schemas.NEW_WEBHOOK)
    name, template = call.text("name"), call.maybe("template")
    given = {
        member: call.maybe(member) for member in ("url", "agent", "secret", "signing_secret", "routing_key")
    }
    events, people = call.names("events"), call.maybe("people", dict)

    def run() -> dict[str, Any]:
        hook, secret = desk.add(name, template=template or "generic", events=events, people=people, **given)
        return {**shown(hook, desk.size()), "secret": secret}

    return answer(await asyncio.to_thread(run), 201)


@ENDPOINTS.add(
    "POST",
    "/api/v1/webhooks/deliveries/{delivery}/replay",
    OPERATOR,
    "Have one message sent again, under the id it had",
    answers={202: schemas.found({"replayed": {"type": "integer"}}), **_CHANGING},
)
async def replay_delivery(call: Call) -> Response:
    desk = _desk(call)
    webhook_id, index = read_delivery_id(call.path("delivery"))
    return answer({"replayed": await asyncio.to_thread(desk.replay, webhook_id, [index])}, 202)


@ENDPOINTS.add(
    "GET",
    "/api/v1/webhooks/{webhook}",
    OPERATOR,
    "One webhook, by id or name",
    answers={200: schemas.WEBHOOK, **_LOOKING},
)
async def get_webhook(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    return answer(await asyncio.to_thread(lambda: shown(desk.get(name), desk.size())))


@ENDPOINTS.add(
    "PATCH",
    "/api/v1/webhooks/{webhook}",
    OPERATOR,
    "Change a webhook, pause it, or resume it where it stopped; what is left out stays",
    body=schemas.WEBHOOK_CHANGE,
    answers={200: schemas.WEBHOOK, **_CHANGING},
)
async def change_webhook(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    _check_members(call, schemas.WEBHOOK_CHANGE)
    for member in _NEVER_NULL:
        if member in call.body and call.body[member] is None:
            raise InvalidRequestError(f"{member}: cannot be null; leave it out to keep it as it is")
    read = {
        "name": call.maybe("name"),
        "url": call.maybe("url"),
        "events": call.names("events"),
        "agent": call.maybe("agent"),
        "people": call.maybe("people", dict),
        "active": call.maybe("active", bool),
    }
    changes = {member: read[member] for member in call.body}
    return answer(await asyncio.to_thread(lambda: shown(desk.change(name, **changes), desk.size())))


@ENDPOINTS.add(
    "DELETE",
    "/api/v1/webhooks/{webhook}",
    OPERATOR,
    "End a webhook and erase its secrets",
    answers={204: {}, **_CHANGING},
)
async def remove_webhook(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    await asyncio.to_thread(desk.remove, name)
    return Response(status_code=204)


_ROTATION = schemas.body(
    {
        "secret": schemas.MAYBE_TEXT,
        "overlap_seconds": {"type": "integer", "minimum": 0, "maximum": _LONGEST_OVERLAP},
    }
)


@ENDPOINTS.add(
    "POST",
    "/api/v1/webhooks/{webhook}/rotate",
    OPERATOR,
    "Give a webhook a new secret, shown this once; the old one signs beside it until the overlap is over",
    body=_ROTATION,
    answers={200: schemas.MADE_WEBHOOK, **_CHANGING},
)
async def rotate_secret(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    _check_members(call, _ROTATION)
    secret, seconds = call.maybe("secret"), call.maybe("overlap_seconds", int)
    seconds = _OVERLAP if seconds is None else seconds
    if not 0 <= seconds <= _LONGEST_OVERLAP:
        raise InvalidRequestError(f"overlap_seconds: must be from 0 to {_LONGEST_OVERLAP}")

    def run() -> dict[str, Any]:
        hook, new = desk.rotate(name, secret, timedelta(seconds=seconds))
        return {**shown(hook, desk.size()), "secret": new}

    return answer(await asyncio.to_thread(run))


_REPLAY = schemas.body({"entries": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 0}}})


@ENDPOINTS.add(
    "POST",
    "/api/v1/webhooks/{webhook}/replay",
    OPERATOR,
    "Have entries told again, under the ids their messages had; without `entries` every dead letter",
    body=_REPLAY,
    answers={202: schemas.found({"replayed": {"type": "integer"}}), **_CHANGING},
)
async def replay_entries(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    _check_members(call, _REPLAY)
    entries = call.maybe("entries", list)
    if any(not isinstance(one, int) or isinstance(one, bool) for one in entries or ()):
        raise InvalidRequestError("entries: must be a list of whole numbers")
    return answer({"replayed": await asyncio.to_thread(desk.replay, name, entries)}, 202)


@ENDPOINTS.add(
    "POST",
    "/api/v1/webhooks/{webhook}/test",
    OPERATOR,
    "Send a test message now, and say how it went",
    answers={200: schemas.WEBHOOK_ATTEMPT, **_CHANGING},
)
async def test_webhook(call: Call) -> Response:
    desk, name = _desk(call), call.path("webhook")
    return answer(attempt_shown(await asyncio.to_thread(desk.test, name)))


@ENDPOINTS.add(
    "GET",
    "/api/v1/webhooks/{webhook}/deliveries",
    OPERATOR,
    "The latest attempts, the newest first",
    query=schemas.PAGE,
    answers={200: schemas.DELIVERIES, **_LOOKING},
)
async def list_deliveries(call: Call) -> Response:
    hook = await asyncio.to_thread(_desk(call).get, call.path("webhook"))
    found = [delivery_shown(hook.id, one["i"], one["outcome"], one) for one in reversed(hook.attempts)]
    return answer(page("deliveries", found, call, lambda one: f"{one['id']} {one['number']} {one['at']}"))


@ENDPOINTS.add(
    "GET",
    "/api/v1/webhooks/{webhook}/dead-letters",
    OPERATOR,
    "What could not be delivered, the oldest first",
    query=schemas.PAGE,
    answers={200: schemas.DELIVERIES, **_LOOKING},
)
async def list_dead_letters(call: Call) -> Response:
    desk, name, limit, cursor = (
        _desk(call),
        call.path("webhook"),
        call.number("limit", 50),
        call.query("cursor"),
    )
    if not 1 <= limit <= MOST_ON_A_PAGE:
        raise InvalidRequestError(f"limit `{limit}` must be from 1 to {MOST_ON_A_PAGE}")
    after = _entry(read_cursor(cursor)) if cursor is not None else -1

    def read() -> tuple[list[dict[str, Any]], bool]:
        hook = desk.get(name)
        found = desk.dead_letters(hook.id, after=after, limit=limit + 1)
        return [delivery_shown(hook.id, index, "dead", last) for index, last in found[:limit]], len(
            found
        ) > limit

    shown, more = await asyncio.to_thread(read)
    following = make_cursor(str(shown[-1]["entry"])) if more else None
    return answer({"deliveries": shown, "next_cursor": following})


def _entry(text: str) -> int:
    """The entry that a page ended with: not its place, because what is sent again leaves the list."""
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InvalidRequestError("cursor is not one of ours; pass `next_cursor` as it came")
    return int(text)
