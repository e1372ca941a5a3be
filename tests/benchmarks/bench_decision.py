"""A decision at 10 to 10,000 policies, beside Cedar (cedarpy) and Microsoft's agent-governance-toolkit-core.

- Five policies match the action: the same pattern twice (once for this agent by name), a longer prefix, a shorter
  prefix and `*`; each has conditions. All others are about other actions.
- Cedar gets the same policies in its own language: an exact action, action groups for the prefixes, an unconstrained
  one, and one that names the principal. It is given everything in advance that it accepts: parsed policies, parsed
  entities, the context as JSON text. `text` parses the policies in each call.
- The toolkit's rules have one condition each and the first match ends its search, so its five rules, of which the last
  matches, stand in the middle of the others.
- Facts differ from call to call. `new agent` decides each time for an agent that was not seen before, so that nothing
  of the selection of policies is remembered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from measurement import Bar, Measurement, Scale, medians, microseconds_each

from agentlattice_core.actions import Action
from agentlattice_core.policy.decision import Facts
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions

__all__ = ["measure", "policy_document"]

_SIZES = (10, 100, 1_000, 10_000)
_MATCHING = """version: 1
policies:
  - {name: lab, action: "*", effect: deny, conditions: [{field: environment, operator: eq, value: lab}]}
  - {name: apps, action: "app.*", effect: require_approval, conditions: [{field: pr_size, operator: lt, value: 500}]}
  - name: repositories
    action: app.repo.*
    effect: conditional
    conditions: [{field: pr_size, operator: lt, value: 100}]
  - name: merge
    action: app.repo.merge
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}
      - {field: environment, operator: in, value: [staging, test]}
  - name: merge by ci
    action: app.repo.merge
    effect: allow
    agents: [ci]
    conditions:
      - {field: pr_size, operator: lt, value: 50}
      - {field: environment, operator: in, value: [staging, test]}
      - {field: sensitivity, operator: lte, value: high}
"""
_OTHER = (
    "  - {{name: other {0}, action: service{0}.run, effect: allow,"
    " conditions: [{{field: pr_size, operator: lt, value: 50}}]}}\n"
)
_CEDAR = """
forbid(principal, action, resource) when { context.environment == "lab" };
permit(principal, action in Action::"app", resource) when { context.pr_size < 500 };
permit(principal, action in Action::"app.repo", resource) when { context.pr_size < 100 };
permit(principal, action == Action::"app.repo.merge", resource)
  when { context.pr_size < 50 && ["staging", "test"].contains(context.environment) };
permit(principal == Agent::"ci", action == Action::"app.repo.merge", resource)
  when { context.pr_size < 50 && ["staging", "test"].contains(context.environment) && context.sensitivity <= 2 };
"""
_CEDAR_OTHER = (
    'permit(principal, action == Action::"service{0}.run", resource) when {{ context.pr_size < 50 }};\n'
)
_CEDAR_ENTITIES = """[
  {"uid": {"type": "Action", "id": "app"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Action", "id": "app.repo"}, "attrs": {}, "parents": [{"type": "Action", "id": "app"}]},
  {"uid": {"type": "Action", "id": "app.repo.merge"}, "attrs": {}, "parents": [{"type": "Action", "id": "app.repo"}]}
]"""

Decide = Callable[[], object]


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Microseconds of one decision, and the ratios that are promised."""
    sizes = _SIZES if scale == "full" else _SIZES[:2]
    subjects: dict[str, Decide] = {}
    for size in sizes:
        policies = PolicySet.from_document(PolicyDocument.parse(policy_document(size)))
        subjects[f"ours {size}"] = _ours(policies, itertools.repeat("ci"))
        subjects[f"ours, new agent {size}"] = _ours(
            policies, (f"ci {number}" for number in itertools.count())
        )
    cedar = _cedar(sizes)
    toolkit = _toolkit(sizes)
    subjects |= cedar | toolkit
    rounds = 41 if scale == "full" else 3
    taken: list[dict[str, float]] = []
    calls = {name: _calls(decide, 2_000 if scale == "full" else 200) for name, decide in subjects.items()}
    for _ in range(rounds):
        taken.append({name: microseconds_each(decide, calls[name]) for name, decide in subjects.items()})
    found = medians(taken)
    base = found["ours 10"]
    for size in sizes:
        bar = Bar("at most", 1.2) if size == 1_000 else None
        own = found[f"ours {size}"]
        yield Measurement(f"decision, {size:,} policies", own, "us", own / base, "ours at 10", bar)
    for size in sizes:
        own = found[f"ours, new agent {size}"]
        yield Measurement(f"decision, {size:,} policies, new agent", own, "us", own / base, "ours at 10")
    for other, named in (
        ("cedarpy preparsed", cedar),
        ("cedarpy text", cedar),
        ("agent-governance-toolkit", toolkit),
    ):
        for size in sizes:
            if f"{other} {size}" not in named:
                continue
            theirs, own = found[f"{other} {size}"], found[f"ours {size}"]
            bar = Bar("at most", 1 / 3) if (other, size) == ("cedarpy preparsed", 10) else None
            yield Measurement(f"{other}, {size:,} policies", theirs, "us", own / theirs, "ours over it", bar)


def _calls(decide: Decide, most: int) -> int:
    """How many calls make about ten milliseconds."""
    decide()
    return max(1, min(most, int(10_000 / microseconds_each(decide, 3))))


def policy_document(size: int) -> str:
    """A document of that many policies, of which five match the action that is measured."""
    return _MATCHING + "".join(_OTHER.format(number) for number in range(size - 5))


def _ours(policies: PolicySet, names: Any) -> Decide:
    now = datetime(2026, 3, 2, 9, tzinfo=UTC)
    actions = itertools.cycle(
        Action.build(
            "app.repo.merge",
            ActionOptions(
                data_accessed=[{"type": "source_code", "count": number, "sensitivity": "medium"}],
                metadata={"pr_size": number, "environment": "staging"},
            ),
        )
        for number in range(1, 33)
    )
    agents = iter(names)

    def decide() -> object:
        name = next(agents)
        return policies.decide(Facts(next(actions), AgentFacts(name, name), now, lambda key: Decimal(0)))

    decision: Any = decide()
    assert decision.outcome == "allow", decision
    return decide


def _cedar(sizes: tuple[int, ...]) -> dict[str, Decide]:
    try:
        import cedarpy
    except ImportError:
        return {}
    requests = itertools.cycle(
        {
            "principal": 'Agent::"ci"',
            "action": 'Action::"app.repo.merge"',
            "resource": 'Repository::"backend"',
            "context": f'{{"pr_size": {number}, "environment": "staging", "sensitivity": 1}}',
        }
        for number in range(1, 33)
    )
    entities = cedarpy.Entities.from_json_str(_CEDAR_ENTITIES)
    found: dict[str, Decide] = {}
    for size in sizes:
        text = _CEDAR + "".join(_CEDAR_OTHER.format(number) for number in range(size - 5))
        for kind, policies in (("preparsed", cedarpy.PolicySet.from_str(text)), ("text", text)):

            def decide(policies: Any = policies) -> object:
                return cedarpy.is_authorized(next(requests), policies, entities)

            answer: Any = decide()
            assert answer.allowed, answer
            found[f"cedarpy {kind} {size}"] = decide
    return found


def _toolkit(sizes: tuple[int, ...]) -> dict[str, Decide]:
    try:
        from agent_os.policies import evaluator as toolkit
        from agent_os.policies import schema
    except ImportError:
        return {}
    contexts = itertools.cycle(
        {"action": "app.repo.merge", "agent": "ci", "pr_size": number, "environment": "staging"}
        for number in range(1, 33)
    )

    def rule(name: str, field: str, operator: str, value: Any) -> Any:
        condition = schema.PolicyCondition(field=field, operator=schema.PolicyOperator(operator), value=value)
        return schema.PolicyRule(name=name, condition=condition, action=schema.PolicyAction.ALLOW)

    found: dict[str, Decide] = {}
    for size in sizes:
        others = [rule(f"other {n}", "action", "eq", f"service{n}.run") for n in range(size - 5)]
        half = len(others) // 2
        rules = [
            *others[:half],
            rule("lab", "environment", "eq", "lab"),
            rule("app", "action", "matches", r"^app\.deploy\..*"),
            rule("repositories", "action", "matches", r"^app\.repo\.rebase"),
            rule("merge by cd", "agent", "eq", "cd"),
            rule("merge", "action", "eq", "app.repo.merge"),
            *others[half:],
        ]
        evaluator = toolkit.PolicyEvaluator(policies=[schema.PolicyDocument(name="all", rules=rules)])

        def decide(evaluator: Any = evaluator) -> object:
            return evaluator.evaluate(next(contexts))

        answer: Any = decide()
        assert answer.allowed, answer
        found[f"agent-governance-toolkit {size}"] = decide
    return found
