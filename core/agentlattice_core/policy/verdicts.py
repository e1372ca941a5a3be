"""What one policy says of one action.

- Conditions come first. A policy whose conditions do not hold denies (`allow`, `require_approval`), asks a
  person (`conditional`) or does not apply (`deny`); an unknown condition takes the stricter of the effect's
  two branches.
- Then all spend rules are walked. REJECT wins over REQUIRE_HUMAN, that over AUTO_APPROVE, which lifts only
  the approval that the effect itself asks for. When every rule that rejects is a cap the reason is
  `LIMIT_EXCEEDED`, since another day can be different; else `RULE_REJECTED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentlattice_core.policy.conditions import Findings, compile_requirement
from agentlattice_core.policy.decision import DenialReason, Facts, Outcome, PolicyReference
from agentlattice_core.policy.model import ApprovalSpec, Policy, Rule
from agentlattice_core.policy.rules import Registries, RuleFindings, compile_rule
from agentlattice_core.results import RuleResult

__all__ = ["CompiledPolicy", "Verdict"]


@dataclass(slots=True, eq=False)
class Verdict:
    """What one policy says of one action."""

    by: CompiledPolicy
    outcome: Outcome
    reason: DenialReason | None
    findings: Findings
    rules: RuleFindings | None = None
    message: str | None = None
    asks: tuple[ApprovalSpec | None, ...] = ()

    @property
    def missing(self) -> list[str]:
        return self.findings.missing if self.rules is None else [*self.findings.missing, *self.rules.missing]


class CompiledPolicy:
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
        by_priority = sorted(policy.rules, key=lambda rule: rule.priority)
        self.rules = tuple(compile_rule(rule, policy, part_id) for rule in by_priority)

    def verdict(self, facts: Facts, registries: Registries) -> Verdict | None:
        """What this policy says, or None if it does not apply."""
        findings = Findings()
        holds = True if self.requirement is None else self.requirement(facts, findings)
        if holds is not None:
            findings.missing.clear()  # what was missing did not matter
        effect = self.policy.effect
        if holds is not True and effect != "conditional":
            reason: DenialReason = "POLICY_DENIED" if effect == "deny" else "CONDITIONS_DENIED"
            return Verdict(self, "deny", reason, findings)
        if effect == "deny":
            return None
        asks = effect == "require_approval" or holds is not True
        if not self.rules:
            if asks:
                return Verdict(self, "require_approval", None, findings, asks=(self.policy.approval,))
            return Verdict(self, "allow", None, findings)
        return self._after_rules(facts, registries, findings, asks, liftable=holds is True)

    def _after_rules(
        self, facts: Facts, registries: Registries, findings: Findings, asks: bool, *, liftable: bool
    ) -> Verdict:
        rules = RuleFindings()
        for walk in self.rules:
            walk(facts, registries, rules)
        if not rules.fired:
            outcome: Outcome = "require_approval" if asks else "allow"
            return Verdict(self, outcome, None, findings, rules, asks=(self.policy.approval,) if asks else ())
        effects = {rule.effect for rule, _ in rules.fired}
        if "REJECT" in effects:
            rejecting = [(rule, result) for rule, result in rules.fired if rule.effect == "REJECT"]
            capped = all(rule.type == "DAILY_CAP" for rule, _ in rejecting)
            reason: DenialReason = "LIMIT_EXCEEDED" if capped else "RULE_REJECTED"
            return Verdict(self, "deny", reason, findings, rules, _rules_message(rejecting))
        if "REQUIRE_HUMAN" in effects:
            human = [(rule, result) for rule, result in rules.fired if rule.effect == "REQUIRE_HUMAN"]
            own = tuple(self._ask(rule.approval) for rule, _ in human)
            if asks:
                own = (self.policy.approval, *own)
            return Verdict(self, "require_approval", None, findings, rules, _rules_message(human), own)
        if asks and liftable:
            return Verdict(self, "allow", None, findings, rules)
        asked = (self.policy.approval,) if asks else ()
        return Verdict(self, "require_approval" if asks else "allow", None, findings, rules, asks=asked)

    def _ask(self, approval: ApprovalSpec | None) -> ApprovalSpec | None:
        """What a rule that asks a person asks for; what it leaves open, the policy says."""
        own = self.policy.approval
        if approval is None or own is None:
            return approval or own
        return approval if approval.timeout is not None else replace(approval, timeout=own.timeout)


def _rules_message(fired: Sequence[tuple[Rule, RuleResult]]) -> str | None:
    # Rules whose author wrote nothing, in a policy that hides what was measured, have no message.
    return "; ".join(result.message for _, result in fired if result.message) or None
