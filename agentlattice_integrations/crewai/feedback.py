"""What a flow's method hands on, as an action:

    @human_feedback(message="Publish?", provider=approval_feedback(al, "report.publish"))

- Policy decides first: what it allows goes on at once, what it denies is answered so. Where a person has to decide, the
  flow pauses, and `resume()` of the governed flow goes on by the decision that was taken in the core.
- The feedback that the flow reads is `approved`, or the denial document: route on it with a `@router`.
- `emit=` is refused: CrewAI has a model read the feedback and choose the way, and a model approves nothing.
- One approval lets one output pass, once: a second resume of the same pause reads that it was used.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

from crewai.flow.async_feedback import HumanFeedbackPending, PendingFeedbackContext
from pydantic import BaseModel

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import Denial, ToolCall
from agentlattice_core.toolcalls.gate import ToolGate
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import governed
from agentlattice_integrations.crewai.governor import FRAMEWORK, OnBehalfOf, told
from agentlattice_integrations.crewai.pauses import OURS

__all__ = ["ApprovalFeedback", "approval_feedback", "feedback_of"]

_APPROVED = "approved"


class _Output:
    """Stands for the output where the gate looks for a tool."""


def approval_feedback(
    al: GovernanceClient,
    action_type: str,
    *,
    redact: tuple[str, ...] | list[str] = (),
    on_behalf_of: OnBehalfOf | None = None,
    **mapping: Any,
) -> ApprovalFeedback:
    """A feedback provider that lets a method's output pass only as an allowed action of type `action_type`.

    The action's arguments are `output` (as text), `method` and `message`. `mapping` are further members of
    `ToolMapping`. Raises InvalidRequestError, ValueError or TypeError for a mapping that cannot be used.
    """
    target = governed(action_type, **mapping)(_Output())
    return ApprovalFeedback(ToolGate(al, redact=redact, on_approval="defer"), target, on_behalf_of)


class ApprovalFeedback:
    """What `approval_feedback` returns: CrewAI's `HumanFeedbackProvider`."""

    def __init__(self, gate: ToolGate, target: object, on_behalf_of: OnBehalfOf | None) -> None:
        self.gate = gate
        self._target = target
        self._on_behalf_of = on_behalf_of

    def request_feedback(self, context: PendingFeedbackContext, flow: Any) -> str:
        """Decide on the output: `approved` or the denial document. Raises HumanFeedbackPending to have the flow pause.

        Raises InvalidRequestError where the method has `emit=`.
        """
        if context.emit:
            raise InvalidRequestError(
                f"`emit=` of method `{context.method_name}` has a model choose between {', '.join(context.emit)}; "
                "leave it out and route on the feedback, which is `approved` or a denial"
            )
        saved = {"kind": "output", "id": uuid.uuid4().hex, "on_behalf_of": told(self._on_behalf_of)}
        answer = self.gate.authorize_sync(self.call_for(context, saved))
        if not isinstance(answer, Denial):
            answer.succeeded()
            return _APPROVED
        if answer.status != "pending":
            return answer.text
        asked = {
            "tool": "flow_output",
            "approval_id": answer.approval_id or "",
            "action_id": answer.action_id or "",
        }
        context.metadata = {**context.metadata, OURS: {**saved, "pending": [asked]}}
        raise HumanFeedbackPending(context, callback_info={"approval_ids": [asked["approval_id"]]})

    def call_for(self, context: PendingFeedbackContext, saved: dict[str, Any]) -> ToolCall:
        """The output of a flow that is about to pause, or paused, as a call: the same before and after."""
        return ToolCall(
            FRAMEWORK,
            "flow_output",
            {
                "output": _as_text(context.method_output),
                "method": context.method_name,
                "message": context.message,
            },
            identity=f"{context.flow_id}/{context.method_name}/{saved['id']}",
            kind="executor",
            target=self._target,
            run=f"{context.flow_id}/{saved['id']}",
            on_behalf_of=saved["on_behalf_of"],
            context={"flow": context.flow_class},
        )


def feedback_of(answer: object) -> str:
    """The feedback that the flow reads for an answer of the gate."""
    return answer.text if isinstance(answer, Denial) else _APPROVED


def _as_text(output: Any) -> str:
    """The output as text, which is the same for what the method returned and for what was saved of it."""
    if isinstance(output, str):
        return output
    return json.dumps(output, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
