"""Errors as answers.

- Every error body has `error`, a code for programs, and `message`, one line for people.
- Calls that the hosted product's client knows answer with just these, as JSON. All others answer with an RFC 9457
  problem that has them as further members, so that one client reads both.
- An error that is not ours says nothing of what went wrong inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from agentlattice_core.errors import AgentLatticeError, PolicyDocumentError

__all__ = ["STATUSES", "RequestError", "answer_error", "internal_error", "status_of"]

STATUSES: Mapping[str, int] = {
    "INVALID_API_KEY": 401,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_YOUR_EVENT": 403,
    "CIRCUIT_BREAKER_OPEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "ILLEGAL_TRANSITION": 409,
    "DIGEST_MISMATCH": 409,
    "ALREADY_REGISTERED": 409,
    "BODY_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "INVALID_REQUEST": 422,
    "INVALID_POLICY": 422,
    "EVENT_ID_CONFLICT": 422,
    "RATE_LIMITED": 429,
    "NOT_INSTALLED": 501,
    "UNREACHABLE": 502,
    "CANNOT_UNSEAL": 503,
    "NOT_RECORDED": 503,
    "STORE_ERROR": 503,
}
"""The status of each code; any other is 500."""

_TITLES = {
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Not JSON",
    422: "Not valid",
    429: "Too many requests",
    500: "Internal error",
    501: "Not installed",
    502: "Not reachable",
    503: "Not available",
}


class RequestError(AgentLatticeError):
    """A request that is refused before anybody looks at what it asks for. `headers` go with the answer."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.headers = dict(headers or {})


def status_of(error: AgentLatticeError) -> int:
    """The status that an error is answered with."""
    return STATUSES.get(error.code, 500)


def answer_error(error: AgentLatticeError, *, wire: bool) -> Response:
    """The answer to a request that failed; `wire` for a call that the hosted product's client knows."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, RequestError) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    elif status == 503:
        headers["Retry-After"] = "1"
    body: dict[str, Any] = {"error": error.code, "message": error.message}
    if isinstance(error.details, Mapping):
        body["details"] = dict(error.details)
    if isinstance(error, PolicyDocumentError):
        body["problems"] = [str(problem) for problem in error.problems]
    return _answer(status, body, headers, wire=wire)


def internal_error(reference: str, *, wire: bool) -> Response:
    """The answer where we failed; `reference` finds it in the logs."""
    body = {"error": "INTERNAL", "message": f"the service failed; its logs say more under `{reference}`"}
    return _answer(500, body, {}, wire=wire)


def _answer(status: int, body: dict[str, Any], headers: dict[str, str], *, wire: bool) -> Response:
    if wire:
        return Response(orjson.dumps(body), status, headers, "application/json")
    problem = {
        "type": f"urn:agentlattice:error:{body['error']}",
        "title": _TITLES[status],
        "status": status,
        "detail": body["message"],
        **body,
    }
    return Response(orjson.dumps(problem), status, headers, "application/problem+json")
