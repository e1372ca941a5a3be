"""What a declared action must carry, checked before any policy is asked, so that leaving a field out never
helps.

- A required field that is missing, a field of the wrong type, and a value that the model gave where a trusted
  one is asked for, each deny with `CONDITIONS_DENIED` and an `exists` condition that names the field.
- Fields that are not declared are nobody's business here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agentlattice_core.actions import Action
from agentlattice_core.policy.decision import Decision
from agentlattice_core.policy.fields import ACTION_FIELDS, DATA_FIELDS
from agentlattice_core.policy.model import ActionDeclaration, FieldDeclaration
from agentlattice_core.results import ConditionResult

__all__ = ["check_declared"]


def check_declared(declaration: ActionDeclaration, action: Action) -> Decision | None:
    """The refusal of an action that is not as declared, or None."""
    conditions: list[ConditionResult] = []
    missing: list[str] = []
    reasons: list[str] = []
    for name, declared in declaration.fields.items():
        value = _value(action, name)
        if value is None:
            if declared.required:
                missing.append(name)
                reasons.append(f"`{declaration.action}` needs `{name}`")
                conditions.append(ConditionResult(name, "exists", True, False, None))
            continue
        reason = _wrong(action, name, declared, value)
        if reason is not None:
            reasons.append(reason)
            conditions.append(
                ConditionResult(name, "exists", declared.type or "trusted", False, _kind_of(value))
            )
    if not conditions:
        return None
    return Decision(
        "deny",
        None,
        "CONDITIONS_DENIED",
        tuple(conditions),
        message="; ".join(reasons),
        missing=tuple(missing) if len(missing) == len(conditions) else (),
    )


def _value(action: Action, name: str) -> Any:
    if name in ACTION_FIELDS:
        return getattr(action, name)
    if name in DATA_FIELDS:
        return next((item.get(name) for item in action.data_accessed if item.get(name) is not None), None)
    value: Any = action.metadata
    for part in name.removeprefix("metadata.").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _wrong(action: Action, name: str, declared: FieldDeclaration, value: Any) -> str | None:
    if (
        declared.trusted
        and name not in action.trusted
        and name.removeprefix("metadata.") not in action.trusted
    ):
        return f"`{name}` must come from a trusted source, not from the model"
    if declared.type is not None and not _is_of(declared.type, value):
        return f"`{name}` must be of type {declared.type}, and is {_kind_of(value)}"
    return None


def _is_of(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return type(value) is bool
    if kind == "integer":
        return type(value) is int or (isinstance(value, Decimal) and value == value.to_integral_value())
    if kind in ("number", "amount"):
        return type(value) in (int, float, Decimal)
    if kind == "string":
        return isinstance(value, str)
    return isinstance(value, list | tuple) if kind == "array" else isinstance(value, Mapping)


def _kind_of(value: Any) -> str:
    for kind in ("boolean", "integer", "number", "string", "array"):
        if _is_of(kind, value):
            return kind
    return "object"
