"""How conditions are written: `{field, operator, value}`, and the groups `all`, `any` and `not`.

- What a field can be compared with is checked here, so that a comparison that could never succeed is a
  problem in the document and not a surprise at run time.
"""

from __future__ import annotations

from typing import Any

from agentlattice_core.actions import SENSITIVITIES, parse_amount
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.fields import field_problem
from agentlattice_core.policy.model import Condition, ConditionNode, Group
from agentlattice_core.policy.operators import OPERATORS, SYNONYMS, compile_regex, parse_networks
from agentlattice_core.policy.reader import DAYS, Reader, did_you_mean
from agentlattice_core.policy.source import Node, shown

__all__ = ["read_conditions"]

_GROUPS = ("all", "any", "not")
_MEMBERS = ("field", "operator", "value", "timezone")
_NEEDS_LIST = ("in", "not_in", "subset_of")
_NEEDS_ORDER = ("lt", "lte", "gt", "gte", "between")
_NEEDS_TEXT = ("starts_with", "ends_with", "matches")
_LONGEST_PATTERN = 1000


def read_conditions(reader: Reader, items: list[tuple[Node, str]]) -> tuple[ConditionNode, ...]:
    """The conditions and groups of a list; those that are wrong are noted and left out."""
    nodes = (_read_node(reader, node, path) for node, path in items)
    return tuple(node for node in nodes if node is not None)


def _read_node(reader: Reader, node: Node, path: str) -> ConditionNode | None:
    if not isinstance(node.value, dict):
        reader.wrong(node, path, "a condition such as `{field: count, operator: lt, value: 50}` or a group")
        return None
    groups = [name for name in _GROUPS if name in node.value]
    if not groups:
        return _read_condition(reader, node, path)
    if len(node.value) > 1:
        reader.problem(
            node, path, f"a group has one member, `{groups[0]}`; nest another group for the others"
        )
        return None
    kind: Any = groups[0]
    held, where = node.value[kind], f"{path}.{kind}"
    # `not:` reads naturally before a single condition; a list of one means the same.
    items = [(held, where)] if isinstance(held.value, dict) else reader.items(held, where)
    if not items:
        if isinstance(held.value, list):
            reader.problem(held, where, "is an empty group")
        return None
    return Group(kind, read_conditions(reader, items))


def _read_condition(reader: Reader, node: Node, path: str) -> Condition | None:
    members = reader.members(node, path, _MEMBERS, ("field", "operator"))
    field = reader.text(members.get("field"), f"{path}.field")
    operator = reader.choice(members.get("operator"), f"{path}.operator", OPERATORS, "", SYNONYMS)
    timezone = reader.timezone(members.get("timezone"), f"{path}.timezone")
    if not field or not operator:
        return None
    problem = field_problem(field)
    if problem:
        reader.problem(members["field"], f"{path}.field", problem)
        return None
    if "timezone" in members and not field.startswith("time."):
        reader.problem(members["timezone"], f"{path}.timezone", "only `time.*` fields have a timezone")
    if "value" not in members:
        if operator != "exists" and "value" not in node.keys:
            reader.problem(node, f"{path}.value", "is missing; to ask whether a field is there, use `exists`")
            return None
        return Condition(field, operator, True, timezone)
    value = _read_value(reader, members["value"], f"{path}.value")
    problem = None if value is None else _value_problem(field, operator, value)
    if problem:
        reader.problem(members["value"], f"{path}.value", problem)
    return None if value is None else Condition(field, operator, value, timezone)


def _read_value(reader: Reader, node: Node, path: str) -> Any:
    if isinstance(node.value, list):
        if not node.value:
            reader.problem(node, path, "is an empty list")
            return None
        items = [_read_value(reader, item, where) for item, where in reader.items(node, path)]
        if any(item is None or isinstance(item, tuple) for item in items):
            reader.problem(node, path, "a list of values holds text, numbers, `true` and `false` only")
            return None
        return tuple(items)
    if isinstance(node.value, dict) or node.value is None:
        reader.wrong(node, path, "text, a number, `true`, `false` or a list of those")
        return None
    return node.value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value_problem(field: str, operator: str, value: Any) -> str | None:
    return _shape_problem(operator, value) or _field_value_problem(field, operator, value)


def _shape_problem(operator: str, value: Any) -> str | None:
    many = isinstance(value, tuple)
    if operator in _NEEDS_LIST and not many:
        return f"`{operator}` needs a list, such as [a, b]"
    if operator == "between":
        return None if many and len(value) == 2 else "`between` needs a list of two, [lowest, highest]"
    if operator == "exists":
        return None if isinstance(value, bool) else "`exists` needs `true` or `false`"
    if operator == "cidr":
        if not (isinstance(value, str) or (many and all(isinstance(item, str) for item in value))):
            return "`cidr` needs a network such as `10.0.0.0/8`, or a list of them"
        try:
            parse_networks(value)
        except ValueError as error:
            return shown(error)
        return None
    if many and operator not in _NEEDS_LIST:
        hint = (
            "; did you mean `in`?"
            if operator == "eq"
            else "; did you mean `not_in`?"
            if operator == "neq"
            else ""
        )
        return f"`{operator}` needs one value, not a list{hint}"
    if operator in _NEEDS_TEXT and not isinstance(value, str):
        return f"`{operator}` needs text"
    if operator == "matches":
        if len(value) > _LONGEST_PATTERN:
            return f"the pattern is longer than {_LONGEST_PATTERN} characters"
        try:
            compile_regex(value)
        except ValueError as error:
            return f"`{shown(value)}` is not a regular expression of linear time: {shown(error)}"
    return None


def _field_value_problem(field: str, operator: str, value: Any) -> str | None:
    values = value if isinstance(value, tuple) else (value,)
    if operator == "exists":
        return None
    if field == "sensitivity":
        return _sensitivity_problem(operator, values)
    if field == "amount":
        return _amount_problem(operator, values)
    if field == "time.weekday":
        if operator not in ("eq", "neq", "in", "not_in"):
            return "a weekday is compared with eq, neq, in or not_in"
        wrong = [item for item in values if item not in DAYS]
        hint = did_you_mean(str(wrong[0])[:3], DAYS) if wrong else ""
        return f"`{shown(wrong[0])}` is not one of {', '.join(DAYS)}{hint}" if wrong else None
    if field == "time.hour":
        wrong = [
            item
            for item in values
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= 24
        ]
        return f"`{shown(wrong[0])}` is not an hour, a whole number from 0 to 24" if wrong else None
    if operator in _NEEDS_ORDER:
        wrong = [item for item in values if not _is_number(item)]
        return f"`{operator}` compares numbers; `{shown(wrong[0])}` is not one" if wrong else None
    return None


def _sensitivity_problem(operator: str, values: tuple[Any, ...]) -> str | None:
    if operator not in ("eq", "neq", "in", "not_in", *_NEEDS_ORDER):
        return "a sensitivity is compared with eq, neq, lt, lte, gt, gte, in, not_in or between"
    for value in values:
        if value not in SENSITIVITIES:
            hint = did_you_mean(str(value), SENSITIVITIES)
            return f"`{shown(value)}` is not one of {', '.join(SENSITIVITIES)}{hint}"
    return None


def _amount_problem(operator: str, values: tuple[Any, ...]) -> str | None:
    if operator not in ("eq", "neq", "in", "not_in", *_NEEDS_ORDER):
        return "an amount is compared with eq, neq, lt, lte, gt, gte, in, not_in or between"
    for value in values:
        try:
            if isinstance(value, bool):
                raise InvalidRequestError("a boolean")
            parse_amount(value)
        except InvalidRequestError:
            return f'`{shown(value)}` is not an amount such as "1500.00"'
    return None
