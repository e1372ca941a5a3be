"""Webhooks over HTTP: what comes back, no secret twice, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from service_world import ServiceWorld, outward_settings
from standardwebhooks import Webhook as Verifier
from starlette.testclient import TestClient
from webhook_world import receiving, until

from agentlattice_core import webhooks
from agentlattice_core.batch import Batch
from agentlattice_server import Organisations, ServiceSettings, create_app
from agentlattice_server.bootstrap import BOOTSTRAP, first_keys
from agentlattice_server.webhook_endpoints import ENDPOINTS

WEBHOOKS = "/api/v1/webhooks"
ELSEWHERE = "https://hooks.example.com/x"


def test_a_subscription_from_its_first_to_its_last_day(outward: ServiceWorld) -> None:
    """Made, listed, changed, tested, told, rotated, removed; each answer is what the next request needs."""
    http, agent = outward.as_operator, outward.new_agent()
    with receiving() as receiver:
        made = http("POST", WEBHOOKS, {"name": "hook", "url": receiver.url, "events": ["action.denied"]})
        assert made.status_code == 201
        secret, path = made.json()["secret"], f"{WEBHOOKS}/{made.json()['id']}"
        shown = http("GET", path).json()
        assert "secret" not in shown
        assert shown["target"] == f"http://127.0.0.1:{receiver.port}"
        assert http("GET", WEBHOOKS).json() == {"webhooks": [shown], "next_cursor": None}
        assert http("GET", f"{WEBHOOKS}/hook").json() == shown
        tested = http("POST", f"{path}/test").json()
        assert (tested["outcome"], tested["status"]) == ("delivered", 200)
        Verifier(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)
        paused = http("PATCH", path, {"active": False}).json()
        assert (paused["active"], paused["why"]) == (False, "paused")
        changed = http("PATCH", path, {"active": True, "people": {"U1": "ana"}, "agent": "bot"}).json()
        assert (changed["active"], changed["people"]) == (True, {"U1": "ana"})
        assert changed["events"] == ["action.denied"]
        assert changed["agent_id"] is not None
        outward.call(agent, "POST", "/api/v1/actions", {"action_type": "read_data"})
        outward.call(agent, "POST", "/api/v1/actions", {"action_type": "secret.read"})
        until(lambda: http("GET", f"{path}/deliveries").json()["deliveries"], "the message")
        (delivery,) = http("GET", f"{path}/deliveries").json()["deliveries"]
        assert (delivery["outcome"], delivery["status"], delivery["number"]) == ("delivered", 200, 1)
        again = http("POST", f"{WEBHOOKS}/deliveries/{delivery['id']}/replay")
        assert (again.status_code, again.json()) == (202, {"replayed": 1})
        until(lambda: len(receiver.requests) == 3, "the replay")
        assert receiver.ids[1] == receiver.ids[2]
        rotated = http("POST", f"{path}/rotate", {"overlap_seconds": 60}).json()
        assert rotated["secret"] != secret
        assert rotated["rotating_until"] is not None
        assert http("DELETE", path).status_code == 204
        assert http("GET", path).status_code == 404


def test_dead_letters_come_page_by_page(tmp_path: Path) -> None:
    """Every one of them, once, the oldest first, also if some are sent again meanwhile."""
    organisations = Organisations(f"sqlite:///{tmp_path / 'governance.db'}")
    engine, found = organisations.first, first_keys(organisations.first)
    assert found is not None
    # Not entered, so that nothing is delivered, and what is dead stays so.
    http = TestClient(
        create_app(organisations, ServiceSettings(0, outward=outward_settings(tmp_path))),
        headers={"Authorization": f"Bearer {found.operator_key}"},
    )
    assert http.post(WEBHOOKS, json={"name": "hook", "url": ELSEWHERE}).status_code == 201
    for number in range(5):
        http.post("/api/v1/operators", json={"name": f"person-{number}"})

    def give_up(batch: Batch) -> int:
        hook = webhooks.find(batch, "hook")
        assert webhooks.lease(batch, hook.id, "n")
        dead = [
            webhooks.Attempt(index, 8, "2026-03-02T09:00:00.000000Z", "dead", 3, 500, "answered 500")
            for index in range(hook.next, hook.next + 5)
        ]
        assert webhooks.record(batch, hook.id, "n", hook.next + 5, dead, keep=False)
        return hook.next

    first = engine.run(give_up)
    entries: list[int] = []
    asked: dict[str, str | int] = {"limit": 2}
    while True:
        page = http.get(f"{WEBHOOKS}/hook/dead-letters", params=asked).json()
        entries += [one["entry"] for one in page["deliveries"]]
        for one in page["deliveries"]:
            assert http.post(f"{WEBHOOKS}/deliveries/{one['id']}/replay").status_code == 202
        if page["next_cursor"] is None:
            break
        asked["cursor"] = page["next_cursor"]
    assert entries == list(range(first, first + 5))
    assert http.get(f"{WEBHOOKS}/hook/dead-letters").json() == {"deliveries": [], "next_cursor": None}
    for params in ({"cursor": "eA"}, {"cursor": "!"}, {"limit": 0}, {"limit": 201}):
        assert http.get(f"{WEBHOOKS}/hook/dead-letters", params=params).status_code == 422
    organisations.close()


def test_the_list_comes_page_by_page(outward: ServiceWorld) -> None:
    """Every subscription, once, the oldest first."""
    names = ["one", "two", "three"]
    for name in names:
        outward.as_operator("POST", WEBHOOKS, {"name": name, "url": ELSEWHERE, "events": []})
    found, cursor = [], ""
    while cursor is not None:
        page = outward.as_operator("GET", f"{WEBHOOKS}?limit=2{cursor and f'&cursor={cursor}'}").json()
        found += [one["name"] for one in page["webhooks"]]
        cursor = page["next_cursor"]
    assert found == names


REFUSED = [
    ({}, "name"),
    ({"name": "x"}, "needs the URL"),
    ({"name": "x", "url": 7}, "url"),
    ({"name": "x", "url": "ftp://hooks.example.com"}, "must begin with https"),
    ({"name": "x", "url": "https://10.0.0.1/"}, "not a public address"),
    ({"name": "X Y", "url": "https://hooks.example.com"}, "webhook name"),
    ({"name": "x", "url": "https://hooks.example.com", "events": ["all"]}, "event type `all`"),
    ({"name": "x", "url": "https://hooks.example.com", "events": "all"}, "events"),
    ({"name": "x", "url": "https://hooks.example.com", "people": {"U1": 7}}, "people"),
    ({"name": "x", "url": "https://hooks.example.com", "template": "fax"}, "template `fax`"),
    ({"name": "x", "url": "https://hooks.example.com", "routing_key": "k"}, "for template `pagerduty`"),
    ({"name": "x", "template": "pagerduty"}, "routing key"),
    ({"name": "x", "url": "https://hooks.example.com", "secret": "short"}, "whsec_"),
    ({"name": "x", "url": "https://hooks.example.com", "surprise": 1}, "surprise"),
    ({"name": "x", "url": "https://hooks.example.com", "agent": "nobody"}, "agent `nobody`"),
]


def test_what_cannot_be_a_subscription_is_refused_in_one_line(outward: ServiceWorld) -> None:
    """The answer names what is wrong; nothing is made."""
    for body, said in REFUSED:
        answer = outward.as_operator("POST", WEBHOOKS, body)
        assert answer.status_code in (404, 422), (body, answer.text)
        assert said in answer.json()["message"], body
        assert "\n" not in answer.json()["message"]
    assert outward.as_operator("GET", WEBHOOKS).json()["webhooks"] == []


def test_what_cannot_be_changed_is_refused_and_nothing_changes(outward: ServiceWorld) -> None:
    """Null where it means nothing, another type, a name that is taken, a receiver that must not be reached."""
    for name in ("hook", "other"):
        made = outward.as_operator("POST", WEBHOOKS, {"name": name, "url": ELSEWHERE, "events": []})
        assert made.status_code == 201
    taken = outward.as_operator("POST", WEBHOOKS, {"name": "hook", "url": ELSEWHERE})
    assert (taken.status_code, taken.json()["error"]) == (409, "ILLEGAL_TRANSITION")
    before = outward.as_operator("GET", f"{WEBHOOKS}/hook").json()
    for body, status in (
        ({"name": None}, 422),
        ({"active": None}, 422),
        ({"active": "no"}, 422),
        ({"surprise": 1}, 422),
        ({"url": "https://10.0.0.1/"}, 422),
        ({"name": "other"}, 409),
    ):
        answer = outward.as_operator("PATCH", f"{WEBHOOKS}/hook", body)
        assert answer.status_code == status, (body, answer.text)
    for seconds in (-1, 2_592_001, "60"):
        answer = outward.as_operator("POST", f"{WEBHOOKS}/hook/rotate", {"overlap_seconds": seconds})
        assert answer.status_code == 422
    now = outward.as_operator("GET", f"{WEBHOOKS}/hook").json()
    assert now | {"behind": 0} == before | {"behind": 0}


def test_a_service_that_delivers_no_webhooks_says_what_to_set(
    database: str, serve: Callable[..., ServiceWorld]
) -> None:
    """Each call names AL_WEBHOOK_KEY; who may not call it learns no more than elsewhere."""
    world = serve(database)
    for endpoint in ENDPOINTS:
        body = {"name": "x", "url": ELSEWHERE} if endpoint.body is not None else None
        path = endpoint.path.replace("{webhook}", "x").replace("{delivery}", "x")
        answer = world.as_operator(endpoint.method, path, body)
        assert (answer.status_code, answer.json()["error"]) == (501, "NOT_INSTALLED"), endpoint.name
        assert "AL_WEBHOOK_KEY" in answer.json()["message"]
        assert world.as_service(endpoint.method, path, body).status_code == 403
    for path in ("/metrics", "/integrations/slack/actions"):
        assert world.call(None, "POST", path).status_code == 404


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_session_changes_nothing_from_another_site(outward: ServiceWorld, method: str) -> None:
    """A browser that is logged in may be sent here by anybody; what changes something must come from our pages."""
    body = {"name": "hook", "url": ELSEWHERE, "events": []}
    assert outward.as_operator("POST", WEBHOOKS, body).status_code == 201
    cookie = {"Cookie": f"al_session={outward.keys.operator_key}"}
    for site, status in (("cross-site", 403), ("same-origin", 200 if method == "PATCH" else 204)):
        answer = outward.call(
            None,
            method,
            f"{WEBHOOKS}/hook",
            {"active": False} if method == "PATCH" else None,
            headers={**cookie, "Sec-Fetch-Site": site},
        )
        assert answer.status_code == status, answer.text


def test_the_administrator_of_the_log_is_who_is_recorded(outward: ServiceWorld) -> None:
    """What was done over HTTP is an entry that names the person of the key."""
    outward.as_operator("POST", WEBHOOKS, {"name": "hook", "url": ELSEWHERE, "events": []})
    with outward.engine.read() as reader:
        (entry,) = (row[1] for row in reader.rows(0) if b'"event":"added"' in row[1])
    assert f'"operator":"{BOOTSTRAP}"'.encode() in entry
