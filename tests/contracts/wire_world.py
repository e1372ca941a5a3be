"""The world of the enforcement contract with a service in between: the agent's and the reviewer's clients hold keys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from client_world import RunningService

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.contract.world import AGENT, REVIEWER, World

__all__ = ["WireWorld"]


class WireWorld(World):
    """One test's service, and clients that poll every ten minutes."""

    _others: tuple[AgentLattice, ...] = ()

    def open(self, policies: Path, mode: Literal["enforce", "observe"]) -> tuple[AgentLattice, AgentLattice]:
        self.database = self.directory / "service.db"
        self.service = RunningService(self.directory)
        keys, url = self.service.keys, self.service.url
        root = AgentLattice(keys.operator_key, base_url=url)
        registrar = AgentLattice(keys.service_key, base_url=url)
        root.apply_policies_sync(policies)
        root.register_operator_sync(REVIEWER)
        registered = registrar.for_agent(AGENT)
        self._others = (root, registrar, registered)
        assert registered._service is not None
        client = AgentLattice(registered._service.key, base_url=url, gate_poll_interval_ms=600_000, mode=mode)
        return client, AgentLattice(self.service.operator_key(REVIEWER), base_url=url)

    def close(self) -> None:
        super().close()
        for client in self._others:
            client.close()
        self.service.stop()

    def events(self, tool: str | None = None) -> list[AuditEvent]:
        """As there; the service answers for an outcome before it has written it."""
        deadline = time.monotonic() + 10
        while True:
            found = super().events(tool)
            if all(event.claim != "started" for event in found) or time.monotonic() > deadline:
                return found
            time.sleep(0.01)
