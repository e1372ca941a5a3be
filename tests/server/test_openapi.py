"""The OpenAPI document, and schemathesis, which calls every operation of it with what fits and with what does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service_world import ServiceWorld
from wire_reference import PAGE, page

from agentlattice_core.webhooks import delivery_id
from agentlattice_server.application import ENDPOINTS
from agentlattice_server.endpoints import Endpoint

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Ids:
    """Real ids for the names in paths and bodies: made anew where a call may use one up."""

    def __init__(self, world: ServiceWorld) -> None:
        self._world = world
        self._agent = world.as_service("POST", "/api/agents/register", {"name": "known"}).json()
        self.keys = {
            "agent": self._agent["api_key"],
            "service": world.keys.service_key,
            "operator": world.keys.operator_key,
        }
        self._fixed = {"agent": "known", "registry": "nothing-kept"}

    def some(self, names: Iterable[str]) -> dict[str, str]:
        """Ids, by these names, of things that are there."""
        found = dict(self._fixed)
        for name in names:
            if name not in found:
                found |= self._new(name)
        return found

    def _new(self, name: str) -> dict[str, str]:
        world, key = self._world, self.keys["agent"]
        if name in ("action", "entry", "approval"):
            asked = world.call(key, "POST", "/api/v1/actions", {"action_type": "pr.merge"}).json()
            event = asked["audit_event_id"]
            return {"action": event, "entry": event, "approval": asked["approval_id"]}
        if name == "delegation":
            child = {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 60}
            return {name: world.call(key, "POST", "/api/v1/delegate", child).json()["delegation_id"]}
        if name == "key":
            issued = world.as_service("POST", "/api/v1/keys", {"kind": "agent", "holder": "known"}).json()
            return {name: issued["key"]["id"]}
        if name in ("webhook", "delivery"):
            webhook = self._webhook()
            return {"webhook": webhook, "delivery": delivery_id(webhook, 0)}
        assert name == "operator", name
        world.as_operator("POST", "/api/v1/operators", {"name": "somebody"})
        return {name: "somebody"}

    def _webhook(self) -> str:
        """The one that there is, or another if that was removed. It hears of next to nothing, so that exploring is not
        delivering.
        """
        wanted = {"name": "known", "url": "http://127.0.0.1:9/", "events": []}
        self._world.as_operator("POST", "/api/v1/webhooks", wanted)
        (found,) = (
            one["id"]
            for one in self._world.as_operator("GET", "/api/v1/webhooks?limit=200").json()["webhooks"]
            if one["name"] == "known"
        )
        return str(found)


def explore(world: ServiceWorld, examples: int) -> None:
    """Call every operation with each key that it is for, with generated data and real ids."""
    schema = schemathesis.openapi.from_url(f"{world.url}/openapi.json")
    schema.config.generation.update(modes=list(GenerationMode))
    ids = Ids(world)
    endpoints = {(one.method, one.path): one for one in ENDPOINTS}
    called = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()
        endpoint = endpoints[operation.method.upper(), operation.path]
        called.add(endpoint.name)

        explore_one(operation, endpoint, ids, examples)
    assert called == {one.name for one in ENDPOINTS}


def explore_one(operation: Any, endpoint: Endpoint, ids: Ids, examples: int) -> None:
    """Call one operation."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(
        case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)),
        kind=st.sampled_from(endpoint.kinds),
        real=st.booleans(),
    )
    def call(case: Any, kind: str, real: bool) -> None:
        if real and "{" in endpoint.path:
            known = ids.some(case.path_parameters)
            case.path_parameters = {name: known[name] for name in case.path_parameters}
        case.headers.pop("Authorization", None)
        response = case.call(headers={"Authorization": f"Bearer {ids.keys[kind]}"}, timeout=60)
        case.validate_response(response, checks=CHECKS)

    call()


def test_no_operation_can_be_called_so_that_it_breaks_its_promise(world: ServiceWorld) -> None:
    """Whatever is sent, an operation answers with a status, a type and a body that the document says."""
    explore(world, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # four thousand calls
def test_no_operation_breaks_its_promise_over_many_calls(world: ServiceWorld) -> None:
    """As above, for long."""
    explore(world, 60)


def test_the_document_names_every_endpoint(world: ServiceWorld, tmp_path: Path) -> None:
    """Each has a summary, its parameters, and an answer for each error that it may end in."""
    document = world.call(None, "GET", "/openapi.json").json()
    described = {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert set(described) == {(one.method, one.path) for one in ENDPOINTS}
    for (_, path), operation in described.items():
        assert operation["summary"]
        assert {"401", "403", "422", "429", "500", "503"} <= set(operation["responses"])
        named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert {f"{{{name}}}" for name in named} == {part for part in path.split("/") if part.startswith("{")}


EDGES = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b'{"action_type": "\xff"}',
    b'{"action_type": "read_data", "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"action_type": "read_data", "metadata": {"n": 1e400}}',
    b'{"action_type": "read_data", "metadata": {"n": 12345678901234567890}}',
    b'{"action_type": "read_data", "metadata": {"a\\u0000": 1}}',
    b'{"action_type": "read_data", "metadata": {"s": "\\ud800"}}',
    b'{"action_type": 7}',
    b'{"action_type": "read_data", "data_accessed": {}}',
    b'{"action_type": "read_data", "amount": -1}',
    b'{"action_type": "read_data", "trusted": "all"}',
    b'{"action_type": "read_data", "context": []}',
    b'{"action_type": "read_data", "mode": "off"}',
]


@pytest.mark.parametrize("body", EDGES, ids=range(len(EDGES)))
def test_a_body_that_is_no_action_is_refused_as_invalid(world: ServiceWorld, body: bytes) -> None:
    """Not JSON, not an object, not text, too deep, not finite: 422 with a sentence, never a failure of ours."""
    headers = {"Content-Type": "application/json"}
    answer = world.call(world.new_agent(), "POST", "/api/v1/actions", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"] == "INVALID_REQUEST"


def test_another_content_type_and_too_large_a_body_are_refused(world: ServiceWorld) -> None:
    """415 and 413, also where the length is not announced."""
    key = world.new_agent()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = world.call(key, "POST", "/api/v1/actions", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    large = b'{"action_type": "' + b"x" * 600_000 + b'"}'
    headers = {"Content-Type": "application/json; charset=utf-8"}
    for content in (large, iter([large])):
        answer = world.call(key, "POST", "/api/v1/actions", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (413, "BODY_TOO_LARGE")


def test_what_is_not_there_is_a_problem(world: ServiceWorld) -> None:
    """An unknown address and an unknown method get a problem with a code."""
    missing = world.as_operator("GET", "/api/v1/nothing")
    assert (missing.status_code, missing.json()["error"]) == (404, "NOT_FOUND")
    wrong = world.as_operator("PATCH", "/api/v1/actions")
    assert (wrong.status_code, wrong.json()["error"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["content-type"] == "application/problem+json"
    assert "POST" in wrong.headers["allow"]


def test_the_page_lists_every_call() -> None:
    """docs/wire.md is what the endpoints say; run tests/server/wire_reference.py after a change."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text
