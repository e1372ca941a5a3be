"""What stands before every governed tool of one `govern(...)` call: the gate, its settings, and who is acting.

- A call is named by the run's trace id, the model requests so far (not where runs pause) and the tool call id; all
  survive a `RunState` that is resumed in another process. Without a trace (tracing is off and the run has no
  `trace_id`) a call has no name that outlives it, and is not idempotent.
- Inside an agent that runs as a tool, the name of the outer call stands in front.
- A delegation has one child for each run, told by the run's trace id, which a saved `RunState` keeps; see
  `toolcalls.acting`.
- The decision is a span of the SDK's trace when there is one. It holds what was decided, never arguments.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from agents import RunContextWrapper, custom_span, get_current_trace
from agents.tool_context import ToolContext

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ActionResult
from agentlattice_core.toolcalls.acting import Acting, NoChild
from agentlattice_core.toolcalls.call import CallKind, Denial, OnApproval, Permit, ToolCall
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable
from agentlattice_core.toolcalls.redaction import redact_text

__all__ = [
    "Answers",
    "Governor",
    "HeldPermit",
    "HostedTools",
    "OnBehalfOf",
    "Settings",
    "current_action_id",
    "enclosing_call",
    "identity_of",
    "identity_within",
    "run_permitted",
    "running",
    "trace_id",
]

HostedTools = Literal["refuse", "allow"]
OnBehalfOf = str | Callable[[RunContextWrapper[Any]], str | None]

_log = logging.getLogger("agentlattice")

FRAMEWORK = "openai-agents"
_MAX_SUSPENDED = 1024

enclosing_call: ContextVar[str | None] = ContextVar("agentlattice_enclosing_call", default=None)
"""The identity of the agent-as-tool call in which the present code runs."""


def current_action_id() -> str | None:
    """In a tool's body: the id of the action it runs as, to be used as an idempotency key; None elsewhere."""
    held = running.get()
    return None if held is None else held.permit.action_id


class HeldPermit:
    """A permit between the decision and the run of the tool.

    If it is dropped without the tool having started (a hook raised, another guardrail refused), it says so in the log.
    """

    __slots__ = ("call", "error", "permit", "used")

    def __init__(self, permit: Permit, call: ToolCall) -> None:
        self.permit = permit
        self.call = call
        self.used = False
        self.error: BaseException | None = None

    def fits(self, tool: str, call_id: str | None, arguments: Mapping[str, Any] | str) -> bool:
        """Whether this is the permit for that call with exactly those arguments, not used yet."""
        return (
            not self.used
            and self.call.tool == tool
            and (call_id is None or call_id == self.call.call_id)
            and (arguments == self.call.arguments or self.permit.covers(arguments))
        )

    def drop(self) -> None:
        """Report that the tool was not started."""
        if not self.used:
            self.used = True
            self.permit.abandoned("the call was allowed, and the tool was not started")

    def __del__(self) -> None:
        if not self.used:
            self.drop()


running: ContextVar[HeldPermit | None] = ContextVar("agentlattice_running", default=None)
"""The permit under which the present code runs."""


async def run_permitted(
    held: HeldPermit, run: Callable[[], Any], failure: Callable[[Any], str | None]
) -> Any:
    """Run what was permitted (a plain or a coroutine function) and report how it ended.

    `failure` says why a result that was returned is a failure all the same, or None.
    """
    held.used = True
    token = running.set(held)
    try:
        result = run()
        if inspect.isawaitable(result):
            result = await result
    except asyncio.CancelledError:
        held.permit.abandoned("cancelled before it ended")
        raise
    except BaseException as error:
        held.permit.failed(error)
        raise
    finally:
        running.reset(token)
    why = failure(result)
    if why is None:
        held.permit.succeeded()
    else:
        held.permit.failed(why)
    return result


class Answers:
    """Answers between the SDK's question whether a call needs approval and the run of that call. Safe from any thread.

    Each is taken once. A permit that nobody takes says in the log that the tool was not started.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], HeldPermit | Denial] = OrderedDict()

    def keep(self, call: ToolCall, answer: HeldPermit | Denial) -> None:
        """Keep the answer to a call that has an identity."""
        assert call.identity is not None
        with self._lock:
            self._kept[_key(call)] = answer
            while len(self._kept) > _MAX_SUSPENDED:
                self._kept.popitem(last=False)

    def kept(self, call: ToolCall) -> HeldPermit | Denial | None:
        """The answer to this very call, which stays kept."""
        kept = self._kept.get(_key(call))
        return kept if kept is None or isinstance(kept, Denial) or _fits(kept, call) else None

    def take(self, call: ToolCall) -> HeldPermit | Denial | None:
        """The answer to this call, if it is kept and for exactly these arguments."""
        with self._lock:
            kept = self._kept.pop(_key(call), None)
        return kept if kept is None or isinstance(kept, Denial) or _fits(kept, call) else None


def _key(call: ToolCall) -> tuple[str, str, str]:
    # A call of an executor may have several parts, of which each is decided on.
    part = json.dumps(call.arguments, sort_keys=True) if call.kind == "executor" else ""
    return (call.identity or "", call.tool, part)


def _fits(held: HeldPermit, call: ToolCall) -> bool:
    arguments = call.arguments
    assert not isinstance(arguments, bytes)
    return held.fits(call.tool, call.call_id, arguments)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller of `govern` chose. Two calls with equal settings are the same governance."""

    actions: ActionTable | Mapping[Any, Any] | str | Path | None = None
    redact: tuple[str, ...] = ()
    on_approval: OnApproval = "wait"
    approval_timeout: float | None = None
    hosted_tools: HostedTools = "refuse"
    on_behalf_of: OnBehalfOf | None = None


class Governor:
    """One gate with its settings, and the coverage report of all it governs.

    Raises InvalidRequestError for settings that cannot be used.
    """

    def __init__(self, al: GovernanceClient | Delegate, settings: Settings) -> None:
        if settings.hosted_tools not in ("refuse", "allow"):
            raise InvalidRequestError(f"hosted_tools `{settings.hosted_tools}` is not one of refuse, allow")
        self.settings = settings
        self.pauses = settings.on_approval == "pause"
        self._actions = ActionTable.of(settings.actions)
        self.acting_as = Acting(al, self._make_gate)
        self.gate = self.acting_as.gate
        self.answers = Answers()
        self.coverage = Coverage()
        self.lock = threading.RLock()
        self.acting: WeakKeyDictionary[RunContextWrapper[Any], Any] = WeakKeyDictionary()
        self._runs: dict[int, tuple[weakref.ref[Any], str]] = {}
        self.suspended: OrderedDict[tuple[str | None, str, str], HeldPermit] = OrderedDict()
        self.classes: dict[type[Any], type[Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Governor:
        """A deep copy of an agent or a tool is governed as that is: a gate is not copied, its client holds a log."""
        return self

    def tool_call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | str,
        context: RunContextWrapper[Any] | None,
        *,
        kind: CallKind,
        call_id: str | None = None,
        target: object | None = None,
        schema: Any = None,
        suspended: bool = False,
    ) -> ToolCall:
        """Describe one call of a tool in the run that `context` belongs to."""
        run = self._run_of(context)
        named = self.pauses or kind not in ("agent", "handoff")
        return ToolCall(
            framework=FRAMEWORK,
            tool=tool,
            arguments=arguments,
            call_id=call_id,
            identity=identity_of(run, call_id, self._turn(context)) if named else None,
            kind=kind,
            target=target,
            schema=schema,
            run=run,
            on_behalf_of=self._on_behalf_of(context),
            context=_who(context, run),
            suspended=suspended,
        )

    async def decide(self, call: ToolCall) -> Permit | Denial:
        """Ask the gate; where a person is asked, as `on_approval` says, and a run that pauses is waited in."""
        return await self._noted(call, self._decided(call))

    async def ask(self, call: ToolCall) -> Permit | Denial:
        """Ask the gate and wait for nobody: where a person is asked, the answer is a denial of status `pending`."""
        return await self._noted(call, self._asked(call))

    async def look(
        self, call: ToolCall, through: Callable[[GovernanceClient], GovernanceClient]
    ) -> Permit | Denial:
        """As `ask`, with what `through` makes of the client that acts."""
        gate = await self._gate_in(call)
        if isinstance(gate, Denial):
            return gate
        return await self._make_gate(through(gate.client)).authorize(call, "pause")

    async def withdraw(self, call: ToolCall, action_id: str, reason: str) -> None:
        """Take back the request that `call` made."""
        await self.acting_as.client_in(call.run).cancel(action_id, reason)

    async def _decided(self, call: ToolCall) -> Permit | Denial:
        gate = await self._gate_in(call)
        if isinstance(gate, Denial):
            return gate
        if self.pauses:
            # A gate that has waited in vain takes up an equal call's answer. Calls that pause are told apart by their
            # own names, also where they are equal, so that each is waited for by a gate of its own.
            return await self._make_gate(gate.client).authorize(call, "wait")
        return await gate.authorize(call)

    async def _asked(self, call: ToolCall) -> Permit | Denial:
        gate = await self._gate_in(call)
        return gate if isinstance(gate, Denial) else await gate.authorize(call, "pause")

    async def _gate_in(self, call: ToolCall) -> ToolGate | Denial:
        """The gate of whoever acts in this call, or the refusal where nobody can."""
        gate = await self.acting_as.gate_of(call.run, get_current_trace())
        return await gate.refuse(self.gate, call) if isinstance(gate, NoChild) else gate

    def _make_gate(self, client: GovernanceClient) -> ToolGate:
        return ToolGate(
            client,
            actions=self._actions,
            redact=self.settings.redact,
            on_approval="wait" if self.pauses else self.settings.on_approval,
            approval_timeout=self.settings.approval_timeout,
        )

    async def _noted(self, call: ToolCall, asked: Awaitable[Permit | Denial]) -> Permit | Denial:
        """The gate's answer, as a span of the current trace, if there is one."""
        if call.run is None or trace_id() is None:
            return await asked
        noted: dict[str, Any] = {"tool": call.tool}
        with custom_span("agentlattice decision", noted):
            answer = await asked
            noted["action_id"] = answer.action_id
            if isinstance(answer, Denial):
                noted["outcome"], noted["reason"] = answer.status, answer.reason
            else:
                noted["outcome"] = "permitted"
        return answer

    def resumed_as(self, context: RunContextWrapper[Any], run: str) -> None:
        """The run of `context` goes on under the trace id it began with, whatever trace it is resumed in."""
        with self.lock:
            self._runs = {key: known for key, known in self._runs.items() if known[0]() is not None}
            self._runs[id(context.usage)] = (weakref.ref(context.usage), run)

    def _run_of(self, context: RunContextWrapper[Any] | None) -> str | None:
        if self._runs and context is not None:
            # The one object that all contexts of a run share, those of its tools and of inner agents included.
            known = self._runs.get(id(context.usage))
            if known is not None and known[0]() is context.usage:
                return known[1]
        return trace_id() or _configured_trace_id(context)

    def claimed(self, action_id: str, call: ToolCall) -> HeldPermit:
        """The permit of a call whose claim was taken before, in another process, for the rest of its run."""

        client = self.acting_as.client_in(call.run)

        def report(outcome: str, message: str | None) -> None:
            try:
                client.record_outcome(action_id, outcome, None if message is None else redact_text(message))
            except Exception:
                # The tool has run, and a lost outcome reads `unknown`, which is true.
                _log.warning("the outcome of action `%s` could not be recorded", action_id, exc_info=True)

        result = ActionResult("executed", action_id, replayed=True, claim="started")
        return HeldPermit(Permit(action_id, {}, "", result, report, lambda _: None), call)

    def _turn(self, context: RunContextWrapper[Any] | None) -> str:
        """What tells calls apart that a model gives the same id in several turns. Where runs pause it must not do so:
        the count of requests goes on inside agents that run as tools, and the SDK's approvals go by the id as well.
        """
        if self.pauses:
            return ""
        return f"{context.usage.requests if context is not None else 0}/"

    def is_suspended(self, call_id: str) -> bool:
        """Whether this call of an agent, in the current run, waits inside for an approval."""
        run = trace_id()
        with self.lock:
            return any(key[:2] == (run, call_id) for key in self.suspended)

    def suspend(self, key: tuple[str | None, str, str], held: HeldPermit) -> None:
        """Keep the permit of an agent that runs as a tool and waits inside for an approval of the SDK's own."""
        with self.lock:
            self.suspended[key] = held
            while len(self.suspended) > _MAX_SUSPENDED:
                self.suspended.popitem(last=False)[1].permit.abandoned(
                    "suspended inside, and never continued"
                )

    def resume(self, key: tuple[str | None, str, str]) -> HeldPermit | None:
        """The permit that `suspend` kept, once."""
        with self.lock:
            return self.suspended.pop(key, None)

    def _on_behalf_of(self, context: RunContextWrapper[Any] | None) -> str | None:
        told = self.settings.on_behalf_of
        if told is None or isinstance(told, str):
            return told
        return told(context) if context is not None else None


def trace_id() -> str | None:
    """The id of the current trace, or None while tracing is off."""
    trace = get_current_trace()
    if trace is None:
        return None
    found = trace.trace_id
    return found if found and found != "no-op" else None


def _configured_trace_id(context: RunContextWrapper[Any] | None) -> str | None:
    config = context.run_config if isinstance(context, ToolContext) else None
    return config.trace_id if config is not None else None


def identity_of(run: str | None, call_id: str | None, turn: str = "", outer: str | None = None) -> str | None:
    """What names a call for good; `outer` is what stands in front inside an agent that runs as a tool, by default the
    one that runs now. None where nothing names it.
    """
    if run is None or call_id is None:
        return None
    outer = outer or enclosing_call.get()
    # The usage of inner runs is shared with the outer one, so in parallel its count differs from run to run.
    return f"{outer}/{call_id}" if outer is not None else f"{run}/{turn}{call_id}"


def identity_within(run: str | None, call_id: str | None, outer: str | None = None) -> str | None:
    """What stands in front of the names of the calls that an agent makes which runs as the call `call_id`."""
    if run is None or call_id is None:
        return None
    outer = outer or enclosing_call.get()
    return f"{outer}/{call_id}" if outer is not None else f"{run}/{call_id}"


def _who(context: RunContextWrapper[Any] | None, run: str | None) -> dict[str, Any]:
    who: dict[str, Any] = {}
    if run is not None:
        who["trace_id"] = run
    if isinstance(context, ToolContext):
        if context.agent is not None:
            who["agent"] = context.agent.name
        if context.run_config is not None and context.run_config.group_id:
            who["group_id"] = context.run_config.group_id
    return who
