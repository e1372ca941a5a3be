"""Pauses: what the SDK is told when it asks whether a call needs approval, by the decision on this very call.

- The tool's own `needs_approval` comes first; what it asks about is decided on once the application has approved.
- The SDK asks more than once about a call. It is decided on the first time; the answer is kept until the call runs.
- A call without an identity could not be found again in another process, so its run does not pause: it waits.
- The SDK has approvals, and so pauses, for function tools (also those of MCP servers, and agents as tools), shell,
  apply-patch and custom tools. The others wait, and `WAITS_WHY` says so in the coverage report.
- The SDK returns from a run that pauses. Where that must not look like an end, as in the block of a delegation,
  `pause_block` raises `RunPaused`, which suspends the child and does not end it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

from agents import RunContextWrapper, RunResult, RunResultStreaming, RunState

from agentlattice_core.pauses import register_pause
from agentlattice_core.toolcalls.call import CallKind, Denial, ToolCall
from agentlattice_integrations.openai_agents.governor import Governor, HeldPermit

__all__ = ["WAITS_WHY", "PausableSeat", "PausingQuestion", "RunPaused", "answer_before", "pause_block"]


WAITS_WHY = "the SDK cannot pause it, so where a person has to decide the run waits"


class RunPaused(Exception):  # noqa: N818 - a pause is no error
    """A run waits for a person. `state` is to be saved, and resumed later."""

    def __init__(self, state: RunState[Any, Any]) -> None:
        super().__init__("the run waits for a person; save its state and resume it later")
        self.state = state


register_pause(RunPaused)


def pause_block(result: RunResult | RunResultStreaming) -> None:
    """Leave the block in which `result` was made by raising RunPaused, if the run paused; else do nothing."""
    if result.interruptions:
        raise RunPaused(result.to_state())


async def answer_before(governor: Governor, call: ToolCall) -> HeldPermit | Denial:
    """The answer to a call that has an identity, before it runs. It is kept, unless a person has still to decide, or
    the call may be waiting inside, where a refusal is given once that is known.
    """
    kept = governor.answers.kept(call)
    if kept is not None:
        return kept
    answer = await governor.ask(call)
    if isinstance(answer, Denial) and (answer.status == "pending" or call.suspended):
        return answer
    found = answer if isinstance(answer, Denial) else HeldPermit(answer, call)
    governor.answers.keep(call, found)
    return found


class PausableSeat(Protocol):
    """Where a governor sits on the tool."""

    governor: Governor
    kind: CallKind

    def call(self, context: Any, arguments: Mapping[str, Any] | str, call_id: str | None = None) -> ToolCall:
        """One call of the tool, as the gate is asked about it."""
        ...


class PausingQuestion:
    """What stands as `needs_approval` on the governed tool of `seat`; `own` is what stood there before."""

    def __init__(self, seat: PausableSeat, own: Any) -> None:
        self.seat = seat
        self.own: Any = own.own if isinstance(own, PausingQuestion) else own

    async def __call__(
        self, context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str
    ) -> bool:
        if await self.asks_itself(context, arguments, call_id):
            return True
        governor = self.seat.governor
        call = self.seat.call(context, arguments, call_id)
        if call.identity is None or (self.seat.kind == "agent" and governor.is_suspended(call_id)):
            return False
        answer = await answer_before(governor, call)
        return isinstance(answer, Denial) and answer.status == "pending"

    async def asks_itself(
        self, context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str
    ) -> bool:
        """Whether the tool's own setting wants the application to approve this call."""
        own = self.own
        if not isinstance(own, bool):
            own = own(context, arguments, call_id)
            if inspect.isawaitable(own):
                own = await own
        return bool(own)
