"""A service for tests: the real application on a real socket, on each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from service_world import POLICIES, Al, ServiceWorld, outward_settings, running
from typer.testing import CliRunner, Result

from agentlattice_cli.main import app
from agentlattice_server import ServiceSettings

DATABASES = ("sqlite", "postgres")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database."""
    if request.param == "postgres":
        monkeypatch.chdir(tmp_path)  # where the signing key lies if nobody says so
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'governance.db'}"


@pytest.fixture
def serve() -> Iterator[Callable[..., ServiceWorld]]:
    """Starts services, which end with the test."""
    with ExitStack() as stack:

        def start(
            database: str, settings: ServiceSettings | None = None, policies: str = POLICIES
        ) -> ServiceWorld:
            return stack.enter_context(running(database, settings, policies))

        yield start


@pytest.fixture
def world(database: str, serve: Callable[..., ServiceWorld], tmp_path: Path) -> ServiceWorld:
    """A running service with its first keys and the policies of `POLICIES`, which delivers webhooks."""
    return serve(database, ServiceSettings(0, outward=outward_settings(tmp_path)))


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

    def run(*arguments: str, input: str | None = None, **changes: str) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input, env=environment | changes)

    return run
