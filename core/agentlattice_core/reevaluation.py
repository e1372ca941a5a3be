"""What a change of policy means for requests that wait for a person.

| policy now says | then the request is |
|---|---|
| allow | approved, by nobody, with a note |
| nothing, and the policy that asked was deleted or deactivated, and no guardrail objects | the same |
| nothing, though the policy that asked is still there | denied: it no longer covers the action |
| deny | denied, by nobody, with a note |
| ask a person, of other approvers | amended: votes that no longer count are void; approved if the others suffice |
| ask a person, as before | left as it is |

- Asked again as of when it was asked, so that what changes is the doing of policy, and not of the hour.
- Only requests whose action a changed part governed or governs are asked about.
- As many as one transaction should hold are done in the one that changes policy, so that no reader sees one without the
  other; what is left is noted in the log and done next, by whichever process comes first.
- Deadlines stay. What is past its deadline, or whose arguments were erased, or whose policy was tampered with, is left
  alone: the claim refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import orjson

from agentlattice_core import quorum
from agentlattice_core.actions import Action
from agentlattice_core.agents import agent_facts
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.deadlines import GRANT_LIFE, resolution
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.policies import Policies
from agentlattice_core.policy.decision import ApprovalTerms, Decision, Facts, PolicyReference
from agentlattice_core.policy.index import matches_pattern
from agentlattice_core.stores.base import Document
from agentlattice_core.stores.projections import action_key

__all__ = ["AT_ONCE", "Resolved", "asker_is_gone", "begin", "outstanding", "proceed"]

AT_ONCE = 250
"""Requests decided on again in one transaction."""

_LOOKED_AT = 5000  # requests looked at in one transaction, whether they are concerned or not
_MOST_PATTERNS = 100
_SYSTEM = {"system": "policy"}


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request that a change of policy ended or amended: `event` is approved, denied or amended."""

    approval_id: str
    event: str


def begin(
    policies: Policies, batch: Batch, patterns: Iterable[str], limit: int | None = AT_ONCE
) -> list[Resolved]:
    """Ask policy again about pending requests, after parts that govern `patterns` have changed in this transaction.

    Returns what became of those done so far; `limit` bounds how many that are (None: all).
    """
    concerned = set(patterns)
    left = batch.get("reevaluation", "set")
    if left is not None:
        concerned.update(left["patterns"])
    if not concerned:
        return []
    ordered = ["*"] if len(concerned) > _MOST_PATTERNS else sorted(concerned)
    return _sweep(policies, batch, ordered, "", limit)


def outstanding(state: _State) -> bool:
    """Whether a change of policy has left requests to be asked about."""
    return state.get("reevaluation", "set") is not None


def proceed(policies: Policies, batch: Batch) -> int:
    """Do some of what is outstanding. Returns whether there was anything, as 1 or 0."""
    left = batch.get("reevaluation", "set")
    if left is None:
        return 0
    _sweep(policies, batch, left["patterns"], left["after"], AT_ONCE)
    return 1


def asker_is_gone(batch: Batch, approval: Document) -> bool:
    """Whether the policy that had a person asked has been deleted or deactivated since."""
    asked = approval["policy"]
    if asked is None:
        return False
    for part in (f"policy/{asked['id']}", f"guardrail/{asked['id']}"):
        known = batch.get("policy", part)
        if known is None or known["removed"]:
            continue
        row = batch.row(known["entry"])
        try:
            active = row is None or row[4] is None or orjson.loads(row[4]).get("active", True)
        except (ValueError, AttributeError):
            active = True
        if active:
            return False
    return True


def _sweep(
    policies: Policies, batch: Batch, patterns: list[str], after: str, limit: int | None
) -> list[Resolved]:
    """Ask about the requests beyond the key `after`, and note where that ended, or that it is over."""
    chosen: list[str] = []
    last: str | None = None
    looked = 0
    for key, _ in batch.scan("pending"):
        if key <= after:
            continue
        if limit is not None and (len(chosen) >= limit or looked >= _LOOKED_AT):
            break
        last, looked = key, looked + 1
        deadline, approval_id = key.split("/", 1)
        approval = batch.get("approval", approval_id)
        if approval is not None and deadline > batch.at:
            action_type = approval["action_type"]
            if any(matches_pattern(pattern, action_type) for pattern in patterns):
                chosen.append(approval_id)
    else:
        last = None  # there is nothing beyond
    found = [one for approval_id in chosen if (one := _ask_again(policies, batch, approval_id)) is not None]
    if last is not None:
        batch.record("policy", _SYSTEM, {"event": "reevaluating", "patterns": patterns, "after": last})
    elif outstanding(batch):
        batch.record("policy", _SYSTEM, {"event": "reevaluated"})
    return found


def _ask_again(policies: Policies, batch: Batch, approval_id: str) -> Resolved | None:
    approval = batch.get("approval", approval_id)
    assert approval is not None
    facts = _facts(policies, batch, approval, parse_time(approval["requested_at"]))
    if facts is None:
        return None
    decision = policies.at(batch).decide(facts)
    gone = decision.outcome == "not_found" and asker_is_gone(batch, approval)
    if gone:
        decision = policies.at(batch).decide(facts, ungoverned=True)
    if decision.outcome == "allow":
        note = "its policy was deleted or deactivated" if gone else "policy now allows it"
        return _approve(batch, approval_id, approval, note, decision)
    if decision.outcome == "require_approval":
        return _amend(batch, approval_id, approval, decision)
    if decision.denial_reason == "POLICY_TAMPERED":
        return None
    covered = decision.outcome == "deny"
    note = "policy now denies it" if covered else "no policy covers it any more"
    data = _resolution(approval_id, approval, "denied", note, decision)
    data["reason"] = decision.denial_reason or "POLICY_DENIED"
    payload = orjson.dumps({"reason": decision.message or note, **_findings(decision)})
    batch.record("approval", _SYSTEM, data, payload=payload)
    return Resolved(approval_id, "denied")


def _facts(policies: Policies, batch: Batch, approval: Document, now: datetime) -> Facts | None:
    """What the request was decided on by, with what it holds itself left out; None if that is not there any more."""
    row = batch.row(approval["entry"])
    if row is None or row[4] is None:
        return None
    document = batch.get("action", action_key(approval["agent_id"], approval["entry"])) or {}
    held = {key: Decimal(amount) for key, amount, *_ in document.get("charges", ())}

    def used(key: str) -> Decimal:
        total = batch.get("limit", key)
        return (Decimal(total["used"]) if total is not None else Decimal(0)) - held.get(key, Decimal(0))

    try:
        action = Action.from_members(
            orjson.loads(row[4])["action"],
            trusted=orjson.loads(row[1])["data"].get("trusted", ()),
        )
        return Facts(action, agent_facts(batch, approval["agent"]), now, used, policies.registries(batch))
    except AgentLatticeError:
        return None


def _approve(batch: Batch, approval_id: str, approval: Document, note: str, decision: Decision) -> Resolved:
    data = _resolution(approval_id, approval, "approved", note, decision)
    data["lapses_at"] = format_time(batch.now + GRANT_LIFE)
    batch.record("approval", _SYSTEM, data)
    return Resolved(approval_id, "approved")


def _amend(batch: Batch, approval_id: str, approval: Document, decision: Decision) -> Resolved | None:
    terms = decision.approval or ApprovalTerms()
    sets, escalate_to = quorum.as_sets(terms), list(terms.escalate_to)
    if sets == approval["sets"] and escalate_to == approval["escalate_to"]:
        return None
    added = escalate_to if "escalated_at" in approval else []
    void = [
        vote["by"] for vote in approval["votes"] if not quorum.listed(sets, added, vote["by"], vote["groups"])
    ]
    data = resolution(approval_id, approval, "amended") | {
        "sets": sets,
        "escalate_to": escalate_to,
        "void": void,
    }
    if decision.policy is not None:
        data["policy"] = _reference(decision.policy)
    batch.record("approval", _SYSTEM, data, payload=orjson.dumps(_findings(decision)))
    amended = batch.get("approval", approval_id)
    assert amended is not None
    if amended["votes"] and quorum.satisfied(sets, added, amended["votes"]):
        note = "policy now asks for fewer approvers, and enough have approved"
        return _approve(batch, approval_id, amended, note, decision)
    return Resolved(approval_id, "amended")


def _resolution(
    approval_id: str, approval: Document, event: str, note: str, decision: Decision
) -> dict[str, Any]:
    data = resolution(approval_id, approval, event) | {"by": None, "note": note}
    if decision.policy is not None:
        data["decided_by"] = _reference(decision.policy)
    return data


def _reference(policy: PolicyReference) -> dict[str, Any]:
    return {"id": policy.id, "name": policy.name, "version": policy.version, "digest": policy.digest}


def _findings(decision: Decision) -> dict[str, Any]:
    """What led to it, for whoever is shown the request."""
    return {
        "conditions": [condition.to_dict() for condition in decision.conditions],
        "rules": [rule.to_dict() for rule in decision.rules],
    }
