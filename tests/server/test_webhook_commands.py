"""`al webhooks` of a service: what it says is what it says of the service's database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from receivers import receiving
from service_world import Al, ServiceWorld, said
from standardwebhooks import Webhook as Verifier

from agentlattice_core import webhooks
from agentlattice_core.batch import Batch
from agentlattice_core.principals import Operator
from agentlattice_server.bootstrap import BOOTSTRAP

ADMIN = Operator(BOOTSTRAP, "admin")
ELSEWHERE = "https://hooks.example.com/secret-path"


@pytest.fixture
def in_database(al: Al, database: str, tmp_path: Path) -> Al:
    """`al` with the database of the service, as the administrator who holds the key."""
    where = ("--db", database, "--as", BOOTSTRAP, "--role", "admin")
    options = {"AL_WEBHOOK_KEY": str(tmp_path / "webhook-key"), "AL_WEBHOOK_REACH": "loopback"}
    if not database.startswith("sqlite"):
        options["AL_SIGNING_KEY"] = str(next(tmp_path.glob("org_*.key")))
    return lambda *arguments, **more: al(*arguments, *where, **more, **options)


def give_up(world: ServiceWorld, name: str, count: int) -> list[int]:
    """Have the first `count` entries of a paused webhook be dead letters; which ones."""

    def command(batch: Batch) -> list[int]:
        hook = webhooks.find(batch, name)
        # In one transaction, so that no node takes it up in between.
        webhooks.change(batch, ADMIN, hook.id, active=True)
        assert webhooks.lease(batch, hook.id, "nobody")
        entries = list(range(hook.next, hook.next + count))
        dead = [
            webhooks.Attempt(one, 8, "2026-03-02T09:00:00.000000Z", "dead", 3, 500, "answered 500")
            for one in entries
        ]
        assert webhooks.record(batch, hook.id, "nobody", hook.next + count, dead, keep=False)
        webhooks.change(batch, ADMIN, hook.id, active=False)
        return entries

    return world.engine.run(command)


def alike(text: str) -> str:
    """Without what differs from one webhook to the next, and from one moment to the next."""
    for pattern, instead in (
        (r"(whk|dlv)_[0-9a-f_]+", r"\1"),
        (r"whsec_[\w+/=]+", "whsec"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "then"),
        (r"(\"behind\":\s*)\d+", r"\1n"),
        (r"\d+( ms)|(\"milliseconds\":\s*)\d+", r"\1\2n"),
    ):
        text = re.sub(pattern, instead, text)
    return text


def test_each_command_says_the_same_of_a_service_and_of_its_database(
    al: Al, in_database: Al, world: ServiceWorld
) -> None:
    """From the first to the last day: the same lines, documents, exit codes and errors, but for ids and times."""
    with receiving() as receiver:
        told: list[list[tuple[str, str, int]]] = []
        for run in (al, in_database):
            steps = [
                ("add", "hook", receiver.url, "--event", "action.denied", "--json"),
                ("list",),
                ("list", "--json"),
                ("test", "hook"),
                ("test", "hook", "--json"),
                ("rotate", "hook", "--json"),
                ("rotate", "hook"),
                ("pause", "hook"),
                ("dead-letters", "hook"),
                ("replay", "hook"),
                ("resume", "hook"),
                ("replay", "hook", "--entry", "999999"),
                ("add", "hook", receiver.url),
                ("add", "other", "ftp://hooks.example.com"),
                ("add", "other"),
                ("rotate", "nowhere"),
                ("remove", "nowhere"),
                ("remove", "hook"),
                ("list",),
                ("list", "--json"),
            ]
            done = [run("webhooks", *step) for step in steps]
            told.append([(alike(one.stdout), alike(one.stderr), one.exit_code) for one in done])
        by_service, by_database = told
        for step, there, here in zip(steps, by_service, by_database, strict=True):
            assert there == here, step
        assert [code for _, _, code in by_service] == [0] * 11 + [1] * 6 + [0] * 3
        assert len(receiver.requests) == 4


def test_a_secret_that_a_service_made_signs_what_it_sends(al: Al, world: ServiceWorld) -> None:
    """Printed once; one that was given is not printed, and signs."""
    given = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with receiving() as receiver:
        made = said(al("webhooks", "add", "hook", receiver.url, "--only-escalations", "--json"))
        assert said(al("webhooks", "test", "hook", "--json"))["outcome"] == "delivered"
        own = al("webhooks", "add", "own", receiver.url, "--secret-stdin", input=f"{given}\n")
        assert (own.exit_code, given in own.output) == (0, False), own.output
        assert al("webhooks", "test", "own").exit_code == 0
        assert made["secret"] not in al("webhooks", "list", "--json").output
        for secret, request in zip((made["secret"], given), receiver.requests, strict=True):
            assert Verifier(secret).verify(request.body, request.headers)["type"] == "webhook.test"
        receiver.answer = lambda number: (500, {})
        failed = al("webhooks", "test", "hook", "--json")
        assert (failed.exit_code, '"failed"' in failed.stdout) == (1, True)


def test_dead_letters_of_a_service_are_listed_and_sent_again(
    al: Al, in_database: Al, world: ServiceWorld
) -> None:
    """The same list by both ways; then the entries that are named, then all that are left."""
    assert al("webhooks", "add", "hook", ELSEWHERE, "--event", "action.denied").exit_code == 0
    assert al("webhooks", "pause", "hook").exit_code == 0
    for number in range(3):
        world.as_operator("POST", "/api/v1/operators", {"name": f"person-{number}"})
    dead = give_up(world, "hook", 3)
    for form in ((), ("--json",)):
        by_service = al("webhooks", "dead-letters", "hook", *form)
        assert by_service.stdout == in_database("webhooks", "dead-letters", "hook", *form).stdout
    listed = said(al("webhooks", "dead-letters", "hook", "--json"))
    assert [one["entry"] for one in listed["dead_letters"]] == dead
    assert al("webhooks", "replay", "hook", "--entry", str(dead[1])).stdout == "1 to be sent again\n"
    left = said(al("webhooks", "dead-letters", "hook", "--json"))["dead_letters"]
    assert [one["entry"] for one in left] == [dead[0], dead[2]]
    assert al("webhooks", "replay", "hook").stdout == "2 to be sent again\n"
    assert al("webhooks", "replay", "hook").stdout == "there is nothing to send again\n"


def test_who_may_not_is_told_so_by_a_service(al: Al, world: ServiceWorld) -> None:
    """A member looks and changes nothing; an agent does neither. Nothing is asked of the name in `--as`."""
    member, agent = world.new_operator("mia"), world.new_agent()
    assert al("webhooks", "list", AL_API_KEY=member).exit_code == 0
    for key, command in (
        (member, ("add", "hook", ELSEWHERE, "--as", "ana", "--role", "admin")),
        (agent, ("list",)),
    ):
        refused = al("webhooks", *command, AL_API_KEY=key)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1), refused.output
    assert said(al("webhooks", "list", "--json")) == {"webhooks": []}
