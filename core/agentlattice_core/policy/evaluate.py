"""Decides: from facts to a `Decision`, purely.

1. A tampered part that matches denies (`POLICY_TAMPERED`).
2. A declared action that lacks a required field, has one of the wrong type, or has an untrusted value where a
   trusted one is asked for, is denied (`CONDITIONS_DENIED`) before policy is asked.
3. The most specific tier of policies decides, tied ones strictest first. A `deny` whose conditions fail does
   not apply; when nothing in a tier applies, the next one decides; when nothing at all does, the answer is
   `not_found`.
4. Every matching guardrail is evaluated too, and can only make the answer stricter.

- Policies sets never change: a new version is a new set. One may be shared by any number of threads.
- Strictness: deny over require_approval over allow. An unknown condition takes the stricter branch of its
  effect.
- All spend rules of what was evaluated are walked. REJECT denies, REQUIRE_HUMAN asks a person, AUTO_APPROVE
  lifts the approval that its own policy's effect asks for and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentlattice_core.errors import PolicyDocumentError
from agentlattice_core.policy.conditions import Findings, compile_requirement
from agentlattice_core.policy.decision import (
    ApprovalTerms,
    ApproverSet,
    Charge,
    Decision,
    DenialReason,
    Explain,
    Facts,
    Outcome,
    PolicyReference,
)
from agentlattice_core.policy.declared import check_declared
from agentlattice_core.policy.document import PolicyDocument, read_part
from agentlattice_core.policy.index import PatternIndex
from agentlattice_core.policy.model import ActionDeclaration, ApprovalSpec, Policy, Registry
from agentlattice_core.policy.parts import StoredPart, digest_of, part_pattern
from agentlattice_core.policy.rules import Registries, RuleFindings, charge_once, compile_rule
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ConditionResult, PolicySummary, RuleResult

__all__ = ["PolicySet"]

_RANK: dict[Outcome, int] = {"allow": 0, "require_approval": 1, "deny": 2}
_HIDDEN: dict[Explain, int] = {"full": 0, "fields": 1, "none": 2}
_REMEMBERED_PLANS = 4096


@dataclass(slots=True)
class _Verdict:
    """What one policy says of one action."""

    by: _Compiled
    outcome: Outcome
    reason: DenialReason | None
    findings: Findings
    rules: RuleFindings | None = None
    message: str | None = None
    asks: tuple[ApprovalSpec | None, ...] = ()

    @property
    def missing(self) -> list[str]:
        return self.findings.missing if self.rules is None else [*self.findings.missing, *self.rules.missing]


class _Compiled:
    """A policy or guardrail, ready to be evaluated."""

    __slots__ = (
        "action",
        "agent_tags",
        "agents",
        "created_at",
        "policy",
        "reference",
        "requirement",
        "rules",
    )

    def __init__(self, part_id: str, policy: Policy, reference: PolicyReference, created_at: str) -> None:
        self.policy = policy
        self.reference = reference
        self.created_at = created_at
        self.action = policy.action
        self.agents = policy.agents
        self.agent_tags = policy.agent_tags
        negated = policy.effect == "deny"
        unconditional = not policy.conditions and not negated
        self.requirement = None if unconditional else compile_requirement(policy.conditions, negated=negated)
        self.rules = tuple(compile_rule(rule, policy.name, part_id) for rule in policy.rules)

    def verdict(self, facts: Facts, registries: Registries) -> _Verdict | None:
        """What this policy says, or None if it does not apply."""
        findings = Findings()
        holds = True if self.requirement is None else self.requirement(facts, findings)
        if holds is not None:
            findings.missing.clear()  # what was missing did not matter
        effect = self.policy.effect
        if holds is not True and effect != "conditional":
            reason: DenialReason = "POLICY_DENIED" if effect == "deny" else "CONDITIONS_DENIED"
            return _Verdict(self, "deny", reason, findings)
        if effect == "deny":
            return None
        asks = effect == "require_approval" or holds is not True
        if not self.rules:
            if asks:
                return _Verdict(self, "require_approval", None, findings, asks=(self.policy.approval,))
            return _Verdict(self, "allow", None, findings)
        return self._after_rules(facts, registries, findings, asks, liftable=holds is True)

    def _after_rules(
        self, facts: Facts, registries: Registries, findings: Findings, asks: bool, *, liftable: bool
    ) -> _Verdict:
        rules = RuleFindings()
        for walk in self.rules:
            walk(facts, registries, rules)
        if not rules.fired:
            outcome: Outcome = "require_approval" if asks else "allow"
            return _Verdict(
                self, outcome, None, findings, rules, asks=(self.policy.approval,) if asks else ()
            )
        effects = {rule.effect for rule, _ in rules.fired}
        if "REJECT" in effects:
            rejecting = [(rule, result) for rule, result in rules.fired if rule.effect == "REJECT"]
            capped = all(rule.type == "DAILY_CAP" for rule, _ in rejecting)
            reason: DenialReason = "LIMIT_EXCEEDED" if capped else "RULE_REJECTED"
            return _Verdict(self, "deny", reason, findings, rules, _rules_message(self.policy, rejecting))
        if "REQUIRE_HUMAN" in effects:
            human = [(rule, result) for rule, result in rules.fired if rule.effect == "REQUIRE_HUMAN"]
            own = tuple(self._ask(rule.approval) for rule, _ in human)
            if asks:
                own = (self.policy.approval, *own)
            return _Verdict(
                self, "require_approval", None, findings, rules, _rules_message(self.policy, human), own
            )
        if asks and liftable:
            return _Verdict(self, "allow", None, findings, rules)
        asked = (self.policy.approval,) if asks else ()
        return _Verdict(self, "require_approval" if asks else "allow", None, findings, rules, asks=asked)

    def _ask(self, approval: ApprovalSpec | None) -> ApprovalSpec | None:
        """A rule's approval, with the policy's timeout where it gives none; the policy's where there is none."""
        own = self.policy.approval
        if approval is None or own is None:
            return approval or own
        return approval if approval.timeout is not None else replace(approval, timeout=own.timeout)


def _rules_message(policy: Policy, fired: list[tuple[Any, RuleResult]]) -> str | None:
    written = [rule.message for rule, _ in fired if rule.message]
    if written:
        return "; ".join(written)
    # A message of our own says what the rule measured, which `explain` may have to hide.
    return "; ".join(result.message or "" for _, result in fired) if policy.explain == "full" else None


@dataclass(frozen=True, slots=True)
class _Tampered:
    """A stored part that is not what was published."""

    reference: PolicyReference
    action: str
    agents: tuple[str, ...] = ()
    agent_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that governs one action type for one agent."""

    tiers: tuple[tuple[_Compiled, ...], ...]
    guardrails: tuple[_Compiled, ...]
    declaration: ActionDeclaration | None
    tampered: _Tampered | None


class PolicySet:
    """Everything that policy is, at one moment. Make one with `from_parts` or `from_document`."""

    def __init__(
        self,
        policies: Iterable[_Compiled],
        guardrails: Iterable[_Compiled],
        actions: Iterable[ActionDeclaration],
        registries: Iterable[Registry],
        tampered: Iterable[_Tampered],
    ) -> None:
        self._policies = tuple(policies)
        self._guardrails = tuple(guardrails)
        self._index = PatternIndex(self._policies)
        self._guardrail_index = PatternIndex(self._guardrails)
        self._tampered_index = PatternIndex(tampered)
        self._actions = {declared.action: declared for declared in actions}
        self._registries: Registries = {registry.name: registry.entries for registry in registries}
        # Plans are derived, so forgetting them is always right, and threads may race to remember the same
        # one.
        self._plans: dict[tuple[str, str, str, frozenset[str]], _Plan] = {}

    @classmethod
    def from_parts(cls, parts: Mapping[str, StoredPart]) -> PolicySet:
        """The set that stored parts make. A part whose content is not what its digest says counts as
        tampered.
        """
        policies: list[_Compiled] = []
        guardrails: list[_Compiled] = []
        actions: list[ActionDeclaration] = []
        registries: list[Registry] = []
        tampered: list[_Tampered] = []
        for part_id in sorted(parts):
            stored = parts[part_id]
            value = None if stored.tampered else _readable(part_id, stored)
            if value is None:
                name = part_id.partition("/")[2]
                reference = PolicyReference(name, part_id, stored.version, stored.digest)
                tampered.append(_Tampered(reference, stored.pattern))
            elif not stored.active:
                continue
            elif isinstance(value, Policy):
                if value.active:
                    reference = PolicyReference(value.id, value.name, stored.version, stored.digest)
                    into = guardrails if part_id.startswith("guardrail/") else policies
                    into.append(_Compiled(part_id, value, reference, stored.created_at))
            elif isinstance(value, ActionDeclaration):
                actions.append(value)
            else:
                registries.append(value)
        return cls(policies, guardrails, actions, registries, tampered)

    @classmethod
    def from_document(
        cls, document: PolicyDocument, *, created_at: str = "1970-01-01T00:00:00.000000Z"
    ) -> PolicySet:
        """The set that a document makes by itself, every part in its first version."""
        return cls.from_parts(
            {
                part_id: StoredPart(
                    content, 1, digest_of(content), created_at, pattern=part_pattern(part_id, content)
                )
                for part_id, content in document.parts().items()
            }
        )

    def decide(self, facts: Facts) -> Decision:
        """What policy says of `facts`. Never raises for anything an action holds."""
        plan = self._plan(facts.action.action_type, facts.agent.root)
        if plan.tampered is not None:
            return Decision(
                "deny",
                plan.tampered.reference,
                "POLICY_TAMPERED",
                message="a stored policy is not what was published; an operator has to publish it again",
            )
        if plan.declaration is not None:
            refused = check_declared(plan.declaration, facts.action)
            if refused is not None:
                return refused
        registries = {**self._registries, **facts.registries} if facts.registries else self._registries
        for tier in plan.tiers:
            verdicts = [
                verdict for policy in tier if (verdict := policy.verdict(facts, registries)) is not None
            ]
            if verdicts:
                break
        else:
            return Decision("not_found")
        guards = []
        for guardrail in plan.guardrails:
            verdict = guardrail.verdict(facts, registries)
            if verdict is not None:
                guards.append(verdict)
        return _combine(verdicts, guards)

    def summaries(self, agent: AgentFacts | None = None) -> list[PolicySummary]:
        """Active policies and guardrails: all, or those that can govern an action of `agent`."""
        compiled = (*self._policies, *self._guardrails)
        return [_summary(one) for one in compiled if agent is None or _is_about(one, agent.root)]

    def covering(self, action_type: str, agent: AgentFacts) -> list[PolicySummary]:
        """What governs that action of that agent, guardrails first, then policies from the most specific on."""
        plan = self._plan(action_type, agent.root)
        return [_summary(one) for one in (*plan.guardrails, *(one for tier in plan.tiers for one in tier))]

    def is_declared(self, action_type: str) -> bool:
        """Whether a document declares that action type."""
        return action_type in self._actions

    def _plan(self, action_type: str, agent: AgentFacts) -> _Plan:
        key = (action_type, agent.name, agent.id, agent.tags)
        plan = self._plans.get(key)
        if plan is None:
            guardrails = self._guardrail_index.tiers(action_type, agent)
            tampered = self._tampered_index.tiers(action_type, agent)
            plan = _Plan(
                tiers=self._index.tiers(action_type, agent),
                guardrails=tuple(one for tier in guardrails for one in tier),
                declaration=self._actions.get(action_type),
                tampered=tampered[0][0] if tampered else None,
            )
            if len(self._plans) >= _REMEMBERED_PLANS:
                self._plans = {}
            self._plans[key] = plan
        return plan


def _readable(part_id: str, stored: StoredPart) -> Policy | ActionDeclaration | Registry | None:
    if digest_of(stored.content) != stored.digest:
        return None
    try:
        return read_part(part_id, stored.content)
    except PolicyDocumentError:
        return None


def _summary(compiled: _Compiled) -> PolicySummary:
    policy = compiled.policy
    return PolicySummary(
        id=policy.id,
        name=policy.name,
        action_type=policy.action,
        approval_required=policy.effect == "require_approval",
        has_conditions=bool(policy.conditions or policy.rules),
        version=compiled.reference.version,
        created_at=compiled.created_at,
    )


def _is_about(compiled: _Compiled, agent: AgentFacts) -> bool:
    policy = compiled.policy
    if not policy.names_agents:
        return True
    return (
        agent.name in policy.agents
        or agent.id in policy.agents
        or not agent.tags.isdisjoint(policy.agent_tags)
    )


def _combine(verdicts: list[_Verdict], guards: list[_Verdict]) -> Decision:
    """One decision out of what the deciding tier and the guardrails say."""
    if len(verdicts) == 1 and not guards:
        verdict = verdicts[0]
        if verdict.outcome == "allow" and verdict.rules is None:
            policy = verdict.by.policy
            return Decision(
                "allow", verdict.by.reference, None, tuple(verdict.findings.results), explain=policy.explain
            )
    everything = [*verdicts, *guards]
    outcome = max((verdict.outcome for verdict in everything), key=_RANK.__getitem__)
    # Policies before guardrails: a guardrail is named as the one that decided only where no policy was as
    # strict.
    deciding = [verdict for verdict in everything if verdict.outcome == outcome]
    first = deciding[0]
    missing: tuple[str, ...] = ()
    if all(verdict.missing for verdict in deciding):
        missing = tuple(dict.fromkeys(name for verdict in deciding for name in verdict.missing))
    explain = max((verdict.by.policy.explain for verdict in deciding), key=_HIDDEN.__getitem__)
    reporting = verdicts if outcome == "allow" else deciding
    return Decision(
        outcome=outcome,
        policy=first.by.reference,
        denial_reason=first.reason,
        conditions=tuple(result for verdict in reporting for result in verdict.findings.results),
        rules=tuple(result for verdict in everything if verdict.rules for _, result in verdict.rules.fired),
        charges=() if outcome == "deny" else _charges(everything),
        approval=_terms(everything) if outcome == "require_approval" else None,
        explain=explain,
        message=None if outcome == "allow" else _message(deciding, explain),
        guardrails=tuple(verdict.by.reference for verdict in guards if verdict.outcome != "allow"),
        missing=() if outcome == "allow" else missing,
    )


def _charges(verdicts: list[_Verdict]) -> tuple[Charge, ...]:
    found: dict[str, Charge] = {}
    for verdict in verdicts:
        for charge in verdict.rules.charges.values() if verdict.rules else ():
            charge_once(found, charge)
    return tuple(found.values())


def _terms(verdicts: list[_Verdict]) -> ApprovalTerms:
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


def _message(deciding: list[_Verdict], explain: Explain) -> str | None:
    parts = [part for verdict in deciding for part in _own_message(verdict, explain)]
    return "; ".join(dict.fromkeys(parts)) or None


def _own_message(verdict: _Verdict, explain: Explain) -> list[str]:
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
    return f"`{result.field}` must be {result.operator} {_plain(result.expected)}, and is {_plain(result.actual)}"


def _plain(value: Any) -> str:
    return "missing" if value is None else f"`{value}`"
