"""A log of its own for every test, with webhooks that may reach this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from webhook_world import World

from agentlattice_core.testing.clock import ManualClock


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
