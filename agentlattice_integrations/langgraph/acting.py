"""Who acts in a call: the client's own agent, or a child that it delegated to.

    researcher = govern(graph, al.delegate("researcher", capabilities=["search.*"], ttl=300))

- A delegation has one child for each thread, told by the thread's id: whoever resumes the thread, in whatever process,
  finds the same child, and an interrupt leaves it as it is. A delegation that names its run has one child in all.
- A child's time begins with the first call of a run of the graph. A run that begins after it is over is a new turn of
  the thread: the same child is given its time again.
- A child of a thread ends with its time, or when it is revoked. Where there is no thread nobody could find it again: it
  ends with what it was given to.
- A call for which there can be no child is refused, as its parent's attempt.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, IllegalTransitionError
from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_core.toolcalls.denial import refusal
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient

__all__ = ["Acting", "NoChild", "delegation_in"]

_log = logging.getLogger("agentlattice")

_RUNTIME = "__pregel_runtime"
_LONGEST_RUN = 200
_REMEMBERED_CHILDREN = 1024


@dataclass(frozen=True, slots=True)
class NoChild:
    """There is no child that could act, and why."""

    error: AgentLatticeError

    def refuse_sync(self, parent: ToolGate, call: ToolCall) -> Denial:
        """Refuse the call, and record the parent's attempt where that is possible."""
        message = self._message(call)
        return self._unrecorded(parent, call) if message is None else parent.refuse_sync(call, *message)

    async def refuse(self, parent: ToolGate, call: ToolCall) -> Denial:
        """As `refuse_sync`."""
        message = self._message(call)
        return self._unrecorded(parent, call) if message is None else await parent.refuse(call, *message)

    def _message(self, call: ToolCall) -> tuple[str, str] | None:
        if isinstance(self.error, ForbiddenError | IllegalTransitionError):
            return "OUT_OF_SCOPE", self.error.message
        _log.error("a call of tool `%s` was denied because nobody could act in it: %s", call.tool, self.error)
        return None

    def _unrecorded(self, parent: ToolGate, call: ToolCall) -> Denial:
        action_type = parent.resolve(call.tool, call.target).action_type
        return refusal("NOT_RECORDED", None, tool=call.tool, action_type=action_type)


@dataclass(frozen=True, slots=True)
class _Child:
    """A child's gate, and the run of the graph that found it."""

    gate: ToolGate
    found_by: object | None


class Acting:
    """The gates of one entry point: that of its client, or one for each child of its delegation.

    `principal` is what the entry point was given; `gate` the gate of the client itself, or of the parent.
    """

    def __init__(self, al: GovernanceClient | Delegate, make: Callable[[GovernanceClient], ToolGate]) -> None:
        self.principal = al
        self._delegation = al if isinstance(al, Delegate) else None
        self.gate = make(al.parent if isinstance(al, Delegate) else al)
        self._make = make
        self._lock = threading.Lock()
        self._children: OrderedDict[str, _Child] = OrderedDict()
        self._elsewhere = uuid.uuid4().hex  # the run of what is called without a thread
        self._ending: list[Delegate] = []
        if self._delegation is not None:
            weakref.finalize(self, _end, self._ending)

    def settled_by(self, other: Acting) -> bool:
        """Whether what `other` was answered counts here too: the same agent asked, or a child of it."""
        theirs = other.principal
        return theirs is self.principal or (isinstance(theirs, Delegate) and theirs.parent is self.principal)

    def gate_sync(self, config: RunnableConfig | None) -> ToolGate | NoChild:
        """The gate of whoever acts in a call with this configuration."""
        if self._delegation is None:
            return self.gate
        run, found_by = self._run_of(self._delegation, config)
        known = self._known(run, found_by)
        if known is not None:
            return known
        delegate = self._delegation.of_run(run)
        try:
            return self._keep(run, found_by, delegate, delegate.__enter__())
        except AgentLatticeError as error:
            return self._without_child(error)

    async def gate_of(self, config: RunnableConfig | None) -> ToolGate | NoChild:
        """As `gate_sync`, without blocking the event loop."""
        if self._delegation is None:
            return self.gate
        run, found_by = self._run_of(self._delegation, config)
        known = self._known(run, found_by)
        if known is not None:
            return known
        delegate = self._delegation.of_run(run)
        try:
            return self._keep(run, found_by, delegate, await delegate.__aenter__())
        except AgentLatticeError as error:
            return self._without_child(error)

    def _run_of(self, delegation: Delegate, config: RunnableConfig | None) -> tuple[str, object | None]:
        """The run that names the child, and the run of the graph that asks for it."""
        configurable: Mapping[str, Any] = (config and config.get("configurable")) or {}
        found_by = getattr(configurable.get(_RUNTIME), "control", None)
        return delegation.run or _of_thread(configurable) or self._elsewhere, found_by

    def _known(self, run: str, found_by: object | None) -> ToolGate | None:
        child = self._children.get(run)
        return child.gate if child is not None and child.found_by is found_by else None

    def _keep(self, run: str, found_by: object | None, delegate: Delegate, child: Any) -> ToolGate:
        with self._lock:
            gate = self._make(child)
            self._children[run] = _Child(gate, found_by)
            self._children.move_to_end(run)
            if len(self._children) > _REMEMBERED_CHILDREN:
                self._children.popitem(last=False)
            if run == self._elsewhere:
                self._ending[:] = [delegate]
        return gate

    def _without_child(self, error: AgentLatticeError) -> ToolGate | NoChild:
        # Observing withholds nothing, so the call is recorded as the parent's.
        return self.gate if self.gate.client.mode == "observe" else NoChild(error)


def delegation_in(delegate: Delegate, config: RunnableConfig) -> Delegate:
    """The delegation as it is in the thread of `config`; as it is where it names its run, or there is no thread."""
    run = delegate.run or _of_thread(config.get("configurable") or {})
    return delegate if run is None else delegate.of_run(run)


def _of_thread(configurable: Mapping[str, Any]) -> str | None:
    thread = configurable.get("thread_id")
    if thread is None:
        return None
    name = str(thread)
    if 0 < len(name) <= _LONGEST_RUN and name.isprintable() and name == name.strip():
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _end(ending: list[Delegate]) -> None:
    for delegate in ending:
        delegate.end_later()
