"""Which policies govern an action type, in which order they decide, and why each stands where it does.

- The order is the one that decisions are made by: exact over longer prefix over shorter prefix over `*`; at one
  pattern, a policy that names the agent before one that names none. Tied policies are asked together, and the strictest
  decides.
- Guardrails are asked whatever decides, and can only tighten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.index import PatternIndex, matches_pattern, patterns_of
from agentlattice_core.policy.model import Policy
from agentlattice_core.principals import AgentFacts

__all__ = ["Explanation", "Step", "explained"]

_ON_FAILURE = {
    "allow": "conditions fail: denied",
    "conditional": "conditions fail: a person is asked",
    "require_approval": "conditions fail: denied",
    "deny": "conditions fail: the next one decides",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One policy on the way to a decision. `order` counts from 1 and is shared by policies that are tied."""

    order: str
    id: str
    name: str
    pattern: str
    effect: str
    why: str
    then: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps in order, and whether the document declares the action type."""

    steps: list[Step]
    declared: bool


def explained(document: PolicyDocument, action_type: str, agent: AgentFacts | None) -> Explanation:
    """What of `document` governs `action_type`, for `agent` or, with None, for any agent."""
    steps = [_guardrail(policy) for policy in document.guardrails if _concerns(policy, action_type, agent)]
    for position, tier in enumerate(_tiers(document, action_type, agent), start=1):
        tied = len(tier) > 1 and (agent is not None or not tier[0].names_agents)
        steps += [_step(policy, position, agent, tied=tied) for policy in tier]
    return Explanation(steps, any(declared.action == action_type for declared in document.actions))


def _tiers(
    document: PolicyDocument, action_type: str, agent: AgentFacts | None
) -> Iterator[tuple[Policy, ...]]:
    active = [policy for policy in document.policies if policy.active]
    if agent is not None:
        yield from PatternIndex(active).tiers(action_type, agent)
        return
    for pattern in patterns_of(action_type):
        here = [policy for policy in active if policy.action == pattern]
        for named in (True, False):
            tier = tuple(policy for policy in here if policy.names_agents is named)
            if tier:
                yield tier


def _concerns(policy: Policy, action_type: str, agent: AgentFacts | None) -> bool:
    if not policy.active or not matches_pattern(policy.action, action_type):
        return False
    return agent is None or bool(PatternIndex([policy]).tiers(action_type, agent))


def _guardrail(policy: Policy) -> Step:
    return Step(
        "always",
        policy.id,
        policy.name,
        policy.action,
        policy.effect,
        "a guardrail is asked whatever decides",
        "it can only tighten",
    )


def _step(policy: Policy, position: int, agent: AgentFacts | None, *, tied: bool) -> Step:
    if policy.action == "*":
        why = "matches everything"
    elif policy.action.endswith(".*"):
        why = f"prefix {policy.action[:-2]}"
    else:
        why = "names this action type"
    if policy.names_agents:
        whose = (
            "names the agent"
            if agent is not None
            else f"for {', '.join((*policy.agents, *_tags(policy)))} only"
        )
        why = f"{why}, {whose}"
    then = []
    if policy.conditions:
        then.append(_ON_FAILURE[policy.effect])
    if policy.rules:
        then.append(f"{len(policy.rules)} spend rules")
    if tied:
        then.append("tied: the strictest decides")
    return Step(str(position), policy.id, policy.name, policy.action, policy.effect, why, "; ".join(then))


def _tags(policy: Policy) -> list[str]:
    return [f"tag {tag}" for tag in policy.agent_tags]
