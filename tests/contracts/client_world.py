"""What the contract of clients stands on: one log, its agents and people, embedded or behind a real service."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock
from agentlattice_server import Organisations, Service, ServiceSettings, create_app, listen
from agentlattice_server.bootstrap import FirstKeys, first_keys

__all__ = ["POLICIES", "ClientWorld", "EmbeddedWorld", "RemoteWorld", "RunningService"]

POLICIES = PolicyDocument.parse("""
version: 1
policies:
  - {name: Free, action: free, effect: allow}
  - {name: Forbidden, action: forbidden, effect: deny}
  - {name: Asking, action: ask, effect: require_approval, approval: {timeout: 1h}}
  - {name: Children, action: data.*, effect: allow}
  - name: PR Size
    action: pr.open
    effect: allow
    conditions: [{field: pr_size, operator: lt, value: 50}]
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 1, type: DAILY_CAP, cap: "100.00", currency: EUR, per: agent, timezone: UTC, effect: REJECT}
  - {name: Registries, action: agentlattice.registry.*, effect: allow}
""")


class ClientWorld(ABC):
    """One log for a test, with the policies above in force. Every client it gives away is closed with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.clients: list[AgentLattice] = []

    @abstractmethod
    def agent(self, name: str = "bob", **options: Any) -> AgentLattice:
        """A client of the agent `name`; `options` are those that both forms of the client take."""

    @abstractmethod
    def operator(self, name: str = "ana", role: str = "member", groups: Iterable[str] = ()) -> AgentLattice:
        """A client of a person, who is registered."""

    @property
    @abstractmethod
    def root(self) -> AgentLattice:
        """A client of an administrator."""

    def close(self) -> None:
        """Close every client."""
        for client in self.clients:
            client.close()

    def _kept(self, client: AgentLattice) -> AgentLattice:
        self.clients.append(client)
        return client


class EmbeddedWorld(ClientWorld):
    """A file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._root = self._open(operator="root", role="admin", policies=POLICIES)
        self._root.register_operator_sync("root", role="admin")

    def _open(self, **options: Any) -> AgentLattice:
        return self._kept(
            AgentLattice.embedded(self.directory / "governance.db", clock=self.clock, **options)
        )

    def agent(self, name: str = "bob", **options: Any) -> AgentLattice:
        return self._open(agent=name, **options)

    def operator(self, name: str = "ana", role: str = "member", groups: Iterable[str] = ()) -> AgentLattice:
        self._root.register_operator_sync(name, role=role, groups=groups)  # type: ignore[arg-type]
        return self._open(operator=name)

    @property
    def root(self) -> AgentLattice:
        return self._root


class RunningService:
    """The service in this process, on a port of its own, with its first keys, on a file or on another `database`."""

    def __init__(
        self, directory: Path, clock: ManualClock | None = None, database: str | None = None
    ) -> None:
        key = directory / "service.key" if database is not None else None
        database = database or f"sqlite:///{directory}/service.db"
        organisations = Organisations(database, signing_key=key, clock=clock)
        keys = first_keys(organisations.first)
        assert keys is not None
        self.keys: FirstKeys = keys
        settings = ServiceSettings(calls_per_minute=0)
        self._service = Service(create_app(organisations, settings), listen("127.0.0.1", 0))
        self.url = self._service.url
        started = threading.Event()
        self._thread = threading.Thread(target=self._service.run, args=(started.set,), name="service")
        self._thread.start()
        assert started.wait(30)

    def stop(self) -> None:
        """Stop it, and close its log."""
        self._service.stop()
        self._thread.join(60)

    def operator_key(self, name: str) -> str:
        """A key for a registered person, made as their administrator makes it."""
        answer = httpx.post(
            f"{self.url}/api/v1/keys",
            json={"kind": "operator", "holder": name},
            headers={"Authorization": f"Bearer {self.keys.operator_key}"},
            verify=False,  # it speaks no TLS, and certificates take longer to read than the call takes
        )
        key: str = answer.raise_for_status().json()["text"]
        return key


class RemoteWorld(ClientWorld):
    """A service. Its clients poll every ten minutes, so that whoever is not woken is not seen again."""

    def __init__(self, directory: Path, database: str | None = None) -> None:
        super().__init__(directory)
        self.service = RunningService(directory, self.clock, database)
        self._root = self._kept(AgentLattice(self.service.keys.operator_key, base_url=self.service.url))
        self._root.apply_policies_sync(POLICIES)
        self._registrar = self._kept(AgentLattice(self.service.keys.service_key, base_url=self.service.url))
        self._known: dict[str, str] = {}

    def agent(self, name: str = "bob", **options: Any) -> AgentLattice:
        said = {key: options.pop(key) for key in ("tags", "grants", "owner") if key in options}
        if name not in self._known:
            made = self._kept(self._registrar.for_agent(name, **said))
            assert made._service is not None
            self._known[name] = made._service.key
        return self._kept(
            AgentLattice(
                self._known[name], base_url=self.service.url, gate_poll_interval_ms=600_000, **options
            )
        )

    def operator(self, name: str = "ana", role: str = "member", groups: Iterable[str] = ()) -> AgentLattice:
        self._root.register_operator_sync(name, role=role, groups=groups)  # type: ignore[arg-type]
        return self._kept(AgentLattice(self.service.operator_key(name), base_url=self.service.url))

    @property
    def root(self) -> AgentLattice:
        return self._root

    def close(self) -> None:
        super().close()
        self.service.stop()
