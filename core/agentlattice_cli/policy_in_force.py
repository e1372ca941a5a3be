"""The policy in force, in a database or at a service: what commands show of it, wherever it is.

- A service is asked for its document and for an agent, by an operator's key; a database is read. What is made of either
  is made by the same code.
- A part that was tampered with is never taken for what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agentlattice_cli.opening import Look, looking, means_service
from agentlattice_cli.service_calls import ServiceCalls, calling, part
from agentlattice_cli.settings import Settings
from agentlattice_core.agents import agent_facts
from agentlattice_core.configuration import policy_parts, stored_parts
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.index import matches_pattern
from agentlattice_core.policy.parts import StoredPart
from agentlattice_core.principals import AgentFacts
from agentlattice_core.stores.base import Document

__all__ = ["InForce", "in_force"]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...


@dataclass(frozen=True, slots=True)
class InForce:
    """What is in force, part by part, and which file published each. `look` is the database, if it is one."""

    parts: dict[str, StoredPart]
    sources: dict[str, str | None]
    look: Look | None
    _agents: _State

    def document(self) -> PolicyDocument:
        """What is in force and is what was published."""
        return PolicyDocument.from_parts(self._readable())

    def tampered(self, action_type: str | None = None) -> list[str]:
        """Ids of the parts that are not what was published: all, or those that govern an action type."""
        return sorted(
            part_id
            for part_id, stored in self.parts.items()
            if stored.tampered and (action_type is None or matches_pattern(stored.pattern, action_type))
        )

    def beside(self, file: Path, parts: dict[str, bytes]) -> dict[str, bytes]:
        """What is in force of the parts that `file` holds or published before; others' are not its business."""
        return {
            part_id: content
            for part_id, content in self._readable().items()
            if part_id in parts or self.sources[part_id] == file.name
        }

    def agent(self, name: str) -> AgentFacts | None:
        """What policy may know of an agent; None if nobody registered it."""
        return agent_facts(self._agents, name) if self._agents.get("agent", name) is not None else None

    def _readable(self) -> dict[str, bytes]:
        return {part_id: stored.content for part_id, stored in self.parts.items() if not stored.tampered}


@contextmanager
def in_force(settings: Settings) -> Iterator[InForce]:
    """What is in force where `settings` say. Raises StoreError if there is no database, ForbiddenError for a key that
    is no operator's.
    """
    if means_service(settings):
        service = calling(settings, service=False)
        yield _listed(service.call("GET", "/api/v1/policies/document")["parts"], None, _Registered(service))
        return
    with looking(settings) as look:
        yield _listed(policy_parts(look.policies, look.reader), look, look.reader)


def _listed(parts: list[dict[str, Any]], look: Look | None, agents: _State) -> InForce:
    return InForce(stored_parts(parts), {one["part"]: one["source"] for one in parts}, look, agents)


class _Registered:
    """The agents of a service. A delegation says nothing about which policies govern a child, and is not asked for."""

    def __init__(self, service: ServiceCalls) -> None:
        self._service = service

    def get(self, kind: str, key: str) -> Document | None:
        if kind != "agent":
            return None
        try:
            found: Document = self._service.call("GET", f"/api/v1/agents/{part(key)}")
        except AgentLatticeError as error:
            if error.code != "NOT_FOUND":
                raise
            return None
        return found
