"""Approving forever: what becomes of the policy that asked.

- For the policy: it is published with effect `allow` and without its conditions. Its rules stay, so whatever a
  REQUIRE_HUMAN or REJECT rule says still holds.
- For the agent only: a policy beside it does the same for that agent and its descendants, which is more specific. The
  other's list of agents loses that agent if it has one.
- It takes administrators, and the whole quorum: everybody whose vote is needed must have said forever. Who says it
  for the policy says it for the agent too.
- Only of what was shown: the policy must be the version that asked.
- A guardrail, a policy that already allows, a policy that finds its agents by tags (for the agent only), and a daily
  cap that a second policy would count anew cannot be lifted this way; change the policy instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentlattice_core import policies as publishing
from agentlattice_core import quorum, reevaluation
from agentlattice_core.agents import agent_facts
from agentlattice_core.batch import Batch
from agentlattice_core.errors import ForbiddenError, IllegalTransitionError
from agentlattice_core.policies import Policies
from agentlattice_core.policy.document import read_part
from agentlattice_core.policy.model import Policy
from agentlattice_core.policy.parts import canonical_json
from agentlattice_core.policy.schema import slug
from agentlattice_core.principals import AgentFacts, Forever, Operator
from agentlattice_core.stores.base import Document

__all__ = ["check", "publish"]


def check(batch: Batch, operator: Operator, approval_id: str, approval: Document, forever: Forever) -> None:
    """Raise ForbiddenError or IllegalTransitionError if that request cannot be approved forever by this person."""
    if operator.role != "admin":
        raise ForbiddenError(
            f"`{operator.name}` is a {operator.role}, and approving forever takes an administrator; approve once"
        )
    _parts(batch, approval_id, approval, forever)


def publish(
    policies: Policies, batch: Batch, by: Mapping[str, Any], approval_id: str, wanted: Forever
) -> None:
    """Change policy as far as all who were needed have agreed, now that the request is approved; maybe not at all."""
    approval = batch.get("approval", approval_id)
    assert approval is not None
    reach = _agreed(approval)
    if reach is None:
        return
    try:
        parts = _parts(batch, approval_id, approval, reach)
    except IllegalTransitionError:
        if reach == wanted:
            raise
        return  # somebody agreed to less than this, and less is not possible here
    patterns: list[str] = []
    for part, policy in parts.items():
        content = canonical_json(policy.as_json())
        change = publishing.publish_part(
            batch, part, content, by=dict(by), approval_id=approval_id, reach=reach
        )
        patterns += change.patterns
    reevaluation.begin(policies, batch, patterns)


def _agreed(approval: Document) -> Forever | None:
    """How far those who approved reach together."""
    # Who voted before the request was amended was shown something else.
    since = approval.get("amended", -1)
    votes = [vote for vote in approval["votes"] if vote["entry"] > since and "forever" in vote]
    added = quorum.added_by_escalation(approval)
    if quorum.satisfied(approval["sets"], added, [vote for vote in votes if vote["forever"] == "policy"]):
        return "policy"
    return "agent" if quorum.satisfied(approval["sets"], added, votes) else None


def _parts(batch: Batch, approval_id: str, approval: Document, forever: Forever) -> dict[str, Policy]:
    """What to publish: policies by part id."""
    policy = _asking(batch, approval_id, approval)
    lifted = replace(policy, effect="allow", conditions=())
    if forever == "policy":
        return {f"policy/{policy.id}": lifted}
    agent = agent_facts(batch, approval["agent"]).root
    if policy.agent_tags:
        raise IllegalTransitionError(
            f"policy `{policy.name}` finds its agents by tags, so it cannot be lifted for `{agent.name}` only; "
            "approve once, or change the policy"
        )
    others = tuple(name for name in policy.agents if name not in (agent.name, agent.id))
    if policy.agents and not others:
        return {f"policy/{policy.id}": lifted}
    for rule in policy.rules:
        if rule.type == "DAILY_CAP" and rule.counter is None:
            raise IllegalTransitionError(
                f"policy `{policy.name}` has a daily cap that would be counted anew for `{agent.name}`; "
                "name its `counter` in the policy first, or approve once"
            )
    parts = _beside(batch, policy, lifted, agent)
    if others:
        parts[f"policy/{policy.id}"] = replace(policy, agents=others)
    return parts


def _beside(batch: Batch, policy: Policy, lifted: Policy, agent: AgentFacts) -> dict[str, Policy]:
    """The policy that does for one agent what `lifted` would do for all."""
    own = f"{policy.id[:60]}.{slug(agent.name)[:30] or 'agent'}-{agent.id[-8:]}"
    known = batch.get("policy", f"policy/{own}")
    if known is not None and not known["removed"] and known["source"] != publishing.BY_APPROVAL:
        raise IllegalTransitionError(
            f"there is a policy `{own}` that somebody else published; change the policy, or approve once"
        )
    name = f"{policy.name[:150]} ({agent.name[:40]})"
    return {f"policy/{own}": replace(lifted, id=own, name=name, agents=(agent.name,))}


def _asking(batch: Batch, approval_id: str, approval: Document) -> Policy:
    """The policy that asked, as it asked."""
    asked = approval["policy"] or {"id": "", "name": ""}
    known = batch.get("policy", f"policy/{asked['id']}")
    if known is None or batch.get("policy", f"guardrail/{asked['id']}") is not None:
        raise IllegalTransitionError(
            f"approval `{approval_id}` is asked for by the guardrail `{asked['name']}`, which no approval lifts; "
            "approve once, or change the guardrail"
        )
    row = batch.row(known["entry"])
    content = row[4] if row is not None else None
    if (
        known["removed"]
        or known["digest"] != asked["digest"]
        or content is None
        or hashlib.sha256(content).hexdigest() != known["digest"]
    ):
        raise IllegalTransitionError(
            f"policy `{asked['name']}` is not what it was when it asked for `{approval_id}`; approve once"
        )
    policy = read_part(f"policy/{asked['id']}", content)
    assert isinstance(policy, Policy)
    if policy.effect == "allow" and not policy.conditions:
        raise IllegalTransitionError(
            f"policy `{policy.name}` allows already, and it is a rule of it that asks, which no approval lifts; "
            "approve once, or change the rule"
        )
    return policy
