"""The endpoints: who may, what comes back, and no secret twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from standardwebhooks import Webhook as Verifier
from starlette.responses import JSONResponse, Response
from webhook_world import LOOPBACK, World, receiving, until

from agentlattice_core import webhooks
from agentlattice_core.batch import Batch
from agentlattice_core.errors import AgentLatticeError, ForbiddenError
from agentlattice_core.principals import Operator
from agentlattice_server.webhooks.routes import webhook_routes
from agentlattice_server.webhooks.subscribing import Subscriptions

_STATUSES = {"FORBIDDEN": 403, "NOT_FOUND": 404, "ILLEGAL_TRANSITION": 409, "INVALID_REQUEST": 422}
ROLES = {"Bearer ana": "admin", "Bearer bob": "member"}
WEBHOOKS = "/api/v1/webhooks"


def answer_error(error: AgentLatticeError) -> Response:
    return JSONResponse({"error": error.code, "message": error.message}, _STATUSES[error.code])


@pytest.fixture
def http(world: World) -> Iterator[TestClient]:
    """An application that knows two operators, as an administrator's browser would call it."""

    def subscriptions(request: Request) -> Subscriptions:
        role = ROLES.get(request.headers.get("authorization", ""))
        if role is None:
            raise ForbiddenError("who is this?")
        return Subscriptions(world.engine, world.key, Operator("ana", role), LOOPBACK)  # type: ignore[arg-type]

    app = FastAPI()
    app.include_router(webhook_routes(subscriptions, answer_error))
    with TestClient(app, headers={"authorization": "Bearer ana"}) as client:
        yield client


def test_a_subscription_from_its_first_to_its_last_day(world: World, http: TestClient) -> None:
    """Made, listed, changed, tested, told, rotated, removed; each answer is what the next request needs."""
    with receiving() as receiver, world.deliverer():
        made = http.post(WEBHOOKS, json={"name": "hook", "url": receiver.url})
        assert made.status_code == 201
        secret, path = made.json()["secret"], f"{WEBHOOKS}/{made.json()['id']}"
        shown = http.get(path).json()
        assert "secret" not in shown
        assert shown["target"] == f"http://127.0.0.1:{receiver.port}"
        assert http.get(WEBHOOKS).json() == {"webhooks": [shown], "next_cursor": None}
        assert http.get(f"{WEBHOOKS}/hook").json() == shown
        tested = http.post(f"{path}/test").json()
        assert (tested["outcome"], tested["status"]) == ("delivered", 200)
        Verifier(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)
        changed = http.patch(path, json={"events": ["action.denied"]})
        assert changed.json()["events"] == ["action.denied"]
        world.act(1)
        world.act(1, "secret.read")
        until(lambda: world.hook().attempts, "the message")
        (delivery,) = http.get(f"{path}/deliveries").json()["deliveries"]
        assert (delivery["outcome"], delivery["status"], delivery["number"]) == ("delivered", 200, 1)
        again = http.post(f"{WEBHOOKS}/deliveries/{delivery['id']}/replay")
        assert (again.status_code, again.json()) == (202, {"replayed": 1})
        until(lambda: len(receiver.requests) == 3, "the replay")
        assert receiver.ids[1] == receiver.ids[2]
        rotated = http.post(f"{path}/rotate", json={"overlap_seconds": 60}).json()
        assert rotated["secret"] != secret
        assert rotated["rotating_until"] is not None
        assert http.delete(path).status_code == 204
        assert http.get(path).status_code == 404


def test_dead_letters_come_page_by_page(world: World, http: TestClient) -> None:
    """Every one of them, once, the oldest first."""
    hook, _ = world.desk.add("hook", "https://hooks.example.com/x")
    world.act(5)

    def give_up(batch: Batch) -> None:
        assert webhooks.lease(batch, hook.id, "n")
        dead = [
            webhooks.Attempt(index, 8, "2026-03-02T09:00:00.000000Z", "dead", 3, 500, "answered 500")
            for index in range(hook.next, hook.next + 5)
        ]
        assert webhooks.record(batch, hook.id, "n", hook.next + 5, dead, keep=False)

    world.engine.run(give_up)
    found, cursor = [], ""
    while True:
        page = http.get(
            f"{WEBHOOKS}/hook/dead-letters", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        )
        found += [one["entry"] for one in page.json()["deliveries"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert found == list(range(hook.next, hook.next + 5))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {"name": "x", "url": "https://hooks.example.com/x"}),
        ("GET", "/hook", None),
        ("PATCH", "/hook", {"active": False}),
        ("DELETE", "/hook", None),
        ("POST", "/hook/rotate", {}),
        ("POST", "/hook/test", None),
        ("GET", "/hook/deliveries", None),
        ("GET", "/hook/dead-letters", None),
        ("POST", "/deliveries/dlv_x/replay", None),
    ],
)
def test_nobody_unknown_and_no_member_changes_anything(
    world: World, http: TestClient, method: str, path: str, body: object
) -> None:
    """Who is not known may not even look; a member may look."""
    hook, _ = world.desk.add("hook", "https://hooks.example.com/x")
    path = path.replace("dlv_x", f"dlv_{hook.id[4:]}_{0:012x}")
    for who in ("Bearer nobody", "Bearer bob"):
        answer = http.request(method, WEBHOOKS + path, json=body, headers={"authorization": who})
        looking = method == "GET" and who == "Bearer bob"
        assert answer.status_code == (200 if looking else 403), who
    assert world.hook().active


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "name"),
        ({"name": "x"}, "needs the URL"),
        ({"name": "x", "url": "ftp://hooks.example.com"}, "must begin with https"),
        ({"name": "x", "url": "https://10.0.0.1/"}, "not a public address"),
        ({"name": "X Y", "url": "https://hooks.example.com"}, "webhook name"),
        ({"name": "x", "url": "https://hooks.example.com", "events": ["all"]}, "event type `all`"),
        ({"name": "x", "url": "https://hooks.example.com", "template": "fax"}, "template `fax`"),
        ({"name": "x", "url": "https://hooks.example.com", "routing_key": "k"}, "for template `pagerduty`"),
        ({"name": "x", "template": "pagerduty"}, "routing key"),
        ({"name": "x", "url": "https://hooks.example.com", "secret": "short"}, "whsec_"),
        ({"name": "x", "url": "https://hooks.example.com", "surprise": 1}, "surprise"),
        ({"name": "x", "url": "https://hooks.example.com", "agent": "nobody"}, "agent `nobody`"),
    ],
)
def test_what_cannot_be_a_subscription_is_refused_in_one_line(
    world: World, http: TestClient, body: object, said: str
) -> None:
    """The answer names what is wrong; nothing is made."""
    answer = http.post(WEBHOOKS, json=body)
    assert answer.status_code in (404, 422)
    assert said in answer.json()["message"]
    assert world.desk.all() == []


def test_a_name_that_is_taken_is_a_conflict(world: World, http: TestClient) -> None:
    """409, and the first one stays as it was."""
    body = {"name": "hook", "url": "https://hooks.example.com/x"}
    assert http.post(WEBHOOKS, json=body).status_code == 201
    assert http.post(WEBHOOKS, json=body).status_code == 409
    assert len(world.desk.all()) == 1
