"""Who acts in a governed call: the client's own agent, or a child that it delegated to, and the gate of each.

    acting = Acting(al.delegate("researcher", capabilities=["search.*"], ttl=300), make_gate)
    gate = await acting.gate_of(run, found_in)

- A delegation has one child for each run that the framework can name again: whoever resumes the run, in whatever
  process, finds the same child. A delegation that names its run has one child in all.
- A child's time begins with the first call of its run. It is looked for again whenever the framework begins or resumes
  the run; one whose time was over then is given its time again. A pause is no end.
- A child of a run ends with its time, or when it is revoked. Where the framework has no name for the run nobody could
  find it again: it ends with what it was given to.
- A call for which there can be no child is refused, as its parent's attempt.
"""

from __future__ import annotations

import logging
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, IllegalTransitionError
from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_core.toolcalls.denial import refusal
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient

if TYPE_CHECKING:
    from agentlattice_core.delegated import DelegatedAgent

__all__ = ["Acting", "NoChild"]

_log = logging.getLogger("agentlattice")

_REMEMBERED_CHILDREN = 1024


@dataclass(frozen=True, slots=True)
class NoChild:
    """There is no child that could act, and why."""

    error: AgentLatticeError

    def refuse_sync(self, parent: ToolGate, call: ToolCall) -> Denial:
        """Refuse the call, and record the parent's attempt where that is possible. Never raises."""
        if not self._is_out_of_scope:
            return self._unrecorded(parent, call, self.error)
        try:
            return parent.refuse_sync(call, "OUT_OF_SCOPE", self.error.message)
        except AgentLatticeError as error:
            return self._unrecorded(parent, call, error)

    async def refuse(self, parent: ToolGate, call: ToolCall) -> Denial:
        """As `refuse_sync`."""
        if not self._is_out_of_scope:
            return self._unrecorded(parent, call, self.error)
        try:
            return await parent.refuse(call, "OUT_OF_SCOPE", self.error.message)
        except AgentLatticeError as error:
            return self._unrecorded(parent, call, error)

    @property
    def _is_out_of_scope(self) -> bool:
        return isinstance(self.error, ForbiddenError | IllegalTransitionError)

    def _unrecorded(self, parent: ToolGate, call: ToolCall, error: AgentLatticeError) -> Denial:
        _log.error("a call of tool `%s` was denied because nobody could act in it: %s", call.tool, error)
        action_type = parent.resolve(call.tool, call.target).action_type
        return refusal("NOT_RECORDED", None, tool=call.tool, action_type=action_type)


@dataclass(frozen=True, slots=True)
class _Child:
    """A child's gate, its delegation, and where its run was begun or resumed when it was last looked for."""

    gate: ToolGate
    delegation_id: str
    found_in: Callable[[], object | None] | None

    def is_known_in(self, place: object | None) -> bool:
        if self.found_in is None:
            return place is None
        return place is not None and self.found_in() is place


class Acting:
    """The gates of one entry point of an adapter: that of its client, or one for each child of its delegation.

    `principal` is what the entry point was given, `client` the client itself or the parent, `gate` the gate of that
    client. `make` makes the gate of a client.
    """

    def __init__(self, al: GovernanceClient | Delegate, make: Callable[[GovernanceClient], ToolGate]) -> None:
        self.principal = al
        self._delegation = al if isinstance(al, Delegate) else None
        self.client: GovernanceClient = al.parent if isinstance(al, Delegate) else al
        self.gate = make(self.client)
        self._make = make
        self._lock = threading.Lock()
        self._children: OrderedDict[str, _Child] = OrderedDict()
        self._elsewhere = uuid.uuid4().hex  # the run of what is called where there is no name for one
        self._ending: list[Delegate] = []
        if self._delegation is not None:
            weakref.finalize(self, _end, self._ending)

    def gate_sync(self, run: str | None, place: object | None) -> ToolGate | NoChild:
        """The gate of whoever acts in a run.

        `run` is the framework's name for it, if there is one; `place` an object that is the same as long as the run is
        neither begun nor resumed anew. It is not kept alive where it can be helped.
        """
        if self._delegation is None:
            return self.gate
        run = self._delegation.run or run or self._elsewhere
        known = self._children.get(run)
        if known is not None and known.is_known_in(place):
            return known.gate
        delegate = self._delegation.of_run(run)
        try:
            return self._keep(run, place, delegate, delegate.__enter__())
        except AgentLatticeError as error:
            return self._without_child(error)

    async def gate_of(self, run: str | None, place: object | None) -> ToolGate | NoChild:
        """As `gate_sync`, without blocking the event loop."""
        if self._delegation is None:
            return self.gate
        run = self._delegation.run or run or self._elsewhere
        known = self._children.get(run)
        if known is not None and known.is_known_in(place):
            return known.gate
        delegate = self._delegation.of_run(run)
        try:
            return self._keep(run, place, delegate, await delegate.__aenter__())
        except AgentLatticeError as error:
            return self._without_child(error)

    def client_in(self, run: str | None) -> GovernanceClient:
        """The client that was last asked in a run; the parent where none was."""
        if self._delegation is None:
            return self.client
        known = self._children.get(self._delegation.run or run or self._elsewhere)
        return known.gate.client if known is not None else self.client

    def _keep(self, run: str, place: object | None, delegate: Delegate, child: DelegatedAgent) -> ToolGate:
        with self._lock:
            known = self._children.get(run)
            same = known is not None and known.delegation_id == child.delegation_id
            # The gate of the same delegation remembers what it asked.
            gate = known.gate if known is not None and same else self._make(child)
            self._children[run] = _Child(gate, child.delegation_id, _reference(place))
            self._children.move_to_end(run)
            if len(self._children) > _REMEMBERED_CHILDREN:
                self._children.popitem(last=False)
            if run == self._elsewhere:
                self._ending[:] = [delegate]
        return gate

    def _without_child(self, error: AgentLatticeError) -> ToolGate | NoChild:
        # Observing withholds nothing, so the call is recorded as the parent's.
        return self.gate if self.client.mode == "observe" else NoChild(error)


def _reference(place: Any) -> Callable[[], object | None] | None:
    if place is None:
        return None
    try:
        return weakref.ref(place)
    except TypeError:
        return lambda: place


def _end(ending: list[Delegate]) -> None:
    for delegate in ending:
        delegate.end_later()
