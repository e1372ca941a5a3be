"""What is read: identity, policies, dry runs, the audit trail, verification, posture, registries.

- An agent sees what is its own and as policy lets it see it, an operator everything of their organisation.
- What reads the whole log gets few threads, so that others have some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TypeVar

from starlette.responses import Response

from agentlattice_core.errors import AuditError, InvalidRequestError
from agentlattice_server import schemas
from agentlattice_server.acting_endpoints import options_of
from agentlattice_server.endpoints import AGENT, BOTH, Call, Endpoints, answer

__all__ = ["ENDPOINTS", "heavily"]

T = TypeVar("T")

ENDPOINTS = Endpoints()

_heavy = ThreadPoolExecutor(2, thread_name_prefix="agentlattice-whole-log")


async def heavily(work: Callable[[], T]) -> T:
    """Run what reads the whole log."""
    return await asyncio.get_running_loop().run_in_executor(_heavy, work)


@ENDPOINTS.add(
    "GET", "/api/v1/whoami", AGENT, "The agent that the key is for", wire=True, answers={200: schemas.WHOAMI}
)
async def whoami(call: Call) -> Response:
    return answer(await call.identity.client().whoami())


@ENDPOINTS.add(
    "GET",
    "/api/v1/policies",
    BOTH,
    "Policies in force",
    wire=True,
    query={"scope": {"type": "string", "enum": ["own", "org"]}},
    answers={200: schemas.POLICIES},
)
async def policies(call: Call) -> Response:
    scope = call.query("scope") or ("own" if call.identity.kind == "agent" else "org")
    if scope == "own" and call.identity.kind != "agent":
        raise InvalidRequestError("scope `own` is an agent's; an operator's is `org`")
    return answer(await call.identity.client().policies(scope))


@ENDPOINTS.add(
    "GET",
    "/api/v1/policies/check",
    AGENT,
    "What an action would be answered, by its type alone",
    wire=True,
    query={"action_type": {"type": "string", "required": True}},
    answers={200: schemas.CHECK},
)
async def check(call: Call) -> Response:
    action_type = call.query("action_type")
    if action_type is None:
        raise InvalidRequestError("action_type: must be there")
    return answer(await call.identity.client().can_i(action_type))


@ENDPOINTS.add(
    "POST",
    "/api/v1/policies/check",
    AGENT,
    "What an action would be answered",
    body=schemas.ACTION,
    answers={200: schemas.CHECK},
)
async def check_with_data(call: Call) -> Response:
    return answer(await call.identity.client().can_i(call.text("action_type"), options_of(call.body)))


@ENDPOINTS.add(
    "GET", "/api/v1/registries/{registry}", BOTH, "What a registry holds", answers={200: schemas.ANY}
)
async def registry(call: Call) -> Response:
    name = call.path("registry")
    return answer({"registry": name, "entries": await call.identity.client().registry(name)})


@ENDPOINTS.add(
    "GET",
    "/api/v1/audit",
    BOTH,
    "Actions, newest first: an agent's own, an operator everybody's",
    wire=True,
    query={
        "cursor": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 200},
        "action_type": {"type": "string"},
        "agent": {"type": "string"},
    },
    answers={200: schemas.AUDIT, 404: schemas.ERROR},
)
async def audit(call: Call) -> Response:
    found = await call.identity.client().audit(
        call.query("cursor"), call.number("limit", 50), call.query("action_type"), call.query("agent")
    )
    return answer(found)


@ENDPOINTS.add(
    "GET",
    "/api/v1/audit/verify",
    BOTH,
    "Verify the log",
    wire=True,
    query={"checkpoint": {"type": "string"}, "incremental": {"type": "boolean"}},
    answers={200: schemas.VERIFY},
)
async def verify(call: Call) -> Response:
    checkpoint, incremental = call.query("checkpoint"), call.flag("incremental", False)
    client = call.identity.client()
    try:
        found = await heavily(lambda: client.verify_sync(checkpoint, incremental=incremental))
    except AuditError as error:
        if checkpoint is None:
            raise
        raise InvalidRequestError(f"checkpoint: {error.message}") from error
    return answer(found)


@ENDPOINTS.add(
    "GET",
    "/api/v1/posture",
    BOTH,
    "How well the organisation is governed",
    wire=True,
    answers={200: schemas.POSTURE},
)
async def posture(call: Call) -> Response:
    found = await heavily(call.identity.client().posture_sync)
    components = {
        name: {"score": one.score, "max": one.max, **one.extra} for name, one in found.components.items()
    }
    return answer({**asdict(found), "components": components})
