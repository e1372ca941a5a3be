"""Agents: an agent is given, in place, a subclass of its own class whose tools and hand-offs are governed.

- `clone()` and `dataclasses.replace` make instances of the same subclass, so a clone is governed too.
- The lists of tools and hand-offs are the agent's own from then on. What is put into them later is governed when the
  list is next read, which is before the model hears of it.
- `get_mcp_tools` and `get_all_tools` govern what appears at run time: servers' tools, and what a subclass adds.
"""

from __future__ import annotations

from typing import Any, Protocol

from agents import RunContextWrapper

__all__ = ["AgentGovernor", "agent_governor", "governed_agent_class"]

_GOVERNOR = "agentlattice_governor"


class AgentGovernor(Protocol):
    """What a governed agent asks of whoever governs it."""

    def own_tools(self, agent: Any, tools: Any) -> Any:
        """The same list, every entry governed and refused ones taken out."""
        ...

    def own_handoffs(self, agent: Any, handoffs: Any) -> Any:
        """The same list, every entry governed."""
        ...

    def run_time_tools(self, agent: Any, tools: list[Any], *, from_servers: bool) -> list[Any]:
        """The tools of one turn, every one governed and refused ones left out."""
        ...

    def acts(self, context: RunContextWrapper[Any], agent: Any) -> None:
        """Note which agent is acting in a run."""
        ...


def agent_governor(agent: object) -> Any:
    """Who governs an agent, or None."""
    return getattr(type(agent), _GOVERNOR, None)


def governed_agent_class(base: type[Any], governor: AgentGovernor) -> type[Any]:
    """The subclass of `base` for agents under `governor`."""

    class GovernedAgent(base):  # type: ignore[misc]
        @property
        def tools(self) -> Any:
            return governor.own_tools(self, self.__dict__["tools"])

        @tools.setter
        def tools(self, value: Any) -> None:
            self.__dict__["tools"] = list(value) if isinstance(value, list) else value

        @property
        def handoffs(self) -> Any:
            return governor.own_handoffs(self, self.__dict__["handoffs"])

        @handoffs.setter
        def handoffs(self, value: Any) -> None:
            self.__dict__["handoffs"] = list(value) if isinstance(value, list) else value

        async def get_mcp_tools(self, run_context: RunContextWrapper[Any]) -> list[Any]:
            found = await super().get_mcp_tools(run_context)
            return governor.run_time_tools(self, found, from_servers=True)

        async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Any]:
            governor.acts(run_context, self)
            found = await super().get_all_tools(run_context)
            return governor.run_time_tools(self, found, from_servers=False)

    setattr(GovernedAgent, _GOVERNOR, governor)
    GovernedAgent.__name__ = base.__name__
    GovernedAgent.__qualname__ = base.__qualname__
    GovernedAgent.__module__ = base.__module__
    return GovernedAgent
