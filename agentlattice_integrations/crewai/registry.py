"""Which crews and agents are governed, and by whom, in this process.

- One set of hooks is registered with CrewAI for all of them, however often `govern(...)` is called.
- Who acts decides: the agent's own governor before its crew's. An agent that nobody governs and that works
  for a governed one, by delegation, is governed with it. Then comes the governor of the tool itself.
- CrewAI copies crews and agents (`copy`, `kickoff_for_each`, training); a copy has the key of its original,
  and is found by it. Of two originals with the same texts, the one governed last decides for copies.
- A key is kept for as long as its governor lives: the crew, the agent and the gates on their tools hold it.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from agentlattice_integrations.crewai.governor import Governor
from agentlattice_integrations.crewai.hooks import CallHooks
from agentlattice_integrations.crewai.scope import under_way
from agentlattice_integrations.crewai.tool_gate import gate_of, original_tool

__all__ = ["governor_of", "governor_of_holder", "register_agent", "register_crew", "register_hooks"]


class _Owners:
    """Crews or agents: object or key to governor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[int, tuple[weakref.ref[Any], Governor]] = {}
        self._keys: dict[str, weakref.ref[Governor]] = {}

    def add(self, owner: Any, governor: Governor) -> None:
        number, key = id(owner), getattr(owner, "key", None)

        def forget_owner(reference: weakref.ref[Any]) -> None:
            known = self._objects.get(number)
            if known is not None and known[0] is reference:
                self._objects.pop(number, None)

        with self._lock:
            self._objects[number] = (weakref.ref(owner, forget_owner), governor)
            if key is not None:
                self._keys[key] = weakref.ref(governor, lambda gone: self._forget_key(key, gone))

    def itself(self, owner: Any) -> Governor | None:
        """The governor of this very object."""
        known = self._objects.get(id(owner))
        return known[1] if known is not None and known[0]() is owner else None

    def copied(self, owner: Any) -> Governor | None:
        """The governor of what `owner` has the key of. Remembers it: `owner` is told by itself from then on."""
        if owner is None or not self._keys:
            return None
        found = self._keys.get(getattr(owner, "key", None) or "")
        governor = None if found is None else found()
        if governor is not None:
            self.add(owner, governor)
        return governor

    def _forget_key(self, key: str, gone: weakref.ref[Governor]) -> None:
        if self._keys.get(key) is gone:
            self._keys.pop(key, None)


_crews = _Owners()
_agents = _Owners()
_members = _Owners()


def governor_of(context: Any) -> Governor | None:
    """Who governs the call of a hook's context."""
    agent = context.agent
    crew = context.crew or getattr(agent, "crew", None)
    governor = _agents.itself(agent) or _crews.itself(crew) or _members.itself(agent)
    if governor is not None:
        return governor
    working_for = under_way.get()
    if working_for is not None:
        return working_for.governor
    governor = _agents.copied(agent) or _crews.copied(crew)
    if governor is not None:
        return governor
    placed = gate_of(original_tool(getattr(context, "tool", None)))
    return None if placed is None else placed.governor


def governor_of_holder(holder: Any) -> Governor | None:
    """Who governs what appears later on a crew or an agent."""
    crew = getattr(holder, "crew", None)
    return (
        _agents.itself(holder)
        or _crews.itself(holder)
        or _crews.itself(crew)
        or _members.itself(holder)
        or _agents.copied(holder)
        or _crews.copied(holder)
        or _crews.copied(crew)
    )


_hooks = CallHooks(governor_of)


def register_hooks(*, deadlines: bool = False) -> None:
    """Register the process-wide hooks with CrewAI, or put them back; `deadlines`: an agent has one."""
    _hooks.register(deadlines=deadlines)


def register_crew(crew: Any, governor: Governor) -> None:
    """From now on `governor` governs what the crew's agents call, also when one of them works by itself."""
    _crews.add(crew, governor)
    for agent in (*crew.agents, *(task.agent for task in crew.tasks if task.agent is not None)):
        _members.add(agent, governor)


def register_agent(agent: Any, governor: Governor) -> None:
    """From now on `governor` governs what the agent calls, in whatever crew."""
    _agents.add(agent, governor)
