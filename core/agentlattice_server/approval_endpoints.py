"""Requests for a person: seeing them, deciding on them, taking them back.

- What waits comes in the order of deadlines, everything else the newest first.
- A decision that carries the `digest` of what was shown is refused with 409 if the request is no longer that.
- Events are read from a place in the log on. Without one, the answer names the end of the log, at once.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.responses import Response

from agentlattice_core import approvals, keys, operators
from agentlattice_core.approval_events import ApprovalEvent, until_happened
from agentlattice_core.clock import time_of_log
from agentlattice_core.errors import InvalidRequestError, NotFoundError
from agentlattice_core.principals import Forever
from agentlattice_core.results import ApprovalRequest
from agentlattice_core.stores.base import Document, Reader
from agentlattice_server import schemas
from agentlattice_server.authentication import Identity
from agentlattice_server.endpoints import (
    AGENT,
    LONGEST_WAIT,
    MOST_ON_A_PAGE,
    OPERATOR,
    Call,
    Endpoints,
    answer,
    make_cursor,
    read_cursor,
    unless_stopping,
)

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()

_STATUSES = ("pending", "approved", "denied", "timed_out", "cancelled", "any")
_DECISION = schemas.body(
    {
        "reason": schemas.MAYBE_TEXT,
        "digest": schemas.MAYBE_TEXT,
        "forever": {"type": ["string", "null"], "enum": ["policy", "agent", None]},
    }
)


@ENDPOINTS.add(
    "GET",
    "/api/v1/approvals",
    OPERATOR,
    "Requests for a person",
    query={**schemas.PAGE, "status": {"type": "string", "enum": list(_STATUSES)}},
    answers={200: schemas.APPROVALS},
)
async def list_approvals(call: Call) -> Response:
    status, cursor, limit = call.query("status") or "pending", call.query("cursor"), call.number("limit", 50)
    if status not in _STATUSES:
        raise InvalidRequestError(f"status `{status:.40}` must be one of {', '.join(_STATUSES)}")
    if not 1 <= limit <= MOST_ON_A_PAGE:
        raise InvalidRequestError(f"limit `{limit}` must be from 1 to {MOST_ON_A_PAGE}")
    after = read_cursor(cursor) if cursor is not None else None
    found, following = await asyncio.to_thread(_page, call.identity, status, after, limit)
    return answer({"approvals": found, "next_cursor": following})


def _page(
    identity: Identity, status: str, after: str | None, limit: int
) -> tuple[list[ApprovalRequest], str | None]:
    found: list[ApprovalRequest] = []
    last = ""
    with identity.engine.read() as reader:
        operators.standing(reader, identity.operator())
        now = time_of_log(identity.engine.clock, reader.head.at)
        waiting = status == "pending"
        kind = "pending" if waiting else "approval"
        for key, document in reader.scan(kind, after=after, reverse=not waiting):
            approval_id = key.split("/", 1)[1] if waiting else key
            if waiting and key.split("/", 1)[0] <= now:
                continue  # its time is up, though nobody has recorded that yet
            if not waiting and status not in ("any", _status(document, now)):
                continue
            if len(found) == limit:
                return found, make_cursor(last)
            found.append(_shown(reader, approval_id, now))
            last = key
    return found, None


def _status(document: Document, now: str) -> str:
    status: str = document["status"]
    return "timed_out" if status == "pending" and document["timeout_at"] <= now else status


def _shown(reader: Reader, approval_id: str, now: str) -> ApprovalRequest:
    request = approvals.approval_request(reader, approval_id)
    if request.waits and request.timeout_at <= now:
        request.status = "timed_out"
    return request


@ENDPOINTS.add(
    "GET",
    "/api/v1/approvals/events",
    OPERATOR,
    "What happens to requests, as soon as something does",
    waiting=True,
    query={
        "cursor": {"type": "string"},
        "wait": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
    },
    answers={200: schemas.APPROVAL_EVENTS},
)
async def events(call: Call) -> Response:
    identity, cursor = call.identity, call.query("cursor")
    engine, patience = identity.engine, min(call.number("wait", 0), LONGEST_WAIT)

    def allowed() -> int:
        with engine.read() as reader:
            keys.find(reader, identity.digest, time_of_log(engine.clock, reader.head.at))
            operators.standing(reader, identity.operator())
            return reader.head.size

    size = await asyncio.to_thread(allowed)
    found: list[ApprovalEvent] = []
    start = size if cursor is None else min(_place(cursor), size)
    if cursor is not None:
        told = await unless_stopping(call, until_happened(engine, start, patience))
        found, start = told if told is not None else (found, start)
        await asyncio.to_thread(allowed)  # it may have ended while the answer was held back
    return answer({"events": found, "cursor": make_cursor(str(start))})


def _place(cursor: str) -> int:
    place = read_cursor(cursor)
    if not place.isascii() or not place.isdecimal() or len(place) > 15:
        raise InvalidRequestError(f"cursor `{cursor:.80}` is not one of ours; pass `cursor` as it came")
    return int(place)


@ENDPOINTS.add(
    "GET",
    "/api/v1/approvals/{approval}",
    OPERATOR,
    "One request, as an approver is shown it",
    answers={200: schemas.APPROVAL},
)
async def get_approval(call: Call) -> Response:
    identity, approval_id = call.identity, call.path("approval")

    def read() -> ApprovalRequest:
        with identity.engine.read() as reader:
            return _shown(reader, approval_id, time_of_log(identity.engine.clock, reader.head.at))

    return answer(await asyncio.to_thread(read))


@ENDPOINTS.add(
    "POST",
    "/api/v1/approvals/{approval}/approve",
    OPERATOR,
    "Approve a request",
    body=_DECISION,
    answers={200: schemas.APPROVAL, 409: schemas.PROBLEM},
)
async def approve(call: Call) -> Response:
    forever = cast(Forever | None, call.maybe("forever"))
    found = await call.identity.client().approve_action(
        call.path("approval"), call.maybe("reason"), digest=call.maybe("digest"), forever=forever
    )
    return answer(found)


@ENDPOINTS.add(
    "POST",
    "/api/v1/approvals/{approval}/deny",
    OPERATOR,
    "Deny a request; the reason goes back to the agent",
    body=schemas.body({"reason": schemas.MAYBE_TEXT, "digest": schemas.MAYBE_TEXT}),
    answers={200: schemas.APPROVAL, 409: schemas.PROBLEM},
)
async def deny(call: Call) -> Response:
    found = await call.identity.client().deny_action(
        call.path("approval"), call.maybe("reason"), digest=call.maybe("digest")
    )
    return answer(found)


@ENDPOINTS.add(
    "POST",
    "/api/v1/approvals/{approval}/cancel",
    AGENT,
    "Take back a request of one's own",
    body=schemas.body({"reason": schemas.MAYBE_TEXT}),
    answers={204: {}, 409: schemas.PROBLEM},
)
async def cancel(call: Call) -> Response:
    identity, approval_id = call.identity, call.path("approval")

    def action() -> Any:
        with identity.engine.read() as reader:
            return (reader.get("approval", approval_id) or {}).get("action")

    asked = await asyncio.to_thread(action)
    if asked is None:
        raise NotFoundError(f"there is no approval `{approval_id:.80}`")
    await identity.client().cancel(asked, call.maybe("reason"))
    return Response(status_code=204)
