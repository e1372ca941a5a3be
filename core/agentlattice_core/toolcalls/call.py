"""A framework's tool call, and the two answers a gate gives to it.

- An adapter turns whatever its framework calls a tool call into a `ToolCall`, asks the gate, and gets a `Permit` or a
  `Denial`. Only a `Permit` lets the tool run, and only with the arguments it was given for.
- A permit is the claim of one run. Whoever holds it reports how the run went, once; a retry is a new call with the next
  `attempt` and needs a permit of its own.
- A denial is data for the model, never an exception.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentlattice_core.results import ActionResult

__all__ = ["CallKind", "Denial", "OnApproval", "Permit", "ToolCall", "is_held_here"]

CallKind = Literal["function", "mcp", "handoff", "agent", "hosted", "executor"]
OnApproval = Literal["pause", "wait", "defer"]


@dataclass(slots=True)
class ToolCall:
    """One call of one tool, as the framework is about to make it. Nobody changes it once it is made.

    `arguments` is what the tool will receive: a mapping, or the raw text the model wrote (then it must be a JSON
    object). `schema` is the tool's JSON Schema or pydantic model, used to canonicalise the arguments where the
    framework shows the gate raw ones. `identity` is the framework's own stable identity of this call, such as
    `thread/checkpoint namespace/tool call id`; None means that there is none, and the call is not idempotent. `attempt`
    counts the framework's own retries of the same call, from 1. `target` is the tool object or function, on which the
    mapping looks for what `@governed` left. `run`, `on_behalf_of` and `context` say who acts; `context` holds ids (text
    and whole numbers), never secrets. `injected` names the arguments that the framework itself adds (runtime, state,
    store): they are neither decided on nor recorded, and not in the permit's arguments. `suspended` says that the call
    may have suspended itself inside, and come again to go on under the claim that it has.
    """

    framework: str
    tool: str
    arguments: Mapping[str, Any] | str | bytes
    call_id: str | None = None
    identity: str | None = None
    attempt: int = 1
    kind: CallKind = "function"
    target: object | None = None
    schema: Any = None
    run: str | None = None
    on_behalf_of: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    injected: frozenset[str] = frozenset()
    suspended: bool = False


@dataclass(slots=True, weakref_slot=True, eq=False)
class Permit:
    """The right to run the tool once, with exactly the arguments that were decided on.

    `action_id` is the action's id in the log and the idempotency key for the tool. `arguments` are the arguments as the
    framework gave them, parsed if the call carried text, as a copy of their own; `arguments_digest` commits to their
    canonical form (validated against the tool's schema), which is what was decided on. Call exactly one of
    `succeeded`, `failed` or `abandoned`; none of them waits for the disk, and only the first one counts.
    """

    action_id: str
    arguments: Mapping[str, Any]
    arguments_digest: str
    result: ActionResult
    _report: Callable[[str, str | None], None] = field(repr=False)
    _digest: Callable[[Mapping[str, Any] | str | bytes], str | None] = field(repr=False)
    _reported: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        _permits[self.action_id] = self

    def covers(self, arguments: Mapping[str, Any] | str | bytes) -> bool:
        """Whether `arguments`, about to be used, are the ones that were decided on. Never raises."""
        return self._digest(arguments) == self.arguments_digest

    def succeeded(self) -> None:
        """The tool returned."""
        self._once("succeeded", None)

    def failed(self, error: BaseException | str) -> None:
        """The tool raised, or returned what its framework calls an error."""
        self._once("failed", _said(error)[:1000])

    def abandoned(self, why: str) -> None:
        """Nobody can say whether the tool ran to its end (cancelled, suspended inside): the claim reads `unknown`."""
        self._once("unknown", why)

    def _once(self, outcome: str, message: str | None) -> None:
        if not self._reported:
            self._reported = True
            self._report(outcome, message)


_permits: weakref.WeakValueDictionary[str, Permit] = weakref.WeakValueDictionary()


def is_held_here(action_id: str) -> bool:
    """Whether somebody in this process has the permit of this action, and can still say how it went, or has said so."""
    return action_id in _permits


def _said(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


@dataclass(frozen=True, slots=True)
class Denial:
    """Why the tool must not run, for the model to read.

    `document` follows the published JSON Schema (`denial.schema.json`); `text` is its stable JSON text, the same
    bytes for the same refusal. `status` is `denied`, `pending`, `timed_out` or `unknown`; `reason` the code in the
    document.
    """

    document: Mapping[str, Any]
    text: str
    status: Literal["denied", "pending", "timed_out", "unknown"]
    reason: str
    approval_id: str | None = None
    action_id: str | None = None
