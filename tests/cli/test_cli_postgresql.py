"""The command line on a PostgreSQL database, for those who look after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentlattice_cli.main import app
from agentlattice_core import AgentLattice


def al(*arguments: str, url: str, organisation: str = "") -> tuple[int, str]:
    found = CliRunner().invoke(app, list(arguments), env={"AL_DB": url, "AL_ORGANISATION": organisation})
    return found.exit_code, found.output


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_log_is_verified_with_its_state(postgres_url: str, here: Path) -> None:
    """By the only organisation there is, or the one that is named; none is made by looking."""
    code, output = al("audit", "verify", url=postgres_url)
    assert code != 0
    assert "there is no log in this database" in output
    for organisation in ("acme", "other"):
        with AgentLattice.embedded(postgres_url, agent="ci", organisation=organisation) as client:
            client.execute_sync("pr.open")
        code, output = al("audit", "verify", "--state", url=postgres_url, organisation=organisation)
        assert code == 0, output
    code, output = al("audit", "verify", url=postgres_url)
    assert code != 0
    assert "name one of them" in output
    code, output = al("approvals", "list", url=postgres_url, organisation="third")
    assert code != 0
    assert "there is no organisation `third`" in output
    assert sorted(path.name for path in here.glob("*.key*")) == sorted(
        f"{organisation}.key{end}" for organisation in ("acme", "other") for end in ("", ".lock", ".signed")
    )


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_password_of_a_database_is_not_shown(arguments: tuple[str, ...]) -> None:
    code, output = al("config", *arguments, url="postgresql://me:hunter2@db.example/governance")
    assert code == 0
    assert "hunter2" not in output
    assert "db.example" in output
