"""Agents, people and their keys.

- A service key registers agents, and issues and ends keys of agents. An administrator does all of it.
- A key's text is in the answer that makes it, and nowhere else.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast, get_args

from starlette.responses import Response

from agentlattice_core import admission, agents, keys, operators
from agentlattice_core.agents import check_name, operator_named
from agentlattice_core.batch import Batch
from agentlattice_core.errors import (
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.keys import IssuedKey, Key, KeyKind
from agentlattice_core.principals import Operator
from agentlattice_server import schemas
from agentlattice_server.authentication import Identity
from agentlattice_server.endpoints import MANAGING, OPERATOR, Call, Endpoints, answer, page

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()


@ENDPOINTS.add(
    "POST",
    "/api/agents/register",
    MANAGING,
    "Register an agent; its key is shown this once",
    wire=True,
    body=schemas.REGISTRATION,
    answers={201: schemas.REGISTERED, 409: schemas.ERROR},
)
async def register(call: Call) -> Response:
    identity, name = call.identity, call.text("name")
    description = call.maybe("description")
    owner = call.maybe("owner") or identity.owner
    tags, grants = call.names("tags"), call.names("grants")
    if description is not None:
        admission.checked_text("description", description)

    def command(batch: Batch) -> tuple[str, IssuedKey, str]:
        by = _by(batch, identity, "agent", "registering agents")
        if batch.get("agent", name) is not None:
            raise IllegalTransitionError(
                f"agent `{name:.80}` is registered already; to get another key for it, issue one",
                code="ALREADY_REGISTERED",
            )
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


# Keys


def _by(batch: Batch, identity: Identity, kind: str, what: str) -> dict[str, Any]:
    """How entries name who manages keys of that kind. Raises ForbiddenError, InvalidKeyError for who may not."""
    if identity.kind == "service":
        keys.check(batch, identity.digest)
        if kind != "agent":
            raise ForbiddenError(f"a service key manages the keys of agents; {what} takes an administrator")
        return identity.named()
    return operators.operator_identity(operators.require_admin(batch, identity.operator(), what))


@ENDPOINTS.add(
    "GET",
    "/api/v1/keys",
    MANAGING,
    "Keys, the oldest first; of a service key, those of agents",
    query=schemas.PAGE,
    answers={200: schemas.found({"keys": schemas.LIST, "next_cursor": schemas.MAYBE_TEXT})},
)
async def list_keys(call: Call) -> Response:
    identity = call.identity

    def read() -> list[Key]:
        with identity.engine.read() as reader:
            if identity.kind == "operator":
                operators.require_admin(reader, identity.operator(), "seeing keys")
            return [key for key in keys.keys(reader) if identity.kind == "operator" or key.kind == "agent"]

    return answer(page("keys", await asyncio.to_thread(read), call, lambda key: key.id))


@ENDPOINTS.add(
    "POST",
    "/api/v1/keys",
    MANAGING,
    "Make a key; its text is shown this once",
    body=schemas.body(
        {"kind": {"type": "string", "enum": ["agent", "service", "operator"]}, "holder": schemas.TEXT},
        "kind",
        "holder",
    ),
    answers={201: schemas.ISSUED},
)
async def issue_key(call: Call) -> Response:
    identity, holder = call.identity, check_name(call.text("holder"), "holder")
    if call.text("kind") not in get_args(KeyKind):
        raise InvalidRequestError(f"kind: must be one of {', '.join(get_args(KeyKind))}")
    kind = cast(KeyKind, call.text("kind"))

    def command(batch: Batch) -> IssuedKey:
        by = _by(batch, identity, kind, "making keys")
        if kind == "agent" and "parent" in (batch.get("agent", holder) or {}):
            raise ForbiddenError(f"agent `{holder:.80}` was delegated to, and gets its key from its parent")
        owner = identity.name if kind == "service" else None
        return keys.issue(batch, kind, holder, by, owner=owner)

    return answer(_issued(await identity.engine.run_async(command)), 201)


@ENDPOINTS.add(
    "POST",
    "/api/v1/keys/{key}/rotate",
    MANAGING,
    "Make a key's successor; the key itself ends after the overlap",
    body=schemas.body({"overlap_seconds": {"type": "number", "minimum": 0, "maximum": 2592000}}),
    answers={201: schemas.ISSUED, 409: schemas.PROBLEM},
)
async def rotate_key(call: Call) -> Response:
    identity, key_id = call.identity, call.path("key")
    overlap = call.maybe("overlap_seconds", (int, float)) or 0

    def command(batch: Batch) -> IssuedKey:
        by = _by(batch, identity, keys.known(batch, key_id).kind, "rotating keys")
        return keys.rotate(batch, key_id, by, overlap)

    return answer(_issued(await identity.engine.run_async(command)), 201)


@ENDPOINTS.add(
    "DELETE",
    "/api/v1/keys/{key}",
    MANAGING,
    "End a key at once",
    answers={200: schemas.ANY, 409: schemas.PROBLEM},
)
async def revoke_key(call: Call) -> Response:
    identity, key_id = call.identity, call.path("key")

    def command(batch: Batch) -> Key:
        by = _by(batch, identity, keys.known(batch, key_id).kind, "revoking keys")
        return keys.revoke(batch, key_id, by)

    return answer(await identity.engine.run_async(command))


def _issued(issued: IssuedKey) -> dict[str, Any]:
    return {"key": issued.key, "text": issued.text}


# Agents


@ENDPOINTS.add(
    "GET",
    "/api/v1/agents",
    MANAGING,
    "Registered agents, children among them, by name",
    query=schemas.PAGE,
    answers={200: schemas.found({"agents": schemas.LIST, "next_cursor": schemas.MAYBE_TEXT})},
)
async def list_agents(call: Call) -> Response:
    identity = call.identity

    def read() -> list[dict[str, Any]]:
        with identity.engine.read() as reader:
            return [_agent(name, document) for name, document in reader.scan("agent")]

    return answer(page("agents", await asyncio.to_thread(read), call, lambda agent: agent["name"]))


@ENDPOINTS.add(
    "GET",
    "/api/v1/agents/{agent}",
    MANAGING,
    "What is said of one agent",
    answers={200: schemas.ANY},
)
async def get_agent(call: Call) -> Response:
    identity, name = call.identity, call.path("agent")

    def read() -> dict[str, Any]:
        with identity.engine.read() as reader:
            document = reader.get("agent", name)
        if document is None:
            raise NotFoundError(f"there is no agent `{name:.80}`")
        return _agent(name, document)

    return answer(await asyncio.to_thread(read))


@ENDPOINTS.add(
    "PUT",
    "/api/v1/agents/{agent}",
    MANAGING,
    "Change what is said of an agent; what is left out stays",
    body=schemas.body(
        {
            "tags": schemas.MAYBE_TEXTS,
            "grants": schemas.MAYBE_TEXTS,
            "owner": schemas.MAYBE_TEXT,
        }
    ),
    answers={200: schemas.ANY},
)
async def change_agent(call: Call) -> Response:
    identity, name = call.identity, call.path("agent")
    tags, grants, owner = call.names("tags"), call.names("grants"), call.maybe("owner")

    def command(batch: Batch) -> dict[str, Any]:
        by = _by(batch, identity, "agent", "changing agents")
        if batch.get("agent", name) is None:
            raise NotFoundError(f"there is no agent `{name:.80}`")
        agents.register(batch, name, tags=tags, grants=grants, owner=owner, by=by)
        document = batch.get("agent", name)
        assert document is not None
        return _agent(name, document)

    return answer(await identity.engine.run_async(command))


def _agent(name: str, document: dict[str, Any]) -> dict[str, Any]:
    shown = ("id", "tags", "grants", "owner", "registered_at", "registered_by", "parent", "delegation")
    return {"name": name, **{member: document[member] for member in shown if member in document}}


# People


@ENDPOINTS.add(
    "GET",
    "/api/v1/operators",
    OPERATOR,
    "Registered people, by name",
    query=schemas.PAGE,
    answers={200: schemas.found({"operators": schemas.LIST, "next_cursor": schemas.MAYBE_TEXT})},
)
async def list_operators(call: Call) -> Response:
    people = [_person(person) for person in await call.identity.client().operators()]
    return answer(page("operators", people, call, lambda person: person["name"]))


@ENDPOINTS.add(
    "POST",
    "/api/v1/operators",
    OPERATOR,
    "Register a person, or change their role and groups",
    body=schemas.body(
        {
            "name": {"type": "string", "minLength": 1, "maxLength": 200},
            "role": {"type": "string", "enum": ["viewer", "member", "admin"]},
            "groups": schemas.MAYBE_TEXTS,
        },
        "name",
    ),
    answers={200: schemas.ANY, 409: schemas.PROBLEM},
)
async def register_operator(call: Call) -> Response:
    person = operator_named(call.text("name"), call.maybe("role") or "member", call.names("groups") or ())
    by = call.identity.operator()
    await call.identity.engine.run_async(lambda batch: operators.register(batch, by, person))
    return answer(_person(person))


@ENDPOINTS.add(
    "DELETE",
    "/api/v1/operators/{operator}",
    OPERATOR,
    "Remove a person, whose keys end with it",
    answers={204: {}, 409: schemas.PROBLEM},
)
async def remove_operator(call: Call) -> Response:
    await call.identity.client().remove_operator(call.path("operator"))
    return Response(status_code=204)


def _person(person: Operator) -> dict[str, Any]:
    return {"name": person.name, "role": person.role, "groups": sorted(person.groups)}
