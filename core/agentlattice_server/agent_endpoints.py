"""What an agent calls: acting, claiming, looking, delegating. The calls that the hosted product's client knows are marked
`wire` and answer as it expects; the others are for our own client.

- An action that was asked for before, by its event id, is answered with 409 and the first answer.
- Whoever waits for a person by our own client says how long (`wait`), and claims the action itself. The hosted product's
  client cannot claim: it runs the tool once it reads `approved`. So a poll without `wait` takes the claim for it, which
  asks policy once more, before it says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from agentlattice_core import admission, agents, approvals, delegation, keys
from agentlattice_core.batch import Batch
from agentlattice_core.clock import time_of_log
from agentlattice_core.delegation import Asked, Granted
from agentlattice_core.errors import (
    AuditError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.keys import IssuedKey, KeyKind
from agentlattice_core.results import ActionOptions, PostureResult, ReportOutcome
from agentlattice_core.stores.projections import action_key
from agentlattice_core.waiting import until_resolved
from agentlattice_server import schemas
from agentlattice_server.authentication import Identity
from agentlattice_server.endpoints import Call, Endpoint, answer

__all__ = ["ENDPOINTS"]

_LONGEST_WAIT = 30
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
_heavy = asyncio.Semaphore(2)
"""What reads the whole log leaves threads for what does not."""


# Acting


async def _execute(call: Call) -> Response:
    headers, identity, body = call.request.headers, call.identity, call.body
    _check_delegation(identity, headers.get("x-al-delegation-id"))
    context, trusted = body.get("context"), call.names("trusted")
    if context is not None and not isinstance(context, dict):
        raise InvalidRequestError("context: must be an object")
    result = await identity.client(_mode(call)).execute(
        call.text("action_type"),
        _options(body, headers.get("x-al-event-id")),
        context=context,
        trusted=trusted or (),
    )
    return answer(result, 409 if result.replayed else 202 if result.approval_id is not None else 200)


def _options(body: dict[str, Any], event_id: str | None = None) -> ActionOptions:
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


async def _claim(call: Call) -> Response:
    return answer(await call.identity.client().claim(call.path("action")))


async def _cancel(call: Call) -> Response:
    await call.identity.client().cancel(call.path("action"), call.maybe("reason"))
    return Response(status_code=204)


async def _outcome(call: Call) -> Response:
    outcome = call.text("claim")
    if outcome not in _CLAIM_OUTCOMES:
        raise InvalidRequestError(f"claim: must be one of {', '.join(_CLAIM_OUTCOMES)}")
    call.identity.client().record_outcome(call.path("action"), outcome, call.maybe("message"))
    return Response(status_code=202)


async def _abandon(call: Call) -> Response:
    caller, action = call.identity.caller(), call.path("action")
    await call.identity.engine.run_async(lambda batch: admission.abandon(batch, caller, action))
    return Response(status_code=204)


async def _refuse(call: Call) -> Response:
    return answer(
        await call.identity.client(_mode(call)).record_refusal(
            call.text("action_type"), call.text("reason"), call.text("message"), call.maybe("context", dict)
        )
    )


async def _report(call: Call) -> Response:
    outcome = call.body.get("outcome")
    if not isinstance(outcome, dict) or not isinstance(outcome.get("status"), str):
        raise InvalidRequestError("outcome: must be an object with `status`, which is text")
    metadata = outcome.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidRequestError("outcome.metadata: must be an object")
    said = ReportOutcome(outcome["status"], outcome.get("message"), metadata)
    return answer(await call.identity.client().report(call.text("audit_event_id"), said), 201)


# Waiting for a person


async def _approval_status(call: Call) -> Response:
    identity, approval_id = call.identity, call.path("approval")
    waiting = "wait" in call.request.query_params
    patience = min(call.number("wait", 0), _LONGEST_WAIT)
    found = await asyncio.to_thread(_standing, identity, approval_id)
    if patience and found["status"] in ("pending", "escalated"):
        await until_resolved(identity.engine, approval_id, patience)
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


# Who acts


async def _register(call: Call) -> Response:
    identity, name = call.identity, call.text("name")
    description = call.maybe("description")
    owner = call.maybe("owner") or identity.owner
    tags, grants = call.names("tags"), call.names("grants")
    if description is not None:
        admission.checked_text("description", description)

    def command(batch: Batch) -> tuple[str, IssuedKey, str]:
        keys.check(batch, identity.digest)
        if batch.get("agent", name) is not None:
            raise IllegalTransitionError(
                f"agent `{name:.80}` is registered already; to get another key for it, issue one",
                code="ALREADY_REGISTERED",
            )
        by = identity.named()
        agent_id = agents.register(
            batch, name, tags=tags, grants=grants, owner=owner, by=by, description=description
        )
        return agent_id, keys.issue(batch, "agent", name, by), batch.at

    agent_id, issued, at = await identity.engine.run_async(command)
    return answer(
        {
            "id": agent_id,
            "name": name,
            "api_key": issued.text,
            "created_at": at,
            "key_id": issued.key.id,
            "org_id": identity.organisation,
            "owner": owner,
        },
        201,
    )


async def _whoami(call: Call) -> Response:
    return answer(await call.identity.client().whoami())


async def _delegate(call: Call) -> Response:
    identity, body = call.identity, call.body
    asked = Asked.of(
        call.text("name"),
        body.get("capabilities"),
        body.get("ttl_seconds"),
        call.maybe("run"),
        call.names("grants") or (),
    )
    caller = identity.caller()

    def command(batch: Batch) -> tuple[Granted, IssuedKey]:
        granted = delegation.grant(batch, caller, asked)
        parent = admission.acting(batch, caller)
        by = {"agent": parent.name, "agent_id": parent.id, "established": "key"}
        return granted, keys.issue(batch, "agent", granted.agent, by, delegation=granted.id)

    granted, issued = await identity.engine.run_async(command)
    return answer(
        {
            "delegation_id": granted.id,
            "child_api_key": issued.text,
            "name": asked.name,
            "agent": granted.agent,
            "agent_id": granted.agent_id,
            "capabilities": list(granted.capabilities),
            "expires_at": granted.expires_at,
            "clamped": granted.clamped,
        },
        201,
    )


async def _close_delegation(call: Call) -> Response:
    caller, delegation_id = call.identity.caller(), call.path("delegation")
    await call.identity.engine.run_async(lambda batch: delegation.close(batch, caller, delegation_id))
    return answer({"closed": True, "delegation_id": delegation_id})


async def _delegations(call: Call) -> Response:
    found = await call.identity.client().delegations(call.query("role"), call.flag("active_only", True))
    return answer(found)


async def _revoke(call: Call) -> Response:
    return answer(await call.identity.client().revoke(call.text("delegation_id")))


# Looking


async def _policies(call: Call) -> Response:
    scope = call.query("scope") or ("own" if call.identity.kind == "agent" else "org")
    if scope == "own" and call.identity.kind != "agent":
        raise InvalidRequestError("scope `own` is an agent's; an operator's is `org`")
    return answer(await call.identity.client().policies(scope))


async def _check(call: Call) -> Response:
    action_type = call.query("action_type")
    if action_type is None:
        raise InvalidRequestError("action_type: must be there")
    return answer(await call.identity.client().can_i(action_type))


async def _check_with_data(call: Call) -> Response:
    return answer(await call.identity.client().can_i(call.text("action_type"), _options(call.body)))


async def _registry(call: Call) -> Response:
    name = call.path("registry")
    return answer({"registry": name, "entries": await call.identity.client().registry(name)})


async def _audit(call: Call) -> Response:
    found = await call.identity.client().audit(
        call.query("cursor"), call.number("limit", 50), call.query("action_type")
    )
    return answer(found)


async def _verify(call: Call) -> Response:
    checkpoint, incremental = call.query("checkpoint"), call.flag("incremental", False)
    async with _heavy:
        try:
            found = await call.identity.client().verify(checkpoint, incremental=incremental)
        except AuditError as error:
            if checkpoint is None:
                raise
            raise InvalidRequestError(f"checkpoint: {error.message}") from error
    return answer(found)


async def _posture(call: Call) -> Response:
    async with _heavy:
        found: PostureResult = await call.identity.client().posture()
    components = {
        name: {"score": one.score, "max": one.max, **one.extra} for name, one in found.components.items()
    }
    return answer({**asdict(found), "components": components})


_AGENT: tuple[KeyKind, ...] = ("agent",)
_BOTH: tuple[KeyKind, ...] = ("agent", "operator")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST",
        "/api/v1/actions",
        _AGENT,
        _execute,
        "Ask for an action",
        wire=True,
        remembering=True,
        body=schemas.ACTION,
        headers=schemas.ACTION_HEADERS,
        answers={200: schemas.RESULT, 202: schemas.RESULT, 409: schemas.RESULT},
    ),
    Endpoint(
        "GET",
        "/api/approvals/{approval}/status",
        _BOTH,
        _approval_status,
        "How a request stands",
        wire=True,
        waiting=True,
        query={"wait": {"type": "integer", "minimum": 0, "maximum": _LONGEST_WAIT}},
        answers={200: schemas.APPROVAL_STATUS},
    ),
    Endpoint(
        "POST",
        "/api/agents/register",
        ("service",),
        _register,
        "Register an agent; its key is shown this once",
        wire=True,
        body=schemas.REGISTRATION,
        answers={201: schemas.REGISTERED, 409: schemas.ERROR},
    ),
    Endpoint(
        "GET",
        "/api/v1/whoami",
        _AGENT,
        _whoami,
        "The agent that the key is for",
        wire=True,
        answers={200: schemas.WHOAMI},
    ),
    Endpoint(
        "GET",
        "/api/v1/policies",
        _BOTH,
        _policies,
        "Policies in force",
        wire=True,
        query={"scope": {"type": "string", "enum": ["own", "org"]}},
        answers={200: schemas.POLICIES},
    ),
    Endpoint(
        "GET",
        "/api/v1/policies/check",
        _AGENT,
        _check,
        "What an action would be answered, by its type alone",
        wire=True,
        query={"action_type": {"type": "string", "required": True}},
        answers={200: schemas.CHECK},
    ),
    Endpoint(
        "POST",
        "/api/v1/policies/check",
        _AGENT,
        _check_with_data,
        "What an action would be answered",
        body=schemas.ACTION,
        answers={200: schemas.CHECK},
    ),
    Endpoint(
        "GET",
        "/api/v1/audit",
        _BOTH,
        _audit,
        "Actions, newest first: an agent's own, an operator everybody's",
        wire=True,
        query={
            "cursor": {"type": "string"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 200},
            "action_type": {"type": "string"},
        },
        answers={200: schemas.AUDIT},
    ),
    Endpoint(
        "GET",
        "/api/v1/audit/verify",
        _BOTH,
        _verify,
        "Verify the log",
        wire=True,
        query={"checkpoint": {"type": "string"}, "incremental": {"type": "boolean"}},
        answers={200: schemas.VERIFY},
    ),
    Endpoint(
        "GET",
        "/api/v1/delegations",
        _BOTH,
        _delegations,
        "Delegations",
        wire=True,
        query={
            "role": {"type": "string", "enum": ["parent", "child"]},
            "active_only": {"type": "boolean"},
        },
        answers={200: schemas.DELEGATIONS},
    ),
    Endpoint(
        "POST",
        "/api/v1/delegations/revoke",
        _BOTH,
        _revoke,
        "End a delegation and all below it",
        wire=True,
        body=schemas.body({"delegation_id": schemas.TEXT}, "delegation_id"),
        answers={200: schemas.REVOKED, 409: schemas.ERROR},
    ),
    Endpoint(
        "POST",
        "/api/v1/delegate",
        _AGENT,
        _delegate,
        "Delegate to a child; its key is shown this once",
        wire=True,
        body=schemas.DELEGATION,
        answers={201: schemas.DELEGATED, 409: schemas.ERROR},
    ),
    Endpoint(
        "DELETE",
        "/api/v1/delegate/{delegation}",
        _AGENT,
        _close_delegation,
        "End a child of one's own",
        wire=True,
        answers={200: schemas.ANY},
    ),
    Endpoint(
        "POST",
        "/api/v1/report",
        _AGENT,
        _report,
        "Say how an action went; the last word counts",
        wire=True,
        body=schemas.REPORT,
        answers={201: schemas.REPORTED, 409: schemas.ERROR},
    ),
    Endpoint(
        "GET",
        "/api/v1/posture",
        _BOTH,
        _posture,
        "How well the organisation is governed",
        wire=True,
        answers={200: schemas.POSTURE},
    ),
    Endpoint(
        "POST",
        "/api/v1/actions/{action}/claim",
        _AGENT,
        _claim,
        "Take the right to run an approved action, once",
        body=schemas.body({}),
        answers={200: schemas.RESULT, 409: schemas.PROBLEM},
    ),
    Endpoint(
        "POST",
        "/api/v1/actions/{action}/outcome",
        _AGENT,
        _outcome,
        "Note how a claimed run went, without waiting for the disk",
        body=schemas.body(
            {"claim": {"type": "string", "enum": list(_CLAIM_OUTCOMES)}, "message": schemas.MAYBE_TEXT},
            "claim",
        ),
        answers={202: {}},
    ),
    Endpoint(
        "POST",
        "/api/v1/actions/{action}/abandon",
        _AGENT,
        _abandon,
        "Give back an admission that nobody will use",
        body=schemas.body({}),
        answers={204: {}},
    ),
    Endpoint(
        "POST",
        "/api/v1/actions/{action}/cancel",
        _AGENT,
        _cancel,
        "Take back a request that waits for a person",
        body=schemas.body({"reason": schemas.MAYBE_TEXT}),
        answers={204: {}, 409: schemas.PROBLEM},
    ),
    Endpoint(
        "POST",
        "/api/v1/refusals",
        _AGENT,
        _refuse,
        "Record an attempt that could not become an action",
        body=schemas.REFUSAL,
        answers={200: schemas.RESULT},
    ),
    Endpoint(
        "GET",
        "/api/v1/registries/{registry}",
        _BOTH,
        _registry,
        "What a registry holds",
        answers={200: schemas.ANY},
    ),
)
