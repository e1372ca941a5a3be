"""A log of its own for every test, or a service, with webhooks that may reach this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_world import ServiceWorld, outward_settings
from webhook_world import World

from agentlattice_core.testing.clock import ManualClock
from agentlattice_server import ServiceSettings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """By the system's clock."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    """By a clock that the test moves."""
    made = World(tmp_path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def outward(database: str, serve: Callable[..., ServiceWorld], tmp_path: Path) -> ServiceWorld:
    """A service that delivers, and measures for whoever has the token."""
    return serve(database, ServiceSettings(0, outward=outward_settings(tmp_path)))
