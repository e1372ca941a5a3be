"""Which crews and agents are governed, and by whom, in this process.

- One pair of hooks is registered with CrewAI for all of them, however often `govern(...)` is called.
- A crew or agent is found by being the very object, else by its key: CrewAI copies crews and agents (`copy`,
  `kickoff_for_each`, training) and the copy has the same key. Two with the same texts are the same to a key,
  and the last one governed decides for copies.
- Who acts decides: the agent's own governor before its crew's, and that before the one the tool was governed
  by.
- Only keys are kept for good, a few dozen bytes for each distinct text.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from agentlattice_integrations.crewai.governor import Governor
from agentlattice_integrations.crewai.hooks import CallHooks
from agentlattice_integrations.crewai.tool_gate import gate_of, original_tool

__all__ = ["governor_of", "governor_of_holder", "register_agent", "register_crew", "register_hooks"]


class _Owners:
    """Crews or agents: object or key to governor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, Governor] = {}
        self._objects: dict[int, tuple[weakref.ref[Any], Governor | None, int]] = {}
        self._version = 0

    def add(self, owner: Any, governor: Governor) -> None:
        with self._lock:
            self._version += 1
            self._keys[owner.key] = governor
            self._remember(owner, governor)

    def find(self, owner: Any) -> Governor | None:
        if owner is None:
            return None
        known = self._objects.get(id(owner))
        if known is not None and known[0]() is owner and (known[1] is not None or known[2] == self._version):
            return known[1]
        with self._lock:
            governor = self._keys.get(getattr(owner, "key", ""))
            self._remember(owner, governor)
        return governor

    def _remember(self, owner: Any, governor: Governor | None) -> None:
        number = id(owner)

        def forget(reference: weakref.ref[Any]) -> None:
            known = self._objects.get(number)
            if known is not None and known[0] is reference:
                self._objects.pop(number, None)

        self._objects[number] = (weakref.ref(owner, forget), governor, self._version)


_crews = _Owners()
_agents = _Owners()


def governor_of(context: Any) -> Governor | None:
    """Who governs the call of a hook's context."""
    agent = context.agent
    governor = _agents.find(agent) or _crews.find(context.crew or getattr(agent, "crew", None))
    if governor is not None:
        return governor
    placed = gate_of(original_tool(getattr(context, "tool", None)))
    return None if placed is None else placed.governor


def governor_of_holder(holder: Any) -> Governor | None:
    """Who governs what appears later on a crew or an agent."""
    return _agents.find(holder) or _crews.find(holder) or _crews.find(getattr(holder, "crew", None))


_hooks = CallHooks(governor_of)


def register_hooks() -> None:
    """Register the process-wide hooks with CrewAI, or put them back."""
    _hooks.register()


def register_crew(crew: Any, governor: Governor) -> None:
    """From now on `governor` governs what the crew's agents call."""
    _crews.add(crew, governor)


def register_agent(agent: Any, governor: Governor) -> None:
    """From now on `governor` governs what the agent calls, in whatever crew."""
    _agents.add(agent, governor)
