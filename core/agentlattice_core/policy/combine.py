"""One decision out of what the deciding policies and the guardrails say.

- The strictest outcome stands: deny over require_approval over allow. Policies come before guardrails, so a
  guardrail is named as the one that decided only where no policy was as strict.
- Conditions are reported of whoever decided; fired rules of everybody who was asked.
- A charge on one key is made once, whoever asks for it. Approval takes every set that anybody names, the
  shortest timeout that anybody gives.
- `missing` stays empty when somebody is as strict without missing anything: supplying it would then not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentlattice_core.policy.decision import (
    ApprovalTerms,
    ApproverSet,
    Charge,
    Decision,
    Explain,
    Outcome,
)
from agentlattice_core.policy.rules import charge_once
from agentlattice_core.policy.source import shown
from agentlattice_core.policy.verdicts import Verdict
from agentlattice_core.results import ConditionResult

__all__ = ["combine"]

_RANK: dict[Outcome, int] = {"allow": 0, "require_approval": 1, "deny": 2}
_HIDDEN: dict[Explain, int] = {"full": 0, "fields": 1, "none": 2}
_WORDS = {
    "eq": "be",
    "neq": "not be",
    "lt": "be less than",
    "lte": "be at most",
    "gt": "be more than",
    "gte": "be at least",
    "in": "be one of",
    "not_in": "be none of",
    "between": "be between",
    "not_between": "not be between",
    "contains": "contain",
    "not_contains": "not contain",
    "starts_with": "start with",
    "not_starts_with": "not start with",
    "ends_with": "end with",
    "not_ends_with": "not end with",
    "matches": "match",
    "not_matches": "not match",
    "subset_of": "hold nothing but",
    "not_subset_of": "hold something else than",
    "cidr": "be an address in",
    "not_cidr": "be no address in",
}


def combine(verdicts: Sequence[Verdict], guards: Sequence[Verdict], *, findings: bool = True) -> Decision:
    """The decision. `verdicts` are of the deciding tier; `guards` of every guardrail that applies. At least one of
    either. Without `findings`: outcome, policy, denial reason and charges.
    """
    if len(verdicts) == 1 and not guards:
        verdict = verdicts[0]
        if verdict.outcome == "allow" and not (verdict.rules and verdict.rules.fired):
            # The path of most actions; what follows would come to the same.
            return Decision(
                "allow",
                verdict.by.reference,
                None,
                tuple(verdict.findings.results),
                charges=tuple(verdict.rules.charges.values()) if verdict.rules else (),
                explain=verdict.by.policy.explain,
            )
    everything = [*verdicts, *guards]
    # Policies before guardrails: a guardrail is named as the one that decided only where no policy was as
    # strict.
    first = max(everything, key=_strictness)
    outcome = first.outcome
    charges = () if outcome == "deny" else _charges(everything)
    if not findings:
        return Decision(outcome, first.by.reference, first.reason, charges=charges)
    deciding = [verdict for verdict in everything if verdict.outcome == outcome]
    missing: tuple[str, ...] = ()
    if all(verdict.missing for verdict in deciding):
        missing = tuple(dict.fromkeys(name for verdict in deciding for name in verdict.missing))
    reporting = verdicts if outcome == "allow" else deciding
    reported = [
        verdict for verdict in everything if verdict in reporting or (verdict.rules and verdict.rules.fired)
    ]
    explain = max((verdict.by.policy.explain for verdict in reported), key=_HIDDEN.__getitem__)
    return Decision(
        outcome=outcome,
        policy=first.by.reference,
        denial_reason=first.reason,
        conditions=tuple(result for verdict in reporting for result in verdict.findings.results),
        rules=tuple(
            result for verdict in everything if verdict.rules for result in verdict.rules.results or ()
        ),
        charges=charges,
        approval=_terms(everything) if outcome == "require_approval" else None,
        explain=explain,
        message=None if outcome == "allow" else _message(deciding, explain),
        guardrails=tuple(verdict.by.reference for verdict in guards if verdict.outcome != "allow"),
        missing=() if outcome == "allow" else missing,
    )


def _strictness(verdict: Verdict) -> int:
    return _RANK[verdict.outcome]


def _charges(verdicts: Sequence[Verdict]) -> tuple[Charge, ...]:
    charging = [verdict.rules.charges for verdict in verdicts if verdict.rules and verdict.rules.charges]
    found = charging[0] if charging else {}
    if len(charging) > 1:
        found = {}
        for charges in charging:
            for charge in charges.values():
                charge_once(found, charge)
    return tuple(found.values())


def _terms(verdicts: Sequence[Verdict]) -> ApprovalTerms:
    """Every set that anybody asks for, the shortest of the times that are given."""
    specs = [spec for verdict in verdicts for spec in verdict.asks if spec is not None]
    sets = dict.fromkeys(ApproverSet(spec.approvers, spec.quorum) for spec in specs)
    anyone = ApproverSet()
    if len(sets) > 1:
        sets.pop(anyone, None)  # whoever is in a named set is also anyone
    timeouts = [spec.timeout for spec in specs if spec.timeout is not None]
    escalations = [spec.escalate_after for spec in specs if spec.escalate_after is not None]
    return ApprovalTerms(
        timeout=min(timeouts, default=ApprovalTerms().timeout),
        sets=tuple(sets) or (anyone,),
        escalate_after=min(escalations, default=None),
        escalate_to=tuple(dict.fromkeys(party for spec in specs for party in spec.escalate_to)),
    )


def _message(deciding: Sequence[Verdict], explain: Explain) -> str | None:
    parts = [part for verdict in deciding for part in _own_message(verdict, explain)]
    return "; ".join(dict.fromkeys(parts)) or None


def _own_message(verdict: Verdict, explain: Explain) -> list[str]:
    policy = verdict.by.policy
    if verdict.message is not None or policy.message is not None:
        return [text for text in (policy.message, verdict.message) if text]
    if explain == "none" or verdict.reason is None:
        return []
    blocked = [result for result in verdict.findings.results if not result.result]
    if explain == "fields":
        return [f"blocked by the condition on `{result.field}`" for result in blocked]
    unknown = [f"the action has no `{name}`" for name in verdict.missing] + verdict.findings.incomparable
    return unknown or [_blocked_by(result) for result in blocked]


def _blocked_by(result: ConditionResult) -> str:
    if result.operator == "exists":
        must = "be there" if result.expected else "be left out"
        return f"`{result.field}` must {must}, and is {_plain(result.actual)}"
    words, expected = _WORDS[result.operator], _plain(result.expected)
    return f"`{result.field}` must {words} {expected}, and is {_plain(result.actual)}"


def _plain(value: Any) -> str:
    return "missing" if value is None else f"`{shown(value)}`"
