"""Approving and denying from Slack: what Slack signed, of somebody known, on what was shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from webhook_world import Receiver, World, receiving, until

from agentlattice_core import AgentLattice
from agentlattice_server.webhooks.slack_actions import signature
from agentlattice_server.webhooks.slack_route import SLACK_ACTIONS, slack_route

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


class Slack:
    """Slack's end: a channel that messages arrive in, and a person who presses buttons."""

    def __init__(self, world: World, channel: Receiver, answers: Receiver) -> None:
        self.world, self.channel, self.answers = world, channel, answers

        def deciding(name: str) -> AgentLattice:
            return world.client.for_operator(name, groups=["oncall"])

        handler = slack_route(lambda request: (world.desk, deciding))
        self.http = TestClient(Starlette(routes=[Route(SLACK_ACTIONS, handler, methods=["POST"])]))
        world.desk.add(
            "slack",
            channel.url,
            template="slack",
            signing_secret=SECRET,
            events=["approval.requested"],
            people={"U1": "bob"},
        )

    def buttons(self) -> dict[str, Any]:
        """The buttons of the last message, by what they do."""
        blocks = self.channel.requests[-1].json["blocks"]
        return {one["action_id"]: one for one in blocks[-1]["elements"]}

    def body(self, button: dict[str, Any], user: str = "U1") -> bytes:
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": "somebody"},
            "response_url": self.answers.url,
            "actions": [{"action_id": button["action_id"], "value": button["value"], "type": "button"}],
        }
        return urlencode({"payload": json.dumps(payload)}).encode()

    def press(self, body: bytes, *, secret: str = SECRET, at: float | None = None) -> int:
        timestamp = str(int(time.time() if at is None else at))
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-request-timestamp": timestamp,
            "x-slack-signature": signature(secret, timestamp, body),
        }
        status: int = self.http.post(SLACK_ACTIONS, content=body, headers=headers).status_code
        return status


@pytest.fixture
def slack(world: World) -> Iterator[Slack]:
    with receiving() as channel, receiving() as answers, world.deliverer():
        yield Slack(world, channel, answers)


def ask(slack: Slack, **metadata: Any) -> str:
    before = len(slack.channel.requests)
    asked = slack.world.agent.execute_sync("deploy.web", metadata=metadata)
    until(lambda: len(slack.channel.requests) > before, "the message")
    return str(asked.approval_id)


def status(slack: Slack, approval_id: str) -> str:
    return slack.world.agent.approval_status_sync(approval_id)


@pytest.mark.parametrize(
    ("button", "became"), [("agentlattice_approve", "approved"), ("agentlattice_deny", "denied")]
)
def test_a_press_decides_and_the_message_says_so(slack: Slack, button: str, became: str) -> None:
    """The person is the operator that the subscription says; the message with the buttons is replaced."""
    approval_id = ask(slack)
    assert slack.press(slack.body(slack.buttons()[button])) == 200
    assert status(slack, approval_id) == became
    until(lambda: slack.answers.requests, "the answer")
    answer = slack.answers.requests[-1].json
    assert answer["replace_original"] is True
    assert f"was {became} by `bob`" in answer["text"]


def test_the_example_of_slacks_documentation_verifies() -> None:
    """The published example of the `v0` signature."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    expected = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    assert signature(SECRET, "1531420618", body) == expected


def test_nobody_decides_with_a_request_that_slack_did_not_sign(slack: Slack) -> None:
    """Another secret, a changed body, no signature: refused, and nothing is decided."""
    approval_id = ask(slack)
    body = slack.body(slack.buttons()["agentlattice_approve"])
    assert slack.press(body, secret="another") == 403
    headers = {
        "x-slack-request-timestamp": str(int(time.time())),
        "x-slack-signature": signature(SECRET, str(int(time.time())), body),
    }
    assert slack.http.post(SLACK_ACTIONS, content=body + b"&x=1", headers=headers).status_code == 403
    assert slack.http.post(SLACK_ACTIONS, content=body).status_code == 403
    assert status(slack, approval_id) == "pending"


def test_an_old_request_is_refused(slack: Slack) -> None:
    """What was recorded yesterday decides nothing today, and neither does tomorrow's."""
    approval_id = ask(slack)
    body = slack.body(slack.buttons()["agentlattice_approve"])
    assert slack.press(body, at=time.time() - 301) == 403
    assert slack.press(body, at=time.time() + 400) == 403
    assert status(slack, approval_id) == "pending"


def test_a_request_that_comes_twice_decides_once(slack: Slack) -> None:
    """The second one is told what the first one did."""
    approval_id = ask(slack)
    body = slack.body(slack.buttons()["agentlattice_deny"])
    assert slack.press(body) == 200
    assert slack.press(slack.body(slack.buttons()["agentlattice_approve"])) == 200
    assert status(slack, approval_id) == "denied"
    until(lambda: len(slack.answers.requests) == 2, "both answers")
    assert "already denied by `bob`" in slack.answers.requests[-1].json["text"]
    assert slack.answers.requests[-1].json["replace_original"] is False


def test_somebody_unknown_decides_nothing(slack: Slack) -> None:
    """Being in the channel is no right."""
    approval_id = ask(slack)
    assert slack.press(slack.body(slack.buttons()["agentlattice_approve"], user="U2")) == 403
    assert status(slack, approval_id) == "pending"


def test_a_name_in_slack_is_nobodys_identity(slack: Slack) -> None:
    """Anybody may call themselves what they like there; who they are is their id."""
    slack.world.desk.change("slack", people={"somebody": "bob"})
    approval_id = ask(slack)
    assert slack.press(slack.body(slack.buttons()["agentlattice_approve"], user="U2")) == 403
    assert status(slack, approval_id) == "pending"


def test_a_press_on_something_else_than_is_pending_decides_nothing(slack: Slack) -> None:
    """The digest of what was shown goes with it."""
    approval_id = ask(slack)
    button = slack.buttons()["agentlattice_approve"]
    button["value"] = f"{approval_id} {'0' * 64}"
    assert slack.press(slack.body(button)) == 200
    assert status(slack, approval_id) == "pending"
    until(lambda: slack.answers.requests, "the answer")
    assert "not what was shown" in slack.answers.requests[-1].json["text"]


def test_what_slack_sends_and_that_is_no_press_is_taken_quietly(slack: Slack) -> None:
    """Other interactions are acknowledged; what is no request of Slack's is refused."""
    other = urlencode({"payload": json.dumps({"type": "view_closed", "user": {"id": "U1"}})}).encode()
    assert slack.press(other) == 200
    assert slack.press(b"payload=%7B") == 422
    assert slack.press(b"nothing") == 422


def test_agents_words_are_shown_as_they_are(slack: Slack) -> None:
    """Nobody is mentioned, nothing is a link, and no text closes its block, whatever an agent writes."""
    ask(slack, note="<!channel> <https://evil.test|Approve> & more")
    block = slack.channel.requests[-1].json["blocks"][1]
    assert block["text"]["type"] == "plain_text"
    assert "<" not in block["text"]["text"]
    assert "&lt;!channel&gt;" in block["text"]["text"]
    ask(slack, **{f"note{number}": "<>&" * 2000 for number in range(9)})
    message = slack.channel.requests[-1].json
    assert len(message["blocks"][1]["text"]["text"]) <= 3000
    assert len(slack.buttons()["agentlattice_approve"]["value"]) <= 2000


def test_without_a_signing_secret_there_are_no_buttons(world: World) -> None:
    """A button that nobody could verify would be a lie."""
    with receiving() as channel, world.deliverer():
        world.desk.add("plain", channel.url, template="slack")
        world.agent.execute_sync("deploy.web")
        until(lambda: channel.requests, "the message")
    assert [block["type"] for block in channel.requests[0].json["blocks"]] == ["header", "section"]
