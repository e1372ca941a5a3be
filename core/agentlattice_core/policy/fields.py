"""What a condition's `field` names, and how its value is read from the facts.

- `sensitivity` is the highest and `count` the sum over `data_accessed`; `type` is the kind of data, one text
  if all are the same. Where an item lacks what is asked for, the whole is unknown: leaving it out never
  helps.
- `agent.name`, `agent.id` and `agent.tags` are those of the agent at the root of a delegation, which a child
  cannot choose; `agent.grants` are those that the whole chain holds; `agent.parent` is who delegated to the
  acting agent.
- `time.hour` and `time.weekday` are local to the condition's timezone, UTC if it names none.
- `amount`, `currency`, `beneficiary` and `category` are the action's own. Any other name is metadata; dots go
  deeper.
- A reader answers None where there is nothing. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from agentlattice_core.actions import SENSITIVITIES
from agentlattice_core.policy.decision import Facts
from agentlattice_core.policy.operators import Kind
from agentlattice_core.policy.reader import DAYS, did_you_mean, load_zone

__all__ = [
    "ACTION_FIELDS",
    "AGENT_FIELDS",
    "DATA_FIELDS",
    "TIME_FIELDS",
    "Read",
    "field_kind",
    "field_problem",
    "read_field",
]

Read: TypeAlias = Callable[[Facts], Any]

DATA_FIELDS = ("sensitivity", "count", "type")
ACTION_FIELDS = ("amount", "currency", "beneficiary", "category")
AGENT_FIELDS = ("agent.name", "agent.id", "agent.tags", "agent.grants", "agent.parent")
TIME_FIELDS = ("time.hour", "time.weekday")

_RANK = {name: rank for rank, name in enumerate(SENSITIVITIES)}


def field_problem(field: str) -> str | None:
    """Why `field` cannot be the field of a condition, or None if it can."""
    if any(not part.strip() for part in field.split(".")):
        return f"`{field}` is not a field; write a name, or names joined by dots"
    for family in (AGENT_FIELDS, TIME_FIELDS):
        prefix = family[0].split(".")[0]
        if field == prefix or (field.startswith(f"{prefix}.") and field not in family):
            hint = did_you_mean(field, family)
            return f"unknown field `{field}`: there are {', '.join(family)}{hint}"
    if field == "metadata":
        return "name a member of the metadata, such as `metadata.pr_size` or `pr_size`"
    return None


def field_kind(field: str) -> Kind:
    """How the values of `field` compare."""
    if field == "amount":
        return "amount"
    return "sensitivity" if field == "sensitivity" else "plain"


def read_field(field: str, operator: str, timezone: str | None) -> Read:
    """How to read `field` for a condition with that operator and timezone."""
    if field == "type":
        return _types if operator in ("contains", "not_contains", "subset_of") else _type
    if field == "time.hour":
        zone = load_zone(timezone or "UTC")
        return lambda facts: facts.now.astimezone(zone).hour
    if field == "time.weekday":
        zone = load_zone(timezone or "UTC")
        return lambda facts: DAYS[facts.now.astimezone(zone).weekday()]
    return _READERS.get(field) or _metadata(field.removeprefix("metadata."))


def _sensitivity(facts: Facts) -> str | None:
    highest, unknown = -1, False
    for item in facts.action.data_accessed:
        rank = _RANK.get(item.get("sensitivity"), -1)  # type: ignore[arg-type]
        if rank < 0:
            unknown = True
        elif rank > highest:
            highest = rank
    # An item that does not say could be anything, unless another is already the highest there is.
    if highest < 0 or (unknown and highest < len(SENSITIVITIES) - 1):
        return None
    return SENSITIVITIES[highest]


def _count(facts: Facts) -> int | None:
    total = 0
    for item in facts.action.data_accessed:
        count = item.get("count")
        if type(count) is not int:
            return None
        total += count
    return total if facts.action.data_accessed else None


def _types(facts: Facts) -> list[str] | None:
    return list(dict.fromkeys(item.get("type", "") for item in facts.action.data_accessed)) or None


def _type(facts: Facts) -> str | list[str] | None:
    types = _types(facts)
    return types[0] if types is not None and len(types) == 1 else types


def _agent_grants(facts: Facts) -> list[str]:
    grants = facts.agent.grants
    for ancestor in facts.agent.ancestors:
        grants = grants & ancestor.grants
    return sorted(grants)


def _metadata(path: str) -> Read:
    first, *deeper = path.split(".")
    if not deeper:

        def read_member(facts: Facts) -> Any:
            metadata = facts.action.metadata
            # Nearly always a dictionary, of which it takes a tenth of the time to be sure.
            known = type(metadata) is dict or isinstance(metadata, Mapping)
            return metadata.get(first) if known else None

        return read_member

    def read_nested(facts: Facts) -> Any:
        value: Any = facts.action.metadata
        for name in (first, *deeper):
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    return read_nested


_READERS: dict[str, Read] = {
    "sensitivity": _sensitivity,
    "count": _count,
    "amount": lambda facts: facts.action.amount,
    "currency": lambda facts: facts.action.currency,
    "beneficiary": lambda facts: facts.action.beneficiary,
    "category": lambda facts: facts.action.category,
    "agent.name": lambda facts: facts.agent.root.name,
    "agent.id": lambda facts: facts.agent.root.id,
    "agent.tags": lambda facts: sorted(facts.agent.root.tags),
    "agent.grants": _agent_grants,
    "agent.parent": lambda facts: facts.agent.ancestors[-1].name if facts.agent.ancestors else None,
}
