"""The service as an ASGI application: endpoints, health, OpenAPI, and errors that nobody else answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agentlattice_core.actions import MAX_PAYLOAD_BYTES
from agentlattice_core.errors import AgentLatticeError, NotFoundError
from agentlattice_server import (
    acting_endpoints,
    approval_endpoints,
    audit_endpoints,
    delegating_endpoints,
    key_endpoints,
    looking_endpoints,
    policy_endpoints,
    webhook_endpoints,
)
from agentlattice_server.authentication import Authenticator
from agentlattice_server.endpoints import Endpoint, serving
from agentlattice_server.login import Login
from agentlattice_server.oidc import OidcSettings
from agentlattice_server.openapi import described
from agentlattice_server.organisations import Organisations
from agentlattice_server.outward import Outward, OutwardSettings
from agentlattice_server.problems import RequestError, answer_error
from agentlattice_server.rates import RateLimits
from agentlattice_server.realtime import realtime
from agentlattice_server.requestlog import RequestLog
from agentlattice_server.telemetry import Tracing

__all__ = ["ENDPOINTS", "ServiceSettings", "create_app"]

ENDPOINTS: tuple[Endpoint, ...] = (
    *acting_endpoints.ENDPOINTS,
    *looking_endpoints.ENDPOINTS,
    *delegating_endpoints.ENDPOINTS,
    *key_endpoints.ENDPOINTS,
    *approval_endpoints.ENDPOINTS,
    *policy_endpoints.ENDPOINTS,
    *audit_endpoints.ENDPOINTS,
    *webhook_endpoints.ENDPOINTS,
)
"""Everything that takes a key."""

_THREADS = 32


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """`calls_per_minute` is how many calls a key may make on this node (0: as many as it likes), `most_bytes` how
    large a body may be, `provider` who vouches for the people of the first organisation, `outward` how webhooks are
    delivered and who may read the metrics; without it, neither is there.
    """

    calls_per_minute: int = 6000
    most_bytes: int = 2 * MAX_PAYLOAD_BYTES
    provider: OidcSettings | None = None
    outward: OutwardSettings | None = None


def create_app(organisations: Organisations, settings: ServiceSettings | None = None) -> FastAPI:
    """The application that serves `organisations`. They are closed when it ends."""
    chosen = settings or ServiceSettings()
    authenticator = Authenticator(organisations)
    rates = RateLimits(chosen.calls_per_minute)
    stopping = asyncio.Event()
    outward = Outward(organisations, chosen.outward) if chosen.outward is not None else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="agentlattice-reader")
        asyncio.get_running_loop().set_default_executor(threads)
        if outward is not None:
            await asyncio.to_thread(outward.start)
        yield
        if outward is not None:
            await asyncio.to_thread(outward.stop)
        await asyncio.to_thread(organisations.close)

    app = FastAPI(
        title="AgentLattice",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for endpoint in ENDPOINTS:
        handler = serving(endpoint, authenticator, rates, chosen.most_bytes)
        app.add_route(endpoint.path, handler, methods=[endpoint.method])
    document = orjson.dumps(described(ENDPOINTS))

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    async def healthy(_: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready(_: Request) -> Response:
        try:
            await asyncio.to_thread(organisations.check)
        except AgentLatticeError as error:
            return answer_error(RequestError("STORE_ERROR", error.message), wire=False)
        return Response(b'{"status":"ready"}', media_type="application/json")

    for method, path, page in Login(organisations.first, chosen.provider).routes():
        app.add_route(path, page, methods=[method])
    for path in ("/realtime/v1", "/realtime/v1/websocket"):
        app.router.add_websocket_route(path, realtime(authenticator, stopping))
    if outward is not None:
        outward.attach(app)
    app.add_route("/openapi.json", openapi)
    app.add_route("/healthz", healthy)
    app.add_route("/readyz", ready)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            found: AgentLatticeError = RequestError(
                "METHOD_NOT_ALLOWED", f"there is no `{request.method:.20}` of this", error.headers
            )
        else:
            found = NotFoundError("there is nothing at this address")
        return answer_error(found, wire=False)

    app.add_exception_handler(HTTPException, refused)
    app.add_middleware(Tracing)
    app.add_middleware(RequestLog)
    app.state.stopping = stopping
    app.state.outward = chosen.outward
    return app
