"""Finds what a document says that its author cannot have meant.

Codes are stable:

| code | what it finds |
|---|---|
| `never-matches` | conditions or a rule that nothing can satisfy |
| `shadowed` | a policy or rule that another one always overrules |
| `unreachable` | rules or approvers that are never looked at, a declared action that no policy matches |
| `contradictory` | policies of one rank that say the opposite of each other |
| `unknown-field` | a field that its declared action does not have, or a misspelt one |
| `unknown-registry` | a registry that neither the document nor the store has |
| `unknown-agent` | an agent or tag that is not registered, where the caller says which are |
| `no-effect` | something that changes nothing where it stands |
| `denies-the-rest` | a guardrail whose conditions deny every action they do not hold for |
| `unanchored` | a regular expression that allows because it matches somewhere inside |
| `not-a-pattern` | a name with `*` where only whole names count |
| `any-currency` | an amount that is compared without its currency |

- A document with findings is valid and does what it says. What is invalid is refused when it is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.fields import ACTION_FIELDS, AGENT_FIELDS, DATA_FIELDS, TIME_FIELDS
from agentlattice_core.policy.index import matches_pattern
from agentlattice_core.policy.lint_rules import lint_rules
from agentlattice_core.policy.model import ActionDeclaration, Condition, ConditionNode, Policy
from agentlattice_core.policy.operators import is_anchored
from agentlattice_core.policy.reader import did_you_mean
from agentlattice_core.policy.satisfiable import can_hold
from agentlattice_core.policy.source import shown

__all__ = ["Finding", "Severity", "lint"]

Severity = Literal["error", "warning"]
_ERRORS = ("never-matches", "contradictory", "unknown-field", "unknown-registry")
_BUILT_IN = (*DATA_FIELDS, *ACTION_FIELDS, *AGENT_FIELDS, *TIME_FIELDS)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One finding. `path` is the field within the part, as `conditions[0]`; lines and columns count from 1."""

    file: str
    line: int
    column: int
    code: str
    part_id: str
    path: str
    message: str

    @property
    def severity(self) -> Severity:
        """`error` for what makes a policy other than what it reads like."""
        return "error" if self.code in _ERRORS else "warning"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity} {self.code}: {self.message}"


def lint(
    document: PolicyDocument,
    *,
    agents: Collection[str] | None = None,
    registries: Collection[str] = (),
) -> list[Finding]:
    """All findings in the order of the document.

    `agents` are the names, ids and tags that are registered (None: not known), `registries` those the store
    has beside the document's own.
    """
    known_registries = {registry.name for registry in document.registries} | set(registries)
    found: list[Finding] = []
    for kind, policies in (("policy", document.policies), ("guardrail", document.guardrails)):
        for policy in policies:
            if not policy.active:
                continue
            part_id = f"{kind}/{policy.id}"
            notes = [
                *_lint_conditions(policy, document.actions),
                *lint_rules(policy, known_registries),
                *_lint_members(policy, guardrail=kind == "guardrail"),
                *_lint_names(policy),
                *(_lint_agents(policy, agents) if agents is not None else ()),
            ]
            found.extend(_finding(document, part_id, *note) for note in notes)
    for note in (
        *_lint_tiers(document.policies),
        *_lint_overlaps(document.policies),
        *_lint_guarded(document),
        *_lint_counters(document),
        *_lint_unused(document),
    ):
        found.append(_finding(document, *note))
    return sorted(found)


def _finding(document: PolicyDocument, part_id: str, code: str, path: str, message: str) -> Finding:
    where = f"{part_id}.{path}" if path else part_id
    # A path that the document does not spell out is reported where the nearest thing around it stands.
    while where not in document.positions and where != part_id:
        where = where[: max(where.rfind("."), where.rfind("["))]
    position = document.positions.get(where)
    file, line, column = (position.file, position.line, position.column) if position else (part_id, 1, 1)
    return Finding(file, line, column, code, part_id, path, message)


def _leaves(
    nodes: Sequence[ConditionNode], path: str, *, negated: bool = False
) -> Iterator[tuple[Condition, str, bool]]:
    """Each condition, where it stands, and whether it stands under an odd number of `not`."""
    for position, node in enumerate(nodes):
        where = f"{path}[{position}]"
        if isinstance(node, Condition):
            yield node, where, negated
        else:
            inner = negated != (node.kind == "not")
            yield from _leaves(node.members, f"{where}.{node.kind}", negated=inner)


_IF_NEVER = {
    "allow": "so it denies every action",
    "conditional": "so it asks a person about every action",
    "require_approval": "so it denies every action",
    "deny": "so it never denies",
}


def _lint_conditions(policy: Policy, actions: Sequence[ActionDeclaration]) -> Iterator[tuple[str, str, str]]:
    if policy.conditions and not can_hold(policy.conditions):
        alone = [position for position, node in enumerate(policy.conditions) if not can_hold([node])]
        path = f"conditions[{alone[0]}]" if alone else "conditions"
        what = "this can never hold" if alone else "these conditions can never hold together"
        yield "never-matches", path, f"{what}, {_IF_NEVER[policy.effect]}"
    governed = [declared for declared in actions if matches_pattern(policy.action, declared.action)]
    leaves = list(_leaves(policy.conditions, "conditions"))
    currencies = any(condition.field == "currency" for condition, *_ in leaves) or any(
        rule.currency for rule in policy.rules
    )
    for condition, path, negated in leaves:
        if condition.field not in _BUILT_IN:
            yield from _lint_field(condition, f"{path}.field", governed, policy.action)
        if (
            condition.operator == "matches"
            and (policy.effect == "deny") is negated
            and not is_anchored(condition.value)
        ):
            what = f"`{shown(condition.value)}` matches anywhere inside"
            message = f"{what}; begin it with `^` and end it with `$`, and so each side of a `|`"
            yield "unanchored", f"{path}.value", message
        if condition.field == "amount" and condition.operator != "exists" and not currencies:
            message = "an amount of any currency is compared; add a condition on `currency`"
            yield "any-currency", path, message


def _lint_field(
    condition: Condition, path: str, governed: Sequence[ActionDeclaration], pattern: str
) -> Iterator[tuple[str, str, str]]:
    bare = condition.field.removeprefix("metadata.")
    declared = {name.removeprefix("metadata.") for action in governed for name in action.fields}
    if bare in declared or bare.split(".")[0] in declared:
        return
    if governed:
        hint = did_you_mean(bare, [*declared, *_BUILT_IN])
        # A pattern is also about actions that are not declared, which may carry anything.
        if hint or governed[0].action == pattern:
            yield "unknown-field", path, f"`{governed[0].action}` declares no field `{shown(bare)}`{hint}"
    elif condition.field == bare:
        # What an action accessed is asked for by the bare names.
        member = bare.removeprefix("data_accessed.")
        if member in DATA_FIELDS:
            message = f"`{shown(bare)}` is read from the metadata; did you mean `{member}`?"
            yield "unknown-field", path, message
            return
        near = did_you_mean(bare, _BUILT_IN)
        # Only what is almost certainly a slip: metadata may have any name.
        if near and any(abs(len(bare) - len(name)) <= 1 and name in near for name in _BUILT_IN):
            yield "unknown-field", path, f"`{shown(bare)}` is read from the metadata{near}"


def _lint_members(policy: Policy, *, guardrail: bool) -> Iterator[tuple[str, str, str]]:
    asks = policy.effect in ("conditional", "require_approval") or any(
        rule.effect == "REQUIRE_HUMAN" for rule in policy.rules
    )
    if policy.approval is not None and not asks:
        yield (
            "unreachable",
            "approval",
            "nobody is ever asked: the effect and the rules never require a person",
        )
    if policy.effect == "deny" and policy.rules:
        yield "unreachable", "rules", "a policy that denies, or does not apply, never walks its rules"
    if policy.effect == "conditional" and not policy.conditions:
        yield "no-effect", "effect", "without conditions `conditional` always allows; write `allow`"
    if guardrail and policy.effect in ("allow", "require_approval") and policy.conditions:
        message = "every action for which the conditions do not hold is denied by this guardrail"
        yield "denies-the-rest", "conditions", message


def _lint_names(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Agents, tags, categories and beneficiaries are whole names: only an `action` may be a pattern."""
    lists = [("agents", policy.agents), ("agent_tags", policy.agent_tags)]
    for at, rule in enumerate(policy.rules):
        for member in ("agents", "except_agents", "categories", "values"):
            lists.append((f"rules[{at}].{member}", getattr(rule, member)))
    for path, names in lists:
        for position, name in enumerate(names):
            if "*" in name:
                message = (
                    f"`{shown(name)}` is one name with a `*` in it and no pattern; leave it out or list names"
                )
                yield "not-a-pattern", f"{path}[{position}]", message


def _lint_agents(policy: Policy, known: Collection[str]) -> Iterator[tuple[str, str, str]]:
    for member, names in (("agents", policy.agents), ("agent_tags", policy.agent_tags)):
        for position, name in enumerate(names):
            if name not in known:
                hint = did_you_mean(name, known)
                yield "unknown-agent", f"{member}[{position}]", f"no agent has `{shown(name)}`{hint}"
    for at, rule in enumerate(policy.rules):
        for member, names in (("agents", rule.agents), ("except_agents", rule.except_agents)):
            for position, name in enumerate(names):
                if name not in known:
                    hint = did_you_mean(name, known)
                    yield (
                        "unknown-agent",
                        f"rules[{at}].{member}[{position}]",
                        f"no agent has `{shown(name)}`{hint}",
                    )


def _lint_tiers(policies: Sequence[Policy]) -> Iterator[tuple[str, str, str, str]]:
    """Policies of one rank: the same pattern, and the same agents named or nobody."""
    tiers: dict[tuple[str, frozenset[str], frozenset[str]], list[Policy]] = {}
    for policy in policies:
        if policy.active:
            key = (policy.action, frozenset(policy.agents), frozenset(policy.agent_tags))
            tiers.setdefault(key, []).append(policy)
    for tied in tiers.values():
        bare = [policy for policy in tied if not policy.conditions and not policy.rules]
        denies = next((policy for policy in bare if policy.effect == "deny"), None)
        allows = next((policy for policy in bare if policy.effect == "allow"), None)
        for policy in tied:
            part_id = f"policy/{policy.id}"
            if denies is not None and policy is allows:
                yield (
                    part_id,
                    "contradictory",
                    "effect",
                    f"`{shown(denies.name)}` denies what this allows, and wins",
                )
            elif denies is not None and policy is not denies:
                yield (
                    part_id,
                    "shadowed",
                    "",
                    f"`{shown(denies.name)}` denies the same actions without conditions, and wins",
                )
            elif policy is allows and len(tied) > 1:
                other = next(one for one in tied if one is not policy)
                message = (
                    f"`{shown(other.name)}` governs the same actions, and the stricter of the two decides"
                )
                yield part_id, "shadowed", "", message


def _lint_overlaps(policies: Sequence[Policy]) -> Iterator[tuple[str, str, str, str]]:
    """Policies of one pattern that name some of the same agents: for those they are of one rank."""
    by_pattern: dict[str, list[Policy]] = {}
    for policy in policies:
        if policy.active and policy.names_agents:
            by_pattern.setdefault(policy.action, []).append(policy)
    for named in by_pattern.values():
        denies = [one for one in named if one.effect == "deny" and not one.conditions]
        for policy, deny in itertools.product(named, denies):
            both = set(_subjects(policy)) & set(_subjects(deny))
            if policy.effect == "deny" or not both or set(_subjects(policy)) == set(_subjects(deny)):
                continue
            whom = ", ".join(f"`{shown(name)}`" for name in sorted(both))
            code = "contradictory" if policy.effect == "allow" and not policy.conditions else "shadowed"
            message = f"`{shown(deny.name)}` denies the same actions for {whom}, and wins"
            yield f"policy/{policy.id}", code, "", message


def _subjects(policy: Policy) -> tuple[str, ...]:
    return (*policy.agents, *(f"tag {tag}" for tag in policy.agent_tags))


def _lint_guarded(document: PolicyDocument) -> Iterator[tuple[str, str, str, str]]:
    """Policies that a guardrail overrules wherever they apply."""
    denies = [
        one for one in document.guardrails if one.active and one.effect == "deny" and not one.conditions
    ]
    for policy in document.policies:
        if not policy.active or policy.effect == "deny":
            continue
        for guardrail in denies:
            if _covers(guardrail, policy):
                message = f"the guardrail `{shown(guardrail.name)}` denies every action that this governs"
                yield f"policy/{policy.id}", "shadowed", "", message
                break


def _covers(wider: Policy, narrower: Policy) -> bool:
    """Whether `wider` applies to every action, and for every agent, that `narrower` applies to."""
    pattern = wider.action in ("*", narrower.action) or (
        wider.action.endswith(".*") and narrower.action.startswith(wider.action[:-1])
    )
    if not wider.names_agents:
        return pattern
    return pattern and narrower.names_agents and set(_subjects(narrower)) <= set(_subjects(wider))


def _lint_counters(document: PolicyDocument) -> Iterator[tuple[str, str, str, str]]:
    """Caps that name one counter and count other days, so that they share nothing."""
    first: dict[tuple[str, str, str | None], str] = {}
    for kind, policies in (("policy", document.policies), ("guardrail", document.guardrails)):
        for policy in policies:
            for position, rule in enumerate(policy.rules if policy.active else ()):
                if rule.counter is None:
                    continue
                zone = rule.timezone or "UTC"
                other = first.setdefault((rule.counter, rule.per, rule.currency), zone)
                if zone != other:
                    name = shown(rule.counter)
                    message = (
                        f"`{name}` counts days of {other} elsewhere and of {zone} here, which share nothing"
                    )
                    yield f"{kind}/{policy.id}", "no-effect", f"rules[{position}].counter", message


def _lint_unused(document: PolicyDocument) -> Iterator[tuple[str, str, str, str]]:
    """Declared actions that nothing lets run, and registries that nothing looks into."""
    active = [policy for policy in document.policies if policy.active]
    for declared in document.actions:
        if not any(matches_pattern(policy.action, declared.action) for policy in active):
            message = f"no policy matches `{shown(declared.action)}`, so it never runs"
            yield f"action/{declared.action}", "unreachable", "", message
    used = {rule.registry for policy in (*active, *document.guardrails) for rule in policy.rules}
    for registry in document.registries:
        if registry.name not in used:
            yield f"registry/{registry.name}", "no-effect", "", f"no rule looks into `{shown(registry.name)}`"
