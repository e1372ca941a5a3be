"""Who acts in a call: the client's own agent, or a child that it delegated to.

    researcher = govern(researcher, al.delegate("researcher", capabilities=["search.*"], ttl=300))

- A delegation has one child for each run, told by the run's trace id, which a saved `RunState` keeps: whoever resumes
  the state, in whatever process, finds the same child. A delegation that names its run has one child in all.
- A child's time begins with the first call of its run. The SDK returns from a run that pauses, and nothing here takes
  that for an end. A state that is resumed after the child's time is over gives the same child its time again.
- A child of a run ends with its time, or when it is revoked. Without a trace nobody could find it again: it ends with
  what it was given to.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agents import Trace, get_current_trace

from agentlattice_core.delegating import Delegate
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient

__all__ = ["Acting"]

_REMEMBERED_CHILDREN = 1024


@dataclass(frozen=True, slots=True)
class _Child:
    """A child's gate, and the trace, as the SDK began or resumed it, in which the child was last looked for."""

    gate: ToolGate
    found_in: weakref.ref[Trace] | None

    def is_of(self, trace: Trace | None) -> bool:
        if self.found_in is None:
            return trace is None
        return trace is not None and self.found_in() is trace


class Acting:
    """The gates of one `govern(...)` call: that of its client, or one for each child of its delegation.

    `principal` is what `govern` was given, `client` the client itself or the parent, `gate` the gate of that client.
    """

    def __init__(self, al: GovernanceClient | Delegate, make: Callable[[GovernanceClient], ToolGate]) -> None:
        self.principal = al
        self._delegation = al if isinstance(al, Delegate) else None
        self.client: GovernanceClient = al.parent if isinstance(al, Delegate) else al
        self.gate = make(self.client)
        self._make = make
        self._lock = threading.Lock()
        self._children: OrderedDict[str, _Child] = OrderedDict()
        self._elsewhere = uuid.uuid4().hex  # the run of what is called without a trace
        self._ending: list[Delegate] = []
        if self._delegation is not None:
            weakref.finalize(self, _end, self._ending)

    async def gate_of(self, run: str | None) -> ToolGate:
        """The gate of whoever acts in a run.

        Raises what entering a delegation raises, where there can be no child.
        """
        if self._delegation is None:
            return self.gate
        run = self._delegation.run or run or self._elsewhere
        trace = get_current_trace()
        known = self._children.get(run)
        if known is not None and known.is_of(trace):
            return known.gate
        delegate = self._delegation.of_run(run)
        child = await delegate.__aenter__()
        with self._lock:
            if known is not None and child.agent == getattr(known.gate.client, "agent", None):
                gate = known.gate  # it remembers what it asked
            else:
                gate = self._make(child)
            self._children[run] = _Child(gate, None if trace is None else weakref.ref(trace))
            self._children.move_to_end(run)
            if len(self._children) > _REMEMBERED_CHILDREN:
                self._children.popitem(last=False)
            if run == self._elsewhere:
                self._ending[:] = [delegate]
        return gate

    def client_in(self, run: str | None) -> GovernanceClient:
        """The client that was last asked in a run; the parent where none was."""
        if self._delegation is None:
            return self.client
        known = self._children.get(self._delegation.run or run or self._elsewhere)
        return known.gate.client if known is not None else self.client


def _end(ending: list[Delegate]) -> None:
    for delegate in ending:
        delegate.end_later()
