"""The one document a model reads when its tool call did not run.

- The same members in the same order whatever the reason, framework and policy; `denial.schema.json` describes them.
- The text is stable: no times and no ids, except `approval_id` while a person is asked. The same refusal gives the same
  bytes, so that frameworks and tests can compare it.
- It says what to do next in plain sentences, derived from what failed, so that a small model can act on it.
- It shows only what the policy lets the agent see: the core has blanked the rest, and blank stays blank.
- Making one never fails, whatever the values in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import orjson

from agentlattice_core.results import ActionResult, ConditionResult, RuleResult
from agentlattice_core.toolcalls.call import Denial
from agentlattice_core.toolcalls.redaction import redact_text

__all__ = ["DOCUMENT_TYPE", "REASONS", "denial_from_result", "denial_schema", "refusal"]

DOCUMENT_TYPE: Final = "agentlattice.denial/v1"

Status = Literal["denied", "pending", "timed_out", "unknown"]
Retry = Literal["change", "later", "never"]

_UNCHANGEABLE: Final = ("agent.", "time.")
_LONGEST_VALUE: Final = 200

REASONS: Final[Mapping[str, tuple[str, Retry]]] = {
    "CONDITIONS_DENIED": ("a condition of the policy is not met", "change"),
    "POLICY_DENIED": ("policy forbids it", "never"),
    "POLICY_NOT_FOUND": ("no policy allows it", "never"),
    "RULE_REJECTED": ("a rule of the policy rejects it", "change"),
    "LIMIT_EXCEEDED": ("it would exceed a limit", "change"),
    "OUT_OF_SCOPE": ("this agent was not given the right to do it", "never"),
    "POLICY_TAMPERED": ("the policy that governs it fails its integrity check", "never"),
    "DENIED_BY_REVIEWER": ("a person decided against it", "never"),
    "approval_timeout": ("nobody decided on it in time", "later"),
    "APPROVAL_CANCELLED": ("the request for approval was cancelled", "never"),
    "APPROVAL_PENDING": ("a person has to approve it first, and has been asked", "later"),
    "CIRCUIT_BREAKER_OPEN": ("this agent has been halted until a person resumes it", "never"),
    "NOT_RECORDED": ("it could not be recorded, and nothing runs unrecorded", "later"),
    "INVALID_ARGUMENTS": ("its arguments cannot be used", "change"),
    "MAPPING_FAILED": ("what it would do could not be worked out from its arguments", "change"),
    "ARGUMENTS_CHANGED": ("its arguments are not the ones that were decided on", "change"),
    "DEADLINE_OVER": ("the time its caller was given is over", "later"),
    "NOT_COVERABLE": ("it would run where it cannot be governed", "never"),
    "EVENT_ID_CONFLICT": ("the same call was decided on before with other content", "change"),
    "OUTCOME_UNKNOWN": ("it was started before and nobody knows whether it finished", "never"),
    "CLAIM_LAPSED": ("it was allowed before, but its caller was gone before it ran", "later"),
    "ALREADY_RAN": ("it ran before, and runs once only", "never"),
    "FORBIDDEN": ("this agent may not do it", "never"),
}
"""Each reason code: what it means, in half a sentence, and whether calling again can succeed."""

_DECIDED_BY_A_PERSON: Final = ("DENIED_BY_REVIEWER", "APPROVAL_CANCELLED")

_RULES_THAT_A_CHANGE_HELPS: Final = ("AMOUNT_THRESHOLD", "DAILY_CAP", "BENEFICIARY_WHITELIST")

_PHRASES: Final[Mapping[str, str]] = {
    "eq": "set {field} to {expected}",
    "neq": "set {field} to something other than {expected}",
    "lt": "set {field} below {expected}",
    "lte": "set {field} to at most {expected}",
    "gt": "set {field} above {expected}",
    "gte": "set {field} to at least {expected}",
    "in": "set {field} to one of {expected}",
    "not_in": "set {field} to none of {expected}",
    "contains": "make {field} contain {expected}",
    "not_contains": "make {field} not contain {expected}",
    "starts_with": "make {field} start with {expected}",
    "not_starts_with": "make {field} not start with {expected}",
    "ends_with": "make {field} end with {expected}",
    "not_ends_with": "make {field} not end with {expected}",
    "matches": "make {field} match the pattern {expected}",
    "not_matches": "make {field} not match the pattern {expected}",
    "between": "set {field} to a value between {expected}",
    "not_between": "set {field} to a value not between {expected}",
    "subset_of": "use only these values in {field}: {expected}",
    "not_subset_of": "use at least one value in {field} that is not among {expected}",
    "cidr": "set {field} to an address in {expected}",
    "not_cidr": "set {field} to an address outside {expected}",
}


def denial_from_result(
    result: ActionResult, *, tool: str, action_type: str, constant: Iterable[str] = (), executed: bool = False
) -> Denial:
    """The denial for a result that does not let the tool run.

    `constant` names the fields that the tool's mapping fixes, so that the model is not told to change them. `executed`
    says that this very call was claimed before: the denial then tells what is known of that run.
    """
    if executed:
        return _already(result, tool, action_type)
    status: Status
    if result.status == "requested":
        status, reason = "pending", "APPROVAL_PENDING"
    elif result.status == "timed_out":
        status, reason = "timed_out", result.denial_reason or "approval_timeout"
    elif result.status == "executed":
        status, reason = "denied", "CLAIM_LAPSED"
    elif result.status == "policy_not_found":
        status, reason = "denied", result.denial_reason or "POLICY_NOT_FOUND"
    else:
        status, reason = "denied", result.denial_reason or "POLICY_DENIED"
    failed = [condition for condition in result.conditions_evaluated if not condition.result]
    if status != "denied" or reason in _DECIDED_BY_A_PERSON:
        failed = []  # what made a person be asked is not what the model should change
    rules = [rule for rule in result.rules_fired if rule.effect != "AUTO_APPROVE"]
    changes = _changes(failed, frozenset(constant))
    if status == "denied" and reason == "LIMIT_EXCEEDED":
        changes = _within_caps(rules)
    return _denial(
        status=status,
        reason=reason,
        tool=tool,
        action_type=action_type,
        policy=result.policy_name,
        message=result.message,
        conditions=failed,
        rules=rules,
        changes=changes,
        retry=_retry(reason, failed, changes, rules),
        approval_id=result.approval_id,
        action_id=result.audit_event_id or None,
        executed=False,
    )


def refusal(
    reason: str, message: str | None, *, tool: str, action_type: str, action_id: str | None = None
) -> Denial:
    """The denial for a call that was refused without a decision of policy; `message` is one line for the model."""
    retry: Retry = REASONS.get(reason, ("", "never"))[1]
    changes = [f"correct this: {message}"] if message and retry == "change" else []
    return _denial(
        status="denied",
        reason=reason,
        tool=tool,
        action_type=action_type,
        policy=None,
        message=message,
        conditions=[],
        rules=[],
        changes=changes,
        retry=retry,
        approval_id=None,
        action_id=action_id,
        executed=False,
    )


@cache
def denial_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every denial document follows."""
    text = (
        resources.files("agentlattice_core.toolcalls")
        .joinpath("denial.schema.json")
        .read_text(encoding="utf-8")
    )
    schema: dict[str, Any] = json.loads(text)
    return schema


def _already(result: ActionResult, tool: str, action_type: str) -> Denial:
    if result.claim in ("succeeded", "failed"):
        reason = "ALREADY_RAN"
        message = (
            f"this call already ran and {result.claim}; its result is not kept here and it is not run again"
        )
    else:
        reason = "OUTCOME_UNKNOWN"
        message = "this call was started before and nobody knows whether it finished; it is not retried automatically"
    return _denial(
        status="unknown",
        reason=reason,
        tool=tool,
        action_type=action_type,
        policy=result.policy_name,
        message=message,
        conditions=[],
        rules=[],
        changes=[],
        retry="never",
        approval_id=None,
        action_id=result.audit_event_id or None,
        executed=True if reason == "ALREADY_RAN" else None,
    )


def _denial(
    *,
    status: Status,
    reason: str,
    tool: str,
    action_type: str,
    policy: str | None,
    message: str | None,
    conditions: list[ConditionResult],
    rules: list[RuleResult],
    changes: list[str],
    retry: Retry,
    approval_id: str | None,
    action_id: str | None,
    executed: bool | None,
) -> Denial:
    document = _encodable(
        {
            "type": DOCUMENT_TYPE,
            "status": status,
            "executed": executed,
            "summary": _summary(tool, reason, policy, executed),
            "tool": tool,
            "action_type": action_type,
            "reason": reason,
            "policy": policy,
            "message": redact_text(_text(message)) if message else None,
            "failed_conditions": [
                {
                    "field": condition.field,
                    "operator": condition.operator,
                    "expected": condition.expected,
                    "actual": condition.actual,
                }
                for condition in conditions
            ],
            "rules": [
                {"policy": rule.policy, "type": rule.type, "effect": rule.effect, "message": rule.message}
                for rule in rules
            ],
            "retry_can_succeed": retry != "never",
            "what_to_change": changes,
            "next_step": _next_step(status, reason, retry, changes),
            "approval_id": approval_id if status == "pending" else None,
        }
    )
    return Denial(document, orjson.dumps(document).decode(), status, reason, approval_id, action_id)


def _summary(tool: str, reason: str, policy: str | None, executed: bool | None) -> str:
    why = REASONS.get(reason, (f"it was refused ({reason})", "never"))[0]
    by = f" (policy `{policy}`)" if policy else ""
    if executed is False:
        return f"The call of `{tool}` did not run: {why}{by}."
    return f"The call of `{tool}` was not run again: {why}{by}."


def _next_step(status: Status, reason: str, retry: Retry, changes: list[str]) -> str:
    if status == "pending":
        return (
            "Go on with other work. To find out whether it was approved, call the same tool with exactly the same "
            "arguments again later; once it is approved, that call runs."
        )
    if reason == "NOT_RECORDED":
        return (
            "Nothing was done. You may make the same call once more later; if it fails again, tell the user."
        )
    if reason == "CLAIM_LAPSED":
        return "Nothing was done. If it is still wanted, call the tool again as a new call."
    if retry == "later":
        return "Nothing was done. You may make the same call again later, or tell the user."
    if retry == "change":
        done = "make these changes" if changes else "change what was refused"
        return f"Nothing was done. Do not repeat the same call: {done}, then call the tool again."
    if status == "unknown":
        return "Do not make this call again by yourself. Tell the user, who can find out what it did."
    return "Nothing was done. Do not make this call again: do without it, or tell the user."


def _retry(
    reason: str, failed: list[ConditionResult], changes: list[str], rules: Iterable[RuleResult]
) -> Retry:
    usual = REASONS.get(reason, ("", "never"))[1]
    if reason == "LIMIT_EXCEEDED" and any(_remaining(rule) == 0 for rule in rules):
        return "later"
    if reason == "CONDITIONS_DENIED" and failed and not changes:
        return "later" if any(_field(condition).startswith("time.") for condition in failed) else "never"
    if reason == "RULE_REJECTED":
        rejecting = [rule.type for rule in rules if rule.effect == "REJECT"]
        if "TIME_WINDOW" in rejecting and len(rejecting) == 1:
            return "later"
        if rejecting and not all(kind in _RULES_THAT_A_CHANGE_HELPS for kind in rejecting):
            return "never"
    return usual


def _changes(failed: list[ConditionResult], constant: frozenset[str]) -> list[str]:
    """What would make each failed condition pass. Empty if any of them is out of the model's hands."""
    if any(
        _field(condition) in constant or _field(condition).startswith(_UNCHANGEABLE) for condition in failed
    ):
        return []
    changes: list[str] = []
    for condition in failed:
        change = _change(condition)
        if change is not None and change not in changes:
            changes.append(change)
    return changes


def _within_caps(rules: Iterable[RuleResult]) -> list[str]:
    """The largest amount that every exceeded cap still has room for, where the policy shows it and there is any."""
    return [
        f"keep the amount to at most {remaining} {rule.details.get('currency')}, which is what is left of today's cap"
        for rule in rules
        if rule.effect == "REJECT" and (remaining := _remaining(rule))
    ]


def _remaining(rule: RuleResult) -> Decimal | None:
    """What an exceeded cap has left; None where the rule is no cap or the policy hides it."""
    remaining = rule.details.get("remaining")
    try:
        return Decimal(remaining) if isinstance(remaining, str) else None
    except InvalidOperation:
        return None


def _change(condition: ConditionResult) -> str | None:
    field, operator = _field(condition), str(condition.operator)
    if not field:
        return None  # the policy hides what failed
    was = f" (it was {_shown(condition.actual)})" if condition.actual is not None else ""
    if operator in ("exists", "not_exists"):
        wanted = condition.expected is not False
        return f"include {field}" if wanted == (operator == "exists") else f"leave out {field}"
    if condition.expected is None:
        return f"change {field}{was}"
    phrase = _PHRASES.get(operator)
    if phrase is None:
        return f"change {field} so that `{operator} {_shown(condition.expected)}` holds{was}"
    if operator in ("between", "not_between") and isinstance(condition.expected, list | tuple):
        expected = " and ".join(_shown(bound) for bound in condition.expected)
    else:
        expected = _shown(condition.expected)
    return phrase.format(field=field, expected=expected) + was


def _field(condition: ConditionResult) -> str:
    return str(condition.field or "").removeprefix("metadata.")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, list | tuple):
        text = ", ".join(_shown(item) for item in value)
    else:
        encodable = _encodable(value)
        text = encodable if isinstance(encodable, str) else orjson.dumps(encodable).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _encodable(value: Any, depth: int = 0) -> Any:
    """`value` as JSON that every encoder takes, whatever it is."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, int) and kind is not bool:
        return int(value) if -(2**53) < value < 2**53 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if depth > 64:
        return "..."
    if isinstance(value, Mapping):
        return {_text(name): _encodable(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_encodable(item, depth + 1) for item in items]
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    return _text(value)


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:
        text = f"a value of type {type(value).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()
