"""`al` against a service: registering, exporting and importing, keys, members."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from receivers import PATIENCE, receiving
from service_world import PROGRAM, ServiceWorld
from standardwebhooks import Webhook as Verifier
from typer.testing import CliRunner, Result

from agentlattice_cli.main import app

Al = Callable[..., Result]


@pytest.fixture
def al(world: ServiceWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Al:
    """`al` in a directory of its own, with the address and both first keys in its environment."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    environment = {
        "AL_BASE_URL": world.url,
        "AL_SERVICE_KEY": world.keys.service_key,
        "AL_API_KEY": world.keys.operator_key,
        "XDG_CONFIG_HOME": str(tmp_path),
    }

    def run(*arguments: str, **changes: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=environment | changes)

    return run


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_register_prints_the_key_and_nothing_else(al: Al, world: ServiceWorld) -> None:
    """In a pipe the key is all of standard output, and it works; a second time the name is taken."""
    done = al("register", "bot", "--owner", "alice", "--tag", "ci")
    assert done.exit_code == 0, done.output
    key = done.stdout.strip()
    assert world.call(key, "GET", "/api/v1/whoami").json()["name"] == "bot"
    (agent,) = world.as_operator("GET", "/api/v1/agents").json()["agents"]
    assert (agent["owner"], agent["tags"]) == ("alice", ["ci"])
    again = al("register", "bot")
    assert again.exit_code == 1
    assert again.stderr.startswith("error: agent `bot` is registered already")


def test_what_is_exported_is_imported_and_said_part_by_part(al: Al) -> None:
    """Unchanged, then modified in a dry run that changes nothing, then modified, then unchanged."""
    assert al("register", "bot").exit_code == 0
    assert al("export", "--file", "all.json").exit_code == 0
    file = Path("all.json")
    kept = file.read_bytes()
    refused = al("export", "--file", "all.json")
    assert (refused.exit_code, file.read_bytes()) == (1, kept)
    assert said(al("import", "--file", "all.json", "--json"))["modified"] == []
    document = orjson.loads(kept)
    document["agents"]["bot"]["tags"] = ["cd"]
    document["agents"]["new"] = {"tags": []}
    file.write_bytes(orjson.dumps(document))
    for dry in (["--dry-run"], []):
        done = al("import", "--file", "all.json", *dry)
        assert "added\tagent/new" in done.stdout
        assert "modified\tagent/bot" in done.stdout
        assert "unchanged\tpolicy/reading" in done.stdout
    again = said(al("import", "--file", "all.json", "--json"))
    assert (again["added"], again["modified"]) == ([], [])
    file.write_text("version: 1")
    assert al("import", "--file", "all.json").exit_code == 1


def test_keys_are_made_listed_rotated_and_revoked(al: Al, world: ServiceWorld) -> None:
    """A key's text is printed where it is made and nowhere else."""
    al("register", "bot")
    made = said(al("keys", "create", "agent", "bot", "--json"))
    first = made["text"]
    assert world.call(first, "GET", "/api/v1/whoami").status_code == 200
    rotated = al("keys", "rotate", made["key"]["id"])
    second = rotated.stdout.strip()
    assert world.call(first, "GET", "/api/v1/whoami").status_code == 401
    assert world.call(second, "GET", "/api/v1/whoami").status_code == 200
    listed = al("keys", "list", "--json")
    assert first not in listed.stdout
    assert second not in listed.stdout
    newest = said(listed)["keys"][-1]
    assert al("keys", "revoke", newest["id"]).stdout == f"revoked {newest['id']}\n"
    assert world.call(second, "GET", "/api/v1/whoami").status_code == 401
    assert al("keys", "revoke", newest["id"]).exit_code == 1


def test_members_are_added_listed_and_removed(al: Al) -> None:
    """By an administrator's key; the last administrator stays."""
    assert al("members", "add", "ana", "--role", "admin", "--group", "dba").stdout == "ana is admin\n"
    people = said(al("members", "list", "--json"))["members"]
    assert {"name": "ana", "role": "admin", "groups": ["dba"]} in people
    assert al("members", "remove", "bootstrap").exit_code == 0
    refused = al("members", "list")
    assert refused.stderr.startswith("error: this key is not known")


def test_what_is_missing_or_wrong_is_said_in_one_line(al: Al) -> None:
    """No address, no key, nobody there, and another server each name what to do."""
    for changes, begins in (
        ({"AL_BASE_URL": ""}, "error: no base_url is named"),
        ({"AL_SERVICE_KEY": "", "AL_API_KEY": ""}, "error: no key is set"),
        ({"AL_BASE_URL": "http://127.0.0.1:1"}, "error: cannot reach `http://127.0.0.1:1`"),
        ({"AL_SERVICE_KEY": "al_svc_x"}, "error: this key is not known"),
    ):
        done = al("register", "bot", **changes)
        assert done.exit_code == 1
        assert done.stderr.startswith(begins)
        assert done.stderr.count("\n") == 1


def test_webhooks_listen_forwards_what_a_service_tells(world: ServiceWorld, tmp_path: Path) -> None:
    """With an operator's key each notification is sent on, signed with the secret that was printed."""
    agent, environment = (
        world.new_agent(),
        os.environ
        | {
            "AL_BASE_URL": world.url,
            "AL_API_KEY": world.keys.operator_key,
        },
    )
    arguments = ("webhooks", "listen", "--event", "action.denied", "--limit", "2", "--json")
    with receiving() as receiver:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments, "--forward-to", receiver.url],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            secret = process.stderr.readline().rsplit(" ", 1)[1].strip()
            assert process.stderr.readline().startswith("listening")
            denied = []
            for action in ("read_data", "secret.read", "secret.read"):
                answer = world.call(agent, "POST", "/api/v1/actions", {"action_type": action}).json()
                denied += [answer["audit_event_id"]] if answer["status"] == "denied" else []
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, err
        told = [orjson.loads(line) for line in out.splitlines()]
        assert [one["event"]["data"]["audit_event_id"] for one in told] == denied
        assert [one["answer"] for one in told] == ["200", "200"]
        assert receiver.ids == [one["id"] for one in told]
        assert len(set(receiver.ids)) == 2
        for one in receiver.requests:
            assert Verifier(secret).verify(one.body, one.headers)["type"] == "action.denied"


def test_a_command_that_needs_the_database_does_not_look_at_another_one(al: Al) -> None:
    """With a service named, what works on a file only says so."""
    done = al("policy", "list")
    assert (done.exit_code, done.stderr.startswith("error: this works on a database")) == (1, True)
