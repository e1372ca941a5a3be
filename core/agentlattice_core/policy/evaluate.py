"""Decides: from facts to a `Decision`, purely.

0. A child that acts beyond its delegation, or beyond one above it, is denied (`OUT_OF_SCOPE`).
1. A tampered part that matches denies (`POLICY_TAMPERED`).
2. A declared action that lacks a required field, has one of the wrong type, or has an untrusted value where a
   trusted one is asked for, is denied (`CONDITIONS_DENIED`) before policy is asked.
3. The most specific tier of policies decides, tied ones strictest first. A `deny` whose conditions fail does
   not apply; when nothing in a tier applies, the next one decides; when nothing at all does, the answer is
   `not_found`.
4. Every matching guardrail is evaluated too, and can only make the answer stricter.

- Policy sets never change: a new version is a new set. One may be shared by any number of threads.
- Strictness: deny over require_approval over allow. An unknown condition takes the stricter branch of its
  effect.
- All spend rules of what was evaluated are walked. REJECT denies, REQUIRE_HUMAN asks a person, AUTO_APPROVE
  lifts the approval that its own policy's effect asks for and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from agentlattice_core.errors import PolicyDocumentError
from agentlattice_core.policy.combine import combine
from agentlattice_core.policy.decision import Decision, Facts, PolicyReference
from agentlattice_core.policy.declared import check_declared
from agentlattice_core.policy.document import PolicyDocument, read_part
from agentlattice_core.policy.index import PatternIndex
from agentlattice_core.policy.model import ActionDeclaration, Policy, Registry
from agentlattice_core.policy.parts import StoredPart, digest_of, part_pattern
from agentlattice_core.policy.rules import Registries
from agentlattice_core.policy.scope import out_of_scope
from agentlattice_core.policy.verdicts import CompiledPolicy, Verdict
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import PolicySummary

__all__ = ["PolicySet"]


_REMEMBERED_PLANS = 4096


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

    tiers: tuple[tuple[CompiledPolicy, ...], ...]
    guardrails: tuple[CompiledPolicy, ...]
    declaration: ActionDeclaration | None
    tampered: _Tampered | None


class PolicySet:
    """Everything that policy is, at one moment. Make one with `from_parts` or `from_document`."""

    def __init__(
        self,
        policies: Iterable[CompiledPolicy],
        guardrails: Iterable[CompiledPolicy],
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
        every = (*self._policies, *self._guardrails)
        self._asked_registries = {
            rule.registry for one in every for rule in one.policy.rules if rule.registry
        }
        # Plans are derived, so forgetting them is always right, and threads may race to remember the same
        # one.
        self._plans: dict[tuple[str, str, str, frozenset[str]], _Plan] = {}

    @classmethod
    def from_parts(cls, parts: Mapping[str, StoredPart]) -> PolicySet:
        """The set that stored parts make. A part whose content is not what its digest says counts as
        tampered.
        """
        policies: list[CompiledPolicy] = []
        guardrails: list[CompiledPolicy] = []
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
                    into.append(CompiledPolicy(part_id, value, reference, stored.created_at))
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

    def decide(self, facts: Facts, *, ungoverned: bool = False, findings: bool = True) -> Decision:
        """What policy says of `facts`. Never raises for anything an action holds.

        Without `findings`, outcome, policy, denial reason and charges are the same and nothing else need be there,
        which takes about half the time: for many actions of which few are looked at.

        With `ungoverned`, an action that no policy covers is allowed unless a guardrail objects: for what was asked of
        a person by a policy that has been deleted since.
        """
        agent = facts.agent
        if agent.ancestors and (beyond := out_of_scope(facts)) is not None:
            return beyond
        plan = self._plan(facts.action.action_type, agent.root)
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
        registries = self._registries_for(facts)
        for tier in plan.tiers:
            verdicts = []
            for policy in tier:
                verdict = policy.verdict(facts, registries, findings=findings)
                if verdict is not None:
                    verdicts.append(verdict)
            if verdicts:
                break
        else:
            if not ungoverned:
                return Decision("not_found")
            verdicts = []
        guards = []
        for guardrail in plan.guardrails:
            verdict = guardrail.verdict(facts, registries, findings=findings)
            if verdict is not None:
                guards.append(verdict)
        if not verdicts and not guards:
            return Decision("allow")
        return combine(verdicts, guards, findings=findings)

    def examined(
        self, facts: Facts
    ) -> Iterator[tuple[Literal["policy", "guardrail"], CompiledPolicy, Verdict | None]]:
        """Whom `decide` asks about `facts`, and what each says: None if it does not apply."""
        if out_of_scope(facts) is not None:
            return
        plan = self._plan(facts.action.action_type, facts.agent.root)
        if plan.tampered is not None:
            return
        if plan.declaration is not None and check_declared(plan.declaration, facts.action) is not None:
            return
        registries = self._registries_for(facts)
        for tier in plan.tiers:
            verdicts = [(policy, policy.verdict(facts, registries)) for policy in tier]
            for policy, verdict in verdicts:
                yield "policy", policy, verdict
            if any(verdict is not None for _, verdict in verdicts):
                break
        else:
            return
        for guardrail in plan.guardrails:
            yield "guardrail", guardrail, guardrail.verdict(facts, registries)

    def _registries_for(self, facts: Facts) -> Registries:
        """The registries that any rule asks: the store's before those of documents."""
        registries = self._registries
        for name in self._asked_registries:
            if name in facts.registries:
                registries = {**registries, name: facts.registries[name]}
        return registries

    def summaries(self, agent: AgentFacts | None = None) -> list[PolicySummary]:
        """Active policies and guardrails: all, or those that can govern an action of `agent`."""
        compiled = (*self._policies, *self._guardrails)
        return [_summary(one) for one in compiled if agent is None or _is_about(one, agent.root)]

    def covering(self, action_type: str, agent: AgentFacts) -> list[PolicySummary]:
        """What governs that action of that agent: guardrails, then policies, most specific first."""
        plan = self._plan(action_type, agent.root)
        return [_summary(one) for one in (*plan.guardrails, *(one for tier in plan.tiers for one in tier))]

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


def _summary(compiled: CompiledPolicy) -> PolicySummary:
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


def _is_about(compiled: CompiledPolicy, agent: AgentFacts) -> bool:
    policy = compiled.policy
    if not policy.names_agents:
        return True
    return (
        agent.name in policy.agents
        or agent.id in policy.agents
        or not agent.tags.isdisjoint(policy.agent_tags)
    )
