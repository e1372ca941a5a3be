"""CrewAI off the network, no hooks left over from the last test, and what the tests may do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_integrations.crewai import registry

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["CREWAI_DISABLE_VERSION_CHECK"] = "true"
os.environ["OTEL_SDK_DISABLED"] = "true"

from crew_tools import Traces
from crewai.hooks import clear_all_hooks


@pytest.fixture(autouse=True)
def _nothing_left_over() -> Iterator[None]:
    """Copies are known by their texts, which tests share: a crew of the last test may not be collected yet."""
    yield
    clear_all_hooks()
    for owners in (registry._agents, registry._crews, registry._members):
        owners._keys.clear()


@pytest.fixture
def policies() -> str:
    """Allows `tool.*`, denies `tool.delete`, asks about `tool.deploy`, and lets `tool.draw` take one euro a day."""
    return """
version: 1
policies:
  - {name: Tools, action: "tool.*", effect: allow}
  - {name: No Deletion, action: tool.delete, effect: deny}
  - {name: Deployments, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Once A Day, action: tool.draw, effect: allow, rules: [
      {priority: 10, type: DAILY_CAP, cap: "1", currency: EUR, per: agent, effect: REJECT}]}
  - {name: Large Payments, action: pay.large, effect: deny}
  - name: Reports
    action: report.publish
    effect: allow
    conditions: [{field: output, operator: not_contains, value: secret}]
  - {name: Night Shift, action: task.night, effect: deny}
  - {name: Day Shift, action: task.day, effect: allow}
"""


@pytest.fixture
def reviewer(al: AgentLattice, tmp_path: Path) -> Iterator[AgentLattice]:
    """A person who may approve what `al` asks for."""
    with AgentLattice.embedded(tmp_path / "governance.db", operator="reviewer") as client:
        yield client


@pytest.fixture
def traces() -> Traces:
    return Traces()
