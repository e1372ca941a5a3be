"""How much of a decision the agent is shown.

- `full`: everything. `fields`: which fields and operators, but neither what was expected nor what was found.
  `none`: only that something was evaluated.
- What is hidden is present but blank, because readers require the members. What an author wrote as a
  `message` is meant for the agent and stays.
- The log holds everything; whoever shows something to the agent hides it here first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agentlattice_core.policy.decision import Decision, Explain
from agentlattice_core.results import ConditionResult, RuleResult

__all__ = ["hide", "hide_conditions", "hide_rules"]


def hide(decision: Decision) -> Decision:
    """`decision` as its agent may see it, by the `explain` it carries."""
    if decision.explain == "full":
        return decision
    return replace(
        decision,
        conditions=tuple(hide_conditions(decision.conditions, decision.explain)),
        rules=tuple(hide_rules(decision.rules, decision.explain)),
        missing=decision.missing if decision.explain == "fields" else (),
    )


def hide_conditions(conditions: Iterable[ConditionResult], explain: Explain) -> list[ConditionResult]:
    """Conditions as the agent may see them. Whether each held is always shown."""
    if explain == "full":
        return list(conditions)
    if explain == "fields":
        return [ConditionResult(one.field, one.operator, None, one.result, None) for one in conditions]
    return [ConditionResult("", "", None, one.result, None) for one in conditions]


def hide_rules(rules: Iterable[RuleResult], explain: Explain) -> list[RuleResult]:
    """Fired rules as the agent may see them. A rule's effect and its author's message are always shown."""
    if explain == "full":
        return list(rules)
    if explain == "fields":
        return [RuleResult(one.policy, one.priority, one.type, one.effect, one.message, {}) for one in rules]
    return [RuleResult(one.policy, 0, "", one.effect, one.message, {}) for one in rules]
