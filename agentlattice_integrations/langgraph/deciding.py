"""One gate, asked about LangChain's calls.

- `decide` asks the core and gives a ticket or a denial; `take` and `enter` find a ticket that was already
  given.
- Another gate's ticket is honoured only where that gate would have asked the same question: the same client
  and the same mapping for this tool. Otherwise both decide, and both must agree.
- Pausing a graph for an approval is not built yet: `on_approval="pause"` says so when the gate is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import Denial, OnApproval, ToolCall
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, mark_of
from agentlattice_integrations.langgraph.calls import FRAMEWORK, Attempts, ToolFacts, facts_of, make_call
from agentlattice_integrations.langgraph.messages import denial_message
from agentlattice_integrations.langgraph.tickets import Ticket, current_tickets

__all__ = ["NO_ID", "CallGate", "GateOptions", "Subject"]

# One count for all gates: when two of them decide on one call, each must get an event id of its own.
_ATTEMPTS = Attempts()

NO_ID = "the call has no id, so its answer could not be given back; make the call again with an id"


class GateOptions(TypedDict, total=False):
    """What every entry point passes on to its gate; see `ToolGate`."""

    actions: ActionTable | Mapping[Any, Any] | str | Path | None
    redact: tuple[str, ...] | list[str]
    on_approval: OnApproval
    approval_timeout: float | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A tool as one gate asks about it: the tool that nothing governs yet, and what its mapping hangs on.

    A tool object is slow to look for marks on, so it is the target only where a mapping hangs on the object itself.
    """

    origin: BaseTool
    target: object | None

    @property
    def facts(self) -> ToolFacts:
        """What does not change from call to call."""
        return facts_of(self.origin)


class CallGate:
    """A `ToolGate` with what it needs to know of LangChain."""

    def __init__(self, client: GovernanceClient, options: GateOptions) -> None:
        if options.get("on_approval") == "pause":
            raise InvalidRequestError(
                "on_approval `pause` is not available for langgraph yet; use `wait` (block until somebody "
                "decides) or `defer` (tell the model that the call is pending)"
            )
        self.gate = ToolGate(client, **options)

    def subject(self, tool: BaseTool) -> Subject:
        """`tool`, not governed by anything, as this gate will ask about it. Marks and the table are read here, once."""
        own = self.gate.actions.own
        function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
        by_tool = own("", tool)
        by_function = None if function is None else own("", function)
        if by_function is not None and by_tool in (None, by_function, mark_of(function)):
            return Subject(tool, function)
        return Subject(tool, None if by_tool is None else tool)

    # --- deciding -------------------------------------------------------------------------------------------

    def decide_sync(
        self,
        facts: ToolFacts,
        target: object | None,
        arguments: Mapping[str, Any],
        call_id: str | None,
        config: RunnableConfig | None,
    ) -> Ticket | Denial:
        """Ask the core about one call, blocking."""
        call = make_call(facts, target, arguments, call_id, config, _ATTEMPTS)
        answer = self.gate.authorize_sync(call)
        return answer if isinstance(answer, Denial) else Ticket(self.gate, facts.name, answer)

    async def decide(
        self,
        facts: ToolFacts,
        target: object | None,
        arguments: Mapping[str, Any],
        call_id: str | None,
        config: RunnableConfig | None,
    ) -> Ticket | Denial:
        """As `decide_sync`, without blocking the event loop."""
        call = make_call(facts, target, arguments, call_id, config, _ATTEMPTS)
        answer = await self.gate.authorize(call)
        return answer if isinstance(answer, Denial) else Ticket(self.gate, facts.name, answer)

    def refuse_sync(
        self, call: Mapping[str, Any], config: RunnableConfig | None, reason: str, message: str
    ) -> ToolMessage:
        """Refuse a model's call (`name`, `args`, `id`) before anything runs, and say why to the model."""
        denial = self.gate.refuse_sync(_bare_call(call, config), reason, message)
        return denial_message(denial, call["name"], call["id"])

    async def refuse(
        self, call: Mapping[str, Any], config: RunnableConfig | None, reason: str, message: str
    ) -> ToolMessage:
        """As `refuse_sync`."""
        denial = await self.gate.refuse(_bare_call(call, config), reason, message)
        return denial_message(denial, call["name"], call["id"])

    def note_hosted_sync(
        self, name: str, arguments: Mapping[str, Any], call_id: str | None, why: str
    ) -> None:
        """Record a call that ran at the model's provider, where it could not be stopped."""
        self.gate.refuse_sync(_hosted_call(name, arguments, call_id), "NOT_COVERABLE", why)

    async def note_hosted(
        self, name: str, arguments: Mapping[str, Any], call_id: str | None, why: str
    ) -> None:
        """As `note_hosted_sync`."""
        await self.gate.refuse(_hosted_call(name, arguments, call_id), "NOT_COVERABLE", why)

    # --- tickets --------------------------------------------------------------------------------------------

    def take(self, subject: Subject, arguments: Mapping[str, Any]) -> Ticket | None:
        """The ticket that lets the tool run with `arguments`, if whoever calls it was already given one."""
        for ticket in current_tickets():
            if ticket.stage == "decided" and self._given_for(ticket, subject):
                if ticket.covers(arguments):
                    return ticket
                ticket.stage = "replaced"
        return None

    def enter(self, subject: Subject) -> Ticket | None:
        """The ticket of the run that is calling the function inside the tool; good once."""
        for ticket in current_tickets():
            if ticket.stage == "running" and self._given_for(ticket, subject):
                ticket.stage = "entered"
                return ticket
        return None

    def _given_for(self, ticket: Ticket, subject: Subject) -> bool:
        origin = subject.origin
        return ticket.tool == origin.name and (ticket.gate is self.gate or self.asks_as(ticket.gate, origin))

    def asks_as(self, other: ToolGate, tool: BaseTool) -> bool:
        """Whether `other` asks the same client the same question about `tool`."""
        gate = self.gate
        if other is gate:
            return True
        return other.client is gate.client and other.resolve(tool.name, tool) == gate.resolve(tool.name, tool)


def _hosted_call(name: str, arguments: Mapping[str, Any], call_id: str | None) -> ToolCall:
    return ToolCall(framework=FRAMEWORK, tool=name, arguments=arguments, call_id=call_id, kind="hosted")


def _bare_call(call: Mapping[str, Any], config: RunnableConfig | None) -> ToolCall:
    arguments = call["args"] if isinstance(call["args"], Mapping) else {}
    return make_call(ToolFacts.unknown(call["name"]), None, arguments, call["id"], config, _ATTEMPTS)
