"""Commands as data, so that another process may run them: acting, and noting how an action went.

- What a command does depends on its data and on the log and state of the batch, and on nothing of the process it was
  made in, but for the clock; both processes have the system's.
- A command that another process may have run (it died, or its answer was lost) is told so. It then looks in the log for
  what it would have recorded before it records anything.
- An error is never carried over. The command is run again where it came from, and raises there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from agentlattice_core import admission
from agentlattice_core.actions import Action
from agentlattice_core.admission import Caller
from agentlattice_core.batch import Batch
from agentlattice_core.errors import AuditError
from agentlattice_core.policies import Policies
from agentlattice_core.results import ActionResult
from agentlattice_core.stores.base import StateKey, Transaction
from agentlattice_core.stores.projections import action_key, event_key

__all__ = ["Commands", "Execution", "Outcome", "answers", "foresee", "perhaps_run", "recorded"]


class _OfCaller:
    """What is done for an agent."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def names(self) -> list[StateKey]:
        """What says who acts."""
        caller = self._caller
        return [("agent", caller.agent), *([("key", caller.key)] if caller.key is not None else [])]

    @property
    def agent(self) -> str:
        return self._caller.agent


class Execution(_OfCaller):
    """Decide on an action and record it; see `admission.execute`."""

    __slots__ = ("_action", "_nonce", "_policies", "_since")

    def __init__(self, policies: Policies, caller: Caller, action: Action, nonce: str | None = None) -> None:
        super().__init__(caller)
        self._policies = policies
        self._action = action
        self._nonce = nonce or os.urandom(10).hex()
        self._since: int | None = None

    def __call__(self, batch: Batch) -> ActionResult:
        known = self.recorded(batch)
        if known is not None:
            return known
        return admission.execute(self._policies, batch, self._caller, self._action, self._nonce)

    def recorded(self, batch: Batch) -> ActionResult | None:
        """The answer, if another process has recorded the action."""
        return None if self._since is None else admission.result_of(batch, self._nonce, self._since)

    def reads(self, agent_id: str) -> tuple[list[StateKey], list[int]]:
        """What of its own it will ask for."""
        event_id = self._action.event_id
        return ([] if event_id is None else [("event", event_key(agent_id, event_id))]), []

    def perhaps_run(self, size: int) -> None:
        """Say that another process may have run it, and recorded it after the first `size` entries."""
        if self._since is None:
            self._since = size

    def data(self) -> list[Any]:
        caller, action = self._caller, self._action
        who = [caller.agent, caller.mode, caller.established, dict(caller.context), caller.key]
        return [who, orjson.Fragment(action.content), action.event_id, sorted(action.trusted), self._nonce]

    @classmethod
    def of(cls, policies: Policies, data: list[Any]) -> Execution:
        who, content, event_id, trusted, nonce = data
        action = Action.from_members(content, event_id, trusted)
        return cls(policies, Caller(*who), action, nonce)

    @staticmethod
    def answer(value: Any) -> ActionResult:
        return ActionResult.from_dict(value)


class Outcome(_OfCaller):
    """Note how a claimed run went; see `admission.record_claim_outcome`. Run twice, it does nothing more."""

    __slots__ = ("_data",)

    def __init__(self, caller: Caller, audit_event_id: str, claim: str, message: str | None) -> None:
        super().__init__(caller)
        self._data = (audit_event_id, claim, message)

    def __call__(self, batch: Batch) -> bool:
        admission.record_claim_outcome(batch, self._caller, *self._data)
        return True

    def reads(self, agent_id: str) -> tuple[list[StateKey], list[int]]:
        """What of its own it will ask for."""
        index = admission.index_of(self._data[0])
        return ([], []) if index is None else ([("action", action_key(agent_id, index))], [index])

    def perhaps_run(self, size: int) -> None:
        """What was said of a claim counts once, so there is nothing to look for."""

    def data(self) -> list[Any]:
        caller = self._caller
        return [[caller.agent, caller.mode, caller.established, {}, caller.key], *self._data]

    @classmethod
    def of(cls, policies: Policies, data: list[Any]) -> Outcome:
        who, *rest = data
        return cls(Caller(*who), *rest)

    @staticmethod
    def answer(value: Any) -> bool:
        return bool(value)


_KINDS: dict[str, type[Execution] | type[Outcome]] = {"execute": Execution, "outcome": Outcome}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Commands:
    """Commands as bytes and back, for the sequencers of two processes."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    @staticmethod
    def request(commands: Sequence[Callable[[Batch], Any]]) -> bytes | None:
        """`commands` as a request to another process; None if one can only run here, or holds what is no JSON."""
        found = []
        for command in commands:
            if not isinstance(command, Execution | Outcome):
                return None
            found.append([_NAMES[type(command)], command.data()])
        try:
            return orjson.dumps(found)
        except (TypeError, ValueError):
            return None

    def run(self, batch: Batch, request: bytes) -> bytes | None:
        """Run another process's commands; the answer. What could not be run is left to that process."""
        answers: list[Any] = []
        try:
            for name, data in orjson.loads(request):
                answer, error = batch.attempt(_KINDS[name].of(self._policies, data))
                answers.append(None if error is not None else answer)
            return orjson.dumps(answers)
        except Exception:  # whatever it is, those whose transaction this is have no part in it
            return None


def answers(commands: Sequence[Callable[[Batch], Any]], answer: bytes) -> list[Any]:
    """The result of each command in another process's answer; None where it has none or cannot be read."""
    try:
        return [
            None if value is None or not isinstance(command, Execution | Outcome) else command.answer(value)
            for command, value in zip(commands, orjson.loads(answer), strict=True)
        ]
    except (ValueError, TypeError, LookupError, AttributeError):
        return [None] * len(commands)


def perhaps_run(commands: Sequence[Callable[[Batch], Any]], size: int) -> None:
    """Say that another process may have run them, and recorded them after the first `size` entries."""
    for command in commands:
        if isinstance(command, Execution | Outcome):
            command.perhaps_run(size)


def foresee(commands: Iterable[Callable[[Batch], Any]], transaction: Transaction) -> None:
    """Have the store read in two questions what `commands` would ask for one by one."""
    known = [command for command in commands if isinstance(command, Execution | Outcome)]
    transaction.prefetch([name for command in known for name in command.names])
    names: list[StateKey] = []
    rows: list[int] = []
    for command in known:
        try:
            agent = transaction.get("agent", command.agent)
            some_names, some_rows = command.reads(agent["id"]) if agent is not None else ([], [])
        except (AuditError, LookupError, TypeError):
            continue  # the command finds out, and nobody else
        names += some_names
        rows += some_rows
    transaction.prefetch(names, rows)


def recorded(command: Callable[[Batch], Any]) -> Callable[[Batch], Any] | None:
    """A command that finds what another process has recorded for `command`, or None if there is nothing to find."""
    return command.recorded if isinstance(command, Execution) else None
