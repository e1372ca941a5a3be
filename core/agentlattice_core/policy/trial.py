"""Runs cases against a policy set, and says what of the policy they exercised.

- Pure: the same cases and policies say the same on every machine and every day.
- What took place before is decided on by the same policies and charged as it would have been. An earlier action that
  they deny cannot have taken place, so the case fails and says so.
- What can be exercised: that a policy decides (its conditions once holding and once failing, where it has some), that
  each rule fires, that an action which is not as declared is refused. Earlier actions exercise nothing: nobody says
  what is expected of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentlattice_core.policy.cases import Case
from agentlattice_core.policy.decision import Decision, Facts
from agentlattice_core.policy.document import PolicyDocument, Position
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.model import Policy, Registry
from agentlattice_core.policy.rules import exact_sum
from agentlattice_core.policy.simulate import DayTotals
from agentlattice_core.policy.source import shown

__all__ = ["Aspect", "Trial", "TrialRun"]


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing that a case can exercise, such as that rule 20 of a policy fires."""

    part_id: str
    name: str
    what: str
    position: Position | None = None

    def __str__(self) -> str:
        at = self.position
        where = f"{at.file}:{at.line}: " if at is not None else ""
        return f"{where}`{shown(self.name)}`: {self.what}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A case with what was decided, and in what that differs from what is expected."""

    case: Case
    decision: Decision
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.differences


class TrialRun:
    """Cases run against the policies of one document. `registries` stand in for those of the store."""

    def __init__(self, document: PolicyDocument, registries: Iterable[Registry] = ()) -> None:
        self._policies = PolicySet.from_document(document)
        self._registries: Mapping[str, Any] = {one.name: one.entries for one in registries}
        self._caps = dict(_caps(document))
        self._aspects = {(one.part_id, one.what): one for one in _aspects(document)}
        self._seen: Counter[tuple[str, str]] = Counter()

    @property
    def exercised(self) -> dict[Aspect, int]:
        """How many cases exercised each aspect, in the order of the document."""
        return {aspect: self._seen[key] for key, aspect in self._aspects.items()}

    def run(self, case: Case) -> Trial:
        """Decide on the case and compare."""
        differences = [
            f"`used` names `{shown(name)}`, which is no daily cap; there are {', '.join(sorted(self._caps)) or 'none'}"
            for name in case.used
            if name != "*" and name not in self._caps
        ]
        totals = DayTotals()

        def usage(key: str) -> Decimal:
            return exact_sum(totals.read(key), self._used(case, key))

        for number, earlier in enumerate(case.history):
            facts = Facts(earlier.action, earlier.agent, earlier.at, usage, self._registries)
            for _ in range(earlier.times):
                decision = self._policies.decide(facts)
                if decision.outcome in ("deny", "not_found"):
                    differences.append(
                        f"history[{number}] cannot have taken place, because it is {_said(decision)}; "
                        "say what was `used` instead"
                    )
                    break
                totals.charge(decision)
        facts = Facts(case.action, case.agent, case.at, usage, self._registries)
        decision = self._policies.decide(facts)
        self._note(facts, decision)
        return Trial(case, decision, (*differences, *_differences(case, decision)))

    def _used(self, case: Case, key: str) -> Decimal:
        for name, amount in case.used.items():
            if name != "*" and key.startswith(f"{self._caps.get(name)}|"):
                return amount
        return case.used.get("*", Decimal(0))

    def _note(self, facts: Facts, decision: Decision) -> None:
        examined = list(self._policies.examined(facts))
        if not examined and decision.denial_reason == "CONDITIONS_DENIED":
            self._seen[f"action/{facts.action.action_type}", _REFUSES] += 1
        for kind, compiled, verdict in examined:
            part_id = f"{kind}/{compiled.policy.id}"
            self._seen[part_id, _DECIDES] += 1
            if compiled.requirement is not None:
                denies = compiled.policy.effect == "deny"
                # For `deny` the requirement is that they fail. What is unknown takes the stricter branch.
                held = compiled.requirement(facts, None) is True
                self._seen[part_id, _HOLD if held != denies else _FAIL] += 1
            if verdict is not None and verdict.rules is not None:
                for priority in {rule.priority for rule in verdict.rules.fired}:
                    self._seen[part_id, _fires(priority)] += 1


_DECIDES = "it is asked"
_HOLD = "its conditions hold"
_FAIL = "its conditions fail"
_REFUSES = "it refuses what is not as declared"


def _fires(priority: int) -> str:
    return f"rule {priority} fires"


def _aspects(document: PolicyDocument) -> Iterator[Aspect]:
    for kind, policies in (("policy", document.policies), ("guardrail", document.guardrails)):
        for policy in policies:
            if policy.active:
                yield from _aspects_of(document, f"{kind}/{policy.id}", policy)
    for declared in document.actions:
        if any(one.required or one.type or one.trusted for one in declared.fields.values()):
            part_id = f"action/{declared.action}"
            yield Aspect(part_id, declared.action, _REFUSES, document.positions.get(part_id))


def _aspects_of(document: PolicyDocument, part_id: str, policy: Policy) -> Iterator[Aspect]:
    at = document.positions
    if policy.conditions:
        where = at.get(f"{part_id}.conditions")
        yield Aspect(part_id, policy.name, _HOLD, where)
        yield Aspect(part_id, policy.name, _FAIL, where)
    else:
        yield Aspect(part_id, policy.name, _DECIDES, at.get(part_id))
    for number, rule in enumerate(policy.rules):
        if policy.effect != "deny":
            yield Aspect(part_id, policy.name, _fires(rule.priority), at.get(f"{part_id}.rules[{number}]"))


def _caps(document: PolicyDocument) -> Iterator[tuple[str, str]]:
    """Every name of a daily cap, and how the keys that it charges begin."""
    for kind, policies in (("policy", document.policies), ("guardrail", document.guardrails)):
        for policy in policies:
            for rule in policy.rules:
                if rule.type == "DAILY_CAP":
                    counter = rule.counter or f"{kind}/{policy.id}/{rule.priority}"
                    yield f"{policy.name}/{rule.priority}", counter
                    if rule.counter:
                        yield rule.counter, counter


def _differences(case: Case, decision: Decision) -> Iterator[str]:
    expect = case.expect
    if decision.outcome != expect.outcome:
        yield f"expected `{expect.outcome}`, and it is {_said(decision)}"
        return  # whatever else differs follows from that
    if expect.reason is not None and decision.denial_reason != expect.reason:
        yield f"expected the reason `{expect.reason}`, and it is `{decision.denial_reason or 'none'}`"
    decider = decision.policy.name if decision.policy is not None else None
    if expect.policy is not None and decider != expect.policy:
        yield f"expected `{shown(expect.policy)}` to decide, and it is `{shown(decider or 'no policy')}`"
    if expect.rules is not None:
        fired = {(rule.policy, str(rule.priority)) for rule in decision.rules}
        named = [_rule(text) for text in expect.rules]
        if not all(any(_is(rule, one) for rule in fired) for one in named) or not all(
            any(_is(rule, one) for one in named) for rule in fired
        ):
            got = ", ".join(f"{shown(policy)}/{priority}" for policy, priority in sorted(fired)) or "none"
            yield f"expected the rules `{', '.join(expect.rules) or 'none'}` to fire, and it is `{got}`"
    yield from _differing_lists("approvers", expect.approvers, _approvers(decision))
    yield from _differing_lists("missing", expect.missing, decision.missing)
    if expect.message is not None and expect.message not in (decision.message or ""):
        yield f"expected a message with: {shown(expect.message)}; it is: {decision.message or 'none'}"


def _differing_lists(what: str, expected: tuple[str, ...] | None, found: Iterable[str]) -> Iterator[str]:
    got = sorted(set(found))
    if expected is not None and sorted(set(expected)) != got:
        yield f"expected {what} `{', '.join(expected) or 'none'}`, and it is `{', '.join(got) or 'none'}`"


def _rule(text: str) -> tuple[str | None, str]:
    policy, _, priority = text.rpartition("/")
    return policy or None, priority


def _is(rule: tuple[str, str], named: tuple[str | None, str]) -> bool:
    return rule[1] == named[1] and named[0] in (None, rule[0])


def _approvers(decision: Decision) -> Iterator[str]:
    if decision.approval is not None:
        for one in decision.approval.sets:
            yield from one.approvers


def _said(decision: Decision) -> str:
    """The outcome with who decided and why, for a person."""
    if decision.outcome == "not_found":
        return "`not_found`: no policy matches"
    by = f" by `{shown(decision.policy.name)}`" if decision.policy is not None else ""
    reason = f", {decision.denial_reason}" if decision.denial_reason is not None else ""
    why = f": {decision.message}" if decision.message else ""
    return f"`{decision.outcome}`{by}{reason}{why}"
