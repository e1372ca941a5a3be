"""Conditions, compiled once and evaluated without ever raising.

- What is compiled is a *requirement*: what must hold for the good branch of a policy. For `deny` that is the
  opposite of its conditions. Negations are pushed down to the leaves, where the operator is negated, so that
  a leaf with `result=False` always is something that blocked, whatever it was nested in.
- Truth has three values. A leaf whose field is missing or cannot be compared is unknown (None); groups carry
  it by Kleene's rules; whoever asks resolves it, once, at the root, towards the stricter branch.
- All leaves are evaluated. A group `any` that holds reports the members that made it hold; the others blocked
  nothing.
- Where no findings are asked for, only the truth is found, and no further than it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

from agentlattice_core.policy.decision import Facts
from agentlattice_core.policy.fields import field_kind, read_field
from agentlattice_core.policy.model import Condition, ConditionNode
from agentlattice_core.policy.operators import NEGATED, compile_test
from agentlattice_core.results import ConditionResult

__all__ = ["Findings", "Requirement", "compile_requirement"]

_MOST_CHARACTERS = 1000
_MOST_ITEMS = 100


@dataclass(slots=True)
class Findings:
    """What evaluating found: each leaf's result, the fields that were missing, and why others could not be
    compared.
    """

    results: list[ConditionResult] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    incomparable: list[str] = field(default_factory=list)

    def extend(self, other: Findings) -> None:
        """Take over what `other` found."""
        self.results.extend(other.results)
        self.missing.extend(other.missing)
        self.incomparable.extend(other.incomparable)


Requirement: TypeAlias = Callable[[Facts, "Findings | None"], "bool | None"]
"""Whether it holds; adds what was found to the findings, if any are given."""


def compile_requirement(conditions: Sequence[ConditionNode], *, negated: bool = False) -> Requirement:
    """The requirement that all `conditions` hold or, `negated`, that not all of them do."""
    if negated:
        return _any_of([_compile(node, True) for node in conditions])
    return _all_of([_compile(node, False) for node in conditions])


def _compile(node: ConditionNode, negated: bool) -> Requirement:
    if isinstance(node, Condition):
        return _leaf(node, negated)
    inner = negated != (node.kind == "not")
    members = [_compile(member, inner) for member in node.members]
    # `not [a, b]` means not both, so under a negation it is `all` again; De Morgan does the rest.
    joined = node.kind != "any"
    return _all_of(members) if joined != inner else _any_of(members)


def _all_of(members: list[Requirement]) -> Requirement:
    if len(members) == 1:
        return members[0]

    def every(facts: Facts, findings: Findings | None) -> bool | None:
        truth: bool | None = True
        for member in members:
            held = member(facts, findings)
            if held is False:
                if findings is None:
                    return False
                truth = False
            elif held is None and truth is True:
                truth = None
        return truth

    return every


def _any_of(members: list[Requirement]) -> Requirement:
    if len(members) == 1:
        return members[0]

    def some(facts: Facts, findings: Findings | None) -> bool | None:
        truth: bool | None = False
        if findings is None:
            for member in members:
                held = member(facts, None)
                if held is True:
                    return True
                if held is None:
                    truth = None
            return truth
        held_by, others = Findings(), Findings()
        for member in members:
            found = Findings()
            held = member(facts, found)
            if held is True:
                truth = True
                held_by.extend(found)
            else:
                if held is None and truth is False:
                    truth = None
                others.extend(found)
        findings.extend(held_by if truth is True else others)
        return truth

    return some


def _leaf(condition: Condition, negated: bool) -> Requirement:
    name = condition.field
    read = read_field(name, condition.operator, condition.timezone)
    test = compile_test(condition.operator, condition.value, field_kind(name))
    operator = NEGATED[condition.operator] if negated else condition.operator
    expected: Any = list(condition.value) if isinstance(condition.value, tuple) else condition.value
    if condition.operator == "exists":
        return _presence(name, read, condition.value != negated)
    wanted = not negated

    def leaf(facts: Facts, findings: Findings | None) -> bool | None:
        actual = read(facts)
        if findings is None:
            truth = None if actual is None else test(actual)
            return None if truth is None else truth is wanted
        if actual is None:
            findings.missing.append(name)
            findings.results.append(ConditionResult(name, operator, expected, False, None))
            return None
        truth = test(actual)
        if truth is None:
            findings.incomparable.append(
                f"`{name}` cannot be compared by {operator}: {_mismatch(operator, actual)}"
            )
            findings.results.append(ConditionResult(name, operator, expected, False, _shown(actual)))
            return None
        truth = truth is wanted
        findings.results.append(ConditionResult(name, operator, expected, truth, _shown(actual)))
        return truth

    return leaf


def _presence(name: str, read: Callable[[Facts], Any], wanted: bool) -> Requirement:
    def leaf(facts: Facts, findings: Findings | None) -> bool | None:
        actual = read(facts)
        truth = (actual is not None) is wanted
        if findings is not None:
            findings.results.append(ConditionResult(name, "exists", wanted, truth, _shown(actual)))
        return truth

    return leaf


def _mismatch(operator: str, actual: Any) -> str:
    if isinstance(actual, list | tuple) and operator.removeprefix("not_") in ("contains", "subset_of"):
        return "one of its members is of another type"
    return f"it is {_kind_of(actual)}"


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float | Decimal):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "an object"


def _shown(value: Any) -> Any:
    """`value` as JSON of bounded size: an action may carry far more than a log line should repeat."""
    kind = type(value)
    if kind is int or kind is bool or value is None or kind is float:
        return value
    if kind is str:
        return value if len(value) <= _MOST_CHARACTERS else value[: _MOST_CHARACTERS - 1] + "…"
    if kind is Decimal:
        return format(value, "f")
    if kind is list or kind is tuple:
        shown = [
            _shown(item) if not isinstance(item, list | tuple | dict) else "…" for item in value[:_MOST_ITEMS]
        ]
        return shown if len(value) <= _MOST_ITEMS else [*shown, "…"]
    return f"an object of {len(value)} members" if hasattr(value, "__len__") else str(kind.__name__)
