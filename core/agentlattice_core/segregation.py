"""Segregation of duties: who may not decide on what an agent asks.

- Neither the agent, nor any agent that it acts for, nor the person who owns or registered any of them.
- The chain is walked by what the agents' state says of their `parent`, so it holds however the chain was made. A chain
  that cannot be followed to its root lets nobody decide.
- No agent decides on any request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from agentlattice_core.errors import ForbiddenError
from agentlattice_core.stores.base import Document

__all__ = ["check_segregation"]

_LONGEST_CHAIN = 64


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...


def check_segregation(state: _State, agent: str, person: str) -> None:
    """Raise ForbiddenError if `person` may not decide on what `agent` asks."""
    if state.get("agent", person) is not None:
        raise ForbiddenError(f"`{person}` is an agent, and no agent may decide on an approval")
    for name, document in _chain(state, agent):
        where = f"the agent `{name}` that asks" if name == agent else f"the agent `{name}` it acts for"
        if person == name:
            raise ForbiddenError(f"`{person}` is {where}, and no agent may decide on an approval")
        if person == document.get("owner"):
            raise ForbiddenError(f"`{person}` owns {where}, so somebody else must decide")
        if person == document.get("registered_by"):
            raise ForbiddenError(f"`{person}` registered {where}, so somebody else must decide")


def _chain(state: _State, agent: str) -> Iterator[tuple[str, Document]]:
    """The agent and all it acts for, by name, up to the root."""
    name: str | None = agent
    for _ in range(_LONGEST_CHAIN):
        if name is None:
            return
        document = state.get("agent", name)
        if document is None:
            by_id = state.get("agent_id", name)
            name = by_id["agent"] if by_id is not None else None
            document = state.get("agent", name) if name is not None else None
        if name is None or document is None:
            break
        yield name, document
        name = document.get("parent")
    raise ForbiddenError(
        f"the chain of agents above `{agent}` cannot be followed, so nobody can decide for it"
    )
