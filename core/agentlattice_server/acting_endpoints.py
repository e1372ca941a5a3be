"""What an agent does: asking for actions, waiting for a person, claiming, saying how it went.

- An action that was asked for before, by its event id, is answered with 409 and the first answer.
- Our own client may say how the id of its action is to end (`X-AL-Nonce`): by it a client whose answer was lost knows
  its own admission from somebody else's. Its event id is then percent-encoded, since a header holds no other text.
- Our own client says how long it waits for a person (`wait`), and claims the action itself. The hosted product's client
  cannot claim: it runs the tool once it reads `approved`. So a poll without `wait` takes the claim for it, which asks
  policy once more, before it says so.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response

from agentlattice_core import admission, approvals, registries
from agentlattice_core.actions import Action
from agentlattice_core.clock import time_of_log
from agentlattice_core.commands import Execution
from agentlattice_core.errors import (
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.results import ActionOptions, ReportOutcome
from agentlattice_core.stores.projections import action_key
from agentlattice_core.waiting import until_resolved
from agentlattice_server import schemas
from agentlattice_server.authentication import Identity
from agentlattice_server.endpoints import (
    AGENT,
    BOTH,
    LONGEST_WAIT,
    Call,
    Endpoints,
    answer,
    unless_stopping,
)

__all__ = ["ENDPOINTS", "options_of"]

ENDPOINTS = Endpoints()

_NONCE = re.compile("[0-9a-f]{20}")
_CLAIM_OUTCOMES = ("succeeded", "failed", "unknown")
_OPTIONS = (
    "data_accessed",
    "metadata",
    "amount",
    "currency",
    "beneficiary",
    "category",
    "on_behalf_of",
)


# Acting


@ENDPOINTS.add(
    "POST",
    "/api/v1/actions",
    AGENT,
    "Ask for an action",
    wire=True,
    remembering=True,
    body=schemas.ACTION,
    headers=schemas.ACTION_HEADERS,
    answers={200: schemas.RESULT, 202: schemas.RESULT, 409: schemas.RESULT},
)
async def execute(call: Call) -> Response:
    headers, identity, body = call.headers, call.identity, call.body
    _check_delegation(identity, headers.get("x-al-delegation-id"))
    event_id, nonce = headers.get("x-al-event-id"), headers.get("x-al-nonce")
    if nonce is not None:
        if not _NONCE.fullmatch(nonce):
            raise InvalidRequestError("X-AL-Nonce: must be 20 hexadecimal digits")
        event_id = unquote(event_id) if event_id is not None else None
    caller = identity.caller(_mode(call))
    if call.body.get("context") is not None:
        caller = replace(caller, context=admission.checked_context(call.maybe("context", dict)))
    options, trusted = options_of(body, event_id), call.names("trusted") or ()
    action = Action.build(call.text("action_type"), options, trusted=trusted)
    making = registries.Change if registries.is_change(action.action_type) else Execution
    result = await identity.engine.run_async(making(identity.engine.policies, caller, action, nonce))
    return answer(result, 409 if result.replayed else 202 if result.approval_id is not None else 200)


def options_of(body: dict[str, Any], event_id: str | None = None) -> ActionOptions:
    return ActionOptions(**{name: body[name] for name in _OPTIONS if name in body}, event_id=event_id)


def _mode(call: Call) -> str:
    mode = call.body.get("mode", "enforce")
    if mode not in ("enforce", "observe"):
        raise InvalidRequestError("mode: must be `enforce` or `observe`")
    return str(mode)


def _check_delegation(identity: Identity, named: str | None) -> None:
    """Raise ForbiddenError if the request is for another delegation than its key."""
    if named is not None and named != identity.delegation:
        raise ForbiddenError(f"this key is not for delegation `{named:.80}`")


@ENDPOINTS.add(
    "POST",
    "/api/v1/actions/{action}/claim",
    AGENT,
    "Take the right to run an approved action, once",
    body=schemas.body({}),
    answers={200: schemas.RESULT, 409: schemas.PROBLEM},
)
async def claim(call: Call) -> Response:
    return answer(await call.identity.client().claim(call.path("action")))


@ENDPOINTS.add(
    "POST",
    "/api/v1/actions/{action}/cancel",
    AGENT,
    "Take back a request that waits for a person",
    body=schemas.body({"reason": schemas.MAYBE_TEXT}),
    answers={204: {}, 409: schemas.PROBLEM},
)
async def cancel(call: Call) -> Response:
    await call.identity.client().cancel(call.path("action"), call.maybe("reason"))
    return Response(status_code=204)


@ENDPOINTS.add(
    "POST",
    "/api/v1/actions/{action}/outcome",
    AGENT,
    "Note how a claimed run went, without waiting for the disk",
    body=schemas.body(
        {"claim": {"type": "string", "enum": list(_CLAIM_OUTCOMES)}, "message": schemas.MAYBE_TEXT},
        "claim",
    ),
    answers={202: {}},
)
async def outcome(call: Call) -> Response:
    outcome = call.text("claim")
    if outcome not in _CLAIM_OUTCOMES:
        raise InvalidRequestError(f"claim: must be one of {', '.join(_CLAIM_OUTCOMES)}")
    call.identity.client().record_outcome(call.path("action"), outcome, call.maybe("message"))
    return Response(status_code=202)


@ENDPOINTS.add(
    "POST",
    "/api/v1/actions/{action}/abandon",
    AGENT,
    "Give back an admission that nobody will use",
    body=schemas.body({}),
    answers={204: {}},
)
async def abandon(call: Call) -> Response:
    caller, action = call.identity.caller(), call.path("action")
    await call.identity.engine.run_async(lambda batch: admission.abandon(batch, caller, action))
    return Response(status_code=204)


@ENDPOINTS.add(
    "POST",
    "/api/v1/refusals",
    AGENT,
    "Record an attempt that could not become an action",
    body=schemas.REFUSAL,
    answers={200: schemas.RESULT},
)
async def refuse(call: Call) -> Response:
    return answer(
        await call.identity.client(_mode(call)).record_refusal(
            call.text("action_type"), call.text("reason"), call.text("message"), call.maybe("context", dict)
        )
    )


@ENDPOINTS.add(
    "POST",
    "/api/v1/report",
    AGENT,
    "Say how an action went; the last word counts",
    wire=True,
    body=schemas.REPORT,
    answers={201: schemas.REPORTED, 409: schemas.ERROR},
)
async def report(call: Call) -> Response:
    outcome = call.body.get("outcome")
    if not isinstance(outcome, dict) or not isinstance(outcome.get("status"), str):
        raise InvalidRequestError("outcome: must be an object with `status`, which is text")
    metadata = outcome.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidRequestError("outcome.metadata: must be an object")
    said = ReportOutcome(outcome["status"], outcome.get("message"), metadata)
    return answer(await call.identity.client().report(call.text("audit_event_id"), said), 201)


# Waiting for a person


@ENDPOINTS.add(
    "GET",
    "/api/approvals/{approval}/status",
    BOTH,
    "How a request stands",
    wire=True,
    waiting=True,
    query={"wait": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT}},
    answers={200: schemas.APPROVAL_STATUS},
)
async def approval_status(call: Call) -> Response:
    identity, approval_id = call.identity, call.path("approval")
    waiting = "wait" in call.request.query_params
    patience = min(call.number("wait", 0), LONGEST_WAIT)
    found = await asyncio.to_thread(_standing, identity, approval_id)
    if patience and found["status"] in ("pending", "escalated"):
        await unless_stopping(call, until_resolved(identity.engine, approval_id, patience))
        found = await asyncio.to_thread(_standing, identity, approval_id)
    if found["status"] == "approved" and not waiting and identity.kind == "agent":
        found["status"] = await _claimed(identity, found["action"])
    return answer(found)


async def _claimed(identity: Identity, action: str) -> str:
    """Take the claim for a client that cannot; how it may read the request then."""
    try:
        result = await identity.client().claim(action)
    except IllegalTransitionError:
        return "approved"  # an earlier poll took it, and its answer was lost
    if result.status == "executed":
        return "approved"
    return "timed_out" if result.denial_reason == "approval_timeout" else "denied"


def _standing(identity: Identity, approval_id: str) -> dict[str, Any]:
    with identity.engine.read() as reader:
        approval = reader.get("approval", approval_id)
        if approval is None:
            raise NotFoundError(f"there is no approval `{approval_id:.80}`")
        agent = identity.name if identity.kind == "agent" else approval["agent"]
        now = time_of_log(identity.engine.clock, reader.head.at)
        status = approvals.status_of(reader, agent, approval_id, now)
        action = reader.get("action", action_key(approval["agent_id"], approval["entry"])) or {}
    if status == "cancelled" or (status == "approved" and action.get("claim") == "refused"):
        status = "denied"
    elif status == "approved" and action.get("claim") == "lapsed":
        status = "timed_out"
    elif status == "pending" and "escalated_at" in approval:
        status = "escalated"
    return {
        "status": status,
        "action": approval["action"],
        "timeout_at": approval["timeout_at"],
        "resolved_at": approval["resolved_at"],
    }
