"""A governed log, an agent that delegates, and policies that show whose name counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock

POLICIES = PolicyDocument.parse("""
version: 1
policies:
  - {name: Reading, action: read_data, effect: allow, agents: [ci]}
  - {name: Results, action: write_results, effect: allow}
  - {name: Payroll, action: payroll.read, effect: allow, agents: [payroll]}
  - {name: Deploys, action: deploy.*, effect: require_approval, approval: {timeout: 1h}}
  - name: Tagged
    action: tagged.read
    effect: allow
    agent_tags: [trusted]
  - name: Granted
    action: granted.read
    effect: allow
    conditions:
      - {field: agent.grants, operator: contains, value: secrets}
  - name: Below the desk
    action: desk.read
    effect: allow
    conditions:
      - {field: agent.parent, operator: eq, value: desk}
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 1, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT}
""")

Open = Callable[..., AgentLattice]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """Opens clients on one database; closes what the test leaves open."""
    clients: list[AgentLattice] = []

    def open_client(**options: Any) -> AgentLattice:
        options = {"policies": POLICIES, "agent": "ci", "clock": clock, **options}
        clients.append(AgentLattice.embedded(tmp_path / "governance.db", **options))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def al(opened: Open) -> AgentLattice:
    return opened()


@pytest.fixture
def operator(al: AgentLattice) -> Iterator[AgentLattice]:
    client = al.for_operator("k.chen@acme.com")
    yield client
    client.close()
