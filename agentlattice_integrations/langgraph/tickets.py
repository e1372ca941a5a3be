"""A decision on its way to the tool it was made for.

A call can pass several places that ask: the middleware, the tool itself, the function inside it, an MCP
interceptor. The first of them decides; the others find its ticket.

- A ticket is good for one run of one tool with exactly the arguments that were decided on. Changed arguments,
  another tool or a second run find no ticket, and are decided anew.
- Tickets live in the context of the task or thread that makes the call, innermost first, so that parallel
  calls and agents inside tools never see each other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import orjson

from agentlattice_core.toolcalls.call import Denial, Permit
from agentlattice_integrations.langgraph.messages import report_error, report_result

if TYPE_CHECKING:
    from agentlattice_integrations.langgraph.deciding import CallGate

__all__ = ["Ticket", "Tickets", "current_action_id", "current_tickets"]

Stage = Literal["decided", "running", "entered", "replaced"]
_UNCHANGEABLE = frozenset({str, int, float, bool, type(None)})


class Ticket:
    """One permit and how far its call has come. As a context manager it is found by what runs inside.

    `decided`: nobody has run the tool yet; `running`: the tool has taken it; `entered`: so has the function
    inside; `replaced`: the tool was about to run with other arguments. `edited` says that a person has changed the
    arguments: the tool runs with those of the permit. `error` is what the function inside raised last, if it did.
    """

    __slots__ = ("_nested", "edited", "error", "gate", "intercepted", "outer", "permit", "stage", "tool")

    def __init__(self, gate: CallGate, tool: str, permit: Permit, *, edited: bool = False) -> None:
        self.edited = edited
        self.gate = gate
        self.tool = tool
        self.permit = permit
        self.stage: Stage = "decided"
        self.error: Exception | None = None
        self.intercepted = False
        self.outer: Ticket | None = None
        self._nested = 0

    def covers(self, arguments: Mapping[str, Any]) -> bool:
        """Whether `arguments`, about to be used, are the ones that were decided on."""
        decided = self.permit.arguments
        if len(arguments) == len(decided):
            for name, value in arguments.items():
                if decided.get(name, self) is not value or type(value) not in _UNCHANGEABLE:
                    break
            else:
                return True
        try:
            if orjson.dumps(arguments) == orjson.dumps(decided):
                return True
        except TypeError:
            pass  # not plain JSON as it stands; the permit knows how such values were read
        return self.permit.covers(arguments)

    def __enter__(self) -> Ticket:
        innermost = _INNERMOST.get()
        if innermost is self or (innermost is not None and self in current_tickets()):
            self._nested += 1  # the tool takes a ticket that whoever decided still holds further out
        else:
            self.outer = innermost
            _INNERMOST.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nested:
            self._nested -= 1
        elif _INNERMOST.get() is self:
            _INNERMOST.set(self.outer)


_INNERMOST: ContextVar[Ticket | None] = ContextVar("agentlattice_langgraph_ticket", default=None)


def current_action_id() -> str | None:
    """Inside a governed tool: the id of its action in the log, which serves as an idempotency key. Else None."""
    ticket = _INNERMOST.get()
    return None if ticket is None else ticket.permit.action_id


def current_tickets() -> Sequence[Ticket]:
    """The tickets of this task or thread, the innermost call first."""
    ticket = _INNERMOST.get()
    if ticket is None:
        return ()
    found = [ticket]
    while (ticket := ticket.outer) is not None:
        found.append(ticket)
    return found


class Tickets(list[Ticket]):
    """The tickets of all gates before one tool, for one run of it. As a context manager they are found inside.

    `edited_now` says that a person has changed the arguments, and that nobody further out has told the model so.
    """

    edited_now = False

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What was decided on, as a copy that nobody else holds."""
        return self[0].permit.arguments

    def void(self, denial: Denial) -> Denial:
        """Give the tickets back: another gate denied the call."""
        for ticket in self:
            ticket.permit.failed("the tool did not run: another gate before it denied the call")
        return denial

    @property
    def edited(self) -> bool:
        """Whether a person has changed the arguments."""
        return any(ticket.edited for ticket in self)

    def take(self, stage: Stage) -> Tickets:
        """Note how far the call has come."""
        for ticket in self:
            ticket.stage = stage
        return self

    def returned(self, output: Any) -> None:
        """Report that the tool returned. What it made of an error of its own is bare text where there is no call id."""
        for ticket in self:
            if ticket.error is None:
                report_result(ticket.permit, output)
            else:
                report_error(ticket.permit, ticket.error)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around the function inside the tool: note what it raises, which the tool may turn into an answer."""
        try:
            yield
        except Exception as error:
            for ticket in self:
                ticket.error = error
            raise

    def raised(self, error: BaseException) -> None:
        """Report that the tool raised."""
        for ticket in self:
            report_error(ticket.permit, error)

    def __enter__(self) -> Tickets:
        for ticket in self:
            ticket.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ticket in reversed(self):
            ticket.__exit__(kind, error, trace)
