"""Who may call what: every endpoint, every kind of key, and another organisation's keys and ids."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from service_world import METRICS_TOKEN, ServiceWorld, outward_settings
from starlette.routing import Route, WebSocketRoute

from agentlattice_core.client import AgentLattice
from agentlattice_core.principals import Operator
from agentlattice_core.session import PolicyText
from agentlattice_core.webhooks import delivery_id
from agentlattice_server import Organisations, ServiceSettings, create_app
from agentlattice_server.application import ENDPOINTS
from agentlattice_server.bootstrap import BOOTSTRAP, FirstKeys, first_keys
from agentlattice_server.webhooks.slack_actions import signature

MANAGERS = frozenset({"service", "operator"})
BOTH = frozenset({"agent", "operator"})


@dataclass(frozen=True)
class Case:
    """An endpoint's place in the tests: the kinds of keys that may call it, and a body. `{names}` in the path and the
    body are filled with ids of the organisation under test.
    """

    kinds: frozenset[str]
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    finds: bool = False
    """Whether what it is called with are ids, which somebody else's key must not find."""


AGENT, OPERATOR = frozenset({"agent"}), frozenset({"operator"})

CASES = {
    "POST /api/v1/actions": Case(AGENT, {"action_type": "read_data"}),
    "GET /api/approvals/{approval}/status": Case(BOTH, finds=True, query={"wait": "0"}),
    "POST /api/agents/register": Case(MANAGERS, {"name": "another"}),
    "GET /api/v1/whoami": Case(AGENT),
    "GET /api/v1/policies": Case(BOTH),
    "GET /api/v1/policies/check": Case(AGENT, query={"action_type": "read_data"}),
    "POST /api/v1/policies/check": Case(AGENT, {"action_type": "read_data"}),
    "GET /api/v1/audit": Case(BOTH),
    "GET /api/v1/audit/verify": Case(BOTH),
    "GET /api/v1/delegations": Case(BOTH),
    "POST /api/v1/delegations/revoke": Case(BOTH, {"delegation_id": "{delegation}"}, finds=True),
    "POST /api/v1/delegate": Case(AGENT, {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 60}),
    "DELETE /api/v1/delegate/{delegation}": Case(AGENT, finds=True),
    "POST /api/v1/report": Case(
        AGENT, {"audit_event_id": "{action}", "outcome": {"status": "success"}}, finds=True
    ),
    "GET /api/v1/posture": Case(BOTH),
    "POST /api/v1/actions/{action}/claim": Case(AGENT, {}, finds=True),
    "POST /api/v1/actions/{action}/outcome": Case(AGENT, {"claim": "succeeded"}),
    "POST /api/v1/actions/{action}/abandon": Case(AGENT, {}, finds=True),
    "POST /api/v1/actions/{action}/cancel": Case(AGENT, {}, finds=True),
    "POST /api/v1/refusals": Case(AGENT, {"action_type": "read_data", "reason": "x", "message": "y"}),
    "GET /api/v1/registries/{registry}": Case(BOTH, finds=True),
    "GET /api/v1/keys": Case(MANAGERS),
    "POST /api/v1/keys": Case(MANAGERS, {"kind": "agent", "holder": "{agent}"}, finds=True),
    "POST /api/v1/keys/{key}/rotate": Case(MANAGERS, {}, finds=True),
    "DELETE /api/v1/keys/{key}": Case(MANAGERS, finds=True),
    "GET /api/v1/agents": Case(MANAGERS),
    "GET /api/v1/agents/{agent}": Case(MANAGERS, finds=True),
    "PUT /api/v1/agents/{agent}": Case(MANAGERS, {"tags": ["x"]}, finds=True),
    "GET /api/v1/operators": Case(OPERATOR),
    "POST /api/v1/operators": Case(OPERATOR, {"name": "someone", "role": "viewer"}),
    "DELETE /api/v1/operators/{operator}": Case(OPERATOR, finds=True),
    "GET /api/v1/approvals": Case(OPERATOR),
    "GET /api/v1/approvals/events": Case(OPERATOR, query={"wait": "0"}),
    "GET /api/v1/approvals/{approval}": Case(OPERATOR, finds=True),
    "POST /api/v1/approvals/{approval}/approve": Case(OPERATOR, {}, finds=True),
    "POST /api/v1/approvals/{approval}/deny": Case(OPERATOR, {}, finds=True),
    "POST /api/v1/approvals/{approval}/cancel": Case(AGENT, {}, finds=True),
    "GET /api/v1/policies/document": Case(OPERATOR),
    "PUT /api/v1/policies/document": Case(OPERATOR, {"yaml": "version: 1"}),
    "POST /api/v1/policies/rehearse": Case(OPERATOR, {"yaml": "version: 1"}),
    "POST /api/v1/policies/simulate": Case(OPERATOR, {"yaml": "version: 1"}),
    "POST /api/v1/policies/suggest": Case(OPERATOR, {}),
    "GET /api/v1/export": Case(MANAGERS),
    "POST /api/v1/import": Case(
        MANAGERS, {"document": {"format": "agentlattice-configuration", "version": 1}, "dry_run": True}
    ),
    "GET /api/v1/audit/export": Case(OPERATOR),
    "GET /api/v1/audit/proof/{action}": Case(OPERATOR, finds=True),
    "POST /api/v1/audit/checkpoint": Case(OPERATOR, {}),
    "GET /api/v1/audit/key": Case(BOTH),
    "POST /api/v1/audit/erase": Case(OPERATOR, {"indexes": [0], "reason": "x"}),
    "GET /api/v1/webhooks": Case(OPERATOR),
    "POST /api/v1/webhooks": Case(OPERATOR, {"name": "another", "url": "http://127.0.0.1:9/"}),
    "GET /api/v1/webhooks/{webhook}": Case(OPERATOR, finds=True),
    "PATCH /api/v1/webhooks/{webhook}": Case(OPERATOR, {"active": False}, finds=True),
    "DELETE /api/v1/webhooks/{webhook}": Case(OPERATOR, finds=True),
    "POST /api/v1/webhooks/{webhook}/rotate": Case(OPERATOR, {}, finds=True),
    "POST /api/v1/webhooks/{webhook}/replay": Case(OPERATOR, {}, finds=True),
    "POST /api/v1/webhooks/{webhook}/test": Case(OPERATOR, finds=True),
    "GET /api/v1/webhooks/{webhook}/deliveries": Case(OPERATOR, finds=True),
    "GET /api/v1/webhooks/{webhook}/dead-letters": Case(OPERATOR, finds=True),
    "POST /api/v1/webhooks/deliveries/{delivery}/replay": Case(OPERATOR, finds=True),
}
"""Every endpoint there is. A new one without a case here fails `test_every_route_is_known_to_these_tests`."""

OPEN = {
    "/login/link/{link}",
    "/logout",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/realtime/v1",
    "/realtime/v1/websocket",
    "/integrations/slack/actions",
    "/metrics",
}
"""What takes no key, or shows in another way who asks; each has tests of its own. For the last two these are
`test_slack_is_heard_by_its_signature_and_nobody_by_a_key` and `test_metrics_are_for_whoever_has_the_token`.
"""

MARK = "planted-with-somebody-else"


@dataclass
class Tenant:
    """An organisation with something of everything, and its keys by kind."""

    org_id: str
    keys: dict[str, str]
    ids: dict[str, str]


def tenant(world: ServiceWorld, first: FirstKeys, org_id: str, names: str) -> Tenant:
    """Fill an organisation, whose agents and people are called `names`-something."""

    def call(kind: str, method: str, path: str, json: Any = None, status: int = 200) -> Any:
        answer = world.call(keys[kind], method, path, json)
        assert answer.status_code == status, answer.text
        return answer.json()

    keys = {"service": first.service_key, "operator": first.operator_key}
    agent = call("service", "POST", "/api/agents/register", {"name": f"{names}-agent"}, 201)
    keys["agent"] = agent["api_key"]
    asked = call(
        "agent", "POST", "/api/v1/actions", {"action_type": "pr.merge", "metadata": {"of": names}}, 202
    )
    child = {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 600}
    delegation = call("agent", "POST", "/api/v1/delegate", child, 201)["delegation_id"]
    call("operator", "POST", "/api/v1/operators", {"name": f"{names}-person"})
    wanted = {"name": f"{names}-hook", "url": "http://127.0.0.1:9/", "events": []}
    webhook = call("operator", "POST", "/api/v1/webhooks", wanted, 201)["id"]
    ids = {
        "action": asked["audit_event_id"],
        "approval": asked["approval_id"],
        "delegation": delegation,
        "agent": f"{names}-agent",
        "operator": f"{names}-person",
        "key": agent["key_id"],
        "registry": f"{names}-registry",
        "webhook": webhook,
        "delivery": delivery_id(webhook, 0),
    }
    return Tenant(org_id, keys, ids)


@pytest.fixture
def tenants(world: ServiceWorld) -> tuple[Tenant, Tenant]:
    """Two organisations of one service."""
    second = world.organisations.make("org_second")
    AgentLattice.over(second, Operator(BOOTSTRAP, "admin")).apply_policies_sync(
        PolicyText("p.yaml", "version: 1\npolicies: [{name: All, action: '*', effect: require_approval}]")
    )
    made = first_keys(second)
    assert made is not None
    return (
        tenant(world, world.keys, world.org_id, "ours"),
        tenant(world, made, "org_second", MARK),
    )


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"{(\w+)}", lambda found: ids[found[1]], value)
    if isinstance(value, dict):
        return {name: filled(member, ids) for name, member in value.items()}
    return value


def ask(world: ServiceWorld, key: str | None, name: str, case: Case, ids: dict[str, str]) -> Any:
    method, path = name.split(" ")
    path = filled(path.replace("{entry}", "{action}"), ids)
    return world.call(key, method, path, filled(case.body, ids), params=case.query)


def test_every_route_is_known_to_these_tests(tmp_path: Path) -> None:
    """A route that is added without saying here who may call it fails the build."""
    organisations = Organisations(f"sqlite:///{tmp_path / 'governance.db'}")
    app = create_app(organisations, ServiceSettings(outward=outward_settings(tmp_path)))
    found, known = set(), set()
    for route in app.routes:
        assert isinstance(route, Route | WebSocketRoute), route
        if route.path in OPEN:
            known.add(route.path)
            continue
        assert isinstance(route, Route)
        found |= {f"{method} {route.path}" for method in (route.methods or ()) if method != "HEAD"}
    organisations.close()
    assert {name.replace("{entry}", "{action}") for name in found} == set(CASES)
    assert len(found) == len(ENDPOINTS)
    assert known == OPEN


def test_the_endpoints_say_who_may_call_them_as_these_tests_do() -> None:
    """The declaration of each endpoint and the table here were written apart, and agree."""
    declared = {one.name.replace("{entry}", "{action}"): frozenset(one.kinds) for one in ENDPOINTS}
    assert declared == {name: case.kinds for name, case in CASES.items()}


def test_no_endpoint_answers_without_a_key(world: ServiceWorld) -> None:
    """No key, a mistyped one and one of nobody get 401 from each, whatever else is wrong with the request."""
    names = {name for case in CASES for name in re.findall(r"{(\w+)}", case)}
    ids = dict.fromkeys(names | {"agent", "delegation", "action"}, "x")
    good = world.new_agent()
    wrong = [None, "nonsense", good[:-1] + ("A" if good[-1] != "A" else "B"), good.replace("org_", "org_0")]
    for name, case in CASES.items():
        for key in wrong:
            answer = ask(world, key, name, case, ids)
            assert answer.status_code == 401, name
            assert answer.json()["error"] == ("UNAUTHORIZED" if key is None else "INVALID_API_KEY"), name
            assert answer.headers["www-authenticate"] == "Bearer"


def test_each_kind_of_key_is_refused_what_is_not_for_it(
    world: ServiceWorld, tenants: tuple[Tenant, Tenant]
) -> None:
    """Each endpoint answers 403 to a key of another kind, and something else to one of its own."""
    ours = tenants[0]
    for name, case in sorted(CASES.items(), key=lambda one: one[0].startswith("DELETE")):
        for kind in sorted({"agent", "service", "operator"} - case.kinds):
            answer = ask(world, ours.keys[kind], name, case, ours.ids)
            assert answer.status_code == 403, (name, kind, answer.text)
            assert answer.json()["error"] == "FORBIDDEN"


def test_no_key_reaches_into_another_organisation(
    world: ServiceWorld, tenants: tuple[Tenant, Tenant]
) -> None:
    """With another organisation's key and our ids, each endpoint finds nothing; what needs no id tells and changes
    nothing of ours.
    """
    ours, theirs = tenants

    def state() -> list[Any]:
        with world.engine.read() as reader:
            return list(reader.states())

    before = state()
    for name, case in CASES.items():
        for kind in sorted(case.kinds):
            answer = ask(world, theirs.keys[kind], name, case, ours.ids)
            if case.finds:
                assert answer.status_code in (403, 404), (name, kind, answer.text)
            else:
                assert answer.status_code < 500, (name, kind, answer.text)
            for mine in (ours.org_id, "ours-agent", "ours-person", "ours-hook", ours.ids["approval"]):
                echoed = case.finds and mine in ours.ids.values()  # an answer may say what it was asked for
                assert echoed or mine not in answer.text, (name, kind)
    assert state() == before


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_what_takes_an_administrator_is_refused_to_others(
    world: ServiceWorld, tenants: tuple[Tenant, Tenant], role: str
) -> None:
    """Keys, people, policy, webhooks, erasure and export are an administrator's; a viewer does not decide either."""
    ours = tenants[0]
    key = world.new_operator("somebody", role)
    admins_only = [
        "GET /api/v1/keys",
        "POST /api/v1/keys",
        "POST /api/v1/keys/{key}/rotate",
        "DELETE /api/v1/keys/{key}",
        "POST /api/agents/register",
        "PUT /api/v1/agents/{agent}",
        "POST /api/v1/operators",
        "DELETE /api/v1/operators/{operator}",
        "POST /api/v1/audit/erase",
        "GET /api/v1/audit/export",
        "POST /api/v1/webhooks",
        "PATCH /api/v1/webhooks/{webhook}",
        "DELETE /api/v1/webhooks/{webhook}",
        "POST /api/v1/webhooks/{webhook}/rotate",
        "POST /api/v1/webhooks/{webhook}/replay",
        "POST /api/v1/webhooks/{webhook}/test",
        "POST /api/v1/webhooks/deliveries/{delivery}/replay",
    ]
    if role == "viewer":
        admins_only += ["POST /api/v1/approvals/{approval}/approve", "POST /api/v1/approvals/{approval}/deny"]
    for name in admins_only:
        answer = ask(world, key, name, CASES[name], ours.ids)
        assert answer.status_code == 403, (name, answer.text)
    document = {"yaml": "version: 1\npolicies: [{name: New, action: new.thing, effect: allow}]"}
    assert world.call(key, "PUT", "/api/v1/policies/document", document).status_code == 403
    wanted = {"format": "agentlattice-configuration", "version": 1, "agents": {"new": {}}}
    assert world.call(key, "POST", "/api/v1/import", {"document": wanted}).status_code == 403


def test_whoever_owns_an_agent_does_not_decide_for_it(world: ServiceWorld) -> None:
    """An owner named at registration, and who made the service key that registered, are refused; others decide."""
    alice, bob = world.new_operator("alice"), world.new_operator("bob", "admin")
    made = world.call(bob, "POST", "/api/v1/keys", {"kind": "service", "holder": "ci"}).json()["text"]
    by_bob = world.call(made, "POST", "/api/agents/register", {"name": "by-bob"}).json()
    assert by_bob["owner"] == "bob"
    of_alice = world.call(made, "POST", "/api/agents/register", {"name": "of-alice", "owner": "alice"}).json()
    for agent, owner, other in ((by_bob, bob, alice), (of_alice, alice, bob)):
        asked = world.call(agent["api_key"], "POST", "/api/v1/actions", {"action_type": "pr.merge"}).json()
        path = f"/api/v1/approvals/{asked['approval_id']}/approve"
        assert world.call(owner, "POST", path, {}).json()["error"] == "FORBIDDEN"
        assert world.call(other, "POST", path, {}).json()["status"] == "approved"


def test_a_service_key_manages_agents_only(world: ServiceWorld) -> None:
    """It makes and ends keys of agents, not of people or services, and cannot see them."""
    world.new_agent("bot")
    assert world.as_service("POST", "/api/v1/keys", {"kind": "agent", "holder": "bot"}).status_code == 201
    for kind in ("service", "operator"):
        refused = world.as_service("POST", "/api/v1/keys", {"kind": kind, "holder": BOOTSTRAP})
        assert refused.status_code == 403
    listed = world.as_service("GET", "/api/v1/keys").json()["keys"]
    assert {key["kind"] for key in listed} == {"agent"}
    everything = world.as_operator("GET", "/api/v1/keys").json()["keys"]
    own = next(key for key in everything if key["kind"] == "service")
    assert world.as_service("DELETE", f"/api/v1/keys/{own['id']}").status_code == 403


def test_a_key_and_its_successor_overlap_as_long_as_was_said(
    world: ServiceWorld, serve: Callable[..., ServiceWorld]
) -> None:
    """Rotated with an overlap both work, without one the old key ends at once; a rotated key is not rotated again."""
    answer = world.as_service("POST", "/api/agents/register", {"name": "bot"}).json()
    old, path = answer["api_key"], f"/api/v1/keys/{answer['key_id']}/rotate"
    issued = world.as_service("POST", path, {"overlap_seconds": 600}).json()
    assert world.call(old, "GET", "/api/v1/whoami").status_code == 200
    assert world.call(issued["text"], "GET", "/api/v1/whoami").json()["name"] == "bot"
    assert world.as_service("POST", path, {"overlap_seconds": 600}).status_code == 409
    again = world.as_service("POST", f"/api/v1/keys/{issued['key']['id']}/rotate", {}).json()
    assert world.call(issued["text"], "GET", "/api/v1/whoami").status_code == 401
    assert (
        world.call(issued["text"], "POST", "/api/v1/actions", {"action_type": "read_data"}).status_code == 401
    )
    assert world.call(again["text"], "GET", "/api/v1/whoami").status_code == 200


def test_a_person_who_is_removed_can_do_nothing_with_their_key(world: ServiceWorld) -> None:
    """Their key ends with their registration, and does not come back with it."""
    key = world.new_operator("alice")
    assert world.call(key, "GET", "/api/v1/approvals").status_code == 200
    assert world.as_operator("DELETE", "/api/v1/operators/alice").status_code == 204
    assert world.call(key, "GET", "/api/v1/approvals").status_code == 401
    again = world.new_operator("alice")
    assert world.call(key, "GET", "/api/v1/approvals").status_code == 401
    assert world.call(again, "GET", "/api/v1/approvals").status_code == 200


def test_a_childs_key_is_for_its_delegation_only(world: ServiceWorld) -> None:
    """Named with another delegation it is refused; delegated to again in the same run, the old key is none."""
    parent = world.new_agent()
    asked = {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 60, "run": "r1"}
    first = world.call(parent, "POST", "/api/v1/delegate", asked).json()
    action = {"action_type": "read_data"}
    for named, status in ((first["delegation_id"], 200), ("del_other", 403)):
        headers = {"X-AL-Delegation-ID": named}
        answer = world.call(first["child_api_key"], "POST", "/api/v1/actions", action, headers=headers)
        assert answer.status_code == status
    world.call(parent, "DELETE", f"/api/v1/delegate/{first['delegation_id']}")
    second = world.call(parent, "POST", "/api/v1/delegate", asked).json()
    assert second["agent"] == first["agent"]
    assert world.call(first["child_api_key"], "POST", "/api/v1/actions", action).status_code == 401
    assert (
        world.call(second["child_api_key"], "POST", "/api/v1/actions", action).json()["status"] == "executed"
    )


def test_slack_is_heard_by_its_signature_and_nobody_by_a_key(
    world: ServiceWorld, tenants: tuple[Tenant, Tenant]
) -> None:
    """Unsigned, signed with another secret, and signed by another organisation's workspace, a press decides nothing,
    whatever key comes along; signed, it is taken.
    """
    ours, theirs = tenants
    secrets = {"ours": "signing-secret-of-ours", "theirs": "signing-secret-of-theirs"}
    for one, secret in zip(tenants, secrets.values(), strict=True):
        wanted = {"name": "slack", "url": "http://127.0.0.1:9/", "template": "slack", "events": []}
        made = world.call(
            one.keys["operator"], "POST", "/api/v1/webhooks", {**wanted, "signing_secret": secret}
        )
        assert made.status_code == 201, made.text
    body, at = b'payload={"type": "view_closed"}', str(int(time.time()))

    def press(organisation: str, signed: str | None, key: str | None = None) -> int:
        headers = {"X-Slack-Request-Timestamp": at} | ({"X-Slack-Signature": signed} if signed else {})
        path = f"/integrations/slack/actions?org={organisation}"
        answer = world.call(key, "POST", path, content=body, headers=headers)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code

    assert press(ours.org_id, None) == 403
    assert press(ours.org_id, None, ours.keys["operator"]) == 403
    assert press(ours.org_id, signature("another", at, body)) == 403
    assert press(ours.org_id, signature(secrets["theirs"], at, body)) == 403
    assert press(theirs.org_id, signature(secrets["ours"], at, body)) == 403
    assert press("org_of_nobody", signature(secrets["ours"], at, body)) == 404
    assert press(ours.org_id, signature(secrets["ours"], at, body)) == 200
    assert press(theirs.org_id, signature(secrets["theirs"], at, body)) == 200


def test_metrics_are_for_whoever_has_the_token(world: ServiceWorld) -> None:
    """No key reads them, whoever holds it."""
    for key in (None, "another", world.keys.operator_key, world.keys.service_key, world.new_agent()):
        refused = world.call(key, "GET", "/metrics")
        assert (refused.status_code, refused.content) == (401, b"")
    assert "al_log_entries" in world.call(METRICS_TOKEN, "GET", "/metrics").text
