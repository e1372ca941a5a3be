"""A scripted service and clients of it that never sleep for real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_service import Answer, Asked, ScriptedService, Steps

from agentlattice_core import AgentLattice

KEY = "al_agent_org_planted_secret_5d1f"


@pytest.fixture
def pace() -> Steps:
    return Steps()


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedService]]:
    """Starts services that give these answers."""
    started: list[ScriptedService] = []

    def start(*answers: Answer | Callable[[Asked], Answer]) -> ScriptedService:
        started.append(ScriptedService(answers))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def client(pace: Steps) -> Iterator[Callable[..., AgentLattice]]:
    """Opens clients of a service."""
    opened: list[AgentLattice] = []

    def open_client(url: str, **options: Any) -> AgentLattice:
        al = AgentLattice(KEY, base_url=url, **options)
        assert al._service is not None
        al._service.connections.pace = pace  # type: ignore[assignment]
        opened.append(al)
        return al

    yield open_client
    for al in opened:
        al.close()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method by name, in one of its two forms."""

    def call(al: AgentLattice, name: str, *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return getattr(al, f"{name}_sync")(*args, **options)

        async def run() -> Any:
            return await getattr(al, name)(*args, **options)

        return asyncio.run(run())

    return call
