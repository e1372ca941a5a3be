"""Suspending a graph while a person decides, and finding one's way back.

- A paused call raises LangGraph's own interrupt, whose id is made of the call's place in the graph and its action. An
  answer that names it can reach no other call; one that names nothing is LangGraph's for the only interrupt there is.
- LangGraph runs the node again from its start. Which interrupt its task was suspended by is read from the graph
  checkpoint: ours names the action that waits, so the call finds it again, in whatever process it is resumed.
- A tool that suspended itself inside runs again after the answer, as an action of its own, which the ids of its
  interrupts tell apart. As long as there is no answer, it is not run again, only suspended as it was.
- Answers for the tool's own interrupts are kept for it when its call has to wait for a person first.
- An answer that names no interrupt stays in the graph checkpoint, where it would be taken for the answer to the next
  question. What was taken is therefore struck out there.
- It takes a checkpointer, and a task of the call's own. Without either, a call cannot be paused.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt

from agentlattice_core.pauses import register_pause
from agentlattice_integrations.langgraph.answers import GOVERNANCE

__all__ = ["Pause"]

# A delegation whose block an interrupt leaves is suspended with the graph, and the same child goes on later.
register_pause(GraphInterrupt)

# LangGraph's names for what it hands to a node.
_CHECKPOINTER = "__pregel_checkpointer"
_SCRATCHPAD = "__pregel_scratchpad"
_RESUME_MAP = "__pregel_resume_map"
_RESUMING = "__pregel_resuming"
_TASK_ID = "__pregel_task_id"
_DURABILITY = "__pregel_durability"
_READ = "__pregel_read"
_SEND = "__pregel_send"
_PULL = "__pregel_pull"
_INTERRUPT = "__interrupt__"
_RESUME = "__resume__"
_ERROR = "__error__"

_NO_TASK = "00000000-0000-0000-0000-000000000000"

_FIRST_RUN = "0"
# LangGraph saves an answer in the background while it already runs the node: how often, and how long, to look for it.
_LOOKS = 20
_NAP = 0.01


@dataclass(frozen=True, slots=True)
class _Ours:
    """Our interrupt that the task was suspended by."""

    id: str
    governance: Mapping[str, Any]


class Pause:
    """The place of one call in the graph: whether it can be paused, what it was paused for, and what was answered.

    `run` tells the runs of a call that suspends itself inside from each other.
    """

    def __init__(self, config: RunnableConfig | None, tool: str, call_id: str | None) -> None:
        self._config: Mapping[str, Any] = config or {}
        self._conf: Mapping[str, Any] = self._config.get("configurable") or {}
        self._tool = tool
        self._call_id = call_id
        self._ours: _Ours | None = None
        self._inside = False
        self._taken = False
        self.run = _FIRST_RUN

    @property
    def possible(self) -> bool:
        """Whether this call can be paused where it stands."""
        conf = self._conf
        if not (
            self._call_id and conf.get(_CHECKPOINTER) and conf.get("checkpoint_ns") and _SCRATCHPAD in conf
        ):
            return False
        path = (self._config.get("metadata") or {}).get("langgraph_path") or ()
        return not path or path[0] != _PULL or self._alone()

    def _alone(self) -> bool:
        """Whether a node that was given a message's calls all at once was given only one."""
        try:
            messages = self._conf[_READ]("messages")
        except Exception:
            return False  # a graph that keeps its messages elsewhere; what else the node does cannot be told
        last = next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)
        return last is not None and [call["id"] for call in last.tool_calls] == [self._call_id]

    # --- what was before --------------------------------------------------------------------------------------------

    def look_sync(self) -> None:
        """Find out what this task was suspended by, if it was."""
        for config in self._places():
            saved = self._conf[_CHECKPOINTER].get_tuple(config)
            if saved is not None and self._read(saved.pending_writes or ()):
                return

    async def look(self) -> None:
        """As `look_sync`."""
        for config in self._places():
            saved = await self._conf[_CHECKPOINTER].aget_tuple(config)
            if saved is not None and self._read(saved.pending_writes or ()):
                return

    def _places(self) -> Iterable[RunnableConfig]:
        """Where the graph checkpoint may be that this task belongs to, the likeliest first; none on a first run."""
        conf = self._conf
        if not conf.get(_CHECKPOINTER) or not conf.get(_RESUMING):
            return
        space = str(conf.get("checkpoint_ns") or "")
        known: Mapping[str, str] = conf.get("checkpoint_map") or {}
        for parent in sorted(known, key=len, reverse=True):
            if space.startswith(parent) and known[parent]:
                place = {
                    "thread_id": conf.get("thread_id"),
                    "checkpoint_ns": parent,
                    "checkpoint_id": known[parent],
                }
                yield {"configurable": place}

    def _read(self, writes: Iterable[tuple[str, str, Any]]) -> bool:
        """Learn from the task's own saved writes; whether there were any. Raises GraphInterrupt to stay suspended."""
        own = [(channel, value) for task, channel, value in writes if task == self._conf.get(_TASK_ID)]
        found = [
            interrupt
            for channel, value in own
            if channel == _INTERRUPT
            for interrupt in (value if isinstance(value, list | tuple) else (value,))
        ]
        for interrupt in found:
            governance = interrupt.value.get(GOVERNANCE) if isinstance(interrupt.value, dict) else None
            if (
                isinstance(governance, dict)
                and governance.get("tool_call_id") == self._call_id
                and governance.get("tool") == self._tool
                and interrupt.id == self._interrupt_id(str(governance.get("action_id")))
            ):
                self._ours = _Ours(interrupt.id, governance)
                self.run = str(governance.get("run"))
                return True
        if found:
            self._inside = True
            if not self._answered(found) and not any(channel == _ERROR for channel, _ in own):
                raise GraphInterrupt(tuple(found))
            ids = "\n".join(sorted(interrupt.id for interrupt in found))
            self.run = hashlib.sha256(ids.encode()).hexdigest()[:16]
        return bool(own)

    def _answered(self, interrupts: Iterable[Interrupt]) -> bool:
        answers = self._conf.get(_RESUME_MAP) or {}
        return self._conf[_SCRATCHPAD].get_null_resume(False) is not None or any(
            interrupt.id in answers for interrupt in interrupts
        )

    @property
    def governance(self) -> Mapping[str, Any] | None:
        """What the interrupt said by which this call was paused; None if it was not."""
        return None if self._ours is None else self._ours.governance

    def take_answer(self) -> Any:
        """What was answered to this call's interrupt, once; None if nothing was."""
        if self._ours is None:
            return None
        answers = self._conf.get(_RESUME_MAP) or {}
        if self._ours.id in answers:
            return answers[self._ours.id]
        return self._take_unnamed()

    def _take_unnamed(self) -> Any:
        answer = self._conf[_SCRATCHPAD].get_null_resume(True)
        # With this durability LangGraph saves at the end, and by then the answer is no longer there to be saved.
        self._taken = self._taken or (answer is not None and self._conf.get(_DURABILITY) != "exit")
        return answer

    def strike_out_sync(self) -> None:
        """Have the graph checkpoint forget an answer that was taken and named no interrupt."""
        checkpointer: Any = self._conf.get(_CHECKPOINTER)
        for _ in range(_LOOKS if self._taken else 0):
            for (
                place
            ) in self._places():  # it is kept with the graph that was resumed, which may be further out
                if _holds_unnamed(checkpointer.get_tuple(place)):
                    checkpointer.put_writes(place, [(_RESUME, None)], _NO_TASK)
                    self._taken = False
                    return
            time.sleep(_NAP)

    async def strike_out(self) -> None:
        """As `strike_out_sync`."""
        checkpointer: Any = self._conf.get(_CHECKPOINTER)
        for _ in range(_LOOKS if self._taken else 0):
            for (
                place
            ) in self._places():  # it is kept with the graph that was resumed, which may be further out
                if _holds_unnamed(await checkpointer.aget_tuple(place)):
                    await checkpointer.aput_writes(place, [(_RESUME, None)], _NO_TASK)
                    self._taken = False
                    return
            await asyncio.sleep(_NAP)

    # --- pausing ----------------------------------------------------------------------------------------------------

    def suspend(self, action_id: str, value: Mapping[str, Any]) -> GraphInterrupt:
        """The interrupt to raise so that the graph waits for a decision on `action_id`."""
        return GraphInterrupt((Interrupt(dict(value), id=self._interrupt_id(action_id)),))

    def keep_answers(self) -> None:
        """Save what was answered to the tool's own interrupts, which LangGraph would else take back."""
        if not self._inside:
            return
        scratchpad = self._conf[_SCRATCHPAD]
        answer = self._take_unnamed()
        if answer is not None:
            scratchpad.resume.append(answer)
        if scratchpad.resume:
            self._conf[_SEND]([(_RESUME, list(scratchpad.resume))])

    def _interrupt_id(self, action_id: str) -> str:
        """In the form that LangGraph takes for an id when a graph is resumed by ids."""
        place = f"{self._conf.get('checkpoint_ns')}|{action_id}"
        return hashlib.sha256(place.encode()).hexdigest()[:32]


def _holds_unnamed(saved: Any) -> bool:
    return saved is not None and any(
        task == _NO_TASK and channel == _RESUME and value is not None
        for task, channel, value in saved.pending_writes or ()
    )
