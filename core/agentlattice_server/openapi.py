"""The OpenAPI document, made from the endpoints' own declarations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from agentlattice_server import schemas
from agentlattice_server.endpoints import Endpoint
from agentlattice_server.problems import STATUSES

__all__ = ["described"]

_PHRASES = {
    200: "Done",
    201: "Made",
    202: "Accepted",
    204: "Done",
    401: "No key, or one that is not in force",
    403: "Not for this key",
    404: "No such thing, or not yours",
    409: "Not possible as things stand",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "Not valid",
    429: "Too many calls",
    500: "The service failed",
    501: "Not set up in this service",
    503: "The log cannot be written or read",
}
_ALWAYS = (401, 403, 422, 429, 500, 503)


def described(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentLattice",
            "version": version("agentlattice-integrations"),
            "description": "Governance for AI agents. Every error has `error`, a code, and `message`, a sentence. "
            f"Codes: {', '.join(sorted(STATUSES))}.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": schemas.ERROR, "Problem": schemas.PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schemas.TEXT}
        for name in re.findall(r"{(\w+)(?::\w+)?}", endpoint.path)
    ]
    for name, schema in endpoint.query.items():
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": bool(schema.get("required", False)),
                "schema": {key: value for key, value in schema.items() if key != "required"},
            }
        )
    for name, header in endpoint.headers.items():
        parameters.append({"name": name, "in": "header", "required": False, **header})
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "description": f"For {', '.join(endpoint.kinds)} keys.",
        "operationId": re.sub(r"\W+", "_", endpoint.name.lower()).strip("_"),
        "parameters": parameters,
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": endpoint.body}},
        }
    return operation


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses = {
        str(status): _response(status, "application/json", schema)
        for status, schema in endpoint.answers.items()
    }
    errors = [*_ALWAYS]
    if "{" in endpoint.path or endpoint.body is not None:
        errors.append(404)
    if endpoint.body is not None:
        errors += [413, 415]
    for status in [*errors, *(status for status in endpoint.answers if status >= 400)]:
        if endpoint.wire:
            content, schema = "application/json", "#/components/schemas/Error"
        else:
            content, schema = "application/problem+json", "#/components/schemas/Problem"
        if str(status) not in responses or not endpoint.wire:
            responses[str(status)] = _response(status, content, {"$ref": schema})
    return responses


def _response(status: int, content: str, schema: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _PHRASES[status]}
    if schema:
        response["content"] = {content: {"schema": schema}}
    return response
