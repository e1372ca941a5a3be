"""Hand-offs: a denied one stays with the agent that asked, and the transfer message is the denial.

- A governed hand-off is a copy of the hand-off, of a subclass of its own class.
- The agent it leads to is governed before it takes over, also when a custom hand-off picks it at run time.
- The hand-off's own input filter is not applied when the hand-off is denied: it is made for the other agent, and could
  hide the denial. A filter in the `RunConfig` is the run's, and is applied.
- The SDK's `on_handoff` hooks see a denied hand-off as one from the agent to itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

from agents import Agent, Handoff, HandoffInputData, RunContextWrapper
from agents import handoff as make_handoff

from agentlattice_core.errors import AgentLatticeDeniedError
from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.openai_agents.governor import Governor

__all__ = ["govern_handoff", "handoff_governor", "handoff_target"]

_denied: ContextVar[tuple[object, Denial] | None] = ContextVar("agentlattice_denied_handoff", default=None)
_GOVERNOR = "agentlattice_governor"


def govern_handoff(item: Any, governor: Governor, govern_target: Callable[[Any], Any]) -> Handoff[Any, Any]:
    """A governed hand-off for an agent or a hand-off. `govern_target` governs the agent it leads to."""
    plain = item if isinstance(item, Handoff) else _to_handoff(item)
    target = item if plain is not item else handoff_target(plain)
    if target is not None:
        govern_target(target)
    governed = copy.copy(plain)
    governed.__class__ = _handoff_class(type(plain))
    invoke = plain.on_invoke_handoff

    async def on_invoke_handoff(context: RunContextWrapper[Any], arguments: str) -> Any:
        _denied.set(None)
        call = governor.tool_call(
            governed.tool_name, arguments or "{}", context, kind="handoff", target=target
        )
        answer = await governor.decide(call)
        if isinstance(answer, Denial):
            source = governor.acting.get(context)
            if source is None:
                raise AgentLatticeDeniedError(
                    answer.approval_id,
                    answer.reason,
                    message=f"hand-off `{governed.tool_name}` was denied; to go on after that, govern the agent",
                )
            _denied.set((on_invoke_handoff, answer))
            return source
        try:
            agent = await invoke(context, arguments)
        except BaseException as error:
            answer.failed(error)
            raise
        answer.succeeded()
        return govern_target(agent)

    # The mark is on what takes effect, so that whoever replaces it is seen.
    setattr(on_invoke_handoff, _GOVERNOR, governor)
    governed.on_invoke_handoff = on_invoke_handoff
    return governed


def handoff_governor(item: object) -> Governor | None:
    """Who governs a hand-off, if anybody does. A governed agent that stands for one is not one yet."""
    if not isinstance(item, Handoff):
        return None
    return cast("Governor | None", getattr(item.on_invoke_handoff, _GOVERNOR, None))


def handoff_target(item: Handoff[Any, Any]) -> Any:
    """The agent that a hand-off leads to, where it is known beforehand."""
    reference = getattr(item, "_agent_ref", None)
    return reference() if reference is not None else None


def _to_handoff(agent: Any) -> Handoff[Any, Any]:
    if isinstance(agent, Agent):
        return make_handoff(agent)
    from agents.realtime import realtime_handoff

    return cast("Handoff[Any, Any]", realtime_handoff(agent))


def _pass_on(data: HandoffInputData) -> HandoffInputData:
    return data


_handoff_classes: dict[type[Any], type[Any]] = {}


def _handoff_class(base: type[Any]) -> type[Any]:
    known = base if base in _handoff_classes.values() else _handoff_classes.get(base)
    if known is not None:
        return known

    def is_denied(self: Any) -> Denial | None:
        denied = _denied.get()
        return denied[1] if denied is not None and denied[0] is self.on_invoke_handoff else None

    class GovernedHandoff(base):  # type: ignore[misc]
        def get_transfer_message(self, agent: Any) -> str:
            denial = is_denied(self)
            return denial.text if denial is not None else cast(str, super().get_transfer_message(agent))

        @property
        def input_filter(self) -> Any:
            own = self.__dict__.get("input_filter")
            return _pass_on if own is not None and is_denied(self) is not None else own

        @input_filter.setter
        def input_filter(self, value: Any) -> None:
            self.__dict__["input_filter"] = value

        @property
        def nest_handoff_history(self) -> Any:
            return False if is_denied(self) is not None else self.__dict__.get("nest_handoff_history")

        @nest_handoff_history.setter
        def nest_handoff_history(self, value: Any) -> None:
            self.__dict__["nest_handoff_history"] = value

    GovernedHandoff.__name__ = base.__name__
    GovernedHandoff.__qualname__ = base.__qualname__
    return _handoff_classes.setdefault(base, GovernedHandoff)
