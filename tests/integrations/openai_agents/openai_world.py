"""A governance for one test: a real gate over a client that decides by name, and what was recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from agentlattice_core.errors import NotRecordedError
from agentlattice_core.results import ActionOptions, ActionResult

__all__ = ["World", "is_denial"]


class World:
    """A client that denies what it is told to. `types`, `statuses` and `outcomes` read what was recorded, in order."""

    mode = "enforce"

    def __init__(self, *deny: str, broken: bool = False) -> None:
        self.deny = set(deny)
        self.broken = broken
        self.entries: list[dict[str, Any]] = []
        self._answers: dict[str, tuple[ActionResult, dict[str, Any]]] = {}

    @property
    def types(self) -> list[str]:
        return [entry["type"] for entry in self.entries]

    @property
    def statuses(self) -> list[str]:
        return [entry["status"] for entry in self.entries]

    @property
    def outcomes(self) -> list[str | None]:
        return [entry["outcome"] for entry in self.entries]

    @property
    def arguments(self) -> list[Any]:
        return [entry["metadata"] for entry in self.entries]

    def execute_sync(
        self,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
    ) -> ActionResult:
        if self.broken:
            raise NotRecordedError("the log cannot be written: disk full")
        event_id = options.event_id if options is not None else None
        if event_id is not None and event_id in self._answers:
            answer, entry = self._answers[event_id]
            return dataclasses.replace(answer, replayed=True, claim=entry["outcome"] or "started")
        denied = action_type in self.deny
        entry = {
            "id": f"evt-{len(self.entries)}",
            "type": action_type,
            "status": "denied" if denied else "executed",
            "metadata": dict((options.metadata if options is not None else None) or {}),
            "context": dict(context or {}),
            "on_behalf_of": options.on_behalf_of if options is not None else None,
            "outcome": None,
            "message": None,
        }
        self.entries.append(entry)
        answer = (
            ActionResult("denied", entry["id"], denial_reason="POLICY_DENIED", policy_name="Forbidden")
            if denied
            else ActionResult("executed", entry["id"], claim="started", policy_name="Allowed")
        )
        if event_id is not None:
            self._answers[event_id] = (answer, entry)
        return answer

    async def execute(
        self, action_type: str, options: ActionOptions | None = None, **more: Any
    ) -> ActionResult:
        return self.execute_sync(action_type, options, **more)

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        for entry in self.entries:
            if entry["id"] == audit_event_id:
                entry["outcome"], entry["message"] = claim, message

    def record_refusal_sync(
        self, action_type: str, reason: str, message: str, context: Mapping[str, Any] | None = None
    ) -> ActionResult:
        entry = {
            "id": f"evt-{len(self.entries)}",
            "type": action_type,
            "status": "denied",
            "metadata": {},
            "context": dict(context or {}),
            "on_behalf_of": None,
            "outcome": None,
            "message": reason,
        }
        self.entries.append(entry)
        return ActionResult("denied", entry["id"], denial_reason=reason)

    async def record_refusal(self, *given: Any, **more: Any) -> ActionResult:
        return self.record_refusal_sync(*given, **more)


def is_denial(output: Any, reason: str = "POLICY_DENIED") -> bool:
    """Whether what the model was shown for a call is a denial document with this reason, and nothing else."""
    document = json.loads(output) if isinstance(output, str) else {}
    return bool(document.get("type") == "agentlattice.denial/v1" and document["reason"] == reason)
