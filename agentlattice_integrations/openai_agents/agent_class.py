"""Agents: an agent is given, in place, a subclass of its own class whose tools and hand-offs are governed.

- `clone()` and `dataclasses.replace` make instances of the same subclass, so a clone is governed too.
- The lists of tools and hand-offs are the agent's own from then on. What is put into them later is governed when the
  list is next read, which is before the model hears of it.
- `get_mcp_tools` and `get_all_tools` govern what appears at run time: servers' tools, and what a subclass adds.
"""

from __future__ import annotations

from operator import is_
from typing import Any, Protocol

from agents import RunContextWrapper

__all__ = ["SEEN_HANDOFFS", "SEEN_TOOLS", "AgentGovernor", "agent_governor", "governed_agent_class"]

_GOVERNOR = "agentlattice_governor"
# Where an agent holds, as a tuple, the very things that were governed when its list was last read; hand-offs each with
# what it takes effect through.
SEEN_TOOLS = "agentlattice_seen_tools"
SEEN_HANDOFFS = "agentlattice_seen_handoffs"


class AgentGovernor(Protocol):
    """What a governed agent asks of whoever governs it."""

    def own_tools(self, agent: Any, tools: Any) -> Any:
        """The same list, every entry governed and refused ones taken out."""
        ...

    def own_handoffs(self, agent: Any, handoffs: Any) -> Any:
        """The same list, every entry governed; of another collection, a tuple of its entries, governed."""
        ...

    def run_time_tools(self, agent: Any, tools: list[Any], *, from_servers: bool) -> list[Any]:
        """The tools of one turn, every one governed and refused ones left out."""
        ...

    def acts(self, context: RunContextWrapper[Any], agent: Any) -> None:
        """Note which agent, one that has hand-offs, is acting in a run."""
        ...


def agent_governor(agent: object) -> Any:
    """Who governs an agent, or None."""
    return getattr(type(agent), _GOVERNOR, None)


def governed_agent_class(base: type[Any], governor: AgentGovernor) -> type[Any]:
    """The subclass of `base` for agents under `governor`."""

    class GovernedAgent(base):  # type: ignore[misc]
        # The SDK reads both lists several times a turn, so that nothing has changed is seen here.
        @property
        def tools(self) -> Any:
            own = self.__dict__
            tools, seen = own["tools"], own.get(SEEN_TOOLS)
            if (
                seen is not None
                and type(tools) is list
                and len(tools) == len(seen)
                and all(map(is_, tools, seen))
            ):
                return tools
            return governor.own_tools(self, tools)

        @tools.setter
        def tools(self, value: Any) -> None:
            self.__dict__["tools"] = list(value) if isinstance(value, list) else value

        @property
        def handoffs(self) -> Any:
            own = self.__dict__
            handoffs, seen = own["handoffs"], own.get(SEEN_HANDOFFS)
            if (
                seen is not None
                and type(handoffs) is list
                and len(handoffs) == len(seen)
                and all(
                    item is known and item.on_invoke_handoff is invoke
                    for item, (known, invoke) in zip(handoffs, seen, strict=True)
                )
            ):
                return handoffs
            return governor.own_handoffs(self, handoffs)

        @handoffs.setter
        def handoffs(self, value: Any) -> None:
            self.__dict__["handoffs"] = list(value) if isinstance(value, list) else value

        async def get_mcp_tools(self, run_context: RunContextWrapper[Any]) -> list[Any]:
            found = await super().get_mcp_tools(run_context)
            return governor.run_time_tools(self, found, from_servers=True)

        async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Any]:
            if self.__dict__.get("handoffs"):
                governor.acts(run_context, self)
            found = await super().get_all_tools(run_context)
            return governor.run_time_tools(self, found, from_servers=False)

    setattr(GovernedAgent, _GOVERNOR, governor)
    GovernedAgent.__name__ = base.__name__
    GovernedAgent.__qualname__ = base.__qualname__
    GovernedAgent.__module__ = base.__module__
    return GovernedAgent
