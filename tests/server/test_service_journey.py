"""`al` and our own client against a service: the same commands as on a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from service_world import ServiceWorld
from typer.testing import CliRunner, Result

from agentlattice_cli.main import app
from agentlattice_core import AgentLattice

Al = Callable[..., Result]


@pytest.fixture
def al(world: ServiceWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Al:
    """`al` with the service's address, and the key that is passed first."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def run(key: str, *arguments: str) -> Result:
        environment = {"AL_BASE_URL": world.url, "AL_API_KEY": key, "XDG_CONFIG_HOME": str(tmp_path)}
        return CliRunner().invoke(app, list(arguments), env=environment)

    return run


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_an_agent_asks_from_a_shell(al: Al, world: ServiceWorld) -> None:
    """`whoami`, `can-i`, `execute` and `report` answer with the exit codes that they have on a file."""
    key = world.new_agent("bot")
    assert said(al(key, "whoami", "--json"))["name"] == "bot"
    assert al(key, "can-i", "read_data").exit_code == 0
    assert al(key, "can-i", "pr.merge").exit_code == 2
    assert al(key, "can-i", "pr.open", "--metadata", "pr_size=300").exit_code == 1
    done = said(al(key, "execute", "pr.open", "--metadata", "pr_size=3", "--json"))
    assert done["status"] == "executed"
    assert al(key, "report", done["audit_event_id"], "success").exit_code == 0
    assert al(key, "execute", "secret.read").exit_code == 1
    events = said(al(key, "audit", "list", "--json"))["events"]
    assert [one["action_type"] for one in events] == ["secret.read", "pr.open"]
    assert al("al_agent_x", "execute", "read_data").exit_code == 3


def test_a_gate_opens_once_somebody_approves_from_another_shell(al: Al, world: ServiceWorld) -> None:
    """`al gate` waits, `al approvals` shows and decides, and the log verifies."""
    key, operator, codes = world.new_agent(), world.keys.operator_key, []
    gate = threading.Thread(
        target=lambda: codes.append(AgentLattice(key, base_url=world.url).gate_sync("pr.merge"))
    )
    gate.start()
    found: list[Any] = []
    while not found:
        found = said(al(operator, "approvals", "list", "--json"))["approvals"]
    (request,) = found
    assert said(al(operator, "approvals", "show", request["id"], "--json"))["digest"] == request["digest"]
    refused = al(operator, "approvals", "approve", request["id"])
    assert "nothing was shown" in refused.stderr
    done = al(operator, "approvals", "approve", request["id"], "--digest", request["digest"][:12])
    assert (done.exit_code, "approved by bootstrap" in done.stdout) == (0, True)
    gate.join(30)
    assert codes[0].claim == "started"
    assert al(operator, "audit", "verify").exit_code == 0
    assert said(al(operator, "posture", "--json"))["score"] > 0


def test_policy_is_applied_to_a_service(al: Al, world: ServiceWorld) -> None:
    """`al policy apply` puts a file into force there."""
    Path("mine.yaml").write_text("version: 1\npolicies: [{name: New, action: new.thing, effect: allow}]")
    assert al(world.keys.operator_key, "policy", "apply", "mine.yaml").stdout == "policy/new\n"
    assert al(world.new_agent(), "execute", "new.thing").exit_code == 0
