"""Shell, apply-patch and custom tools: decided on where the SDK asks for approvals, and checked again by the executor.

- `needs_approval` asks the gate. A denial goes out through `on_approval`, the SDK's own way to tell the model why a
  call was rejected; a permitted call needs no approval, and none is recorded for it.
- The application's own `needs_approval` and `on_approval` come first. A call that it lets pass, in whatever way (its
  handler, `state.approve(...)`, an approval for always), is decided on by the executor; a denial is then its output.
- The executor runs only under a permit for exactly what it is given.
- Where runs pause, a call that a person has to decide on is left for `apply_decisions`, and nobody else is asked about
  it. The older local shell has no approvals in the SDK, and waits.
- A patch of several operations is decided on operation by operation; one denial rejects the whole call.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from agents import ApplyPatchTool, CustomTool, LocalShellTool, RunContextWrapper, ShellTool
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.run_internal.tool_execution import coerce_apply_patch_operations, coerce_shell_call

from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_integrations.openai_agents.governor import Governor, HeldPermit, run_permitted, trace_id
from agentlattice_integrations.openai_agents.pausing import answer_before

__all__ = [
    "ExecutorDecisions",
    "decisions_of",
    "govern_apply_patch",
    "govern_custom",
    "govern_local_shell",
    "govern_shell",
]

_MAX_WAITING = 1024


@dataclass(slots=True)
class _Waiting:
    """A permit for one part of a call. `part` is kept so that its id stays its own."""

    call_id: str | None
    part: object
    held: HeldPermit


class ExecutorDecisions:
    """The decisions on one tool's calls, between the approval question and the executor."""

    def __init__(self, governor: Governor, tool: Any) -> None:
        self.governor = governor
        self.tool = tool
        self.name: str = tool.name
        self.own_needs_approval = getattr(tool, "needs_approval", False)
        self.own_on_approval = getattr(tool, "on_approval", None)
        # A governed tool that was given another executor still carries the questions of its first governance.
        earlier = getattr(self.own_needs_approval, "__self__", None)
        if isinstance(earlier, ExecutorDecisions):
            self.own_needs_approval = earlier.own_needs_approval
        earlier = getattr(self.own_on_approval, "__self__", None)
        if isinstance(earlier, ExecutorDecisions):
            self.own_on_approval = earlier.own_on_approval
        self._permits: OrderedDict[Hashable, _Waiting] = OrderedDict()
        self._denials: OrderedDict[tuple[str | None, str], str] = OrderedDict()
        self._paused: OrderedDict[tuple[str | None, str], None] = OrderedDict()
        self._expected: OrderedDict[tuple[str | None, str], tuple[str, ...]] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> ExecutorDecisions:
        """The executor of a deep copy of the tool is still this one's."""
        return self

    def key(self, call_id: str | None, part: object) -> Hashable:
        """What tells one part of one call from all others."""
        return id(part) if isinstance(part, ApplyPatchOperation) else (trace_id(), call_id)

    async def needs_approval(self, context: RunContextWrapper[Any], part: Any, call_id: str) -> bool:
        """The SDK's question before it runs a call: True where somebody else must be heard, or it is denied."""
        if await self.asks_itself(context, part, call_id):
            return True
        call = self.call(context, part, call_id)
        pausing = self.governor.pauses and call.identity is not None
        answer = await (answer_before(self.governor, call) if pausing else self._decided(call))
        if not isinstance(answer, Denial):
            if pausing:
                self.expect(call)
            else:
                self._permits[self.key(call_id, part)] = _Waiting(call_id, part, answer)
                _trim(self._permits)
            return False
        self._forget(call_id)
        asked = (trace_id(), call_id)
        if pausing and answer.status == "pending":
            self._paused[asked] = None
            _trim(self._paused)
        else:
            self._denials[asked] = answer.text
            _trim(self._denials)
        return True

    async def asks_itself(self, context: RunContextWrapper[Any], part: Any, call_id: str) -> bool:
        """Whether the tool's own setting wants the application to approve this part of a call."""
        own = self.own_needs_approval
        if not isinstance(own, bool):
            own = own(context, part, call_id)
            if inspect.isawaitable(own):
                own = await own
        return bool(own)

    async def on_approval(self, context: RunContextWrapper[Any], item: Any) -> Any:
        """The SDK's question when a call needs approval: the denial, or whatever the application's own handler says."""
        asked = (trace_id(), _call_id(item.raw_item) or "")
        denial = self._denials.pop(asked, None)
        if denial is not None:
            return {"approve": False, "reason": denial}
        if asked in self._paused:
            del self._paused[asked]
            return None
        if self.own_on_approval is None:
            return None
        answer = self.own_on_approval(context, item)
        return await answer if inspect.isawaitable(answer) else answer

    async def take(self, context: Any, part: Any, call_id: str | None) -> HeldPermit | Denial:
        """The permit for what is about to run: the one decided on before, or a new decision."""
        waiting = self._permits.pop(self.key(call_id, part), None)
        if waiting is not None and waiting.held.fits(self.name, call_id, _arguments(part)):
            return waiting.held
        call = self.call(context, part, call_id)
        expected = self._expected.pop(_place(call), ()) if call_id is None else ()
        if expected:
            call = self.call(context, part, expected[0])
            if expected[1:]:
                self._expected[_place(call)] = expected[1:]
        kept = self.governor.answers.take(call) if call.identity is not None else None
        return kept if kept is not None else await self._decided(call)

    def expect(self, call: ToolCall) -> None:
        """What runs next with these arguments, in the run of `call`, is this call: an editor is not told."""
        place = _place(call)
        known = self._expected.get(place, ())
        if call.call_id is not None and call.call_id not in known:
            self._expected[place] = (*known, call.call_id)
            _trim(self._expected)

    def parts(self, raw: Any, context: RunContextWrapper[Any]) -> list[Any]:
        """What a call consists of, each as the SDK asks about it and as the executor is given it.

        Raises ModelBehaviorError, as the SDK does, for a call that it would not run.
        """
        if isinstance(self.tool, ShellTool):
            return [coerce_shell_call(raw).action]
        if isinstance(self.tool, ApplyPatchTool):
            return list(coerce_apply_patch_operations(raw, context_wrapper=context))
        return [str(raw.get("input", "") if isinstance(raw, Mapping) else raw.input)]

    def call(self, context: Any, part: Any, call_id: str | None) -> ToolCall:
        """One part of a call, as the gate is asked about it."""
        return self.governor.tool_call(
            self.name,
            _arguments(part),
            context if isinstance(context, RunContextWrapper) else None,
            kind="executor",
            call_id=call_id,
            target=self.tool,
        )

    async def _decided(self, call: ToolCall) -> HeldPermit | Denial:
        answer = await self.governor.decide(call)
        return answer if isinstance(answer, Denial) else HeldPermit(answer, call)

    def _forget(self, call_id: str) -> None:
        for key in [key for key, waiting in self._permits.items() if waiting.call_id == call_id]:
            del self._permits[key]


def decisions_of(tool: object) -> ExecutorDecisions | None:
    """The decisions on a governed tool's calls, if its calls can pause."""
    asked = getattr(getattr(tool, "needs_approval", None), "__self__", None)
    return asked if isinstance(asked, ExecutorDecisions) and asked.governor.pauses else None


def _governed_executor(
    run: Callable[[Any], Any], decisions: ExecutorDecisions
) -> Callable[[Any], Awaitable[Any]]:
    """What runs a shell's commands as `run` does, once they were decided on; else the denial is their output."""

    async def executor(request: Any) -> Any:
        held = await decisions.take(request.ctx_wrapper, request.data.action, request.data.call_id)
        if isinstance(held, Denial):
            return held.text
        return await run_permitted(held, lambda: run(request), _never_failed)

    return executor


def govern_shell(tool: ShellTool, governor: Governor) -> ShellTool:
    """A governed copy of a shell tool that runs here. One with a hosted environment is not for this function."""
    decisions = ExecutorDecisions(governor, tool)
    governed = copy.copy(tool)
    assert tool.executor is not None
    governed.executor = _governed_executor(tool.executor, decisions)
    governed.needs_approval = decisions.needs_approval
    governed.on_approval = decisions.on_approval
    return governed


def govern_local_shell(tool: LocalShellTool, governor: Governor) -> LocalShellTool:
    """A governed copy of the older local shell tool, which has no approvals: the denial is its output."""
    decisions = ExecutorDecisions(governor, tool)
    governed = copy.copy(tool)
    governed.executor = _governed_executor(tool.executor, decisions)
    return governed


def govern_custom(tool: CustomTool, governor: Governor) -> CustomTool:
    """A governed copy of a custom tool; its free text is decided on as the argument `input`."""
    decisions = ExecutorDecisions(governor, tool)
    governed = copy.copy(tool)
    invoke = tool.on_invoke_tool

    async def on_invoke_tool(context: Any, text: str) -> Any:
        held = await decisions.take(context, text, getattr(context, "tool_call_id", None))
        if isinstance(held, Denial):
            return held.text
        return await run_permitted(held, lambda: invoke(context, text), _never_failed)

    governed.on_invoke_tool = on_invoke_tool
    governed.needs_approval = decisions.needs_approval
    governed.on_approval = decisions.on_approval
    return governed


def govern_apply_patch(tool: ApplyPatchTool, governor: Governor) -> ApplyPatchTool:
    """A governed copy of an apply-patch tool: each file operation is decided on."""
    decisions = ExecutorDecisions(governor, tool)
    governed = copy.copy(tool)
    governed.editor = _GovernedEditor(tool.editor, decisions)
    governed.needs_approval = decisions.needs_approval
    governed.on_approval = decisions.on_approval
    return governed


class _GovernedEditor:
    """The application's editor; each operation that changes a file asks for its permit."""

    def __init__(self, editor: Any, decisions: ExecutorDecisions) -> None:
        self._editor = editor
        self._decisions = decisions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._editor, name)

    async def create_file(self, operation: ApplyPatchOperation) -> Any:
        return await self._edit("create_file", operation)

    async def update_file(self, operation: ApplyPatchOperation) -> Any:
        return await self._edit("update_file", operation)

    async def delete_file(self, operation: ApplyPatchOperation) -> Any:
        return await self._edit("delete_file", operation)

    async def _edit(self, method: str, operation: ApplyPatchOperation) -> Any:
        # The editor is not told the call's id; the permit is found by the operation itself.
        held = await self._decisions.take(operation.ctx_wrapper, operation, None)
        if isinstance(held, Denial):
            return ApplyPatchResult(status="failed", output=held.text)
        return await run_permitted(held, lambda: getattr(self._editor, method)(operation), _failed_edit)


def _arguments(part: Any) -> Mapping[str, Any]:
    """What is decided on: the members of the SDK's action that are set, or free text as `input`."""
    if isinstance(part, str):
        return {"input": part}
    if isinstance(part, ApplyPatchOperation):
        members = {"operation": part.type, "path": part.path, "diff": part.diff, "move_to": part.move_to}
    elif hasattr(part, "model_dump"):
        members = cast("dict[str, Any]", part.model_dump(mode="json"))
    else:
        members = {name: getattr(part, name) for name in ("commands", "timeout_ms", "max_output_length")}
    return {name: value for name, value in members.items() if value is not None}


def _place(call: ToolCall) -> tuple[str | None, str]:
    return (call.run, json.dumps(call.arguments, sort_keys=True))


def _call_id(raw: Any) -> str | None:
    found = raw.get("call_id") if isinstance(raw, Mapping) else getattr(raw, "call_id", None)
    return found if isinstance(found, str) else None


def _trim(waiting: OrderedDict[Any, Any]) -> None:
    while len(waiting) > _MAX_WAITING:
        waiting.popitem(last=False)


def _never_failed(_result: Any) -> None:
    return None


def _failed_edit(result: Any) -> str | None:
    if isinstance(result, ApplyPatchResult) and result.status == "failed":
        return result.output or "the editor reported a failure"
    return None
