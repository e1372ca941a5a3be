"""Lint for spend rules: each note is a code, the field it is about, and the message."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal

from agentlattice_core.policy.model import Bounds, Policy, Rule
from agentlattice_core.policy.source import shown

__all__ = ["lint_rules"]

_STRICTNESS = {"AUTO_APPROVE": 0, "REQUIRE_HUMAN": 1, "REJECT": 2}


def lint_rules(policy: Policy, registries: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """What is odd about the rules of `policy`, given the names of the registries that there are."""
    for position, rule in enumerate(policy.rules):
        path = f"rules[{position}]"
        if not _bounds_can_hold(rule.bounds):
            yield "never-matches", path, "no amount is within these bounds, so the rule never fires"
        if policy.agents and not policy.agent_tags:
            yield from _lint_scope(policy, rule, path)
        if rule.registry is not None and rule.registry not in registries:
            yield "unknown-registry", f"{path}.registry", f"there is no registry `{shown(rule.registry)}`"
        if rule.effect == "AUTO_APPROVE":
            yield from _lint_approving(policy, rule, path)
        stronger = next((other for other in policy.rules if _overrules(other, rule)), None)
        if stronger is not None:
            message = f"rule {stronger.priority} says {stronger.effect} wherever this one fires, and wins"
            yield "shadowed", path, message


def _lint_scope(policy: Policy, rule: Rule, path: str) -> Iterator[tuple[str, str, str]]:
    named = set(policy.agents)
    if rule.agents and named.isdisjoint(rule.agents):
        yield "never-matches", f"{path}.agents", "the policy is about other agents, so the rule never fires"
    elif rule.except_agents and named.issubset(rule.except_agents):
        yield (
            "never-matches",
            f"{path}.except_agents",
            "every agent of the policy is excepted, so it never fires",
        )


def _lint_approving(policy: Policy, rule: Rule, path: str) -> Iterator[tuple[str, str, str]]:
    if policy.effect != "require_approval":
        message = f"AUTO_APPROVE lifts only the approval of `require_approval`, and this policy says `{policy.effect}`"
        yield "no-effect", f"{path}.effect", message
    elif rule.type in ("BENEFICIARY_WHITELIST", "CATEGORY_BLOCKLIST"):
        message = f"a {rule.type} fires on what is not wanted, and this one approves it"
        yield "contradictory", f"{path}.effect", message


def _bounds_can_hold(bounds: Bounds) -> bool:
    low, low_open = _low(bounds)
    high, high_open = _high(bounds)
    return low < high or (low == high and not low_open and not high_open)


def _low(bounds: Bounds) -> tuple[Decimal, bool]:
    if bounds.above is not None:
        return bounds.above, True
    return (bounds.min, False) if bounds.min is not None else (Decimal(0), False)


def _high(bounds: Bounds) -> tuple[Decimal, bool]:
    if bounds.below is not None:
        return bounds.below, True
    return (bounds.max, False) if bounds.max is not None else (Decimal("Infinity"), False)


def _overrules(stronger: Rule, weaker: Rule) -> bool:
    """Whether `stronger` fires wherever `weaker` does, and outdoes it."""
    if _STRICTNESS[stronger.effect] <= _STRICTNESS[weaker.effect] or stronger.type != "AMOUNT_THRESHOLD":
        return False
    if not _bounds_can_hold(weaker.bounds) or not weaker.bounds:
        return False
    if stronger.currency != weaker.currency or not _selects_at_least(stronger, weaker):
        return False
    (low, low_open), (other_low, other_low_open) = _low(stronger.bounds), _low(weaker.bounds)
    (high, high_open), (other_high, other_high_open) = _high(stronger.bounds), _high(weaker.bounds)
    below = low < other_low or (low == other_low and (other_low_open or not low_open))
    above = high > other_high or (high == other_high and (other_high_open or not high_open))
    return below and above


def _selects_at_least(stronger: Rule, weaker: Rule) -> bool:
    return (
        (not stronger.agents or stronger.agents == weaker.agents)
        and (not stronger.except_agents or stronger.except_agents == weaker.except_agents)
        and (not stronger.categories or set(stronger.categories) >= set(weaker.categories) != set())
    )
