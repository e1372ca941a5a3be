"""CrewAI off the network; a real client over a real file for each test; no hooks left over from the last one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["OTEL_SDK_DISABLED"] = "true"

from crewai.hooks import clear_all_hooks


@pytest.fixture(autouse=True)
def _no_hooks_left_over() -> Iterator[None]:
    yield
    clear_all_hooks()


_POLICIES = """
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
def al(tmp_path: Path) -> Iterator[AgentLattice]:
    """Allows `tool.*`, denies `tool.delete`, asks about `tool.deploy`, and lets `tool.draw` take one euro a day."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(_POLICIES, encoding="utf-8")
    with AgentLattice.embedded(tmp_path / "governance.db", policies=policies, agent="tester") as client:
        yield client


@pytest.fixture
def reviewer(al: AgentLattice, tmp_path: Path) -> Iterator[AgentLattice]:
    """A person who may approve what `al` asks for."""
    with AgentLattice.embedded(tmp_path / "governance.db", operator="reviewer") as client:
        yield client


@pytest.fixture
def recorded(al: AgentLattice) -> Callable[[str], list[AuditEvent]]:
    """The recorded actions of one type, oldest first, once the outcomes of all that ran have reached the log."""

    def read(action_type: str) -> list[AuditEvent]:
        deadline = time.monotonic() + 10
        while True:
            events = list(reversed(al.audit_sync(limit=200, action_type=action_type).events))
            if all(event.claim != "started" for event in events) or time.monotonic() > deadline:
                return events
            time.sleep(0.005)

    return read
