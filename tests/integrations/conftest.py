"""For every adapter: a real client over a real file for each test, and a reader of what it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent


@pytest.fixture
def al(tmp_path: Path, policies: str) -> Iterator[AgentLattice]:
    """A client of the agent `tester` under the policies of the adapter's own `policies` fixture."""
    document = tmp_path / "policies.yaml"
    document.write_text(policies, encoding="utf-8")
    with AgentLattice.embedded(tmp_path / "governance.db", policies=document, agent="tester") as client:
        yield client


@pytest.fixture
def recorded(al: AgentLattice) -> Callable[..., list[AuditEvent]]:
    """The recorded actions, of one type or of all, oldest first, once the outcomes of all that ran are in the log."""

    def read(action_type: str | None = None) -> list[AuditEvent]:
        deadline = time.monotonic() + 10
        while True:
            events = list(reversed(al.audit_sync(limit=200, action_type=action_type).events))
            if all(event.claim != "started" for event in events) or time.monotonic() > deadline:
                return events
            time.sleep(0.005)

    return read
