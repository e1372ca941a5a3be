"""CrewAI keeps off the network and keeps quiet; nothing of one test's hooks reaches the next."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["OTEL_SDK_DISABLED"] = "true"

from crewai.hooks import clear_all_hooks


@pytest.fixture(autouse=True)
def _no_hooks_left_over() -> Iterator[None]:
    yield
    clear_all_hooks()
