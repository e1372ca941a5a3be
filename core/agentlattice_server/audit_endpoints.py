"""The log as those see it who check it: export, proofs, checkpoints, the public key, erasure.

- An export is streamed. It is of the log as it was when it was asked for.
- All of it is for operators; what takes an administrator is the core's to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response, StreamingResponse

from agentlattice_core.audit.export import export_lines
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AuditError, InvalidRequestError
from agentlattice_core.history import noted_history
from agentlattice_core.operators import require_admin
from agentlattice_core.proving import prove
from agentlattice_server import schemas
from agentlattice_server.endpoints import BOTH, OPERATOR, Call, Endpoints, answer

__all__ = ["ENDPOINTS"]

ENDPOINTS = Endpoints()

_LINES_AT_ONCE = 500
_MOST_ERASED = 100_000


@ENDPOINTS.add(
    "GET",
    "/api/v1/audit/export",
    OPERATOR,
    "The whole log as JSON lines, with a signed checkpoint over it; for administrators",
    answers={200: {}},
)
async def export(call: Call) -> Response:
    identity = call.identity

    def allowed() -> None:
        with identity.engine.read() as reader:
            require_admin(reader, identity.operator(), "exporting the log")

    await asyncio.to_thread(allowed)
    chunks = _chunks(identity.engine)
    first = await asyncio.to_thread(
        next, chunks
    )  # so that what cannot begin is an error and not half an answer

    async def body() -> AsyncIterator[bytes]:
        yield first
        while True:
            chunk = await asyncio.to_thread(next, chunks, None)
            if chunk is None:
                return
            yield chunk

    return StreamingResponse(body(), media_type="application/jsonl")


def _chunks(engine: Engine) -> Iterator[bytes]:
    """The export, some lines at a time; each is read in a view of its own, so that none is held while a slow reader
    takes its time. Entries never change, so that makes no difference.
    """
    engine.flush()
    signed = engine.notary.sign()
    if signed is None:
        raise AuditError(engine.notary.alarm or "the log could not be signed")
    public = engine.notary.verifier_key()
    with engine.read() as reader:
        statements = engine.notary.keyring(noted_history(reader)).up_to(public)

    def rows() -> Iterator[tuple[int, bytes, bytes, bytes | None, bytes | None]]:
        start = 0
        while True:
            with engine.read() as reader:
                some = list(reader.rows(start, start + _LINES_AT_ONCE))
            if not some:
                return
            yield from some
            start += len(some)

    held: list[bytes] = []
    for line in export_lines(
        rows(), log=engine.store.log_id, key=public, checkpoint=signed, statements=statements
    ):
        held.append(line)
        if len(held) == _LINES_AT_ONCE:
            yield b"".join(held)
            held.clear()
    if held:
        yield b"".join(held)


@ENDPOINTS.add(
    "GET",
    "/api/v1/audit/proof/{entry}",
    OPERATOR,
    "A proof that one entry is in the log, by an action's id or by index",
    query={"disclose": {"type": "boolean"}},
    answers={200: schemas.ANY},
)
async def proof(call: Call) -> Response:
    entry, disclose = call.path("entry"), call.flag("disclose", False)
    if not entry.isascii() or len(entry) > 100:
        raise InvalidRequestError(f"entry `{entry:.40}` is neither an action's id nor an index")
    document = await asyncio.to_thread(lambda: prove(call.identity.engine, entry, disclose=disclose))
    return Response(document + b"\n", media_type="application/json")


@ENDPOINTS.add(
    "POST",
    "/api/v1/audit/checkpoint",
    OPERATOR,
    "Sign the log as it is: a note to keep elsewhere",
    body=schemas.body({}),
    answers={200: schemas.found({"checkpoint": schemas.TEXT})},
)
async def checkpoint(call: Call) -> Response:
    return answer({"checkpoint": await call.identity.client().checkpoint()})


@ENDPOINTS.add(
    "GET",
    "/api/v1/audit/key",
    BOTH,
    "The public key that checkpoints are verified with",
    answers={200: schemas.found({"verifier_key": schemas.TEXT})},
)
async def public_key(call: Call) -> Response:
    return answer({"verifier_key": await asyncio.to_thread(call.identity.client().verifier_key)})


@ENDPOINTS.add(
    "POST",
    "/api/v1/audit/erase",
    OPERATOR,
    "Erase what may be personal in entries; for administrators",
    body=schemas.body(
        {
            "indexes": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "reason": schemas.TEXT,
        },
        "indexes",
        "reason",
    ),
    answers={200: schemas.found({"erased": {"type": "integer"}})},
)
async def erase(call: Call) -> Response:
    indexes = call.body.get("indexes")
    if (
        not isinstance(indexes, list)
        or not 0 < len(indexes) <= _MOST_ERASED
        or not all(type(index) is int and index >= 0 for index in indexes)
    ):
        raise InvalidRequestError(f"indexes: must be a list of 1 to {_MOST_ERASED} whole numbers")
    return answer({"erased": await call.identity.client().erase(indexes, call.text("reason"))})
