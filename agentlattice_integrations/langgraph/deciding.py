"""One gate, asked about LangChain's calls.

- `decide` asks the core and gives a ticket or a denial; `take` and `enter` find a ticket that was already
  given.
- Another gate's ticket is honoured only where that gate would have asked the same question: the same mapping for this
  tool, and the same client or a child of it, which may do no more. Otherwise both decide, and both must agree.
- Where a call can be paused it is, unless the gate says otherwise; elsewhere it waits. A gate that says `pause` refuses
  a call that has to wait for a person and cannot be paused, and takes the request back.
- What is answered in the agent's interface counts as a decision only where `approver` says whose it is: an agent must
  not approve itself. A rejection always stops the call, and changed arguments are decided on anew.
- A call with another gate's ticket in hand waits instead: a pause would burn that ticket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, get_args

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.config import get_config

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import AgentLatticeError, InvalidRequestError
from agentlattice_core.toolcalls.acting import Acting, NoChild
from agentlattice_core.toolcalls.arguments import canonical_arguments
from agentlattice_core.toolcalls.call import Denial, OnApproval, Permit, ToolCall
from agentlattice_core.toolcalls.denial import refusal
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import DecidingClient, GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable, mark_of
from agentlattice_integrations.langgraph.acting import run_of, settles
from agentlattice_integrations.langgraph.answers import Answer, edited_arguments, pause_request, read_answer
from agentlattice_integrations.langgraph.calls import FRAMEWORK, Attempts, ToolFacts, facts_of, make_call
from agentlattice_integrations.langgraph.messages import denial_message
from agentlattice_integrations.langgraph.pausing import Pause
from agentlattice_integrations.langgraph.tickets import Ticket, current_tickets

__all__ = ["NO_ID", "Approver", "CallGate", "GateOptions", "Subject"]

# One count for all gates: when two of them decide on one call, each must get an event id of its own.
_ATTEMPTS = Attempts()

NO_ID = "the call has no id, so its answer could not be given back; make the call again with an id"


_NO_PAUSE = (
    "it has to wait for a person and cannot be paused here; give the graph a checkpointer and a tool node that "
    "governs its calls one by one, or use on_approval `wait` or `defer`"
)
_NOT_KEPT = (
    "a person put a secret into its arguments, and it has to wait for another one, while the secret cannot be kept; "
    "leave secrets as they are shown, or name an `approver`"
)
_REJECTED = "rejected in the agent's interface"
_EDITED = "its arguments were changed in the agent's interface"
_NOBODY = (
    "An approval given here does not count, because it is not known whose it is: approve the request as an "
    "operator, or name one as `approver`."
)

Approver = DecidingClient | Callable[[RunnableConfig], DecidingClient | None]
OnBehalfOf = str | Callable[[RunnableConfig], str | None]
"""Whose decision an answer in the agent's interface is: an operator's client, or what finds it for a run's config."""


class GateOptions(TypedDict, total=False):
    """What every entry point passes on to its gate; see `ToolGate`.

    `on_approval` is `pause`, `wait` or `defer`; None pauses where that is possible and waits elsewhere. `approver` is
    whose decision an answer in the agent's interface is; without it, an approval given there does not count.
    `on_behalf_of` is the end user, or a function of a run's config that tells.
    """

    actions: ActionTable | Mapping[Any, Any] | str | Path | None
    redact: tuple[str, ...] | list[str]
    on_approval: OnApproval | None
    approval_timeout: float | None
    approver: Approver | None
    on_behalf_of: OnBehalfOf | None


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

    def __init__(self, client: GovernanceClient | Delegate, options: GateOptions) -> None:
        unknown = sorted(options.keys() - GateOptions.__optional_keys__)
        if unknown:  # a misspelt `redact` that nobody reads would have secrets recorded
            raise TypeError(
                f"there is no option `{unknown[0]}`; there are {', '.join(GateOptions.__annotations__)}"
            )
        self.on_approval = options.get("on_approval")
        if self.on_approval is not None and self.on_approval not in get_args(OnApproval):
            raise ValueError(
                f"on_approval `{self.on_approval}` is not one of {', '.join(get_args(OnApproval))}"
            )
        self._approver = options.get("approver")
        self._on_behalf_of = options.get("on_behalf_of")
        actions = ActionTable.of(options.get("actions"))

        def make(acting: GovernanceClient) -> ToolGate:
            return ToolGate(
                acting,
                actions=actions,
                redact=options.get("redact", ()),
                on_approval=on_approval or "wait",
                approval_timeout=options.get("approval_timeout"),
            )

        on_approval = self.on_approval
        self.acting = Acting(client, make)
        self.gate = self.acting.gate

    @property
    def pauses(self) -> bool:
        """Whether calls are paused where they can be."""
        return self.on_approval in (None, "pause")

    def _end_user(self, config: RunnableConfig | None) -> str | None:
        """For whom the agent acts in this run, if the application says so."""
        told = self._on_behalf_of
        if told is None or isinstance(told, str):
            return told
        return told(config) if config is not None else None

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
        *,
        alone: bool = True,
    ) -> Ticket | Denial:
        """Ask the core about one call, blocking. Raises GraphInterrupt to pause the graph.

        `alone` says that no other gate stands before the same run of the tool.
        """
        pause = Pause(config, facts.name, call_id)
        pause.look_sync()
        call = make_call(
            facts, target, arguments, call_id, config, _ATTEMPTS, pause.run, self._end_user(config)
        )
        gate = self.acting.gate_sync(*run_of(config))
        if isinstance(gate, NoChild):
            return gate.refuse_sync(self.gate, call)
        how = self._how(pause, facts.name, alone)
        paused = pause.governance
        if how == "pause" and paused is not None:
            answer = read_answer(pause.take_answer(), call.tool)
            call = self._as_answered(call, paused, answer)
            note = self._apply_sync(gate, answer, paused, config)
            pause.strike_out_sync()
            found = gate.authorize_sync(call, how)
            if answer.kind == "reject" and isinstance(found, Permit):
                found = _rejected(found, call, answer)
            elif answer.kind == "edit" and isinstance(found, Denial) and found.approval_id is not None:
                note = self._approve_sync(found.approval_id, config)
                found = gate.authorize_sync(call, how)
        else:
            note = None
            found = gate.authorize_sync(call, how)
        if isinstance(found, Permit):
            return Ticket(self, facts.name, found, edited=call.arguments is not arguments)
        if how == "pause" and found.status == "pending" and found.action_id is not None:
            obstacle = self._obstacle(pause, call, arguments)
            if obstacle is None:
                _ATTEMPTS.take_back(call.identity)
                pause.keep_answers()
                pause.strike_out_sync()
                raise pause.suspend(found.action_id, self._request(found, call, arguments, pause, note))
            gate.withdraw_sync(found.action_id, obstacle)
            found = gate.authorize_sync(call, how)
            if isinstance(found, Permit):  # somebody approved it in that moment
                return Ticket(self, facts.name, found)
        return found

    async def decide(
        self,
        facts: ToolFacts,
        target: object | None,
        arguments: Mapping[str, Any],
        call_id: str | None,
        config: RunnableConfig | None,
        *,
        alone: bool = True,
    ) -> Ticket | Denial:
        """As `decide_sync`, without blocking the event loop."""
        pause = Pause(config, facts.name, call_id)
        await pause.look()
        call = make_call(
            facts, target, arguments, call_id, config, _ATTEMPTS, pause.run, self._end_user(config)
        )
        gate = await self.acting.gate_of(*run_of(config))
        if isinstance(gate, NoChild):
            return await gate.refuse(self.gate, call)
        how = self._how(pause, facts.name, alone)
        paused = pause.governance
        if how == "pause" and paused is not None:
            answer = read_answer(pause.take_answer(), call.tool)
            call = self._as_answered(call, paused, answer)
            note = await self._apply(gate, answer, paused, config)
            await pause.strike_out()
            found = await gate.authorize(call, how)
            if answer.kind == "reject" and isinstance(found, Permit):
                found = _rejected(found, call, answer)
            elif answer.kind == "edit" and isinstance(found, Denial) and found.approval_id is not None:
                note = await self._approve(found.approval_id, config)
                found = await gate.authorize(call, how)
        else:
            note = None
            found = await gate.authorize(call, how)
        if isinstance(found, Permit):
            return Ticket(self, facts.name, found, edited=call.arguments is not arguments)
        if how == "pause" and found.status == "pending" and found.action_id is not None:
            obstacle = self._obstacle(pause, call, arguments)
            if obstacle is None:
                _ATTEMPTS.take_back(call.identity)
                pause.keep_answers()
                await pause.strike_out()
                raise pause.suspend(found.action_id, self._request(found, call, arguments, pause, note))
            await gate.withdraw(found.action_id, obstacle)
            found = await gate.authorize(call, how)
            if isinstance(found, Permit):  # somebody approved it in that moment
                return Ticket(self, facts.name, found)
        return found

    # --- pausing --------------------------------------------------------------------------------------------

    def _how(self, pause: Pause, tool: str, alone: bool) -> OnApproval:
        if not self.pauses:
            return self.gate.on_approval
        if not alone or any(
            ticket.tool == tool and ticket.stage in ("decided", "replaced") for ticket in current_tickets()
        ):
            return "wait"
        return "pause" if self.on_approval == "pause" or pause.possible else "wait"

    def _as_answered(self, call: ToolCall, paused: Mapping[str, Any], answer: Answer) -> ToolCall:
        """The call with the arguments that a person gave it, now or in an earlier answer."""
        edited = answer.arguments if answer.kind == "edit" else paused.get("edited")
        if edited is None:
            return call
        own = call.arguments
        assert isinstance(own, Mapping)
        return replace(call, arguments=edited_arguments(edited, self._shown(call), own))

    def _shown(self, call: ToolCall) -> Mapping[str, Any]:
        try:
            return self.gate.shown(call)
        except InvalidRequestError:
            return {}

    def _obstacle(self, pause: Pause, call: ToolCall, own: Mapping[str, Any]) -> str | None:
        """Why the call cannot be paused, if it cannot.

        `own` are its arguments before anybody changed them: a graph checkpoint has those, and of changed ones only what
        may be shown.
        """
        if not pause.possible:
            return _NO_PAUSE
        if call.arguments is own:
            return None
        resumed = edited_arguments(self._shown(call), self._shown(replace(call, arguments=own)), own)
        digests = [
            canonical_arguments(arguments, call.schema, call.injected).digest
            for arguments in (resumed, call.arguments)
        ]
        return None if digests[0] == digests[1] else _NOT_KEPT

    def _request(
        self,
        denial: Denial,
        call: ToolCall,
        arguments: Mapping[str, Any],
        pause: Pause,
        note: str | None,
    ) -> dict[str, Any]:
        shown = self._shown(call)
        return pause_request(
            denial,
            name=call.tool,
            arguments=shown,
            call_id=call.call_id or "",
            run=pause.run,
            edited=None if call.arguments is arguments else shown,
            note=note,
        )

    def _approver_of(self, config: RunnableConfig | None) -> DecidingClient | None:
        approver = self._approver
        if approver is None or hasattr(approver, "approve_action"):
            return approver  # type: ignore[return-value]
        return approver(config or {})

    def _apply_sync(
        self, gate: ToolGate, answer: Answer, paused: Mapping[str, Any], config: RunnableConfig | None
    ) -> str | None:
        """Do what was answered to the request by which the call was paused; what to tell whoever answered."""
        if answer.kind == "approve":
            return self._approve_sync(str(paused.get("approval_id")), config)
        if answer.kind == "edit":
            gate.withdraw_sync(str(paused.get("action_id")), _EDITED)
        elif answer.kind == "reject":
            approver = self._approver_of(config)
            if approver is not None:
                try:
                    approver.deny_action_sync(str(paused.get("approval_id")), answer.reason)
                except AgentLatticeError:
                    pass  # decided before, or not this person's to decide; it does not run in any case
            gate.withdraw_sync(str(paused.get("action_id")), answer.reason or _REJECTED)
        return answer.note

    def _approve_sync(self, approval_id: str, config: RunnableConfig | None) -> str | None:
        """Approve as the person who answered; why it does not count, if it does not."""
        approver = self._approver_of(config)
        if approver is None:
            return _NOBODY
        try:
            approver.approve_action_sync(approval_id)
        except AgentLatticeError as error:
            return f"The approval given here did not count: {error.message}."
        return None

    async def _apply(
        self, gate: ToolGate, answer: Answer, paused: Mapping[str, Any], config: RunnableConfig | None
    ) -> str | None:
        """As `_apply_sync`."""
        if answer.kind == "approve":
            return await self._approve(str(paused.get("approval_id")), config)
        if answer.kind == "edit":
            await gate.withdraw(str(paused.get("action_id")), _EDITED)
        elif answer.kind == "reject":
            approver = self._approver_of(config)
            if approver is not None:
                try:
                    await approver.deny_action(str(paused.get("approval_id")), answer.reason)
                except AgentLatticeError:
                    pass  # decided before, or not this person's to decide; it does not run in any case
            await gate.withdraw(str(paused.get("action_id")), answer.reason or _REJECTED)
        return answer.note

    async def _approve(self, approval_id: str, config: RunnableConfig | None) -> str | None:
        """As `_approve_sync`."""
        approver = self._approver_of(config)
        if approver is None:
            return _NOBODY
        try:
            await approver.approve_action(approval_id)
        except AgentLatticeError as error:
            return f"The approval given here did not count: {error.message}."
        return None

    def refuse_sync(
        self, call: Mapping[str, Any], config: RunnableConfig | None, reason: str, message: str
    ) -> ToolMessage:
        """Refuse a model's call (`name`, `args`, `id`) before anything runs, and say why to the model."""
        made = _bare_call(call, config, self._end_user(config))
        gate = self.acting.gate_sync(*run_of(config))
        if isinstance(gate, NoChild):
            denial = gate.refuse_sync(self.gate, made)
        else:
            denial = gate.refuse_sync(made, reason, message)
        return denial_message(denial, call["name"], call["id"])

    async def refuse(
        self, call: Mapping[str, Any], config: RunnableConfig | None, reason: str, message: str
    ) -> ToolMessage:
        """As `refuse_sync`."""
        made = _bare_call(call, config, self._end_user(config))
        gate = await self.acting.gate_of(*run_of(config))
        if isinstance(gate, NoChild):
            denial = await gate.refuse(self.gate, made)
        else:
            denial = await gate.refuse(made, reason, message)
        return denial_message(denial, call["name"], call["id"])

    def note_hosted_sync(
        self, name: str, arguments: Mapping[str, Any], call_id: str | None, why: str
    ) -> None:
        """Record a call that ran at the model's provider, where it could not be stopped."""
        gate = self.acting.gate_sync(*run_of(_current_config()))
        recording = self.gate if isinstance(gate, NoChild) else gate
        recording.refuse_sync(_hosted_call(name, arguments, call_id), "NOT_COVERABLE", why)

    async def note_hosted(
        self, name: str, arguments: Mapping[str, Any], call_id: str | None, why: str
    ) -> None:
        """As `note_hosted_sync`."""
        gate = await self.acting.gate_of(*run_of(_current_config()))
        recording = self.gate if isinstance(gate, NoChild) else gate
        await recording.refuse(_hosted_call(name, arguments, call_id), "NOT_COVERABLE", why)

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
        return ticket.tool == origin.name and (ticket.gate is self or self.asks_as(ticket.gate, origin))

    def settled_by(self, other: CallGate) -> bool:
        """Whether `other` asks for the same agent, or for a child of it, which may do no more."""
        return settles(other.acting, self.acting)

    def asks_as(self, other: CallGate, tool: BaseTool) -> bool:
        """Whether `other`'s answer about `tool` is one to the question that this gate would ask."""
        return other is self or (
            self.settled_by(other)
            and other.gate.resolve(tool.name, tool) == self.gate.resolve(tool.name, tool)
        )


def _current_config() -> RunnableConfig | None:
    """The configuration of the node that is running; None outside one."""
    try:
        return get_config()
    except RuntimeError:
        return None


def _rejected(permit: Permit, call: ToolCall, answer: Answer) -> Denial:
    """The denial for a call that was approved elsewhere and rejected by whoever resumed the graph."""
    permit.failed(f"the tool did not run: {_REJECTED}")
    action_id, message = permit.action_id, answer.reason or _REJECTED
    return refusal("DENIED_BY_REVIEWER", message, tool=call.tool, action_type=call.tool, action_id=action_id)


def _hosted_call(name: str, arguments: Mapping[str, Any], call_id: str | None) -> ToolCall:
    return ToolCall(framework=FRAMEWORK, tool=name, arguments=arguments, call_id=call_id, kind="hosted")


def _bare_call(call: Mapping[str, Any], config: RunnableConfig | None, user: str | None) -> ToolCall:
    arguments = call["args"] if isinstance(call["args"], Mapping) else {}
    facts = ToolFacts.unknown(call["name"])
    return make_call(facts, None, arguments, call["id"], config, _ATTEMPTS, on_behalf_of=user)
