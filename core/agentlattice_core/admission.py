"""The one path of every action: identify, decide, reserve, record; then claim, run once, report.

- `execute` decides and records in one transaction. An allowed action is admitted and claimed in it: whoever gets the
  answer holds the right to run it once.
- An action that needs a person reserves its charges and waits. `claim` takes an approved one: a compare-and-set that
  re-runs the whole decision first, because policy, limits and time may have moved on. Its charges move to the claim's
  day.
- A claim is started, then succeeded, failed or unknown; an unknown one becomes succeeded or failed if somebody comes
  who knows. A grant that was not used in time, or whose caller is gone, lapses. Nothing makes a claim startable again.
- An event id is unique per agent. The same id with the same content returns the first answer, marked `replayed`;
  with other content it is a conflict. A replay never runs anything.
- In observe mode everything is decided and recorded as usual, nothing waits for a person, and the caller may go on
  whatever the answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, Protocol

import orjson

from agentlattice_core import deadlines, keys, quorum, reevaluation
from agentlattice_core.actions import Action, check_json
from agentlattice_core.agents import agent_facts
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.errors import (
    EventIdConflictError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
    NotYourEventError,
)
from agentlattice_core.policies import Policies
from agentlattice_core.policy.decision import ApprovalTerms, Charge, Decision, Facts
from agentlattice_core.policy.explain import hide
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionResult, ConditionResult, ReportOutcome, ReportResult, RuleResult
from agentlattice_core.stores.base import Document, Row
from agentlattice_core.stores.projections import action_key, event_key

__all__ = [
    "Caller",
    "abandon",
    "acting",
    "check_id",
    "checked_context",
    "checked_text",
    "claim",
    "execute",
    "index_of",
    "original_result",
    "record_claim_outcome",
    "refuse",
    "report",
    "resolved_reason",
    "result_of",
    "stored_action",
]

_STATUS = {
    "allow": "executed",
    "require_approval": "requested",
    "deny": "denied",
    "not_found": "policy_not_found",
}
_OUTCOMES = ("success", "failure", "partial")
_CLAIM_OUTCOMES = ("succeeded", "failed", "unknown")
_ZERO = Decimal(0)


class _Rows(Protocol):
    def row(self, index: int) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent on whose behalf commands run. `context` holds the framework's ids, never secrets.

    `key` is the SHA-256 of the key by which it was established, if it was by one.
    """

    agent: str
    mode: str = "enforce"
    established: str = "asserted"
    context: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


def acting(batch: Batch, caller: Caller) -> AgentFacts:
    """Who the caller is. Raises InvalidKeyError if the key that says so is no longer in force, NotFoundError."""
    keys.check(batch, caller.key)
    return agent_facts(batch, caller.agent)


def checked_context(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """The framework's ids as plain JSON. Raises InvalidRequestError."""
    check_json(context, "context", max_bytes=16_384)
    checked: Mapping[str, Any] = orjson.loads(orjson.dumps(dict(context)))
    return checked


def checked_text(name: str, text: str) -> None:
    """Raise InvalidRequestError unless `text` is text that can be recorded, of at most 10,000 bytes."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name}: must be text")
    check_json(text, name, max_bytes=10_000)


def check_id(what: str, id: str) -> None:
    """Raise NotFoundError for what nothing can be called: no text, or text that cannot be stored."""
    if not isinstance(id, str) or not id.isprintable():
        raise NotFoundError(f"there is no {what} `{id!s:.80}`")


# Deciding


def execute(
    policies: Policies, batch: Batch, caller: Caller, action: Action, nonce: str | None = None
) -> ActionResult:
    """Decide on an action and record it. `nonce`, 20 hexadecimal digits, ends the id of its entry. Raises
    EventIdConflictError.
    """
    agent = acting(batch, caller)
    if action.event_id is not None:
        known = batch.get("event", event_key(agent.id, action.event_id))
        if known is not None:
            return _replay(batch, agent.id, known["entry"], action)
    facts = Facts(action, agent, batch.now, _usage(batch), policies.registries(batch))
    return _record(batch, caller, agent.id, action, _decide(policies, batch, facts), nonce)


def result_of(batch: Batch, nonce: str, start: int) -> ActionResult | None:
    """The answer to the action whose entry's id ends with `nonce`, if it was recorded from entry `start` on."""
    for index in range(start, batch.next_index):
        row = batch.row(index)
        entry = orjson.loads(row[1]) if row is not None else {}
        if entry.get("kind") == "action" and entry["id"].endswith(nonce):
            _, document = _stored(batch, entry["who"]["agent_id"], index)
            assert row is not None
            result = original_result(row, document)
            result.replayed = False
            return result
    return None


def _decide(policies: Policies, batch: Batch, facts: Facts) -> Decision:
    """Decide; if a cap was in the way, again without what requests hold whose deadline has passed."""
    decision = policies.at(batch).decide(facts)
    if any(rule.type == "DAILY_CAP" for rule in decision.rules) and deadlines.settle(batch):
        decision = policies.at(batch).decide(facts)
    return decision


def refuse(batch: Batch, caller: Caller, action_type: str, reason: str, message: str) -> ActionResult:
    """Record an attempt that could not even become an action, as denied."""
    agent = acting(batch, caller)
    condition = ConditionResult("arguments", "matches", "arguments that can be recorded", False, reason)
    decision = Decision("deny", denial_reason="CONDITIONS_DENIED", conditions=(condition,), message=message)
    return _record(batch, caller, agent.id, Action.build(action_type), decision)


def _usage(batch: Batch) -> Any:
    def used(key: str) -> Decimal:
        document = batch.get("limit", key)
        return Decimal(document["used"]) if document is not None else _ZERO

    return used


def _record(
    batch: Batch,
    caller: Caller,
    agent_id: str,
    action: Action,
    decision: Decision,
    nonce: str | None = None,
) -> ActionResult:
    status = _STATUS[decision.outcome]
    observing = caller.mode == "observe"
    runs = status == "executed" or observing
    data: dict[str, Any] = {"action_type": action.action_type, "decision": status}
    if action.event_id is not None:
        data["event_id"] = action.event_id
    if action.trusted:
        data["trusted"] = sorted(action.trusted)
    _describe(data, decision)
    if observing:
        data["mode"] = "observe"
    if runs:
        data["claim"] = "started"
    if decision.charges and (runs or status == "requested"):
        data["charges"] = _charges(decision.charges)
    timeout_at: str | None = None
    if status == "requested" and not observing:
        data["approval"] = _terms(batch, decision.approval or ApprovalTerms())
        timeout_at = data["approval"]["timeout_at"]
    payload: dict[str, Any] = {"action": orjson.Fragment(action.content)}
    _explain_payload(payload, decision)
    if caller.context:
        payload["context"] = caller.context
    event = f"evt_{batch.next_index:012x}{nonce or os.urandom(10).hex()}"
    batch.record("action", _who(caller, agent_id), data, id=event, payload=_payload(payload))
    shown = hide(decision)
    return ActionResult(
        status=status,
        audit_event_id=event,
        approval_id=data["approval"]["id"] if timeout_at is not None else None,
        message=shown.message,
        timeout_at=timeout_at,
        denial_reason=decision.denial_reason,
        policy_name=decision.policy.name if decision.policy is not None else None,
        conditions_evaluated=list(shown.conditions),
        rules_fired=list(shown.rules),
        observed=observing and status != "executed",
        claim="started" if runs else None,
    )


def _who(caller: Caller, agent_id: str) -> dict[str, Any]:
    return {"agent": caller.agent, "agent_id": agent_id, "established": caller.established}


def _describe(data: dict[str, Any], decision: Decision) -> None:
    """What of a decision the entry itself carries: everything but the values, which may be personal."""
    if decision.denial_reason is not None:
        data["reason"] = decision.denial_reason
    if decision.policy is not None:
        policy = decision.policy
        data["policy"] = {
            "id": policy.id,
            "name": policy.name,
            "version": policy.version,
            "digest": policy.digest,
        }
    if decision.guardrails:
        data["guardrails"] = [guardrail.id for guardrail in decision.guardrails]
    if decision.conditions:
        data["conditions"] = [[c.field, c.operator, c.result] for c in decision.conditions]
    if decision.rules:
        data["rules"] = [[rule.policy, rule.priority, rule.type, rule.effect] for rule in decision.rules]
    if decision.explain != "full":
        data["explain"] = decision.explain


def _explain_payload(payload: dict[str, Any], decision: Decision) -> None:
    if decision.conditions:
        payload["conditions"] = [condition.to_dict() for condition in decision.conditions]
    if decision.rules:
        payload["rules"] = [rule.to_dict() for rule in decision.rules]
    if decision.message is not None:
        payload["message"] = decision.message


def _charges(charges: tuple[Charge, ...]) -> list[list[Any]]:
    return [[charge.key, format(charge.amount, "f"), charge.release_on_failure] for charge in charges]


def _terms(batch: Batch, terms: ApprovalTerms) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"apr_{batch.next_index:012x}{os.urandom(10).hex()}",
        "timeout_at": format_time(batch.now + timedelta(seconds=terms.timeout)),
        "sets": quorum.as_sets(terms),
    }
    if terms.escalate_after is not None:
        found["escalates_at"] = format_time(batch.now + timedelta(seconds=terms.escalate_after))
    if terms.escalate_to:
        found["escalate_to"] = list(terms.escalate_to)
    return found


def _payload(members: Mapping[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)


# Replaying


def _replay(batch: Batch, agent_id: str, index: int, action: Action) -> ActionResult:
    row, document = _stored(batch, agent_id, index)
    payload = orjson.loads(row[4]) if row[4] is not None else None
    if payload is not None and payload["action"] != orjson.loads(action.content):
        assert action.event_id is not None
        raise EventIdConflictError(action.event_id, document["id"])
    return original_result(row, document)


def original_result(row: Row, document: Document) -> ActionResult:
    """The answer an action got when it was first asked for, with the present state of its claim."""
    entry = orjson.loads(row[1])
    payload = orjson.loads(row[4]) if row[4] is not None else {}
    data = entry["data"]
    approval = data.get("approval") or {}
    shown = hide(
        Decision(
            "allow",
            conditions=tuple(ConditionResult.from_dict(c) for c in payload.get("conditions", ())),
            rules=tuple(RuleResult.from_dict(r) for r in payload.get("rules", ())),
            explain=data.get("explain", "full"),
            message=payload.get("message"),
        )
    )
    return ActionResult(
        status=data["decision"],
        audit_event_id=entry["id"],
        approval_id=approval.get("id"),
        message=shown.message,
        timeout_at=approval.get("timeout_at"),
        denial_reason=data.get("reason"),
        policy_name=(data.get("policy") or {}).get("name"),
        conditions_evaluated=list(shown.conditions),
        rules_fired=list(shown.rules),
        replayed=True,
        observed=data.get("mode") == "observe" and data["decision"] != "executed",
        claim=document.get("claim"),
    )


def _stored(batch: Batch, agent_id: str, index: int) -> tuple[Row, Document]:
    row, document = batch.row(index), batch.get("action", action_key(agent_id, index))
    assert row is not None
    assert document is not None
    return row, document


def index_of(audit_event_id: str) -> int | None:
    """The index that the id of an action's entry names; None if it is no such id."""
    try:
        index = int(audit_event_id[4:16], 16) if audit_event_id.startswith("evt_") else -1
    except ValueError:
        return None
    return index if index >= 0 else None


def stored_action(batch: Batch, caller: Caller, audit_event_id: str) -> tuple[int, str, Document]:
    """The index, agent id and state of one of the caller's own actions.

    Raises NotFoundError, or NotYourEventError for another agent's.
    """
    index = index_of(audit_event_id)
    row = batch.row(index) if index is not None else None
    entry = orjson.loads(row[1]) if row is not None else {}
    if index is None or entry.get("id") != audit_event_id:
        raise NotFoundError(f"there is no action `{audit_event_id}`")
    agent_id = acting(batch, caller).id
    if entry["who"]["agent_id"] != agent_id:
        raise NotYourEventError(audit_event_id)
    document = batch.get("action", action_key(agent_id, index))
    assert document is not None
    return index, agent_id, document


# Claiming


def claim(policies: Policies, batch: Batch, caller: Caller, audit_event_id: str) -> ActionResult:
    """Take the right to run an approved action, once.

    The answer is `executed` with claim `started` if the caller now holds it; `requested` while nobody has decided; else
    the refusal. Raises IllegalTransitionError if the action was claimed before, NotFoundError, NotYourEventError.
    """
    index, agent_id, document = stored_action(batch, caller, audit_event_id)
    row = batch.row(index)
    assert row is not None
    result = original_result(row, document)
    result.replayed = False
    if document.get("claim") in ("started", *_CLAIM_OUTCOMES):
        raise IllegalTransitionError(
            f"action `{audit_event_id}` was claimed before (its claim reads `{document['claim']}`); "
            "it runs at most once"
        )
    if document["status"] == "requested" and "approval" in document:
        deadlines.expire(batch, document["approval"])  # it may have passed while nobody waited for it
        document = stored_action(batch, caller, audit_event_id)[2]
    if document["status"] != "approved":
        return _unapproved(batch, document, result)
    approval = batch.get("approval", document["approval"])
    assert approval is not None
    reference: dict[str, Any] = {"action": audit_event_id, "agent_id": agent_id, "entry": index}
    who = _who(caller, agent_id)
    # Entries of the first release do not say when a grant lapses.
    since = parse_time(approval["resolved_at"])
    if batch.at >= (approval.get("lapses_at") or format_time(since + deadlines.GRANT_LIFE)):
        batch.record("claim", who, {**reference, "event": "lapsed"})
        return _lapsed(result)
    if row[4] is None:
        raise IllegalTransitionError(
            f"the arguments of action `{audit_event_id}` were erased, so it cannot be decided on again; ask anew"
        )
    entry = orjson.loads(row[1])
    action = Action.from_members(orjson.loads(row[4])["action"], trusted=entry["data"].get("trusted", ()))
    held = (
        {charge[0]: Decimal(charge[1]) for charge in document.get("charges", ())}
        if document.get("charged") == "held"
        else {}
    )
    used = _usage(batch)
    facts = Facts(
        action,
        acting(batch, caller),
        batch.now,
        lambda key: used(key) - held.get(key, _ZERO),
        policies.registries(batch),
    )
    decision = _decide(policies, batch, facts)
    if decision.outcome == "not_found" and reevaluation.asker_is_gone(batch, approval):
        decision = policies.at(batch).decide(facts, ungoverned=True)
    data = {**reference, "event": "started"}
    _describe(data, decision)
    enough = decision.outcome == "require_approval" and _approved_by_enough(approval, decision)
    if decision.outcome == "allow" or enough:
        if decision.charges:
            data["charges"] = _charges(decision.charges)
        batch.record("claim", who, data)
        result.status, result.claim = "executed", "started"
        return result
    data["event"] = "refused"
    data.setdefault("reason", "POLICY_DENIED")
    payload: dict[str, Any] = {}
    _explain_payload(payload, decision)
    batch.record("claim", who, data, payload=_payload(payload))
    shown = hide(decision)
    result.status = "denied"
    result.denial_reason = decision.denial_reason or "POLICY_DENIED"
    result.message = shown.message or "policy has changed since this was approved"
    if decision.outcome == "require_approval":
        result.message = "policy now asks for other approvers than those who approved this; ask again"
    result.policy_name = decision.policy.name if decision.policy is not None else None
    result.conditions_evaluated, result.rules_fired = list(shown.conditions), list(shown.rules)
    return result


def _approved_by_enough(approval: Document, decision: Decision) -> bool:
    """Whether those who approved are those whom policy now asks for."""
    terms = decision.approval or ApprovalTerms()
    added = terms.escalate_to if "escalated_at" in approval else ()
    return quorum.satisfied(quorum.as_sets(terms), added, approval["votes"])


def _lapsed(result: ActionResult) -> ActionResult:
    result.status, result.denial_reason = "denied", "approval_timeout"
    if result.approval_id is not None:  # else it is an admission whose caller was gone
        result.message = "the approval was not used within 24 hours and has lapsed; ask again"
    return result


def _unapproved(batch: Batch, document: Document, result: ActionResult) -> ActionResult:
    """What to answer for an action that no grant stands behind."""
    if document["status"] == "lapsed":
        return _lapsed(result)
    if document["status"] in ("denied", "timed_out") and "approval" in document:
        approval = batch.get("approval", document["approval"])
        assert approval is not None
        result.status = document["status"]
        result.denial_reason = resolved_reason(batch, approval) or result.denial_reason or "POLICY_DENIED"
        row = batch.row(approval["resolution"]) if "resolution" in approval else None
        if row is not None and row[4] is not None:
            result.message = orjson.loads(row[4]).get("reason")
    return result


def resolved_reason(state: _Rows, approval: Document) -> str | None:
    """The denial reason that the end of a request gives its action; None while it is pending or was approved."""
    if approval["status"] == "denied" and approval["resolved_by"] is None:
        row = state.row(approval["resolution"])
        reason: str = orjson.loads(row[1])["data"]["reason"] if row is not None else "POLICY_DENIED"
        return reason
    return {
        "denied": "DENIED_BY_REVIEWER",
        "timed_out": "approval_timeout",
        "cancelled": "APPROVAL_CANCELLED",
    }.get(approval["status"])


# Afterwards


def record_claim_outcome(
    batch: Batch, caller: Caller, audit_event_id: str, outcome: str, message: str | None
) -> None:
    """Note how a claimed run went: succeeded, failed or unknown. The first word on a started claim counts, and the
    first that knows on an unknown one: it may have been presumed lost while it ran.
    """
    if outcome not in _CLAIM_OUTCOMES:
        raise InvalidRequestError(f"claim outcome `{outcome}` is not one of {', '.join(_CLAIM_OUTCOMES)}")
    index, agent_id, document = stored_action(batch, caller, audit_event_id)
    claim = document.get("claim")
    if claim != "started" and (claim != "unknown" or outcome == "unknown"):
        return
    data = {"action": audit_event_id, "agent_id": agent_id, "entry": index, "claim": outcome}
    payload = _payload({"message": message}) if message else None
    batch.record("outcome", _who(caller, agent_id), data, payload=payload)


def report(batch: Batch, caller: Caller, audit_event_id: str, outcome: ReportOutcome) -> ReportResult:
    """Note what the agent says of an action's outcome; the last word counts.

    Raises InvalidRequestError, NotFoundError, NotYourEventError, and IllegalTransitionError for an action that never
    ran.
    """
    if outcome.message is not None:
        checked_text("message", outcome.message)
    if outcome.metadata is not None:
        check_json(outcome.metadata, "metadata")
    if outcome.status not in _OUTCOMES:
        raise InvalidRequestError(f"outcome status `{outcome.status}` is not one of {', '.join(_OUTCOMES)}")
    index, agent_id, document = stored_action(batch, caller, audit_event_id)
    if document.get("claim") in (None, "refused", "lapsed"):
        raise IllegalTransitionError(
            f"action `{audit_event_id}` is `{document['status']}` and never ran, so it has no outcome to report"
        )
    data = {"action": audit_event_id, "agent_id": agent_id, "entry": index, "status": outcome.status}
    if document["claim"] in ("started", "unknown"):
        data["claim"] = "failed" if outcome.status == "failure" else "succeeded"
    said = {k: v for k, v in (("message", outcome.message), ("metadata", outcome.metadata)) if v is not None}
    batch.record("outcome", _who(caller, agent_id), data, payload=_payload(said) if said else None)
    return ReportResult(audit_event_id, outcome.status, batch.at)


def abandon(batch: Batch, caller: Caller, audit_event_id: str) -> None:
    """Give back an admission whose caller was gone before it got the answer: nobody ran it, and nobody will."""
    index, agent_id, document = stored_action(batch, caller, audit_event_id)
    if document.get("claim") == "started":
        batch.record(
            "claim",
            _who(caller, agent_id),
            {"action": audit_event_id, "agent_id": agent_id, "entry": index, "event": "lapsed"},
        )
