"""Whether conditions can hold at all: what lint asks before it says that something never matches.

- Answers no only when it is certain; whatever it does not understand counts as possible.
- Conditions are brought into a list of alternatives, each a list of leaves that must hold together, and each
  field of an alternative is checked by itself: against its whole domain where that is small, against the
  values that `eq` or `in` leave, or by its lowest and highest number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from agentlattice_core.actions import SENSITIVITIES
from agentlattice_core.policy.fields import field_kind
from agentlattice_core.policy.model import Condition, ConditionNode
from agentlattice_core.policy.operators import NEGATED, OPERATORS, compile_test
from agentlattice_core.policy.reader import DAYS

__all__ = ["can_hold"]

_MOST_ALTERNATIVES = 256
_DOMAINS: dict[str, tuple[Any, ...]] = {
    "sensitivity": SENSITIVITIES,
    "time.weekday": DAYS,
    "time.hour": tuple(range(24)),
}
_NEVER_NEGATIVE = ("count", "amount")

Alternative: TypeAlias = tuple[Condition, ...]


def can_hold(nodes: Sequence[ConditionNode]) -> bool:
    """Whether all `nodes` can hold at once, for some action."""
    alternatives = _all_of(_alternatives(node, negated=False) for node in nodes)
    return alternatives is None or any(_possible(alternative) for alternative in alternatives)


def _alternatives(node: ConditionNode, *, negated: bool) -> list[Alternative] | None:
    """The ways in which `node` can hold; None when they are too many to look at."""
    if isinstance(node, Condition):
        return [(_negate(node),)] if negated else [(node,)]
    inner = negated != (node.kind == "not")
    members = [_alternatives(member, negated=inner) for member in node.members]
    if (node.kind != "any") != inner:
        return _all_of(members)
    if any(member is None for member in members):
        return None
    return [alternative for member in members if member is not None for alternative in member]


def _all_of(members: Iterable[list[Alternative] | None]) -> list[Alternative] | None:
    joined: list[Alternative] = [()]
    for member in members:
        if member is None or len(joined) * len(member) > _MOST_ALTERNATIVES:
            return None
        joined = [(*left, *right) for left, right in itertools.product(joined, member)]
    return joined


def _negate(condition: Condition) -> Condition:
    if condition.operator == "exists":
        return Condition(condition.field, "exists", not condition.value)
    return Condition(condition.field, NEGATED[condition.operator], condition.value, condition.timezone)


def _possible(alternative: Alternative) -> bool:
    by_field: dict[tuple[str, str | None], list[Condition]] = {}
    for condition in alternative:
        by_field.setdefault((condition.field, condition.timezone), []).append(condition)
    return all(_field_possible(field, conditions) for (field, _), conditions in by_field.items())


def _field_possible(field: str, conditions: list[Condition]) -> bool:
    presence = {condition.value for condition in conditions if condition.operator == "exists"}
    measured = [condition for condition in conditions if condition.operator != "exists"]
    if len(presence) == 2 or (measured and False in presence):
        return False
    # `not_between` and the like are the opposites of operators; nothing is concluded from them.
    known = [condition for condition in measured if condition.operator in OPERATORS]
    candidates = _DOMAINS.get(field) or _named_values(known)
    if candidates is not None:
        tests = [compile_test(one.operator, one.value, field_kind(field)) for one in known]
        amounts = field_kind(field) == "amount"
        values = [Decimal(str(value)) for value in candidates] if amounts else candidates
        return any(all(test(value) is True for test in tests) for value in values)
    return _range_possible(field, known)


def _named_values(conditions: list[Condition]) -> tuple[Any, ...] | None:
    for condition in conditions:
        if condition.operator == "eq":
            return (condition.value,)
        if condition.operator == "in":
            return tuple(condition.value)
    return None


def _range_possible(field: str, conditions: list[Condition]) -> bool:
    lowest, low_open = (Decimal(0), False) if field in _NEVER_NEGATIVE else (Decimal("-Infinity"), False)
    highest, high_open = Decimal("Infinity"), False
    for condition in conditions:
        operator, value = condition.operator, condition.value
        if operator == "between":
            bounds = [("gte", value[0]), ("lte", value[1])]
        else:
            bounds = [(operator, value)]
        for direction, bound in bounds:
            if direction in ("gt", "gte"):
                if (number := Decimal(str(bound))) > lowest or (number == lowest and direction == "gt"):
                    lowest, low_open = number, direction == "gt"
            elif direction in ("lt", "lte") and (
                (number := Decimal(str(bound))) < highest or (number == highest and direction == "lt")
            ):
                highest, high_open = number, direction == "lt"
    return lowest < highest or (lowest == highest and not low_open and not high_open)
