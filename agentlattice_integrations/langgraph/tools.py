"""One tool, governed: a copy of it that asks before each run.

- The copy is of the same class, with the same schema, injected arguments, artifact, callbacks and
  `return_direct`; only running it differs. The original is left alone.
- The decision is made on the arguments the tool is about to receive, after whatever edited them, and the tool
  then runs with a copy of exactly those.
- The function inside (`func`, `coroutine`, `_run`, `_arun`) asks too when it is called past the tool. There
  is no model to explain a denial to then, so it raises AgentLatticeDeniedError.
- A tool that replaces LangChain's own `invoke`, `ainvoke`, `run` or `arun` is refused: it could run without
  passing here.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import PrivateAttr

from agentlattice_core.errors import AgentLatticeDeniedError, InvalidRequestError
from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.langgraph.calls import ToolFacts, facts_of
from agentlattice_integrations.langgraph.deciding import NO_ID, CallGate, Subject
from agentlattice_integrations.langgraph.messages import denial_message, with_edit
from agentlattice_integrations.langgraph.tickets import Tickets

__all__ = ["gates_of", "governed_copy", "origin_of"]

_ToolT = TypeVar("_ToolT", bound=BaseTool)
_ENTRY_POINTS = ("invoke", "ainvoke", "run", "arun")
_OWN_MODULES = ("langchain_core.", "langchain.")
_NOT_ARGUMENTS = frozenset({"run_manager", "callbacks", "config"})


def governed_copy(tool: _ToolT, gate: CallGate) -> _ToolT:
    """A copy of `tool` that `gate` decides on; raises InvalidRequestError if it could run past the gate.

    A tool that a gate with the same question stands before already is given back as it is. A gate of a child takes
    the place of its parent's.
    """
    present = _governance_of(tool)
    origin = tool if present is None else present.origin
    gates = () if present is None else present.gates
    if any(gate.asks_as(guard.gate, origin) for guard in gates):
        return tool
    gates = tuple(guard for guard in gates if not guard.gate.asks_as(gate, origin))
    if present is None:
        _refuse_own_entry_points(tool)
    governance = _Governance(origin, (_Guard(gate, gate.subject(origin)), *gates))
    copy = tool.model_copy()
    private = dict(copy.__pydantic_private__ or {})
    private["_governance"] = governance
    object.__setattr__(copy, "__pydantic_private__", private)
    if present is None:
        object.__setattr__(copy, "__class__", _governed_class(type(tool)))
    for name in ("func", "coroutine"):
        function = origin.__dict__.get(name)
        if function is not None:
            copy.__dict__[name] = _with_signature(_guarded(function, governance))
    return copy


def gates_of(tool: BaseTool) -> tuple[CallGate, ...]:
    """The gates that stand before `tool`, the latest first; none if it is not governed."""
    governance = _governance_of(tool)
    return () if governance is None else tuple(guard.gate for guard in governance.gates)


def origin_of(tool: BaseTool) -> BaseTool:
    """The tool as it was before anything governed it: the one that carries `@governed` marks."""
    governance = _governance_of(tool)
    return tool if governance is None else governance.origin


def _governance_of(tool: BaseTool) -> _Governance | None:
    private = tool.__pydantic_private__
    found: _Governance | None = private.get("_governance") if private else None
    return found


def _refuse_own_entry_points(tool: BaseTool) -> None:
    for name in _ENTRY_POINTS:
        for cls in type(tool).__mro__:
            if name in cls.__dict__:
                if not cls.__module__.startswith(_OWN_MODULES):
                    raise InvalidRequestError(
                        f"tool `{tool.name}` has its own `{name}`, so it could run without being decided on; "
                        "put its work into `_run` or `_arun`"
                    )
                break


@dataclass(frozen=True, slots=True)
class _Guard:
    """One gate, and what it asks about."""

    gate: CallGate
    subject: Subject


@dataclass(frozen=True, slots=True)
class _Governance:
    """What a governed tool carries: the tool it is a copy of, and the gates before it, all of which must agree."""

    origin: BaseTool
    gates: tuple[_Guard, ...]

    def take_sync(
        self,
        facts: ToolFacts,
        arguments: Mapping[str, Any],
        call_id: str | None,
        config: RunnableConfig | None,
        *,
        direct: bool = False,
    ) -> Tickets | Denial:
        """A ticket of each gate, given before or now; or the first denial.

        A direct call of the function inside is never one that was decided on before, and its parameters are past the
        schema's aliases and coercion.
        """
        tickets = Tickets()
        if direct:
            facts = replace(facts, schema=None)
        for guard in self.gates:
            subject = guard.subject
            given = None if direct else guard.gate.take(subject, arguments)
            answer = given or guard.gate.decide_sync(
                facts, subject.target, arguments, call_id, config, alone=len(self.gates) == 1
            )
            if isinstance(answer, Denial):
                return tickets.void(answer)
            tickets.edited_now = answer.edited and given is None
            tickets.append(answer)
        return tickets

    async def take(
        self,
        facts: ToolFacts,
        arguments: Mapping[str, Any],
        call_id: str | None,
        config: RunnableConfig | None,
        *,
        direct: bool = False,
    ) -> Tickets | Denial:
        """As `take_sync`."""
        tickets = Tickets()
        if direct:
            facts = replace(facts, schema=None)
        for guard in self.gates:
            subject = guard.subject
            given = None if direct else guard.gate.take(subject, arguments)
            answer = given or await guard.gate.decide(
                facts, subject.target, arguments, call_id, config, alone=len(self.gates) == 1
            )
            if isinstance(answer, Denial):
                return tickets.void(answer)
            tickets.edited_now = answer.edited and given is None
            tickets.append(answer)
        return tickets

    def enter(self) -> Tickets | None:
        """The tickets if it is the tool that calls the function inside it: every gate has one for it, good once."""
        tickets = Tickets()
        for guard in self.gates:
            ticket = guard.gate.enter(guard.subject)
            if ticket is not None:
                tickets.append(ticket)
        return tickets if len(tickets) == len(self.gates) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Governance:
        """A deep copy of the tool is asked about as the tool is: gates are not copied, their clients hold a log."""
        return self


def _of(tool: BaseTool) -> _Governance:
    governance: _Governance = tool.__pydantic_private__["_governance"]  # type: ignore[index]
    return governance


# --- the class ----------------------------------------------------------------------------------------------

_CLASSES: weakref.WeakKeyDictionary[type[BaseTool], type[BaseTool]] = weakref.WeakKeyDictionary()


def _governed_class(base: type[BaseTool]) -> type[BaseTool]:
    """The subclass of `base` whose runs ask first. It keeps the name, so that traces read as before."""
    known = _CLASSES.get(base)
    if known is not None:
        return known
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__annotations__": {"_governance": Any},
        "_governance": PrivateAttr(default=None),
        "invoke": _invoke(base),
        "ainvoke": _ainvoke(base),
        "run": _run(base),
        "arun": _arun(base),
    }
    for name, functions in (("_run", ("func",)), ("_arun", ("coroutine", "func"))):
        method = getattr(base, name)
        if not method.__module__.startswith(_OWN_MODULES):
            namespace[name] = _guarded_method(method, functions)
    metaclass: Any = type(base)
    governed: type[BaseTool] = metaclass(base.__name__, (base,), namespace)
    _CLASSES[base] = governed
    return governed


def _invoke(base: type[BaseTool]) -> Callable[..., Any]:
    original = base.invoke

    @functools.wraps(original)
    def invoke(self: BaseTool, input: Any, config: Any = None, **kwargs: Any) -> Any:
        if _lacks_id(input):
            return (
                _of(self)
                .gates[0]
                .gate.refuse_sync({**input, "name": self.name}, config, "INVALID_REQUEST", NO_ID)
            )
        return original(self, input, config, **kwargs)

    return invoke


def _ainvoke(base: type[BaseTool]) -> Callable[..., Any]:
    original = base.ainvoke

    @functools.wraps(original)
    async def ainvoke(self: BaseTool, input: Any, config: Any = None, **kwargs: Any) -> Any:
        if _lacks_id(input):
            return (
                await _of(self)
                .gates[0]
                .gate.refuse({**input, "name": self.name}, config, "INVALID_REQUEST", NO_ID)
            )
        return await original(self, input, config, **kwargs)

    return ainvoke


def _lacks_id(value: Any) -> bool:
    """Whether this is a model's call without an id: LangChain would run it and then fail to answer it."""
    return isinstance(value, dict) and value.get("type") == "tool_call" and not value.get("id")


def _run(base: type[BaseTool]) -> Callable[..., Any]:
    original = base.run

    @functools.wraps(original)
    def run(self: BaseTool, tool_input: str | dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        governance = _of(self)
        facts = facts_of(governance.origin)
        arguments = facts.model_arguments(tool_input)
        call_id = kwargs.get("tool_call_id")
        tickets = governance.take_sync(facts, arguments, call_id, kwargs.get("config"))
        if isinstance(tickets, Denial):
            return _denied_output(tickets, self.name, call_id)
        with tickets.take("running"):
            try:
                tool_input = _as_decided(tool_input, facts, tickets)
                output = original(self, tool_input, *args, **kwargs)
            except BaseException as error:
                tickets.raised(error)
                raise
        tickets.returned(output)
        return with_edit(output, tickets[0].permit) if tickets.edited_now else output

    return run


def _arun(base: type[BaseTool]) -> Callable[..., Any]:
    original = base.arun

    @functools.wraps(original)
    async def arun(self: BaseTool, tool_input: str | dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        governance = _of(self)
        facts = facts_of(governance.origin)
        arguments = facts.model_arguments(tool_input)
        call_id = kwargs.get("tool_call_id")
        tickets = await governance.take(facts, arguments, call_id, kwargs.get("config"))
        if isinstance(tickets, Denial):
            return _denied_output(tickets, self.name, call_id)
        with tickets.take("running"):
            try:
                tool_input = _as_decided(tool_input, facts, tickets)
                output = await original(self, tool_input, *args, **kwargs)
            except BaseException as error:
                tickets.raised(error)
                raise
        tickets.returned(output)
        return with_edit(output, tickets[0].permit) if tickets.edited_now else output

    return arun


def _as_decided(tool_input: str | dict[str, Any], facts: ToolFacts, tickets: Tickets) -> str | dict[str, Any]:
    """What the tool is to receive: what was decided on, and what only the application fills in."""
    if tickets.edited:
        given = tool_input if isinstance(tool_input, dict) else {}
        injected = {name: value for name, value in given.items() if name in facts.injected}
        return {**injected, **tickets.arguments}
    return tool_input if isinstance(tool_input, str) else {**tool_input, **tickets.arguments}


def _denied_output(denial: Denial, name: str, call_id: str | None) -> ToolMessage | str:
    """A tool called by code and not by a model's call answers with its bare content, so a denial does too."""
    return denial.text if call_id is None else denial_message(denial, name, call_id)


# --- the function inside --------------------------------------------------------------------------------------------


def _guarded(function: Callable[..., Any], governance: _Governance) -> Callable[..., Any]:
    """`function`, asking for itself when it is not the tool that calls it."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def aguarded(*args: Any, **kwargs: Any) -> Any:
            entered = governance.enter()
            if entered is not None:
                with entered.inside():
                    return await function(*args, **kwargs)
            facts = facts_of(governance.origin)
            arguments = _bound(function, args, kwargs, facts)
            with _permitted(await governance.take(facts, arguments, None, None, direct=True)) as tickets:
                try:
                    output = await function(*args, **kwargs)
                except BaseException as error:
                    tickets.raised(error)
                    raise
            tickets.returned(output)
            return output

        return aguarded

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        entered = governance.enter()
        if entered is not None:
            with entered.inside():
                return function(*args, **kwargs)
        facts = facts_of(governance.origin)
        arguments = _bound(function, args, kwargs, facts)
        with _permitted(governance.take_sync(facts, arguments, None, None, direct=True)) as tickets:
            try:
                output = function(*args, **kwargs)
            except BaseException as error:
                tickets.raised(error)
                raise
        tickets.returned(output)
        return output

    return guarded


def _with_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, carrying its signature: LangChain asks for it in every run, and a wrapper's is slow to work out."""
    try:
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        pass  # a callable without one; LangChain is told so by whoever it asks
    return function


def _guarded_method(method: Callable[..., Any], functions: tuple[str, ...]) -> Callable[..., Any]:
    """A tool class's own `_run` or `_arun`, asking for itself when it is not the tool that calls it.

    Where the tool also has one of the `functions` that LangChain's own method would call, that one asks.
    """

    def function_asks(tool: BaseTool) -> bool:
        return any(tool.__dict__.get(name) is not None for name in functions)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def aguarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
            if function_asks(self):
                return await method(self, *args, **kwargs)
            return await _guarded(functools.partial(method, self), _of(self))(*args, **kwargs)

        return aguarded

    @functools.wraps(method)
    def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if function_asks(self):
            return method(self, *args, **kwargs)
        return _guarded(functools.partial(method, self), _of(self))(*args, **kwargs)

    return guarded


def _permitted(answer: Tickets | Denial) -> Tickets:
    if isinstance(answer, Denial):
        raise AgentLatticeDeniedError(
            answer.approval_id,
            answer.reason,
            answer.document.get("policy"),
            message=f"the tool may not run ({answer.reason}): {answer.text}",
            audit_event_id=answer.action_id,
        )
    return answer.take("entered")


def _bound(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], facts: ToolFacts
) -> dict[str, Any]:
    """The arguments of a direct call by name. Raises TypeError where the function itself would."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            found[name] = list(value)
        else:
            found[name] = value
    hidden = facts.injected | _NOT_ARGUMENTS
    return {name: value for name, value in found.items() if name not in hidden}
