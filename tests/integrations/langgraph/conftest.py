"""A real client over a real file for each test, and a reader of what it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent

_POLICIES = """
version: 1
policies:
  - {name: Tools, action: "tool.*", effect: allow}
  - {name: No Deletion, action: tool.delete, effect: deny}
  - name: Size
    action: tool.write
    effect: allow
    conditions: [{field: size, operator: lt, value: 50}]
  - {name: Deployments, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Migrations, action: db.migrate, effect: deny}
"""


@pytest.fixture
def al(tmp_path: Path) -> Iterator[AgentLattice]:
    """A client that allows `tool.*`, denies `tool.delete` and large writes, and asks about `tool.deploy`."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(_POLICIES, encoding="utf-8")
    with AgentLattice.embedded(tmp_path / "governance.db", policies=policies, agent="tester") as client:
        yield client


@pytest.fixture
def recorded(al: AgentLattice) -> Callable[[], list[AuditEvent]]:
    """What the log holds, oldest first, once the outcomes of all that ran have reached it."""

    def read() -> list[AuditEvent]:
        deadline = time.monotonic() + 10
        while True:
            events = list(reversed(al.audit_sync(limit=200).events))
            if all(event.claim != "started" for event in events) or time.monotonic() > deadline:
                return events
            time.sleep(0.005)

    return read
