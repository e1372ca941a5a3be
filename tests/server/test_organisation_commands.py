"""`al organisations`: another organisation in the service's database, with keys of its own and nothing of others'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from service_world import ServiceWorld
from typer.testing import CliRunner, Result

from agentlattice_cli.main import app

Al = Callable[..., Result]


@pytest.fixture
def al(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Al:
    """`al` on the service's database, where its keys lie."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"AL_DATABASE": database, "AL_BASE_URL": ""})

    return run


def made(al: Al, *arguments: str) -> Any:
    done = al("organisations", "add", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return orjson.loads(done.stdout)


def test_organisations_made_beside_a_running_service_see_nothing_of_each_other(
    al: Al, world: ServiceWorld
) -> None:
    """Their keys work at once; agents of one name are two, and neither's ids are anything to the other."""
    acme, globex = made(al, "acme"), made(al, "globex")
    listed = orjson.loads(al("organisations", "list", "--json").stdout)["organisations"]
    assert listed == sorted(["acme", "globex", world.org_id])
    agents = {}
    for one in (acme, globex):
        registered = world.call(one["service_key"], "POST", "/api/agents/register", {"name": "bot"})
        assert registered.status_code == 201, registered.text
        assert registered.json()["org_id"] == one["org_id"]
        policy = {"yaml": "version: 1\npolicies: [{name: All, action: '*', effect: require_approval}]"}
        assert world.call(one["operator_key"], "PUT", "/api/v1/policies/document", policy).status_code == 200
        asked = world.call(
            registered.json()["api_key"], "POST", "/api/v1/actions", {"action_type": "pr.merge"}
        )
        agents[one["org_id"]] = {**registered.json(), **asked.json()}
    assert agents["acme"]["id"] != agents["globex"]["id"]
    for mine, theirs in ((acme, "globex"), (globex, "acme")):
        key, other = mine["operator_key"], agents[theirs]
        pending = world.call(key, "GET", "/api/v1/approvals").json()["approvals"]
        assert [one["id"] for one in pending] == [agents[mine["org_id"]]["approval_id"]]
        for method, path in (
            ("GET", f"/api/v1/approvals/{other['approval_id']}"),
            ("POST", f"/api/v1/approvals/{other['approval_id']}/approve"),
            ("DELETE", f"/api/v1/keys/{other['key_id']}"),
        ):
            answer = world.call(key, method, path, {} if method == "POST" else None)
            assert answer.status_code == 404, (path, answer.text)
    assert world.as_operator("GET", "/api/v1/agents").json()["agents"] == []


def test_a_program_gets_the_keys_in_a_file_that_stays_while_they_work(
    al: Al, world: ServiceWorld, tmp_path: Path
) -> None:
    """The file is its owner's alone; a second run changes nothing, and makes no further key."""
    file = tmp_path / "acme.json"
    arguments = (
        "organisations",
        "add",
        "acme",
        "--bootstrap",
        str(file),
        "--base-url",
        world.url,
    )
    first = al(*arguments)
    assert (first.exit_code, first.stdout) == (0, ""), first.output
    kept = orjson.loads(file.read_bytes())
    assert file.stat().st_mode & 0o777 == 0o600
    assert (kept["org_id"], kept["url"]) == ("acme", world.url)
    keys = world.call(kept["operator_key"], "GET", "/api/v1/keys").json()["keys"]
    assert sorted(key["kind"] for key in keys) == ["operator", "service"]
    assert al(*arguments).exit_code == 0
    assert orjson.loads(file.read_bytes()) == kept
    assert len(world.call(kept["operator_key"], "GET", "/api/v1/keys").json()["keys"]) == 2


def test_an_organisation_is_made_once(al: Al, world: ServiceWorld) -> None:
    """A name that is taken, or cannot be one, is an error of one line, and nothing is made."""
    made(al, "acme")
    for name in ("acme", world.org_id, "../up"):
        done = al("organisations", "add", name)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.output
        assert name in done.stderr
    listed = orjson.loads(al("organisations", "list", "--json").stdout)["organisations"]
    assert listed == sorted(["acme", world.org_id])


def test_the_first_organisation_is_the_service_s_to_make(al: Al) -> None:
    """In a database that holds none, none is added, and nothing is left behind."""
    done = al("organisations", "add", "acme")
    assert done.exit_code == 1
    assert "`al serve` makes one" in done.stderr
    assert orjson.loads(al("organisations", "list", "--json").stdout) == {"organisations": []}
