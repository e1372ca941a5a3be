"""What a person's interface is shown of a paused call, and what it sends back.

- A request is the one that LangChain's human-in-the-loop middleware makes, with a single action, so that interfaces
  built for it (agent-chat-ui, Agent Inbox) show it; beside it stands `governance`, which says what is asked for.
- An answer is read in the shapes these interfaces send: `{"decisions": [...]}`, one decision by itself, or a list of
  Agent Inbox's responses. Whatever else comes is no decision: it only wakes the graph.
- Secrets are redacted in what is shown. Where an edit leaves such a place as it was shown, the call's own value stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentlattice_core.toolcalls.call import Denial

__all__ = ["GOVERNANCE", "Answer", "edited_arguments", "pause_request", "read_answer"]

GOVERNANCE = "governance"
_KINDS: Mapping[str, Literal["approve", "edit", "reject"]] = {
    "approve": "approve",
    "accept": "approve",
    "edit": "edit",
    "reject": "reject",
    "ignore": "reject",
    # An answer in the tool's place is one more way of not running it.
    "respond": "reject",
    "response": "reject",
}
_MOST_OF_A_REASON = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `none` decides nothing; `note` then says what was wrong with it, if anything was."""

    kind: Literal["approve", "edit", "reject", "none"]
    arguments: Mapping[str, Any] | None = None
    reason: str | None = None
    note: str | None = None


def pause_request(
    denial: Denial,
    *,
    name: str,
    arguments: Mapping[str, Any],
    call_id: str,
    run: str,
    edited: Mapping[str, Any] | None,
    note: str | None,
) -> dict[str, Any]:
    """The value of the interrupt for a call that waits for a person. `run` is how a later run finds its action."""
    document = denial.document
    policy = f" Policy `{document['policy']}` asks for it." if document.get("policy") else ""
    description = (
        f"`{name}` ({document['action_type']}) has to be approved before it runs.{policy} "
        f"Approval `{denial.approval_id}`."
    )
    governance: dict[str, Any] = {
        "approval_id": denial.approval_id,
        "action_id": denial.action_id,
        "action_type": document["action_type"],
        "policy": document.get("policy"),
        "tool_call_id": call_id,
        "tool": name,
        "run": run,
    }
    if edited is not None:
        governance["edited"] = dict(edited)
    if note is not None:
        governance["note"] = note
        description = f"{description} {note}"
    return {
        "action_requests": [{"name": name, "args": dict(arguments), "description": description}],
        "review_configs": [{"action_name": name, "allowed_decisions": ["approve", "edit", "reject"]}],
        GOVERNANCE: governance,
    }


def read_answer(value: Any, name: str) -> Answer:
    """What `value`, with which the graph was resumed, says of the paused call of tool `name`. Never raises."""
    decisions = value.get("decisions") if isinstance(value, Mapping) and "decisions" in value else value
    if isinstance(decisions, list):
        if len(decisions) != 1:
            return Answer("none", note=f"An answer held {len(decisions)} decisions for one call.")
        decisions = decisions[0]
    if not isinstance(decisions, Mapping) or "type" not in decisions:
        return Answer("none")
    kind = _KINDS.get(str(decisions["type"]))
    if kind is None:
        return Answer("none", note=f"An answer was of the unknown type `{str(decisions['type'])[:40]}`.")
    if kind == "edit":
        return _read_edit(decisions, name)
    if kind == "reject":
        return Answer("reject", reason=_reason(decisions))
    return Answer("approve")


def _read_edit(decision: Mapping[str, Any], name: str) -> Answer:
    found: Any = decision.get("edited_action", decision.get("args"))
    if isinstance(found, Mapping) and isinstance(found.get("args"), Mapping):
        named = found.get("name", found.get("action", name))
        if named != name:
            return Answer("none", note=f"An edit may not turn a call of `{name}` into one of another tool.")
        found = found["args"]
    if not isinstance(found, Mapping) or not all(isinstance(member, str) for member in found):
        return Answer("none", note="An edit came without arguments.")
    return Answer("edit", arguments=dict(found))


def _reason(decision: Mapping[str, Any]) -> str | None:
    for member in ("message", "args", "reason"):
        said = decision.get(member)
        if isinstance(said, str) and said.strip():
            return said.encode("utf-8", "backslashreplace").decode()[:_MOST_OF_A_REASON]
    return None


def edited_arguments(
    edited: Mapping[str, Any], shown: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """`edited`, with the call's `own` value wherever what was `shown` of it was left as it was."""
    return {
        name: own[name] if name in own and name in shown and shown[name] == value else value
        for name, value in edited.items()
    }
