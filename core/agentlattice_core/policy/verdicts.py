"""What one policy says of one action.

- Conditions come first. A policy whose conditions do not hold denies (`allow`, `require_approval`), asks a
  person (`conditional`) or does not apply (`deny`); an unknown condition takes the stricter of the effect's
  two branches.
- Then all spend rules are walked. REJECT wins over REQUIRE_HUMAN, that over AUTO_APPROVE, which lifts only
  the approval that the effect itself asks for. When every rule that rejects is a cap the reason is
  `LIMIT_EXCEEDED`, since another day can be different; else `RULE_REJECTED`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentlattice_core.policy.conditions import Findings, compile_requirement
from agentlattice_core.policy.decision import DenialReason, Facts, Outcome, PolicyReference
from agentlattice_core.policy.model import ApprovalSpec, Policy
from agentlattice_core.policy.rules import Registries, RuleFindings, compile_rule

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


_NO_FINDINGS = Findings()
"""Stands where none are asked for; nothing is ever added to it."""


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

    def verdict(self, facts: Facts, registries: Registries, *, findings: bool = True) -> Verdict | None:
        """What this policy says, or None if it does not apply. Without `findings`, not what it was found from."""
        found = Findings() if findings else _NO_FINDINGS
        holds = True if self.requirement is None else self.requirement(facts, found if findings else None)
        if findings and holds is not None:
            found.missing.clear()  # what was missing did not matter
        effect = self.policy.effect
        if holds is not True and effect != "conditional":
            reason: DenialReason = "POLICY_DENIED" if effect == "deny" else "CONDITIONS_DENIED"
            return Verdict(self, "deny", reason, found)
        if effect == "deny":
            return None
        asks = effect == "require_approval" or holds is not True
        if not self.rules:
            if asks:
                return Verdict(self, "require_approval", None, found, asks=(self.policy.approval,))
            return Verdict(self, "allow", None, found)
        return self._after_rules(facts, registries, found, asks, liftable=holds is True)

    def _after_rules(
        self, facts: Facts, registries: Registries, found: Findings, asks: bool, *, liftable: bool
    ) -> Verdict:
        rules = RuleFindings(results=None if found is _NO_FINDINGS else [])
        for walk in self.rules:
            walk(facts, registries, rules)
        if not rules.fired:
            outcome: Outcome = "require_approval" if asks else "allow"
            return Verdict(self, outcome, None, found, rules, asks=(self.policy.approval,) if asks else ())
        effects = {rule.effect for rule in rules.fired}
        if "REJECT" in effects:
            capped = all(rule.type == "DAILY_CAP" for rule in rules.fired if rule.effect == "REJECT")
            reason: DenialReason = "LIMIT_EXCEEDED" if capped else "RULE_REJECTED"
            return Verdict(self, "deny", reason, found, rules, _message_of(rules, "REJECT"))
        if "REQUIRE_HUMAN" in effects:
            own = tuple(self._ask(rule.approval) for rule in rules.fired if rule.effect == "REQUIRE_HUMAN")
            if asks:
                own = (self.policy.approval, *own)
            message = _message_of(rules, "REQUIRE_HUMAN")
            return Verdict(self, "require_approval", None, found, rules, message, own)
        if asks and liftable:
            return Verdict(self, "allow", None, found, rules)
        asked = (self.policy.approval,) if asks else ()
        return Verdict(self, "require_approval" if asks else "allow", None, found, rules, asks=asked)

    def _ask(self, approval: ApprovalSpec | None) -> ApprovalSpec | None:
        """What a rule that asks a person asks for; what it leaves open, the policy says."""
        own = self.policy.approval
        if approval is None or own is None:
            return approval or own
        if approval.timeout is None:
            approval = replace(approval, timeout=own.timeout)
        if not approval.approvers:
            quorum = own.quorum if approval.quorum == 1 else approval.quorum
            approval = replace(approval, approvers=own.approvers, quorum=quorum)
        return approval


def _message_of(rules: RuleFindings, effect: str) -> str | None:
    """What the rules with that effect say that fired."""
    if rules.results is None:
        return None
    # Rules whose author wrote nothing, in a policy that hides what was measured, have no message.
    said = [result.message for result in rules.results if result.effect == effect and result.message]
    return "; ".join(said) or None
