"""What a flow's method has asked and done, so that it can pause, end with its process, and go on elsewhere.

- CrewAI can pause a flow between its methods and nowhere else. When a tool call has to wait for a person, the run
  of the crew ends, the flow pauses at the method that ran it, and resuming starts that method again.
- A call in a method is told by the flow's id, one id for each run of the flow, the method and how often it was
  started, the agent's role, the tool, the digest of its arguments, and how often the same call was made before. The
  same call made by the method when it starts again is the same action: what was answered before is answered so
  again, and what ran does not run again.
- What the tools returned before the pause is kept with the paused flow, so that the model reads it again.
- A tool that was suspended because something inside it waits for a person (a delegation) is started again, as a
  further attempt of its own: the claim of the first one reads `unknown`.
- A method can pause where its arguments survive a restart (plain JSON), where nothing else of the flow is under
  way, and where nothing but agents stands between it and the call. Everywhere else the call waits.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from crewai.flow.async_feedback import HumanFeedbackPending, PendingFeedbackContext
from crewai.hooks.dispatch import HookAborted

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.pauses import register_pause
from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_integrations.crewai.scope import under_way

__all__ = [
    "OURS",
    "FlowRun",
    "MethodRun",
    "PauseRun",
    "Place",
    "call_place",
    "current_flow",
    "current_method",
    "is_waited_for",
    "pausable_method",
    "saved_pause",
]

OURS = "agentlattice"
"""The member of a paused flow's metadata that is ours."""


class PauseRun(HookAborted):
    """Ends the run of a crew or an agent, whose flow then pauses: a tool call in it waits for a person."""

    def __init__(self) -> None:
        super().__init__("a tool call waits for a person, so the run ends here and its flow pauses", OURS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its run a call stands: its identity, and which attempt at it this is."""

    identity: str
    attempt: int = 1


def call_place(
    base: str, counts: Counter[str], tool: str, arguments: Mapping[str, Any], role: str | None
) -> str:
    """The identity of the next call of this tool with these arguments by an agent of this role under `base`.

    `counts` is what was made so far under `base`; the caller holds its lock.
    """
    text = json.dumps(arguments, sort_keys=True, default=str)
    made = f"{role or '-'}/{tool}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    counts[made] += 1
    return f"{base}/{made}/{counts[made]}"


register_pause(PauseRun)
register_pause(HumanFeedbackPending)


class FlowRun:
    """One run of a flow, over all the processes that it takes."""

    def __init__(self, flow: Any, run: str | None = None) -> None:
        self.flow = flow
        self.id = run or uuid.uuid4().hex[:16]
        self.started: Counter[str] = Counter()
        self.under_way: set[MethodRun] = set()
        self._again: Mapping[str, Any] | None = None

    @classmethod
    def again(cls, flow: Any, saved: Mapping[str, Any]) -> FlowRun:
        """The run that was paused, about to start its paused method again."""
        run = cls(flow, saved["run"])
        run.started.update(saved["started"])
        run._again = saved
        return run

    def begin(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> MethodRun:
        """A method starts. The paused one starts with the arguments that it had."""
        saved = self._again
        if saved is not None and saved["method"] == name:
            self._again = None
            method = MethodRun(self, name, saved["start"], tuple(saved["args"]), saved["kwargs"])
            method.kept.update(saved["kept"])
            method.suspended.update(saved["suspended"])
        else:
            self.started[name] += 1
            method = MethodRun(self, name, self.started[name], args, kwargs)
        self.under_way.add(method)
        return method


@dataclass(eq=False)
class MethodRun:
    """One start of a flow's method, and the tool calls that were made in it."""

    flow_run: FlowRun
    name: str
    start: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    kept: dict[str, str] = field(default_factory=dict)
    suspended: Counter[str] = field(default_factory=Counter)
    pending: dict[str, dict[str, str]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def run(self) -> str:
        """The run of the flow, as the log calls it."""
        return f"{self.flow_run.flow.flow_id}/{self.flow_run.id}"

    def place(self, tool: str, arguments: Mapping[str, Any], role: str | None) -> Place:
        """Where the call that is about to be made stands."""
        with self._lock:
            identity = call_place(f"{self.run}/{self.name}/{self.start}", self._counts, tool, arguments, role)
        return Place(identity, 1 + self.suspended[identity])

    def can_pause(self) -> bool:
        """Whether the flow can pause here and be resumed by another process. See the module."""
        return (
            self.flow_run.flow.persistence is not None
            and self.flow_run.under_way == {self}
            and _is_plain(self.args)
            and _is_plain(self.kwargs)
        )

    def waits_for(self, call: ToolCall, denial: Denial) -> None:
        """A person is asked about `call`: the flow pauses as soon as its crew lets it."""
        told = {
            "tool": call.tool,
            "approval_id": denial.approval_id or "",
            "action_id": denial.action_id or "",
        }
        with self._lock:
            self.pending[told["action_id"]] = told
        start = under_way.get()
        while start is not None:
            start.suspended = True
            start = start.outer

    def pause(self) -> HumanFeedbackPending:
        """What makes CrewAI pause the flow at this method."""
        flow = self.flow_run.flow
        asked = list(self.pending.values())
        named = ", ".join(dict.fromkeys(told["tool"] for told in asked))
        with self._lock:
            saved = {
                "kind": "tools",
                "run": self.flow_run.id,
                "method": self.name,
                "start": self.start,
                "started": dict(self.flow_run.started),
                "args": list(self.args),
                "kwargs": dict(self.kwargs),
                "kept": dict(self.kept),
                "suspended": dict(self.suspended),
                "pending": asked,
            }
        context = PendingFeedbackContext(
            flow_id=flow.flow_id,
            flow_class=f"{type(flow).__module__}.{type(flow).__name__}",
            method_name=self.name,
            method_output=None,
            message=f"waiting for a person to decide on: {named}",
            metadata={OURS: saved},
        )
        return HumanFeedbackPending(
            context, callback_info={"approval_ids": [told["approval_id"] for told in asked]}
        )


current_flow: ContextVar[FlowRun | None] = ContextVar("agentlattice_crewai_flow", default=None)
"""The run of the innermost governed flow."""
current_method: ContextVar[MethodRun | None] = ContextVar("agentlattice_crewai_method", default=None)
"""The method of that flow which is running."""


def pausable_method() -> MethodRun | None:
    """The method at which the flow can pause for a call made now; None: the call has to wait."""
    method = current_method.get()
    if method is None or not method.can_pause():
        return None
    start = under_way.get()
    while start is not None:
        if start.kind != "agent":
            return None
        start = start.outer
    return method


def is_waited_for(denial: Denial) -> bool:
    """Whether the flow is about to pause for the call that was answered so."""
    method = current_method.get()
    return method is not None and denial.action_id in method.pending


def saved_pause(context: PendingFeedbackContext | None) -> dict[str, Any] | None:
    """What was saved with a flow that paused for a person here; None: it paused for something else.

    Raises InvalidRequestError where it was saved in a form that is not known.
    """
    saved = None if context is None else context.metadata.get(OURS)
    if saved is None:
        return None
    if not isinstance(saved, dict) or saved.get("kind") not in ("tools", "output"):
        raise InvalidRequestError(
            "the paused flow was saved in a form that this version does not know; resume it with the version "
            "that paused it"
        )
    return saved


def _is_plain(value: Any) -> bool:
    """Whether `value` is the same after JSON."""
    try:
        return bool(json.loads(json.dumps(value, default=_refuse)) == _listed(value))
    except (TypeError, ValueError):
        return False


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _refuse(value: Any) -> Any:
    raise TypeError(f"`{type(value).__name__}` is not plain JSON")
