"""Policy as those see it who write it: what is in force, putting documents into force, and what that would do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from agentlattice_core import configuration, keys, operators
from agentlattice_core.batch import Batch
from agentlattice_core.clock import parse_time, time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.simulate import LEAD, simulate
from agentlattice_core.policy.suggest import suggest
from agentlattice_core.recorded import RecordedActions
from agentlattice_core.session import PolicyText
from agentlattice_core.stores.base import Reader
from agentlattice_server import schemas
from agentlattice_server.authentication import Identity
from agentlattice_server.endpoints import MANAGING, OPERATOR, Call, Endpoints, answer
from agentlattice_server.looking_endpoints import heavily

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()

_DOCUMENT = schemas.body(
    {"yaml": schemas.TEXT, "name": schemas.TEXT, "prune": {"type": ["boolean", "null"]}}, "yaml"
)
_SINCE = {"type": ["string", "null"], "format": "date-time"}
_LONGEST = timedelta(days=3650)


def _text(call: Call) -> PolicyText:
    return PolicyText(call.maybe("name") or "policies.yaml", call.text("yaml"))


@ENDPOINTS.add(
    "GET",
    "/api/v1/policies/document",
    OPERATOR,
    "What is in force, part by part, with versions",
    answers={200: schemas.found({"parts": schemas.LIST})},
)
async def documents(call: Call) -> Response:
    identity = call.identity

    def read() -> list[dict[str, Any]]:
        with identity.engine.read() as reader:
            return configuration.policy_parts(identity.engine.policies, reader)

    return answer({"parts": await asyncio.to_thread(read)})


@ENDPOINTS.add(
    "PUT",
    "/api/v1/policies/document",
    OPERATOR,
    "Put a document into force",
    body=_DOCUMENT,
    answers={200: schemas.found({"changed": {"type": "array", "items": schemas.TEXT}})},
)
async def publish(call: Call) -> Response:
    text, prune = _text(call), bool(call.maybe("prune", bool))
    client = call.identity.client()
    return answer({"changed": await asyncio.to_thread(client.apply_policies_sync, text, prune=prune)})


@ENDPOINTS.add(
    "POST",
    "/api/v1/policies/rehearse",
    OPERATOR,
    "What putting a document into force would change and decide",
    body=_DOCUMENT,
    answers={
        200: schemas.found(
            {
                "changed": {"type": "array", "items": schemas.TEXT},
                "approved": schemas.LIST,
                "denied": schemas.LIST,
                "amended": schemas.LIST,
            }
        )
    },
)
async def rehearse(call: Call) -> Response:
    text, prune = _text(call), bool(call.maybe("prune", bool))
    client = call.identity.client()
    return answer(await asyncio.to_thread(client.rehearse_policies_sync, text, prune=prune))


@ENDPOINTS.add(
    "POST",
    "/api/v1/policies/simulate",
    OPERATOR,
    "What a document would have decided otherwise",
    body=schemas.body(
        {
            "yaml": schemas.TEXT,
            "name": schemas.TEXT,
            "since": _SINCE,
        },
        "yaml",
    ),
    answers={200: schemas.ANY},
)
async def simulated(call: Call) -> Response:
    text, engine = _text(call), call.identity.engine
    candidate = PolicySet.from_document(PolicyDocument.parse(text.text, text.name))
    since = _since(call)

    def replay() -> dict[str, Any]:
        with engine.read() as reader:
            begin = _begin(engine, reader, since, timedelta(days=7))
            records = RecordedActions(reader, begin, LEAD)
            report = simulate(records, candidate, engine.policies.registries(reader), since=begin)
            left_out = {"erased": records.erased, "refused": records.refused}
            return {**report.as_json(), "left_out": left_out}

    return answer(await heavily(replay))


@ENDPOINTS.add(
    "POST",
    "/api/v1/policies/suggest",
    OPERATOR,
    "A least-privilege draft from what was recorded",
    body=schemas.body({"since": _SINCE}),
    answers={200: schemas.found({"yaml": schemas.TEXT})},
)
async def suggested(call: Call) -> Response:
    engine, since = call.identity.engine, _since(call)

    def draft() -> str:
        with engine.read() as reader:
            begin = _begin(engine, reader, since, timedelta(days=1))
            return suggest(RecordedActions(reader, begin, LEAD), begin)

    return answer({"yaml": await heavily(draft)})


def _since(call: Call) -> datetime | None:
    text = call.maybe("since")
    try:
        return parse_time(text) if text is not None else None
    except ValueError:
        raise InvalidRequestError(f"since `{text:.40}` must be a time such as 2026-03-01T00:00:00Z") from None


def _begin(engine: Engine, reader: Reader, since: datetime | None, usual: timedelta) -> datetime:
    now = parse_time(time_of_log(engine.clock, reader.head.at))
    return max(since if since is not None else now - usual, now - _LONGEST)


# Everything at once


@ENDPOINTS.add(
    "GET",
    "/api/v1/export",
    MANAGING,
    "Policies and agents, as `import` takes them",
    answers={200: schemas.ANY},
)
async def export(call: Call) -> Response:
    identity = call.identity

    def read() -> dict[str, Any]:
        with identity.engine.read() as reader:
            return configuration.exported(identity.engine.policies, reader)

    return answer(await asyncio.to_thread(read))


@ENDPOINTS.add(
    "POST",
    "/api/v1/import",
    MANAGING,
    "Bring policies and agents of an export into force; nothing is removed",
    body=schemas.body({"document": schemas.ANY, "dry_run": {"type": ["boolean", "null"]}}, "document"),
    answers={
        200: schemas.found({"added": schemas.TEXTS, "modified": schemas.TEXTS, "unchanged": schemas.TEXTS})
    },
)
async def bring_in(call: Call) -> Response:
    identity, document = call.identity, call.maybe("document", dict)
    wanted = configuration.read(document)
    policies = identity.engine.policies

    if call.maybe("dry_run", bool):

        def compare() -> configuration.Comparison:
            with identity.engine.read() as reader:
                return configuration.compared(reader, wanted)

        return answer(asdict(await asyncio.to_thread(compare)))

    def command(batch: Batch) -> configuration.Comparison:
        return configuration.bring_in(policies, batch, wanted, _by(batch, identity))

    return answer(asdict(await identity.engine.run_async(command)))


def _by(batch: Batch, identity: Identity) -> dict[str, Any]:
    if identity.kind == "service":
        keys.check(batch, identity.digest)
        return identity.named()
    return operators.operator_identity(operators.require_admin(batch, identity.operator(), "importing"))
