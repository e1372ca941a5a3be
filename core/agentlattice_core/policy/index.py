"""Finding the policies that govern an action, in a time that does not depend on how many there are.

- A policy is kept under its pattern: exact action types in one table, prefixes in another, `*` apart. Within
  a pattern, those that name agents are kept by agent and by tag. Finding is a few look-ups, one per dot of
  the action type.
- Most specific first: exact, longer prefix, shorter prefix, `*`; at one pattern, those that name the agent or
  its tags before those that name none. What remains equal is one tier, in the order of ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from agentlattice_core.principals import AgentFacts

__all__ = ["PatternIndex", "matches_pattern", "patterns_of"]


class Governing(Protocol):
    """What the index must know of what it keeps."""

    @property
    def action(self) -> str: ...
    @property
    def agents(self) -> tuple[str, ...]: ...
    @property
    def agent_tags(self) -> tuple[str, ...]: ...


P = TypeVar("P", bound=Governing)


def patterns_of(action_type: str) -> Iterator[str]:
    """Every pattern that matches `action_type`, most specific first."""
    yield action_type
    end = action_type.rfind(".")
    while end > 0:
        yield f"{action_type[:end]}.*"
        end = action_type.rfind(".", 0, end)
    yield "*"


def matches_pattern(pattern: str, action_type: str) -> bool:
    """Whether `pattern` matches `action_type`: exactly, by prefix, or because it is `*`."""
    if pattern.endswith(".*"):
        return action_type.startswith(pattern[:-1])
    return pattern in ("*", action_type)


@dataclass(slots=True)
class _Bucket(Generic[P]):
    everyone: list[P] = field(default_factory=list)
    by_agent: dict[str, list[P]] = field(default_factory=dict)
    by_tag: dict[str, list[P]] = field(default_factory=dict)

    def naming(self, agent: AgentFacts) -> list[P]:
        found = [*self.by_agent.get(agent.name, ()), *self.by_agent.get(agent.id, ())]
        for tag in agent.tags if self.by_tag else ():
            found.extend(self.by_tag.get(tag, ()))
        return found


class PatternIndex(Generic[P]):
    """Policies by pattern and agent. Built once, never changed."""

    def __init__(self, policies: Iterable[P]) -> None:
        self._buckets: dict[str, _Bucket[P]] = {}
        self._order: dict[int, int] = {}
        for position, policy in enumerate(policies):
            self._order[id(policy)] = position
            bucket = self._buckets.setdefault(policy.action, _Bucket())
            for agent in policy.agents:
                bucket.by_agent.setdefault(agent, []).append(policy)
            for tag in policy.agent_tags:
                bucket.by_tag.setdefault(tag, []).append(policy)
            if not policy.agents and not policy.agent_tags:
                bucket.everyone.append(policy)

    def tiers(self, action_type: str, agent: AgentFacts) -> tuple[tuple[P, ...], ...]:
        """What governs an action of that type by that agent (the root of its chain), most specific tier
        first.
        """
        found: list[tuple[P, ...]] = []
        for pattern in patterns_of(action_type):
            bucket = self._buckets.get(pattern)
            if bucket is None:
                continue
            for tier in (bucket.naming(agent), bucket.everyone):
                if tier:
                    unique = {id(policy): policy for policy in tier}
                    found.append(tuple(sorted(unique.values(), key=lambda policy: self._order[id(policy)])))
        return tuple(found)
