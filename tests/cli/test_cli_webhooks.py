"""`al webhooks`: subscribing others, seeing what they missed, and trying a receiver out."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from cli_world import PATIENCE, POLICIES, PROGRAM, Al, document
from standardwebhooks import Webhook as Verifier

from agentlattice_core import AgentLattice

ADMIN = ("--as", "ana", "--role", "admin")


@pytest.fixture
def log(project: Path) -> Iterator[AgentLattice]:
    """A database with an agent and policies."""
    (project / "policies.yaml").write_text(POLICIES)
    with AgentLattice.embedded("governance.db", agent="bot", policies="policies.yaml") as client:
        yield client


class Receiver:
    """A web server on this machine that keeps what it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_a_webhook_from_its_first_to_its_last_day(al: Al, log: AgentLattice) -> None:
    """Added with a secret that is printed once, listed without it, rotated, paused, resumed, removed."""
    made = document(al("webhooks", "add", "hook", "https://hooks.example.com/secret-path", *ADMIN, "--json"))
    assert made["secret"].startswith("whsec_")
    listed = al("webhooks", "list", *ADMIN, "--json")
    assert "secret" not in listed.stdout
    assert document(listed)["webhooks"][0]["target"] == "https://hooks.example.com"
    rotated = document(al("webhooks", "rotate", "hook", *ADMIN, "--json"))
    assert rotated["secret"] != made["secret"]
    assert al("webhooks", "pause", "hook", *ADMIN).exit_code == 0
    assert document(al("webhooks", "list", *ADMIN, "--json"))["webhooks"][0]["why"] == "paused"
    assert al("webhooks", "resume", "hook", *ADMIN).exit_code == 0
    assert document(al("webhooks", "list", *ADMIN, "--json"))["webhooks"][0]["active"]
    assert al("webhooks", "dead-letters", "hook", *ADMIN).exit_code == 0
    assert al("webhooks", "replay", "hook", *ADMIN).stdout == "there is nothing to send again\n"
    assert al("webhooks", "remove", "hook", *ADMIN).exit_code == 0
    assert document(al("webhooks", "list", *ADMIN, "--json")) == {"webhooks": []}


def test_a_secret_is_read_from_standard_input(al: Al, log: AgentLattice) -> None:
    """It is nobody's to see: neither an argument nor printed again."""
    answer = al(
        "webhooks", "add", "pager", "--template", "pagerduty", "--only-escalations", "--secret-stdin", *ADMIN,
        input="R0UT1NG\n",
    )  # fmt: skip
    assert answer.exit_code == 0
    assert "R0UT1NG" not in answer.output
    (pager,) = document(al("webhooks", "list", *ADMIN, "--json"))["webhooks"]
    assert (pager["target"], pager["events"]) == ("https://events.pagerduty.com", [])


def test_a_test_message_says_how_it_went(al: Al, log: AgentLattice, receiver: Receiver) -> None:
    """Delivered exits with 0; anything else with 1, and says why."""
    reach = ("--webhook-reach", "loopback")
    made = document(al("webhooks", "add", "hook", receiver.url, *reach, *ADMIN, "--json"))
    answer = al("webhooks", "test", "hook", *reach, *ADMIN)
    assert answer.exit_code == 0, answer.output
    headers, body = receiver.requests[0]
    assert Verifier(made["secret"]).verify(body, headers)["type"] == "webhook.test"
    receiver.close()
    answer = al("webhooks", "test", "hook", *reach, *ADMIN)
    assert answer.exit_code == 1
    assert "no connection" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "hook", "https://hooks.example.com", "--as", "ana"), "takes an administrator"),
        (("add", "hook", "https://hooks.example.com"), "deciding takes a person"),
        (("add", "hook", "http://127.0.0.1:9", *ADMIN), "must begin with https"),
        (("add", "hook", "https://10.0.0.1", *ADMIN), "not a public address"),
        (("add", "hook", *ADMIN), "needs the URL"),
        (("add", "hook", "https://h.example.com", "--event", "x", *ADMIN), "event type `x`"),
        (("add", "hook", "https://h.example.com", "--person", "x", *ADMIN), "must be like"),
        (("add", "h", "https://h.example.com", "--webhook-reach", "inside", *ADMIN), "not a network"),
        (("remove", "hook", *ADMIN), "there is no webhook `hook`"),
        (("listen", "--event", "x"), "event type `x`"),
        (("listen", "--forward-to", "ftp://x"), "must begin with"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    al: Al, log: AgentLattice, arguments: tuple[str, ...], said: str
) -> None:
    """The exit code is 1, and standard error has one line that says what to do."""
    answer = al("webhooks", *arguments)
    assert answer.exit_code == 1
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_listening_prints_and_forwards_what_happens(log: AgentLattice, receiver: Receiver) -> None:
    """Each notification from then on, signed with the secret that was printed, with the answer it got."""
    process = subprocess.Popen(
        [*PROGRAM, "webhooks", "listen", "--forward-to", receiver.url, "--event", "action.denied", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        secret = process.stderr.readline().rsplit(" ", 1)[1].strip()
        assert process.stderr.readline().startswith("listening")
        log.execute_sync("pr.open", metadata={"pr_size": 1})
        denied = log.execute_sync("secret.read")
        told = orjson.loads(process.stdout.readline())
        assert told["event"]["data"]["audit_event_id"] == denied.audit_event_id
        assert told["answer"] == "204"
        ((headers, body),) = receiver.requests
        assert headers["webhook-id"] == told["id"]
        assert Verifier(secret).verify(body, headers)["data"]["audit_event_id"] == denied.audit_event_id
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
