"""A governed log in a temporary directory, with policies that show every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from neighbours import Neighbour, prepare

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock

POLICIES = """
version: 1
policies:
  - name: PR Size
    action: pr.open
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval: {timeout: 1h}
  - name: Migrations
    action: db.migrate
    effect: require_approval
    approval: {timeout: 4h, approvers: ["group:dba", "user:lead@acme.com"]}
  - name: Two Keys
    action: vault.open
    effect: require_approval
    approval: {approvers: ["user:ann", "user:bob", "user:cid"], quorum: 2}
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: Europe/Paris, effect: REJECT}
  - name: Orders
    action: order.place
    effect: require_approval
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT,
        release_on_failure: true}
  - name: Secrets
    action: secret.read
    effect: deny
  - name: Quiet
    action: quiet.refund
    effect: allow
    explain: none
    conditions:
      - {field: amount, operator: lt, value: 500}
"""

Open = Callable[..., AgentLattice]


@pytest.fixture(scope="session")
def policy_text() -> str:
    return POLICIES


@pytest.fixture
def policies(tmp_path: Path, policy_text: str) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(policy_text)
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def opened(tmp_path: Path, policies: Path, clock: ManualClock) -> Iterator[Open]:
    """Opens clients on one database; closes what the test leaves open."""
    clients: list[AgentLattice] = []

    def open_client(**options: Any) -> AgentLattice:
        options = {"policies": policies, "agent": "ci", "clock": clock, **options}
        client = AgentLattice.embedded(tmp_path / "governance.db", **options)
        clients.append(client)
        return client

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log that neighbours may open."""
    return prepare(tmp_path)


@pytest.fixture
def join(path: Path) -> Iterator[Callable[..., Neighbour]]:
    """Opens neighbours on one log; closes them all."""
    opened_ones: list[Neighbour] = []

    def open_one(agent: str = "guest", clock: Any = None) -> Neighbour:
        opened_ones.append(Neighbour(path, agent, clock))
        return opened_ones[-1]

    yield open_one
    for one in opened_ones:
        one.close()


@pytest.fixture
def host(join: Callable[..., Neighbour]) -> Neighbour:
    return join("host")


@pytest.fixture
def guest(join: Callable[..., Neighbour]) -> Neighbour:
    return join()
