"""Delegation: children with keys of their own, and taking them back."""

from __future__ import annotations

from starlette.responses import Response

from agentlattice_core import admission, delegation, keys
from agentlattice_core.batch import Batch
from agentlattice_core.delegation import Asked, Granted
from agentlattice_core.keys import IssuedKey
from agentlattice_server import schemas
from agentlattice_server.endpoints import AGENT, BOTH, Call, Endpoints, answer

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()


@ENDPOINTS.add(
    "POST",
    "/api/v1/delegate",
    AGENT,
    "Delegate to a child; its key is shown this once",
    wire=True,
    body=schemas.DELEGATION,
    answers={201: schemas.DELEGATED, 409: schemas.ERROR},
)
async def delegate(call: Call) -> Response:
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


@ENDPOINTS.add(
    "DELETE",
    "/api/v1/delegate/{delegation}",
    AGENT,
    "End a child of one's own",
    wire=True,
    answers={200: schemas.ANY},
)
async def close_delegation(call: Call) -> Response:
    caller, delegation_id = call.identity.caller(), call.path("delegation")
    await call.identity.engine.run_async(lambda batch: delegation.close(batch, caller, delegation_id))
    return answer({"closed": True, "delegation_id": delegation_id})


@ENDPOINTS.add(
    "GET",
    "/api/v1/delegations",
    BOTH,
    "Delegations",
    wire=True,
    query={
        "role": {"type": "string", "enum": ["parent", "child"]},
        "active_only": {"type": "boolean"},
        "agent": {"type": "string"},
    },
    answers={200: schemas.DELEGATIONS, 404: schemas.ERROR},
)
async def delegations(call: Call) -> Response:
    found = await call.identity.client().delegations(
        call.query("role"), call.flag("active_only", True), call.query("agent")
    )
    return answer(found)


@ENDPOINTS.add(
    "POST",
    "/api/v1/delegations/revoke",
    BOTH,
    "End a delegation and all below it",
    wire=True,
    body=schemas.body({"delegation_id": schemas.TEXT}, "delegation_id"),
    answers={200: schemas.REVOKED, 409: schemas.ERROR},
)
async def revoke(call: Call) -> Response:
    return answer(await call.identity.client().revoke(call.text("delegation_id")))
